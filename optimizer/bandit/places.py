"""The price of a place under a recipient's cap: what it is worth to wait for a better use of it.

A cap's places belong to one recipient and can't go to another, so there is no program over all of them, and the price
that balances demand and places over everybody would leave places of recipients empty who seldom gain much. So the past
is played again: each recipient's questions in order of time, each taking a place if it gains more than the price and a
place is left. The price is the one under which that play gains most; 0, first come, first served, is always among
those tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.caps import length_us
from optimizer.bandit.localtime import DAY
from storage.rules import WEEKDAYS, Cap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Prices that are tried: 0, and so many quantiles of the questions' gains.
TRIED = 24
#: A price must gain this part more than first come, first served, or it is not worth its errors.
WORTHWHILE = 0.01
_MICRO = 1_000_000
_THURSDAY = 3  # 1970-01-01, counted from Monday


@dataclass(frozen=True, slots=True, eq=False)
class Wishes:
    """n past questions of some recipients, all of those recipients' questions in a span of time.

    Attributes:
        recipient: (n,) int64.
        at: (n,) int64, the send time of the action that gains most, seconds since 1970.
        local: (n,) int64, the same on the recipient's wall clock.
        gain: (n,) float64, what that action gains over not sending, less other tolls.
    """

    recipient: Ints
    at: Ints
    local: Ints
    gain: Floats


def price_of_place(cap: Cap, wishes: Wishes) -> float:
    """The price under which the past gains most; 0.0 where waiting is not worth it.

    The limit is the one for a recipient who answers; messages that no wish stands for are not known here.
    """
    keep = wishes.gain > 0
    gain = wishes.gain[keep]
    if not len(gain):
        return 0.0
    tried = np.unique(np.r_[0.0, np.quantile(gain, np.arange(1, TRIED) / TRIED)])
    gained = _play(cap, Wishes(wishes.recipient[keep], wishes.at[keep], wishes.local[keep], gain), tried)
    best = int(gained.argmax())
    return float(tried[best]) if gained[best] > (1 + WORTHWHILE) * gained[0] else 0.0


def _play(cap: Cap, wishes: Wishes, tried: Floats) -> Floats:
    """(T,) what the past gains under each of T prices."""
    gained = np.zeros(len(tried))
    order = np.lexsort((wishes.at, wishes.recipient))
    starts = np.flatnonzero(np.r_[True, np.diff(wishes.recipient[order]) != 0])
    windows = _windows(cap, wishes)
    for mine in np.split(order, starts[1:]):
        taken = np.zeros((len(mine), len(tried)), np.bool_)
        for i, wish in enumerate(mine):
            shared = _shared(cap, windows, mine[:i], int(wish))
            taken[i] = (wishes.gain[wish] > tried) & (taken[:i][shared].sum(axis=0) < cap.limit)
        gained += wishes.gain[mine] @ taken
    return gained


def _windows(cap: Cap, wishes: Wishes) -> Ints:
    """(n,) what tells whether two wishes share a window: the time for a rolling cap, else the number of the window."""
    if cap.rolling_hours is not None:
        return wishes.at
    day = wishes.local // DAY
    if cap.calendar == "day":
        return day
    if cap.calendar == "week":
        return np.asarray((day + _THURSDAY - WEEKDAYS.index(cap.week_start)) // 7)
    return day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def _shared(cap: Cap, windows: Ints, earlier: Ints, wish: int) -> NDArray[np.bool_]:
    if cap.rolling_hours is None:
        return np.asarray(windows[earlier] == windows[wish])
    return np.asarray((windows[wish] - windows[earlier]) * _MICRO < length_us(cap.rolling_hours))
