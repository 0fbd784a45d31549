"""Calendar periods: numbers of local days, weeks and months, and from when to when each lasts in a zone.

The numbers are those of ``storage.usage``: a day is days since 1970-01-01, a month is months since January 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY, Zone
from storage.rules import WEEKDAYS, Weekday

Per = Literal["day", "week", "month"]
Times = NDArray[np.int64]

#: 1970-01-01 was a Thursday, the fourth day of a week that starts on Monday.
THURSDAY = 3
_MICRO = 1_000_000
#: Upper bounds of a period's length in seconds, clock changes and skipped or repeated dates included.
LONGEST: dict[Per, int] = {"day": 2 * DAY, "week": 8 * DAY, "month": 32 * DAY}
_FIRST_DAY = int(datetime(1, 1, 3, tzinfo=UTC).timestamp()) // DAY
_LAST_DAY = int(datetime(9999, 12, 29, tzinfo=UTC).timestamp()) // DAY


def numbers(per: Per, week_start: Weekday, local: Times) -> Times:
    """The number of the local day, week or month of each time (local seconds); same shape."""
    day = local // DAY
    if per == "day":
        return day
    if per == "week":
        return (day + THURSDAY - WEEKDAYS.index(week_start)) // 7
    return day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def days_around(first: int, last: int) -> tuple[int, int]:
    """UTC days since 1970 that hold the instants ``first`` to ``last`` (seconds), inside years 1 to 9999."""
    return max(first // DAY, _FIRST_DAY), min(last // DAY + 1, _LAST_DAY)


class Segments(NamedTuple):
    """Stretches of time in which the number of the period stays the same, one after the other.

    Attributes:
        starts: (G,) int64 seconds since 1970, ascending.
        ends: (G,) int64, where the next starts.
        number: (G,) int64 the period's.
        twin: (G,) int64, the index of another segment of the same period, its own index if there is none: a clock that
            is set back from after midnight to before it returns to the day before.
        twins: whether there is any.
    """

    starts: Times
    ends: Times
    number: Times
    twin: Times
    twins: bool


@lru_cache(maxsize=2048)
def segments(zone: Zone, per: Per, week_start: Weekday, first_day: int, last_day: int) -> Segments:
    """The segments of a zone's calendar from UTC day ``first_day`` to ``last_day`` (days since 1970); cached."""
    end = last_day * DAY
    instants = zone.boundaries(first_day * DAY, end, (0,))
    number = numbers(per, week_start, instants + zone.offsets(instants))
    new = np.append(True, number[1:] != number[:-1])
    starts, number = instants[new], number[new]
    twin = np.arange(len(number))
    order = number.argsort(kind="stable")
    same = (number[order][1:] == number[order][:-1]).nonzero()[0]
    twin[order[same]], twin[order[same + 1]] = order[same + 1], order[same]
    return Segments(starts, np.append(starts[1:], end + 1), number, twin, bool(len(same)))


@lru_cache(maxsize=2048)
def listed(
    zone: Zone, per: Per, week_start: Weekday, first_day: int, last_day: int
) -> tuple[list[int], list[tuple[int, int, int]]]:
    """``segments`` in plain numbers of microseconds since 1970, to be looked up one by one; cached.

    Returns:
        (G,) where each starts, and (G,) its period's number, its start and its end.
    """
    parts = segments(zone, per, week_start, first_day, last_day)
    starts, ends = (parts.starts * _MICRO).tolist(), (parts.ends * _MICRO).tolist()
    return starts, list(zip(parts.number.tolist(), starts, ends, strict=True))


class Calendars:
    """The segments of several zones behind each other, zone by zone, so that one search serves all.

    ``segments``: all of them, for instants from ``first`` to ``last`` (seconds since 1970).
    """

    __slots__ = ("_first", "_keys", "_last", "_single", "_stride", "segments")

    def __init__(self, zones: Sequence[Zone], per: Per, week_start: Weekday, first: int, last: int) -> None:
        first_day, last_day = days_around(first, last)
        self._first, self._last = first_day * DAY, last_day * DAY
        self._stride = self._last - self._first + 1
        parts = [segments(zone, per, week_start, first_day, last_day) for zone in zones]
        self._single = len(parts) == 1
        if self._single:
            self.segments, self._keys = parts[0], parts[0].starts
            return
        sizes = np.array([len(part.starts) for part in parts])
        starts, ends, number, twin = (np.concatenate([part[i] for part in parts]) for i in range(4))
        twin += (sizes.cumsum() - sizes).repeat(sizes)
        self.segments = Segments(starts, ends, number, twin, any(part.twins for part in parts))
        self._keys = starts + (np.arange(len(zones)) * self._stride).repeat(sizes)

    def find(self, zone: Times, at: Times) -> Times:
        """The index of the segment of each instant (seconds since 1970) in the zone of that index.

        Instants outside the range are taken for its ends.
        """
        inside = np.maximum(at, self._first)
        if self._single:
            return self._keys.searchsorted(inside, side="right") - 1
        inside = np.minimum(inside, self._last)
        return self._keys.searchsorted(inside + zone * self._stride, side="right") - 1
