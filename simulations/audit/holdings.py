"""What counted at the moment of a reservation, read from the log.

Rules are proved on the state at each reservation: which messages held a place when the transaction committed that
reserved one more. The log tells the order of commits: a decision has its ``position``, and whatever else changes what
counts notes the position after which it was committed (see ``storage.log.Decision``). A mark ``p`` is seen by decisions
at positions above ``p``.

Rows of a version that noted no marks may leave several possible places. What is not certain is said so, not guessed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from storage.log import HEARD, HEARD_LATE, Decision, Group, Message
from storage.records import Mode
from storage.rules import RiskLimit

#: Statuses after which a message holds no place any more.
GONE = frozenset({"released", "revoked", "displaced", "expired"})

#: An unconfirmed reservation is settled at the earliest this long after its planned time.
SETTLED_AFTER = timedelta(hours=1)

#: When a message counted, as far as is known: one element = certain; None = it didn't count.
Times = frozenset[datetime | None]
NOT_COUNTED: Times = frozenset({None})
_FIRST, _LAST = (end.replace(tzinfo=UTC) for end in (datetime.min, datetime.max))  # noqa: DTZ901 - made aware here


@dataclass(frozen=True, slots=True)
class Held:
    """A message that holds or held a place: a reservation, or another system's message.

    ``decided_at`` None = another system's; then ``planned`` is when it went out, ``position`` the mark of its report.
    """

    ref: str
    recipient_id: str
    channel: str
    category: str
    campaign_id: str | None
    planned: datetime
    position: int
    variant_id: str | None = None
    decided_at: datetime | None = None
    status: str = "sent"
    claimed_at: datetime | None = None
    sent_at: datetime | None = None
    sent_after: int | None = None
    closed_at: datetime | None = None
    closed_after: int | None = None
    close_reason: str | None = None
    campaign_version: int = 0
    timezone: str = "UTC"
    policy_id: str = ""
    group: Group = "treated"
    mode: Mode = "live"
    cost: int = 0
    unanswered: int | None = None
    overridden: frozenset[str] = frozenset()
    limits: tuple[RiskLimit, ...] = ()
    risks: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    displaced: tuple[str, ...] = ()
    imported: bool = False

    @property
    def judged(self) -> bool:
        """Whether it was reserved here under the rules: not another system's and not imported history."""
        return self.decided_at is not None and not self.imported

    @property
    def was_assumed(self) -> bool | None:
        """Of one that was closed: whether that kept its place, as assumed sent. None = the log doesn't tell."""
        if self.status == "assumed_sent":
            return self.close_reason != HEARD_LATE
        if self.status in GONE or self.close_reason not in (None, HEARD) or self.closed_at is None:
            return False
        # Confirmed in the end. Before releases always had a reason and marks were noted, it may have been either.
        return None if self.closed_after is None else True


def held_by(decision: Decision, marked_after: int = 0) -> Held | None:
    """The place that a decision reserved; None for one that reserved nothing.

    What has no mark happened by ``marked_after`` (0 = not known), which is certain for decisions above it.
    """
    d, s = decision, decision.snapshot
    latest = marked_after or None
    if d.send_at is None or d.channel is None:
        return None
    return Held(
        ref=d.decision_id,
        recipient_id=d.recipient_id,
        channel=d.channel,
        category=d.category,
        campaign_id=d.campaign_id,
        planned=d.send_at,
        position=d.position,
        variant_id=d.variant_id,
        decided_at=d.decided_at,
        status=d.status,
        claimed_at=d.claimed_at,
        sent_at=d.sent_at,
        sent_after=latest if d.sent_after is None else d.sent_after,
        closed_at=d.closed_at,
        closed_after=latest if d.closed_after is None else d.closed_after,
        close_reason=d.close_reason,
        campaign_version=d.campaign_version,
        timezone=s.timezone,
        policy_id=d.policy_id,
        group=d.group,
        mode=d.mode,
        cost=s.cost,
        unanswered=s.unanswered,
        overridden=frozenset(s.overridden_rules),
        limits=s.limits,
        risks=s.risks,
        displaced=s.displaced,
        imported=d.imported,
    )


def held_elsewhere(message: Message) -> Held:
    """The place that another system's message takes."""
    return Held(
        ref=message.message_ref,
        recipient_id=message.recipient_id,
        channel=message.channel,
        category=message.category,
        campaign_id=message.campaign_id,
        planned=message.at,
        position=message.known_after,
        variant_id=message.variant_id,
        cost=message.cost,
    )


