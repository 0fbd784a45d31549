"""When people look: chronotypes, weekends, weekdays, paydays and seasons, all on the recipient's own wall clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulations.world.population import WORKS, Floats, Ints, Population

DAY = 86_400
#: Hours of the day at which each kind of work looks most, and second most.
PEAK = {"office": 7.5, "shift": 14.0, "student": 21.5, "home": 10.0, "retired": 8.5}
SECOND = {"office": 19.5, "shift": 23.0, "student": 12.5, "home": 20.5, "retired": 17.0}
#: How wide the bump around each is, in hours (one standard deviation), and how high the second is.
WIDTH, SECOND_WIDTH, SECOND_HEIGHT = 2.6, 2.0, 0.55
#: Hours by which one standard deviation of morningness moves the first peak forward, at most about twice that.
MORNING_HOURS = 1.6
#: At the weekend people who are not retired look later.
WEEKEND_LATER = 1.7
HEIGHT = 2.4
_WEEKEND = {"office": -0.35, "shift": 0.0, "student": 0.1, "home": -0.15, "retired": 0.25}


def hours(local: Ints) -> Floats:
    """Hour of the day, 0 to 24, of local seconds."""
    return np.asarray((local % DAY) / 3600.0)


def weekdays(local: Ints) -> Ints:
    """0 = Monday … 6 = Sunday, of local seconds (1970-01-01 was a Thursday)."""
    return np.asarray((local // DAY + 3) % 7)


def attention(people: Population, person: int, local: Ints) -> Floats:
    """(S,) what features tell of how ready a person is to look at each local time, on the logit scale."""
    work = WORKS[people.work[person]]
    hour = hours(local)
    weekend = weekdays(local) >= 5
    later = np.where(weekend & (work != "retired"), WEEKEND_LATER, 0.0)
    first = PEAK[work] - MORNING_HOURS * 2 * np.tanh(people.morning[person] / 2) + later
    bump = _bump(hour - first, WIDTH) + SECOND_HEIGHT * _bump(hour - SECOND[work] - later, SECOND_WIDTH)
    return np.asarray(HEIGHT * bump + _WEEKEND[work] * weekend)


def personal_rhythm(coefficients: Floats, local: Ints) -> Floats:
    """(S,) a person's own rhythm: once and twice a day, (4,) coefficients; of the same variance at all times."""
    angle = 2 * np.pi * hours(local) / 24
    waves = np.stack((np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)))
    return np.asarray(coefficients @ waves)


def season(local: Ints) -> Floats:
    """(S,) between −1 (midsummer) and 1 (midwinter)."""
    return np.asarray(np.cos(2 * np.pi * (local / DAY % 365.25) / 365.25))


def payday(local: Ints) -> NDArray[np.bool_]:
    """(S,) whether it is one of the days after most wages are paid: from the 26th to the 2nd."""
    days = (local // DAY).astype("datetime64[D]")
    of_month = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    return np.asarray((of_month >= 26) | (of_month <= 2))


def _bump(away: Floats, width: float) -> Floats:
    """Bell curve around the clock: ``away`` hours off counts the shorter way round."""
    around = np.abs(away) % 24
    around = np.minimum(around, 24 - around)
    return np.asarray(np.exp(-0.5 * (around / width) ** 2))
