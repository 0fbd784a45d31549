"""Events that are stored many at once: those after which nothing is left to do but what can be done for all together.

That is nearly all of them: what people do, and what becomes of messages that went out. Whatever may call a message off
or make it count again, silence a channel, turn earlier labels round or be known already is stored one by one
(``service.ingest``). Both leave the same in the store, in any order, since what is tallied of events hangs on the set
of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from optimizer.service.engagement import OUT, engages, meaning
from optimizer.service.heard import revives
from optimizer.service.labels import JUDGED
from optimizer.service.optout import ACTING, MappedRefusals, of_person
from optimizer.service.requests import VendorEvent
from optimizer.service.rhythms import note_all_active, note_answered
from storage.bulk import NewEvents
from storage.codec import pack_object, to_micros
from storage.log import Event, Named, Reply
from storage.port import Writer

#: Types by which labels of a message's other events may turn round.
_TURNING = JUDGED | {"delivered"}


@dataclass(frozen=True, slots=True)
class Correlated:
    """An event with its place in the envelope, its decision, where that is known, and what a vendor said of it."""

    index: int
    event: Event
    decision: Named | None
    said: VendorEvent | None


@dataclass(frozen=True)
class Plain:
    """New events that are stored together, what their decisions were answered before, and which of them answer."""

    rows: Sequence[Correlated] = ()
    replies: Mapping[str, Sequence[Reply]] = field(default_factory=dict)
    answers: Sequence[Named] = ()

    def store(self, writer: Writer, workspace_id: str, now: datetime) -> None:
        """Stores them, received ``now``, with what follows from them but for ``clear``.

        Raises:
            OneByOne: one of them has been stored meanwhile.
        """
        if not self.rows:
            return
        events = [one.event for one in self.rows]
        writer.add_new_events(workspace_id, _columns(events, now))
        note_all_active(writer, workspace_id, events)
        out = {one.decision_id: one for one in self.answers if one.status in OUT}
        first = [
            one
            for key, one in out.items()
            if not any(engages(writer, one, reply) for reply in self.replies.get(key, ()))
        ]
        note_answered(writer, workspace_id, first)

    def clear(self, writer: Writer, workspace_id: str) -> None:
        """Clears counts of unanswered messages: after the last one counts that the other events say went out."""
        writer.clear_all_unanswered(workspace_id, [one.recipient_id for one in self.answers])


def split(
    writer: Writer,
    workspace_id: str,
    found: Sequence[Correlated],
    told: Mapping[int, object],
    mapped: MappedRefusals,
) -> tuple[Plain, list[Correlated]]:
    """Those that can be stored together, and the others; ``told`` holds the places of those that tell of somebody."""
    ids = [one.event.event_id for one in found]
    taken = set(writer.known_events(workspace_id, ids))
    taken |= {event_id for event_id, times in Counter(ids).items() if times > 1}
    likely = [
        one
        for one in found
        if one.said is None
        and one.event.type not in ACTING
        and _means(writer, one, mapped) not in ACTING
        and (one.decision is None or not revives(writer, one.decision, one.event))
        and one.event.event_id not in taken
        and one.index not in told
    ]
    answering = {id(one) for one in likely if one.decision is not None and engages(writer, one.decision, one.event)}
    vendors = writer.heard_vendors(workspace_id)
    asked = [
        one.decision.decision_id
        for one in likely
        if one.decision is not None
        and ((vendors and one.event.type in _TURNING) or (one.decision.status in OUT and id(one) in answering))
    ]
    replies = writer.replies(workspace_id, asked) if asked else {}
    turning = {key for key, heard in replies.items() if any(reply.told for reply in heard)} if vendors else set()
    rows = [
        one
        for one in likely
        if one.decision is None or one.event.type not in _TURNING or one.decision.decision_id not in turning
    ]
    chosen = {one.index for one in rows}
    answers = [one.decision for one in rows if one.decision is not None and id(one) in answering]
    return Plain(rows, replies, answers), [one for one in found if one.index not in chosen]


def _means(writer: Writer, one: Correlated, mapped: MappedRefusals) -> str:
    return of_person(one.event, mapped) if one.decision is None else meaning(writer, one.decision, one.event.type)


def _columns(events: Sequence[Event], now: datetime) -> NewEvents:
    return NewEvents(
        received_at=to_micros(now),
        ids=[one.event_id for one in events],
        types=[one.type for one in events],
        occurred_at=[to_micros(one.occurred_at) for one in events],
        recipients=[one.recipient_id for one in events],
        campaigns=[one.campaign_id for one in events],
        values=[one.value for one in events],
        automated=[one.automated for one in events],
        properties=[pack_object(one.properties) for one in events],
        matched=[one.matched for one in events],
        decisions=[one.decision_id for one in events],
        providers=[one.provider for one in events],
        messages=[one.message_id for one in events],
    )
