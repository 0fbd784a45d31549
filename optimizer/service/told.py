"""What an earlier training run told of a campaign: a look that goes on where the last one stopped keeps it there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from optimizer.service.wrongclock import ahead
from storage.log import items_of
from storage.policies import RunStatus, TrainingRun
from storage.port import Reader
from storage.records import JsonObject

#: Training runs that are looked through. Without the state a look starts from the first row, and comes to the same.
LOOK_BACK = 200
#: Training runs that are read at once: mostly the first is what is looked for.
_PAGE = 20
#: Seconds by which a decision may be committed after a look that its time of decision precedes.
LATE_COMMIT = 600.0


def last_told(reader: Reader, workspace_id: str, campaign_id: str, key: str, now: datetime) -> JsonObject | None:
    """What the newest run that says something under ``key`` says of a campaign. One that is dated ahead has looked
    farther than there is anything to see yet."""
    for run in islice(runs(reader, workspace_id), LOOK_BACK):
        if dated_ahead(run, now):
            continue
        for told in run.verdict.get("campaigns", ()):
            if told.get("campaign_id") == campaign_id and told.get(key) is not None:
                found: JsonObject = told[key]
                return found
    return None


def runs(
    reader: Reader, workspace_id: str, status: RunStatus | None = None, kind: str | None = None
) -> Iterator[TrainingRun]:
    """Training runs, newest first; all of them, or those of one status and of one kind."""
    return items_of(lambda at: reader.training_runs(workspace_id, limit=_PAGE, cursor=at, status=status, kind=kind))


def dated_ahead(run: TrainingRun, now: datetime) -> bool:
    """Whether the clock was ahead when a run was queued (see ``wrongclock``)."""
    return ahead(f"training run {run.run_id!r}", run.created_at, now)
