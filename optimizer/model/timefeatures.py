"""Local wall-clock time as numbers: Fourier features on the week circle, and hour-of-week buckets.

Everything takes *local seconds*: the wall clock read as if it were UTC, in seconds since 1970-01-01 (``send_at`` plus
the zone's offset). So 09:00 is 09:00 on both sides of a clock change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DAY = 86_400
WEEK = 7 * DAY
#: 1970-01-01 was a Thursday; this shift makes the week start on Monday 00:00.
_MONDAY = 3 * DAY
HOURS_OF_WEEK = 168
HOURS_OF_DAY = 24
#: Names of the columns of ``harmonics``, in order. The first ``SHORT`` of them are what context interacts with.
TIME_NAMES = (
    "day1_cos",
    "day1_sin",
    "day2_cos",
    "day2_sin",
    "weekend",
    "weekend_day1_cos",
    "weekend_day1_sin",
    "weekend_day2_cos",
    "weekend_day2_sin",
    "day3_cos",
    "day3_sin",
    "day4_cos",
    "day4_sin",
    "week1_cos",
    "week1_sin",
    "week2_cos",
    "week2_sin",
)
TIME_WIDTH = len(TIME_NAMES)
#: With the level before them.
TIME_COLUMNS = TIME_WIDTH + 1
SHORT = 9
WEEKEND = TIME_NAMES.index("weekend")
WEEKEND_DAYS = tuple(i for i, name in enumerate(TIME_NAMES) if name.startswith("weekend_"))
_DAILY = np.array([1.0, 2.0, 3.0, 4.0])
_WEEKLY = np.array([1.0, 2.0])


def harmonics(local: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fourier features of local seconds (n,), shape (n, 17): four daily and two weekly harmonics and the weekend.

    The weekend is centred (5/7 on Saturday and Sunday, −2/7 else), so that it is orthogonal to the intercept; it also
    multiplies the first two daily harmonics, since people's days have another shape then.
    """
    out = np.empty((TIME_WIDTH, len(local)))
    fill_harmonics(np.asarray(local, dtype=np.int64), out)
    return np.ascontiguousarray(out.T)


def fill_harmonics(local: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    """``harmonics`` of local seconds of any shape, column by column: fills ``out`` (17, …)."""
    second = (local + _MONDAY) % WEEK
    angles = np.empty((6, *second.shape))
    np.multiply.outer(_DAILY, (2.0 * np.pi / DAY) * (second % DAY), out=angles[:4])
    np.multiply.outer(_WEEKLY, (2.0 * np.pi / WEEK) * second, out=angles[4:])
    cos, sin = np.cos(angles), np.sin(angles)
    out[0:4:2], out[9::2] = cos[:2], cos[2:]
    out[1:4:2], out[10::2] = sin[:2], sin[2:]
    out[4] = (second >= 5 * DAY) - 2.0 / 7.0
    np.multiply(out[:4], out[4], out=out[5:9])


def hour_of_week(local: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of local seconds: 0 = Monday 00:00–01:00, …, 167 = Sunday 23:00–24:00. Hour of day is this modulo 24."""
    return ((np.asarray(local, dtype=np.int64) + _MONDAY) % WEEK) // 3600


def hour_of_week_at(local: int) -> int:
    """``hour_of_week`` of one instant, without numpy's overhead."""
    return (local + _MONDAY) % WEEK // 3600
