"""Quiet hours: times of the local night in which a rule lets nothing out.

A night belongs to the local date on which it starts: with ``days = ("fri",)`` and 21:00–08:00, Friday 21:00 to Saturday
08:00 is quiet, and Friday 07:00 is not. Where start and end are equal the night is a whole day, from start to start.
``start`` is quiet, ``end`` is not.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY, Zone, parse_clock
from optimizer.bandit.periods import THURSDAY
from optimizer.bandit.stretches import NO_OPENING
from storage.rules import WEEKDAYS, QuietHours

_DAY_MINUTES = DAY // 60
_WEEK_MINUTES = 7 * _DAY_MINUTES


def blocked(hours: QuietHours, local: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which times are quiet: local seconds -> bool, same shape.

    Raises:
        Invalid: start or end is not ``HH:MM``.
    """
    return _week(hours)[(local // 60 + THURSDAY * _DAY_MINUTES) % _WEEK_MINUTES]


@lru_cache(maxsize=2048)
def openings(hours: QuietHours, zone: Zone, first_day: int, last_day: int) -> NDArray[np.int64]:
    """Instants after a quiet one at which it is not quiet, and those at which the clock moves then; cached.

    Args:
        hours: the rule.
        zone: whose wall clock.
        first_day: UTC day to start with, days since 1970; ``last_day`` ends.

    Returns:
        Seconds since 1970, ascending, and then ``NO_OPENING``: whatever time is quiet, the first of them after it is
        the first that is not.
    """
    clocks = parse_clock(hours.start, "start") % DAY, parse_clock(hours.end, "end") % DAY
    instants = zone.boundaries(first_day * DAY, last_day * DAY, clocks)
    return np.append(instants[~blocked(hours, instants + zone.offsets(instants))], NO_OPENING)


@lru_cache(maxsize=256)
def _week(hours: QuietHours) -> NDArray[np.bool_]:
    """(10080,) whether each minute of a week from Monday 00:00 on is quiet."""
    start, end = parse_clock(hours.start, "start") // 60, parse_clock(hours.end, "end") // 60
    length = end - start if end > start else end - start + _DAY_MINUTES
    week = np.zeros(_WEEK_MINUTES, np.bool_)
    for name in hours.days:
        begin = WEEKDAYS.index(name) * _DAY_MINUTES + start
        week[np.arange(begin, begin + length) % _WEEK_MINUTES] = True
    return week
