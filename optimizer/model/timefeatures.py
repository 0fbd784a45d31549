"""Local wall-clock time as numbers: Fourier features of the day, of the seven weekdays, and hour-of-week buckets.

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
#: Names of the columns of ``harmonics``, in order. The first ``SHORT`` of them are what context interacts with; from
#: ``weekday1_cos`` on come those of the seven weekdays, which differ in steps, and last those that only older models
#: know, of a week without steps. Those don't reach what people like on one weekday and not on the next: in two worlds
#: of 504 actions the greedy choice after 30,000 random rows went .936 and .931 of the way to the oracle with them, .969
#: and .954 with steps.
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
    "weekday1_cos",
    "weekday1_sin",
    "weekday2_cos",
    "weekday2_sin",
    "weekday3_cos",
    "weekday3_sin",
    "week1_cos",
    "week1_sin",
    "week2_cos",
    "week2_sin",
)
TIME_WIDTH = len(TIME_NAMES)
#: So many come before those that only older models know.
TIME_PRESENT = TIME_NAMES.index("week1_cos")
#: With the level before them.
TIME_COLUMNS = TIME_WIDTH + 1
SHORT = 9
WEEKEND = TIME_NAMES.index("weekend")
WEEKEND_DAYS = tuple(i for i, name in enumerate(TIME_NAMES) if name.startswith("weekend_"))
WEEKDAYS = tuple(i for i, name in enumerate(TIME_NAMES) if name.startswith("weekday"))
_DAILY = np.array([1.0, 2.0, 3.0, 4.0])
_WEEKLY = np.array([1.0, 2.0])
_STEPS = (2.0 * np.pi / 7.0) * np.multiply.outer([1.0, 2.0, 3.0], np.arange(7.0))
#: (6, 7): the weekdays' columns on Monday to Sunday. With a level they span every table of seven numbers.
_OF_WEEKDAY = np.stack((np.cos(_STEPS), np.sin(_STEPS)), axis=1).reshape(6, 7)


def harmonics(local: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fourier features of local seconds (n,), shape (n, 23): four daily harmonics, the weekend, three harmonics of the
    seven weekdays in steps, two of a week without steps.

    The weekend is centred (5/7 on Saturday and Sunday, −2/7 else), so that it is orthogonal to the intercept; it also
    multiplies the first two daily harmonics, since people's days have another shape then.
    """
    out = np.empty((TIME_WIDTH, len(local)))
    fill_harmonics(np.asarray(local, dtype=np.int64), out)
    return np.ascontiguousarray(out.T)


def fill_harmonics(local: NDArray[np.int64], out: NDArray[np.float64]) -> None:
    """``harmonics`` of local seconds of any shape, column by column: fills ``out`` (23, …)."""
    second = (local + _MONDAY) % WEEK
    angles = np.empty((6, *second.shape))
    np.multiply.outer(_DAILY, (2.0 * np.pi / DAY) * (second % DAY), out=angles[:4])
    np.multiply.outer(_WEEKLY, (2.0 * np.pi / WEEK) * second, out=angles[4:])
    cos, sin = np.cos(angles), np.sin(angles)
    for first, last, of in ((0, 4, slice(0, 2)), (9, 13, slice(2, 4)), (TIME_PRESENT, TIME_WIDTH, slice(4, 6))):
        out[first:last:2], out[first + 1 : last : 2] = cos[of], sin[of]
    out[13:TIME_PRESENT] = _OF_WEEKDAY[:, second // DAY]
    out[4] = (second >= 5 * DAY) - 2.0 / 7.0
    np.multiply(out[:4], out[4], out=out[5:9])


def hour_of_week(local: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of local seconds: 0 = Monday 00:00–01:00, …, 167 = Sunday 23:00–24:00. Hour of day is this modulo 24."""
    return ((np.asarray(local, dtype=np.int64) + _MONDAY) % WEEK) // 3600


def hour_of_week_at(local: int) -> int:
    """``hour_of_week`` of one instant, without numpy's overhead."""
    return (local + _MONDAY) % WEEK // 3600
