"""What senders did otherwise than was reserved, and whether the books of what counts agree with the decisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from simulations.holdings import GONE, Held
from storage.log import FeedbackRow, Message

#: A message that leaves within this time of its plan is on time.
ON_TIME = timedelta(minutes=5)
#: An unconfirmed reservation is settled at the earliest this long after its planned time.
SETTLED_AFTER = timedelta(hours=1)
#: Events that only a message that went out can cause.
PROOFS_OF_SENDING = frozenset({"delivered", "opened", "clicked"})


def done_otherwise(row: FeedbackRow) -> Iterator[str]:
    """Names of what was done with this decision other than what it reserved.

    ``sent_early``, ``sent_late``: confirmed with another time. ``sent_after_<closed>``: confirmed after the reservation
    had ended. ``sent_unreserved``: events show a message where none was reserved or none was left.
    """
    d = row.decision
    if d.imported:
        return
    if d.status == "sent" and d.sent_at is not None and d.send_at is not None:
        if d.sent_at < d.send_at - ON_TIME:
            yield "sent_early"
        if d.sent_at > d.send_at + ON_TIME:
            yield "sent_late"
        if d.closed_at is not None and not _was_assumed(d.closed_at, d.send_at, d.close_reason):
            yield "sent_after_close" if d.sent_at >= d.closed_at else "confirmed_after_close"
    went_out = any(e.decision_id == d.decision_id and e.type in PROOFS_OF_SENDING for e in row.events)
    if went_out and (d.send_at is None or d.status in GONE):
        yield "sent_unreserved"


def _was_assumed(closed_at: datetime, send_at: datetime, reason: str | None) -> bool:
    """A late confirm of a message that was assumed sent: its place was never given back."""
    return reason is None and closed_at >= send_at + SETTLED_AFTER


def misbooked(held: Iterable[Held], stored: Sequence[Message]) -> Iterator[tuple[Held, str]]:
    """Decisions whose stored place differs from what they say: lost, kept after the end, or at another time."""
    at = {m.message_ref: m.at for m in stored if m.decision_id is not None}
    for one in held:
        right = None if one.status in GONE else one.sent_at or one.planned
        found = at.get(one.ref)
        if found != right:
            yield one, f"{one.status}: counts {_when(found)}, must count {_when(right)}"


def _when(at: datetime | None) -> str:
    return "not at all" if at is None else f"at {at.isoformat()}"
