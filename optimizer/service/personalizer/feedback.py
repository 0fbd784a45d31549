"""Takes rewards and activations; durable before they are answered.

A reward for an event that was never ranked is kept and answered like any other: it may have overtaken its rank, and so
Azure's SDKs expect it. ``SENDTIDE_PERSONALIZER_UNKNOWN_EVENTS=refuse`` answers 404 instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from optimizer.errors import Invalid, NotFound
from optimizer.service.wiring import Services
from storage.port import Writer
from storage.ranks import RankReward


def reward(services: Services, workspace_id: str, event_id: str, values: Iterable[tuple[str, float]]) -> None:
    """Logs rewards of an event.

    Args:
        services: the wired service.
        workspace_id: whose loop.
        event_id: the event.
        values: of slots, by their ids, in order; "" stands for the event itself. A slot may have several.

    Raises:
        NotFound: the event is unknown, and the settings refuse that.
        Invalid: the event has no such slot.
    """
    now, told = services.clock(), tuple(values)

    def work(writer: Writer) -> None:
        known = writer.rank(workspace_id, event_id)
        if known is None and services.settings.personalizer_unknown_events == "refuse":
            raise NotFound(f"no event {event_id!r:.80}", code="ResourceNotFound")
        slots = None if known is None else {slot.slot_id for slot in known.slots}
        for slot_id, value in told:
            if slots is not None and slot_id not in slots:
                fault = f"the event has no slot {slot_id!r:.80}" if slot_id else "a multi-slot event; name its slots"
                raise Invalid.field("slotId", fault, code="InvalidRewardRequest")
            writer.add_rank_reward(RankReward(workspace_id, event_id, slot_id, value, now))

    services.store.write(work)


def activate(services: Services, workspace_id: str, event_id: str) -> None:
    """Notes that a deferred event was shown; again, or for one that was never deferred, it changes nothing.

    Raises:
        NotFound: the event is unknown, and the settings refuse that.
    """
    now = services.clock()

    def work(writer: Writer) -> None:
        if writer.activate_rank(workspace_id, event_id, now):
            return
        if services.settings.personalizer_unknown_events == "refuse" and writer.rank(workspace_id, event_id) is None:
            raise NotFound(f"no event {event_id!r:.80}", code="ResourceNotFound")

    services.store.write(work)
