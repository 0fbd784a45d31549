"""What events say went out counts, though nobody confirmed it: else who reports deliveries alone would forget messages
that people have got, and write to them beyond every cap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from optimizer.service.engagement import meaning, note_sent
from optimizer.service.record import message_of
from optimizer.service.rhythms import note_message
from storage.log import HEARD, HEARD_LATE, Decision, Event, Named, Reply
from storage.port import Reader, Writer

#: Outcomes that only a message which went out can have. A machine's open tells it as well.
_PROOFS: Final = frozenset({"delivered", "opened", "clicked"})


def heard_of(reader: Reader, decision: Decision) -> bool:
    """Whether an event says that the message went out, whoever did not claim or confirm it."""
    told = reader.replies(decision.workspace_id, [decision.decision_id])
    return any(_proves(reader, decision, reply) for reply in told.get(decision.decision_id, ()))


def revives(reader: Reader, decision: Decision | Named, event: Event) -> bool:
    """Whether the event says of a message that was taken for unsent, since nobody confirmed it, that it went out."""
    return decision.status == "expired" and _proves(reader, decision, event)


def count_again(writer: Writer, decision: Decision, events: Iterable[Event], now: datetime) -> Decision:
    """Lets an expired message count again, at its planned time, if one of these stored events says that it went out and
    no event that it failed; returns the decision as it is now. When it had expired stays. The caller tallies it for the
    recipient's rhythm."""
    if not any(revives(writer, decision, event) for event in events):
        return decision
    told = writer.replies(decision.workspace_id, [decision.decision_id]).get(decision.decision_id, ())
    if any(meaning(writer, decision, reply.type) == "failed" for reply in told):
        return decision
    again = replace(decision, status="assumed_sent", close_reason=HEARD_LATE, counted_at=now)
    return _taken_for_sent(writer, decision, again)


def assume_sent(writer: Writer, decision: Decision, now: datetime, *, heard: bool) -> Decision:
    """Takes a reservation for sent: because an event says so (``heard``), or because its campaign does."""
    reason = HEARD if heard else None
    assumed = replace(decision, status="assumed_sent", closed_at=now, close_reason=reason, counted_at=now)
    note_message(writer, decision, _taken_for_sent(writer, decision, assumed))
    return assumed


def _taken_for_sent(writer: Writer, before: Decision, after: Decision) -> Decision:
    writer.update_decision(after, message_of(after))
    note_sent(writer, before, after)
    return after


def _proves(reader: Reader, decision: Decision | Named, event: Event | Reply) -> bool:
    return meaning(reader, decision, event.type) in _PROOFS
