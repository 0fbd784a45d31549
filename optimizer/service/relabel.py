"""Judging every stored open and click anew, after the rules that tell machines from people got better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optimizer.service.labels import judge_stored
from optimizer.service.wiring import Services
from storage.port import Writer

#: Decisions that one transaction judges anew.
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class Relabelled:
    """What became of stored labels: decisions looked at, events whose label changed in any way, and those of them that
    count no more, or count now."""

    decisions: int = 0
    events: int = 0
    now_automated: int = 0
    now_people: int = 0

    def __add__(self, other: Relabelled) -> Relabelled:
        """The sums."""
        return Relabelled(
            self.decisions + other.decisions,
            self.events + other.events,
            self.now_automated + other.now_automated,
            self.now_people + other.now_people,
        )


def relabel(services: Services, workspace_id: str) -> Relabelled:
    """Judges every open and click that a vendor reported of a known decision; in parts, each a transaction."""
    after, total = "", Relabelled()
    while True:
        with services.store.read() as reader:
            ids = reader.vendor_decisions(workspace_id, after=after, limit=_CHUNK)
            known = reader.decisions_by_id(workspace_id, ids)
        if not ids:
            return total
        total += _part(services, workspace_id, ids, [one.recipient_id for one in known.values()])
        after = ids[-1]


def _part(services: Services, workspace_id: str, ids: tuple[str, ...], people: Iterable[str]) -> Relabelled:
    return services.store.write(
        lambda writer: _relabel(writer, workspace_id, ids), recipients=[(workspace_id, one) for one in people]
    )


def _relabel(writer: Writer, workspace_id: str, ids: tuple[str, ...]) -> Relabelled:
    total = Relabelled()
    for decision in writer.decisions_by_id(workspace_id, ids).values():
        stored = writer.vendor_words(workspace_id, decision.decision_id)
        was = {one.event.event_id: one.event.automated for one in stored}
        changed = judge_stored(writer, decision)
        total += Relabelled(
            decisions=1,
            events=len(changed),
            now_automated=sum(label.automated and not was[event_id] for event_id, label in changed.items()),
            now_people=sum(was[event_id] and not label.automated for event_id, label in changed.items()),
        )
    return total
