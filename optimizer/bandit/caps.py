"""Caps: which send times a limit on messages leaves open, over rolling windows and over calendar ones.

For both, a candidate is open iff (counted messages in its window) + 1 <= limit, for every window that holds it. The
candidate is tested as if it counted, even where the rule's ``counts`` does not admit it: a full cap blocks whatever the
rule binds, and a limit of 0 always does.

Messages *fit* into one window iff they lie closer together than its width: in microseconds for a rolling window, in
numbers of periods (width 1) for a calendar one. A candidate breaks the limit iff it fits into one window with ``limit``
messages; those may be taken neighbours in time, m_i … m_j with j = i + limit - 1. So each such pair closes a stretch of
time: (m_j - length, m_i + length) of a rolling cap, the whole period of a calendar cap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from optimizer.bandit.localtime import DAY, Zone
from optimizer.bandit.periods import LONGEST, Calendars, Segments
from optimizer.bandit.stretches import MICRO, NEVER, Blocked, SlotIndex, Stretches, Times, cover, micros
from storage.log import Message
from storage.rules import Cap, Selector

_ALL_TIME = 10_000 * 366 * DAY  # seconds; keeps sums of microseconds far inside int64
_ALWAYS = 2 * _ALL_TIME * MICRO
_MORE_THAN_SENT = 1 << 40
_ANY = Selector()


def reach_us(cap: Cap) -> int:
    """How far from a send time a message can lie and still share a window of the cap with it, in microseconds."""
    if cap.rolling_hours is not None:
        return length_us(cap.rolling_hours)
    if cap.calendar is not None:
        return LONGEST[cap.calendar] * MICRO
    raise ValueError(f"a cap needs rolling_hours or calendar: {cap}")


def length_us(hours: float) -> int:
    """Length of a rolling window in microseconds, rounded to the nearest. More than all of time is all of time."""
    return min(round(min(hours, _ALL_TIME / 3600) * 3600 * MICRO), _ALL_TIME * MICRO)


class Ledger(NamedTuple):
    """The messages of N recipients, in order of recipient and time.

    Attributes:
        row: (M,) int64, whose.
        at: (M,) int64 microseconds since 1970.
        kinds: the distinct (channel, category, campaign) of the messages, so that a selector is asked once a kind.
        kind: (M,) int64, index into ``kinds``.
    """

    row: Times
    at: Times
    kinds: tuple[tuple[str, str, str | None], ...]
    kind: Times

    @classmethod
    def of(cls, messages: Sequence[Sequence[Message]], *, kinds: bool) -> Ledger:
        """The ledger of each recipient's messages, in any order; ``kinds``: whether a selector will be asked."""
        flat = [message for one in messages for message in one]
        at = np.array([micros(message.at) for message in flat], np.int64)
        if len(messages) == 1:
            row, order = np.zeros(len(flat), np.int64), at.argsort(kind="stable")
        else:
            row = np.arange(len(messages)).repeat([len(one) for one in messages])
            order = np.lexsort((at, row))
        if not kinds:
            return cls(row, at[order], (), row)
        known: dict[tuple[str, str, str | None], int] = {}
        kind = [known.setdefault((m.channel, m.category, m.campaign_id), len(known)) for m in flat]
        return cls(row, at[order], tuple(known), np.array(kind, np.int64)[order])

    def counted(self, counts: Selector) -> tuple[Times, Times]:
        """Row and time of the messages that a selector admits."""
        if counts == _ANY:
            return self.row, self.at
        admitted = [counts.admits(channel=c, category=k, campaign_id=i) for c, k, i in self.kinds]
        if all(admitted):
            return self.row, self.at
        chosen = np.array(admitted)[self.kind]
        return self.row[chosen], self.at[chosen]


class Whereabouts(NamedTuple):
    """When and where N recipients would be written to.

    Attributes:
        earliest: the earliest of all slots, seconds since 1970; ``latest`` the latest.
        last: (N,) int64, the last slot of each, seconds.
        zones: the distinct zones.
        zone: (N,) int64, index into ``zones``.
    """

    earliest: int
    latest: int
    last: Times
    zones: Sequence[Zone]
    zone: Times


