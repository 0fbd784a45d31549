"""Caps: which send times a limit on messages leaves open, over rolling windows and over calendar ones.

For both, a candidate is open iff (counted messages in its window) + 1 <= limit, for every window that holds it. The
candidate is tested as if it counted, even where the rule's ``counts`` does not admit it: a full cap blocks whatever the
rule binds, and a limit of 0 always does.

Rolling windows are tested in microseconds, since sent messages carry their real times; calendar windows in seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY, Zone
from storage.records import Cap

MICRO = 1_000_000
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Upper bounds of a calendar window's length in seconds, clock changes and skipped dates included.
_CALENDAR_REACH = {"day": 2 * DAY, "week": 8 * DAY, "month": 32 * DAY}
_ALL_TIME = 10_000 * 366 * DAY  # seconds; keeps sums of microseconds far inside int64
# 1970-01-01 was a Thursday, the fourth day of a week that starts on Monday.
_THURSDAY = 3
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """The messages that a cap counts, in order of time: ``at`` (n,) int64 microseconds since 1970, ``local`` (n,) int64
    the same on the recipient's wall clock in local seconds."""

    at: Times
    local: Times


def reach_us(cap: Cap) -> int:
    """How far from a send time a message can lie and still share a window of the cap with it, in microseconds."""
    if cap.rolling_hours is not None:
        return length_us(cap.rolling_hours)
    if cap.calendar is not None:
        return _CALENDAR_REACH[cap.calendar] * MICRO
    raise ValueError(f"a cap needs rolling_hours or calendar: {cap}")


def length_us(hours: float) -> int:
    """Length of a rolling window in microseconds, rounded to the nearest. More than all of time is all of time."""
    return min(round(min(hours, _ALL_TIME / 3600) * 3600 * MICRO), _ALL_TIME * MICRO)


def blocked(cap: Cap, counted: Counted, send_at: Times, local: Times) -> NDArray[np.bool_]:
    """Which slots the cap closes.

    Args:
        cap: the limit.
        counted: the messages that count.
        send_at: (S,) int64, seconds since 1970.
        local: (S,) int64, the same in local seconds.

    Returns:
        (S,) bool.
    """
    if cap.limit <= 0:
        return np.ones(len(send_at), np.bool_)
    if len(counted.at) < cap.limit:  # the common case
        return np.zeros(len(send_at), np.bool_)
    if cap.rolling_hours is not None:
        opens, closes = _full_stretches(counted.at, cap.limit, length_us(cap.rolling_hours))
        return _inside(opens, closes, send_at * MICRO)
    held, own = _periods(cap, counted.local), _periods(cap, local)
    held.sort()  # a clock set back over midnight can unsort them
    return (held.searchsorted(own, side="right") - held.searchsorted(own, side="left")) >= cap.limit


def first_open(cap: Cap, counted: Counted, epoch: int, last: int, zone: Zone) -> int | None:
    """The first instant from ``epoch`` on at which the cap alone lets a message out, in microseconds since 1970.

    Args:
        cap: the limit.
        counted: the messages that count, all of those up to ``last`` + 2 x ``reach_us`` among them.
        epoch: where to start, seconds since 1970.
        last: the last slot, seconds since 1970.
        zone: the recipient's.

    Returns:
        None if there is none (limit 0), or if it lies where not every message is known.
    """
    if cap.limit <= 0:
        return None
    known = last * MICRO + reach_us(cap)
    if cap.rolling_hours is not None:
        at = epoch * MICRO
        stretches = _full_stretches(counted.at, cap.limit, length_us(cap.rolling_hours))
        for opens, closes in zip(stretches[0].tolist(), stretches[1].tolist(), strict=True):
            if opens < at < closes:
                at = closes
        return at if at <= known else None
    held = Counter(_periods(cap, counted.local).tolist())
    for moment in zone.walk(epoch, lambda local: _start(cap, _period(cap, local) + 1)):
        if moment * MICRO > known:
            return None
        if held[_period(cap, moment + zone.offset(moment))] < cap.limit:
            return moment * MICRO
    return None


def _full_stretches(at: Times, limit: int, length: int) -> tuple[Times, Times]:
    """Open intervals of send times that would make a window of ``length`` hold more than ``limit`` messages.

    Points fit into a half-open window [s, s + length) iff their range is below ``length``. A candidate t breaks the
    limit iff it fits into one window with ``limit`` messages; those may be taken neighbours, m_i … m_j with
    j = i + limit - 1. That is m_j - m_i < length, t > m_j - length and t < m_i + length. Both ends ascend with i.
    """
    first, last = at[: max(0, len(at) - limit + 1)], at[limit - 1 :]
    full = last - first < length
    return last[full] - length, first[full] + length


def _inside(opens: Times, closes: Times, at: Times) -> NDArray[np.bool_]:
    """Whether each time lies in one of the open intervals, whose ends both ascend."""
    if not len(opens):
        return np.zeros(len(at), np.bool_)
    # The first interval that ends after t has the smallest start of all that do.
    place = closes.searchsorted(at, side="right")
    return (place < len(closes)) & (opens[np.minimum(place, len(opens) - 1)] < at)


def _periods(cap: Cap, local: Times) -> Times:
    """(n,) the number of the local day, week or month of each time (local seconds)."""
    day = local // DAY
    if cap.calendar == "day":
        return day
    if cap.calendar == "week":
        return (day + _week_shift(cap)) // 7
    return day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _period(cap: Cap, local: int) -> int:
    """The same for one time; ten times as fast as an array of one."""
    day = local // DAY
    if cap.calendar == "day":
        return day
    if cap.calendar == "week":
        return (day + _week_shift(cap)) // 7
    on = date.fromordinal(_EPOCH_ORDINAL + day)
    return (on.year - 1970) * 12 + on.month - 1


def _start(cap: Cap, period: int) -> int:
    """Local seconds at which a period starts."""
    if cap.calendar == "day":
        return period * DAY
    if cap.calendar == "week":
        return (period * 7 - _week_shift(cap)) * DAY
    year, month = divmod(period, 12)
    return (date(1970 + year, month + 1, 1).toordinal() - _EPOCH_ORDINAL) * DAY


def _week_shift(cap: Cap) -> int:
    return _THURSDAY - _WEEKDAYS.index(cap.week_start)
