"""What counted against the caps at the moment of a reservation, as far as the log can tell.

The caps are proved on the state at each reservation: which messages held a place when the transaction committed that
reserved one more. There are two sources:

- ``ByLedger``: every change of what counts, in the order of commits. It knows exactly.
- ``ByTime``: the times that the decisions carry. ``decided_at`` and ``closed_at`` are read before the transaction
  commits, a confirm and another system's report leave no time of their own, so what lies close together has no certain
  order. What is not certain is said so (several possible times), never guessed.

Nothing here is shared with the code that enforces the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from storage.log import Decision, Message

#: Statuses after which a message holds no place any more.
GONE = frozenset({"released", "revoked", "displaced", "expired"})
#: How far ahead of our clock a reported time may lie.
SKEW = timedelta(minutes=5)
#: Longest time from reading the clock to the commit, unless told otherwise.
IN_FLIGHT = timedelta(seconds=60)

#: When a message counted, as far as is known: one element = certain; None = it didn't count.
Times = frozenset[datetime | None]
NOT_COUNTED: Times = frozenset({None})


@dataclass(frozen=True, slots=True)
class Held:
    """A message that holds or held a place in its recipient's caps: a reservation, or another system's message.

    ``decided_at`` None = another system's; then ``planned`` is when it went out. ``order`` sorts by time of decision.
    """

    ref: str
    recipient_id: str
    channel: str
    category: str
    campaign_id: str | None
    planned: datetime
    decided_at: datetime | None = None
    status: str = "sent"
    sent_at: datetime | None = None
    closed_at: datetime | None = None
    campaign_version: int = 0
    timezone: str = "UTC"
    timezone_source: str = "default"
    overridden: frozenset[str] = frozenset()
    imported: bool = False

    @property
    def judged(self) -> bool:
        """Whether it was reserved here under the rules: not another system's and not imported history."""
        return self.decided_at is not None and not self.imported


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of what counts: from this position of commits on ``ref`` counts at ``at`` (None = no longer)."""

    position: int
    recipient_id: str
    ref: str
    at: datetime | None


def held_by(decision: Decision) -> Held | None:
    """The place that a decision reserved; None for one that reserved nothing."""
    if decision.send_at is None or decision.channel is None:
        return None
    return Held(
        ref=decision.decision_id,
        recipient_id=decision.recipient_id,
        channel=decision.channel,
        category=decision.category,
        campaign_id=decision.campaign_id,
        planned=decision.send_at,
        decided_at=decision.decided_at,
        status=decision.status,
        sent_at=decision.sent_at,
        closed_at=decision.closed_at,
        campaign_version=decision.campaign_version,
        timezone=decision.snapshot.timezone,
        timezone_source=decision.snapshot.timezone_source,
        overridden=frozenset(decision.snapshot.overridden_rules),
        imported=decision.imported,
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
    )


class Counting(Protocol):
    """Knows when a message counted at the reservation of another."""

    exact: bool

    def times(self, other: Held, judged: Held, *, mutual: bool) -> Times:
        """The times at which ``other`` may have counted when ``judged`` was reserved.

        Args:
            other: a message of the same recipient.
            judged: the reservation that is looked at.
            mutual: whether the rule in question binds ``other`` and counts ``judged`` as well. Then of two that were
                reserved at once either may be charged with a breach: whichever committed last saw the other.
        """


class ByLedger:
    """What counted by the recorded order of commits."""

    exact = True

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        for entry in sorted(entries, key=lambda e: e.position):
            self._entries.setdefault((entry.recipient_id, entry.ref), []).append(entry)

    def times(self, other: Held, judged: Held, *, mutual: bool) -> Times:  # noqa: ARG002 - the order is known
        """See ``Counting``. A reservation that the ledger doesn't know raises ``LookupError``."""
        own = self._entries.get((judged.recipient_id, judged.ref))
        if own is None:
            raise LookupError(f"the ledger lacks the reservation of {judged.ref}")
        at: datetime | None = None
        for entry in self._entries.get((other.recipient_id, other.ref), ()):
            if entry.position < own[0].position:
                at = entry.at
        return frozenset({at})


class ByTime:
    """What counted by the times in the log; see ``Counting``."""

    exact = False

    def __init__(self, in_flight: timedelta = IN_FLIGHT) -> None:
        self._in_flight = in_flight

    def times(self, other: Held, judged: Held, *, mutual: bool) -> Times:
        """See ``Counting``."""
        now = judged.decided_at
        if now is None:
            raise ValueError(f"{judged.ref} is another system's message; only reservations are judged")
        latest = now + self._in_flight  # by then ``judged`` was committed
        if other.decided_at is None or other.imported:
            return frozenset({other.sent_at or other.planned, None})  # when it was reported is not in the log
        came = self._came_before(other.decided_at, now)
        if came is None and mutual:
            came = self._charged(other, other.decided_at, judged, now)
        if came is False:
            return NOT_COUNTED
        places = self._places(other, now, latest)
        return places if came else places | NOT_COUNTED

    def _came_before(self, one: datetime, other: datetime) -> bool | None:
        """Whether what was decided at ``one`` was committed before what was decided at ``other``; None = not known."""
        if one + self._in_flight <= other:
            return True
        return False if other + self._in_flight <= one else None

    def _charged(self, other: Held, decided_at: datetime, judged: Held, now: datetime) -> bool | None:
        """Of two that were reserved at once: whether ``judged`` is to be charged with ``other``.

        The later by time is. Whichever committed last saw the one before, but only if that was still in its place.
        """
        if (decided_at, other.ref) > (now, judged.ref):
            return False
        stayed = self._places(judged, now, now + self._in_flight) == frozenset({judged.planned})
        return True if stayed else None

    def _places(self, other: Held, now: datetime, latest: datetime) -> Times:
        """Where ``other`` counted at a time between ``now`` and ``latest``, given that it was reserved before."""
        if other.status in GONE:
            return self._until_closed(other.planned, other.closed_at, now, latest)
        if other.status != "sent" or other.sent_at is None:
            return frozenset({other.planned})
        if other.closed_at is not None and other.closed_at < latest:
            # Closed first and confirmed later. It may have been assumed sent (and counted on) or given back.
            return frozenset({other.planned, other.sent_at, None})
        if other.closed_at is not None or other.sent_at > latest + SKEW:
            return frozenset({other.planned})  # whatever came, came later
        return frozenset({other.planned, other.sent_at})

    def _until_closed(self, planned: datetime, closed_at: datetime | None, now: datetime, latest: datetime) -> Times:
        if closed_at is not None and closed_at >= latest:
            return frozenset({planned})
        if closed_at is not None and closed_at + self._in_flight <= now:
            return NOT_COUNTED
        return frozenset({planned, None})