class Caps:
    """R caps with what they count: what of them no recipient changes.

    Attributes:
        caps: the caps.
        counts: (R,) what each counts.
        counts_all: (R,) whether that is every message.
        selective: whether any of them leaves a message out.
        reach: (R,) how far each looks, in microseconds; of a rolling cap that is its length.
    """

    def __init__(self, caps: Sequence[tuple[Cap, Selector]]) -> None:
        self.caps = tuple(cap for cap, _ in caps)
        self.counts = tuple(counts for _, counts in caps)
        self.counts_all = tuple(counts == _ANY for counts in self.counts)
        self.selective = not all(self.counts_all)
        self.reach = tuple(reach_us(cap) for cap in self.caps)
        self._reach: Times = np.array(self.reach, np.int64)[:, None]
        rolling = [cap.rolling_hours is not None for cap in self.caps]
        self._width: Times = np.where(rolling, self.reach, 1)  # of a window, in the unit of places
        self._limits: Times = np.array([cap.limit for cap in self.caps], np.int64)
        self._adaptive = [r for r, cap in enumerate(self.caps) if cap.adapt is not None]
        self._may_close = any(min(cap.limit, cap.adapt.limit if cap.adapt else 1) <= 0 for cap in self.caps)

    def judge(
        self, unanswered: Sequence[int], ledger: Ledger, slots: SlotIndex, where: Whereabouts
    ) -> tuple[Blocked, Times, Blocked | None]:
        """Which slots each cap closes for each of N recipients, and when the first closed one opens.

        Args:
            unanswered: (N,) how many messages each left unanswered.
            ledger: the recipients' messages, at least within reach of the slots, and twice that after the last.
            slots: the recipients' (N, S) slots.
            where: when and where.

        Returns:
            (R, N, S) bool; (R, N) the first instant from the first closed slot on at which the cap lets a message out,
            in microseconds since 1970: ``NEVER`` if there is none (limit 0), or if it lies further after the last slot
            than the cap's reach, where not every message is known; (R, N) whether the limit is 0, None if none is.
        """
        rows, count = slots.rows, len(self.caps)
        limits = self._limits.repeat(rows)
        for r in self._adaptive:
            limits[r * rows : (r + 1) * rows] = [self.caps[r].limit_for(one) for one in unanswered]
        never = limits <= 0 if self._may_close else None
        parts = [self._part(r, ledger, rows, where) for r in range(count)]
        closed, opening = cover(_stretches(parts, limits, never, self._width, rows), slots, count * rows)
        opening = opening.reshape(count, rows)
        opening[opening > self._reach + where.last * MICRO] = NEVER
        return (
            closed.reshape(count, rows, slots.slots),
            opening,
            None if never is None else never.reshape(count, rows),
        )

    def _part(self, r: int, ledger: Ledger, rows: int, where: Whereabouts) -> _Part:
        row, at = ledger.counted(self.counts[r])
        if self.caps[r].rolling_hours is None:
            return _calendar(self.caps[r], row, at, r * rows, where)
        return _Part(row + r * rows, at)


class _Part(NamedTuple):
    """What one cap counts, (n,) in order of owner and place; ``segment`` is the index into a calendar's segments."""

    owner: Times
    place: Times
    segment: Times | None = None
    segments: Segments | None = None


def _calendar(cap: Cap, row: Times, at: Times, shift: int, where: Whereabouts) -> _Part:
    per = cap.calendar or "day"
    first, last = where.earliest - LONGEST[per], where.latest + 2 * LONGEST[per]
    calendars = Calendars(where.zones, per, cap.week_start, first, last)
    segments = calendars.segments
    # A message outside the range is taken for one at its ends, whose periods hold no slot and no opening that is told.
    segment = calendars.find(where.zone[row], at // MICRO)
    number = segments.number[segment]
    if segments.twins:
        order = np.lexsort((number, row))
        row, segment, number = row[order], segment[order], number[order]
    return _Part(row + shift, number, segment, segments)


def _stretches(parts: Sequence[_Part], limits: Times, never: Blocked | None, width: Times, rows: int) -> Stretches:
    """All that the caps close. ``limits``, ``never`` (R x N,) by owner; ``width`` (R,)."""
    if never is not None:  # closed always, whatever was sent
        limits = np.where(never, _MORE_THAN_SENT, limits)
    owner = np.concatenate([part.owner for part in parts])
    place = np.concatenate([part.place for part in parts])
    final = limits[owner] - 1 + np.arange(len(owner))  # the last of ``limit`` neighbours
    first = (final < len(owner)).nonzero()[0]
    final = final[first]
    apart = place[final] - place[first]
    full = (owner[final] == owner[first]) & (apart < width[owner[first] // rows])
    first, final = first[full], final[full]
    owner = owner[first]
    length = width[owner // rows]
    opens, closes = place[final] - length + 1, place[first] + length
    more: list[tuple[Times, Times, Times]] = []
    start = 0
    for r, part in enumerate(parts):
        if part.segment is not None and part.segments is not None:
            low, high = owner.searchsorted((r * rows, (r + 1) * rows)).tolist()
            segment = part.segment[first[low:high] - start]
            opens[low:high], closes[low:high] = _edges(part.segments, segment)
            if part.segments.twins:
                more.append((owner[low:high], *_edges(part.segments, part.segments.twin[segment])))
        start += len(part.owner)
    if never is not None:
        closed = never.nonzero()[0]
        more.append((closed, np.full(len(closed), -_ALWAYS), np.full(len(closed), _ALWAYS)))
    if more:
        owner, opens, closes = (np.concatenate(column) for column in zip((owner, opens, closes), *more, strict=True))
        order = np.lexsort((opens, owner))
        owner, opens, closes = owner[order], opens[order], closes[order]
    return Stretches(owner, opens, closes)


def _edges(segments: Segments, segment: Times) -> tuple[Times, Times]:
    return segments.starts[segment] * MICRO, segments.ends[segment] * MICRO
