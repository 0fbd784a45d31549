"""The log of a loop: its span, its end."""

from __future__ import annotations

from datetime import datetime, timedelta

from optimizer.errors import NotFound
from optimizer.service.personalizer import loop as loops
from optimizer.service.personalizer.loop import LONGEST_DAYS
from optimizer.service.wiring import Services


def span(services: Services, workspace_id: str) -> tuple[datetime, datetime]:
    """When the oldest and the newest logged answer were given.

    Raises:
        NotFound: nothing is logged.
    """
    with services.store.read() as reader:
        found = reader.rank_span(workspace_id)
    if found is None:
        raise NotFound("nothing is logged", code="LogsPropertiesNotFound")
    return found


def delete(services: Services, workspace_id: str) -> int:
    """Deletes every answer and reward; what was learned from them stays."""
    return services.store.write(lambda writer: writer.forget_ranks(workspace_id, None))


def retain(services: Services, workspace_id: str) -> int:
    """Deletes what is older than ``logRetentionDays``; returns how many answers went."""
    with services.store.read() as reader:
        days = loops.load(reader, workspace_id).retention_days
    before = services.clock() - timedelta(days=min(max(days, 0), LONGEST_DAYS))
    if days < 0:
        return 0
    return services.store.write(lambda writer: writer.forget_ranks(workspace_id, before))
