"""Quiet hours: times of the local night in which a rule lets nothing out.

A night belongs to the local date on which it starts: with ``days = ("fri",)`` and 21:00–08:00, Friday 21:00 to Saturday
08:00 is quiet, and Friday 07:00 is not. Where start and end are equal the night is a whole day, from start to start.
``start`` is quiet, ``end`` is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY, Zone, parse_clock
from storage.records import QuietHours

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_THURSDAY = 3  # the weekday of 1970-01-01, Monday being 0


def blocked(hours: QuietHours, local: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which times are quiet: (S,) local seconds -> (S,) bool.

    Raises:
        Invalid: start or end is not ``HH:MM``.
    """
    start, end = _clock(hours)
    day, time = np.divmod(local, DAY)
    nights = np.array([name in hours.days for name in _WEEKDAYS])
    weekday = (day + _THURSDAY) % 7
    tonight = nights[weekday] & (time >= start)
    if start < end:
        return np.asarray(tonight & (time < end))
    return np.asarray(tonight | (nights[weekday - 1] & (time < end)))


def first_open(hours: QuietHours, epoch: int, zone: Zone) -> int | None:
    """The first instant from ``epoch`` on that is not quiet (seconds since 1970), None if every hour is quiet."""
    start, end = _clock(hours)
    boundaries = sorted({start, end, DAY})

    def following(local: int) -> int:
        day, time = divmod(local, DAY)
        return day * DAY + next(b for b in boundaries if b > time)

    for moment in zone.walk(epoch, following):
        if moment > epoch + 9 * DAY:  # a week and a night repeat what was seen
            return None
        day, time = divmod(moment + zone.offset(moment), DAY)
        tonight, before = (_WEEKDAYS[(day + _THURSDAY - n) % 7] in hours.days for n in (0, 1))
        quiet = (
            tonight and start <= time < end if start < end else (tonight and time >= start) or (before and time < end)
        )
        if not quiet:
            return moment
    return None


def _clock(hours: QuietHours) -> tuple[int, int]:
    return parse_clock(hours.start, "start"), parse_clock(hours.end, "end")