def stages(held: Held, asked_at: datetime | None = None) -> list[tuple[int, Times]]:
    """Where a message counted: (mark, times) in order; the times hold for decisions above the mark, up to the next.

    ``asked_at``: when the decision that asks was made, which tells what can't have expired by then; None = not known.
    """
    planned: Times = frozenset({held.planned})
    if held.decided_at is None:
        return [(held.position, planned)]
    if held.imported:
        return [(held.position, frozenset({held.sent_at or held.planned}))]
    if held.status in GONE:
        if held.closed_after is None:
            return [(held.position, planned | NOT_COUNTED)]
        # It may have expired, and have been heard of, before it was given back.
        came_back = held.sent_after is not None and held.sent_after >= held.position
        until = planned | NOT_COUNTED if came_back and _may_have_expired(held, asked_at) else planned
        return [(held.position, until), (held.closed_after, NOT_COUNTED)]
    if held.close_reason == HEARD_LATE:  # it may have been confirmed after that, and moved
        return _confirmed(held, planned, planned | {held.sent_at or held.planned}, asked_at)
    if held.status != "sent" or held.sent_at is None:
        return [(held.position, planned)]
    return _confirmed(held, planned, frozenset({held.sent_at}), asked_at)


def _may_have_expired(held: Held, by: datetime | None) -> bool:
    return by is None or by >= held.planned + SETTLED_AFTER


def _confirmed(held: Held, planned: Times, real: Times, asked_at: datetime | None) -> list[tuple[int, Times]]:
    """A message that counted as sent in the end, be it after it was closed."""
    before = between = planned
    if held.closed_at is not None and not held.was_assumed:
        overdue = _may_have_expired(held, held.closed_at) and _may_have_expired(held, asked_at)
        if held.was_assumed is False and held.close_reason != HEARD_LATE and overdue:
            # Given back after that: it may have expired, and have been heard of, before.
            before = planned | NOT_COUNTED
        between = NOT_COUNTED if held.was_assumed is False else planned | NOT_COUNTED
    if held.sent_after is None:
        return [(held.position, planned | between | real)]
    if held.closed_at is None:
        return [(held.position, planned), (held.sent_after, real)]
    if held.closed_after is None:
        return [(held.position, planned | between), (held.sent_after, real)]
    return [(held.position, before), (held.closed_after, between), (held.sent_after, real)]


def times_at(held: Held, position: int, asked_at: datetime | None) -> Times:
    """When ``held`` counted for the decision at ``position``, made at ``asked_at``."""
    at = NOT_COUNTED
    for mark, times in stages(held, asked_at):
        if mark < position:
            at = times
    return at


def final_place(held: Held) -> datetime | None:
    """Where a message counts by now; None = no longer. Certain whatever marks are missing."""
    return None if held.status in GONE else held.sent_at or held.planned


class Neighbours:
    """The messages of one recipient, found by time."""

    def __init__(self, messages: Sequence[Held]) -> None:
        self._messages = messages
        places = {(at, i) for i, held in enumerate(messages) for at in (held.planned, held.sent_at) if at is not None}
        self._places = sorted(places)

    def near(self, judged: Held, reach: timedelta) -> Iterator[tuple[Held, Times]]:
        """Others that may have counted within ``reach`` of the planned time of ``judged``, when it was reserved."""
        first = bisect_left(self._places, (_moved(judged.planned, -reach), -1))
        last = bisect_right(self._places, (_moved(judged.planned, reach), len(self._messages)))
        for i in sorted({i for _, i in self._places[first:last]}):
            other = self._messages[i]
            if other is not judged and other.position < judged.position:
                times = times_at(other, judged.position, judged.decided_at)
                if times != NOT_COUNTED:
                    yield other, times


def _moved(at: datetime, by: timedelta) -> datetime:
    """``at + by``, kept inside what ``datetime`` can say."""
    try:
        return at + by
    except OverflowError:
        return _LAST if by > timedelta(0) else _FIRST


def moves(messages: Iterable[Held]) -> list[tuple[int, int, Held, Times, Times]]:
    """Every change of what counts over all recipients, in order of commits: (mark, stage, message, before, after)."""
    found = []
    for held in messages:
        before = NOT_COUNTED
        for stage, (mark, after) in enumerate(stages(held)):
            found.append((mark, stage, held, before, after))
            before = after
    found.sort(key=lambda move: move[:2])
    return found
