"""The mean of a group, and how bounds are made that hold at every look together.

The unit is the recipient: a group is assigned to a recipient, and decisions of one recipient are not independent. A
group's value is Σ rewards / Σ decisions, a ratio of sums over recipients, and its error comes from recipients' sums.

Looks are daily. What seems sure on one day is looked at again on the next, so that fixed-time intervals
would sooner or later miss: these are asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas
2021) with Robbins' delayed-start boundary (Robbins 1970; see ``sequences``). Two things adapt it:

- Its clock is the number of decisions. Where new decisions come from recipients seen before, successive estimates hang
  together more closely than that clock says, which makes it cautious (Slepian 1962).
- Looks are no continuum, so the boundary may lie lower by .583·√step, step being how far the clock's logarithm moved
  since the look before (Siegmund 1979; Broadie, Glasserman & Kou 1997). Of 20,000 Gaussian walks that were looked at
  daily from day 7 to 400, 4.6 % left such bounds at a stated 5 %, 3.3 % those of the continuum.

It starts where each group has as good as 50 recipients with an outcome, (Σ y)²/Σ y² over what outcomes brought by each
recipient: a hundred opens worth little and two orders worth much are as good as two. Before that there is no bound: the
asymptotics would promise what they can't keep. ``sendtide report-study`` shows what it keeps. ``comparison`` makes
lifts of one group over another by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.clusters import Floats
from optimizer.bandit.sequences import delayed_start_boundary

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Recipients with an outcome, of like worth, that each group needs before anything is stated of it.
LEAST_OUTCOMES = 50.0
#: How far a boundary for looks at steps may lie below that of a continuum, by the root of the step: −ζ(½)/√(2π).
_STEP = 0.5826
#: The correction is one for small steps.
_LONGEST_STEP = 0.25


@dataclass(frozen=True, slots=True)
class Rows:
    """Decisions whose rewards are final, n of them.

    Attributes:
        unit: (n,) code of the recipient, ≥ 0.
        look: (n,) number of the daily look at which each counts for the first time, ≥ 0.
        value: (n,) what is averaged.
        worth: (n,) ≥ 0, the size of what happened that the value speaks of (0 = nothing), without costs.
        epoch: (n,) code of the stretch of time in which the groups' shares were the same, ≥ 0.
    """

    unit: Ints
    look: Ints
    value: Floats
    worth: Floats
    epoch: Ints

    def take(self, chosen: Mask) -> Rows:
        """The chosen ones."""
        return Rows(self.unit[chosen], self.look[chosen], self.value[chosen], self.worth[chosen], self.epoch[chosen])


@dataclass(frozen=True, slots=True)
class Arm:
    """A group at one look, or at L of them: every field is an array of the same shape.

    Attributes:
        rows: decisions. value: their mean.
        variance: of that mean, from recipients' sums.
        outcomes: as good as how many recipients of like worth had an outcome.
    """

    rows: Floats
    value: Floats
    variance: Floats
    outcomes: Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with bounds that hold at all looks together; infinite ones before anything can be stated."""

    value: Floats
    error: Floats
    low: Floats
    high: Floats


def half_width(error: Floats, clock: Floats, start: Floats, before: Floats, level: float = 0.95) -> Floats:
    """Half the width of the bounds at a look: so many standard errors as the boundary says there.

    Args:
        error: standard errors.
        clock: decisions so far; any shape, as the rest.
        start: decisions at the first look with a statement.
        before: decisions at the look before (0 = there was none).
        level: probability with which the bounds of all looks hold together.
    """
    base = delayed_start_boundary(1.0 - level)
    with np.errstate(divide="ignore", invalid="ignore"):
        passed = np.log(np.maximum(clock / start, 1.0))
        step = np.clip(np.log(clock / before), 0.0, _LONGEST_STEP)
    half: Floats = error * (np.sqrt(base**2 + passed) - _STEP * np.sqrt(step))
    return half


def arm(rows: Rows) -> Arm:
    """The group of these rows, at least one, at the newest look."""
    count = float(rows.value.size)
    mean = float(rows.value.sum()) / count
    sums = np.bincount(rows.unit, weights=(rows.value - mean) / count)
    units = np.count_nonzero(np.bincount(rows.unit))
    square = float(np.sum(sums**2)) * units / (units - 1) if units > 1 else math.inf
    worth = np.bincount(rows.unit, weights=rows.worth).astype(np.float64)
    return Arm(scalar(count), scalar(mean), scalar(square), scalar(effective(worth)))


def mean_of(rows: Rows, level: float = 0.95) -> Estimate:
    """The mean of one group's rows (at least one), with bounds."""
    here = arm(rows)
    start = first_look(rows)
    if start is None:
        return unbounded(here.value, np.sqrt(here.variance))
    newest = int(rows.look.max())
    clock, begin, before = (scalar(int(np.count_nonzero(rows.look <= look))) for look in (newest, start, newest - 1))
    return bounded(here.value, np.sqrt(here.variance), clock, begin, before, level)


def bounded(
    value: Floats, error: Floats, clock: Floats, start: Floats, before: Floats, level: float = 0.95
) -> Estimate:
    """An estimate with its bounds; see ``half_width``."""
    half = half_width(error, clock, start, before, level)
    return Estimate(value, error, value - half, value + half)


def effective(worth: Floats) -> float:
    """As good as how many recipients of like worth these are, (Σ y)²/Σ y²; 0 for none."""
    square = float(np.sum(worth**2))
    return float(np.sum(worth)) ** 2 / square if square > 0.0 else 0.0


def first_look(rows: Rows) -> int | None:
    """The first look at which recipients enough had an outcome; None = not yet."""
    found = outcomes_by_look(rows, int(rows.look.max(initial=-1)) + 1)
    enough = np.flatnonzero(found >= LEAST_OUTCOMES * (1.0 - 1e-9))
    return int(enough[0]) if enough.size else None


def outcomes_by_look(rows: Rows, looks: int) -> Floats:
    """(looks,) as good as how many recipients of like worth had an outcome up to each look."""
    happened = np.flatnonzero(rows.worth)
    happened = happened[np.lexsort((rows.look[happened], rows.unit[happened]))]
    unit, look, worth = rows.unit[happened], rows.look[happened], rows.worth[happened]
    before = own_sums(unit, worth) - worth
    total = np.cumsum(np.bincount(look, weights=worth, minlength=looks))
    square = np.cumsum(np.bincount(look, weights=2.0 * before * worth + worth**2, minlength=looks))
    found: Floats = np.divide(total**2, square, out=np.zeros(total.size), where=square > 0.0)
    return found


def own_sums(unit: Ints, values: Floats) -> Floats:
    """Running sums of (n,) values within each unit; units lie together."""
    sums = np.cumsum(values)
    first = np.flatnonzero(np.concatenate(([True], unit[1:] != unit[:-1])))
    before = np.concatenate(([0.0], sums))[first]
    running: Floats = sums - np.repeat(before, np.diff(np.concatenate((first, [unit.size]))))
    return running


def clear_after(lift: Estimate, clock: float, start: float, *, level: float = 0.95) -> float:
    """By which factor the clock must grow until a lift of the size seen is clear; infinity above 1,000.

    Errors fall with the root of the clock, the boundary rises with its logarithm.
    """
    size, error = abs(float(lift.value)), float(lift.error)
    factor = np.geomspace(1.0, 1_000.0, 2_000)
    half = half_width(error / np.sqrt(factor), clock * factor, scalar(start), clock * factor, level)
    clear = np.flatnonzero(half < size)
    return float(factor[clear[0]]) if clear.size else math.inf


def unbounded(value: Floats, error: Floats) -> Estimate:
    """An estimate of which nothing can be stated yet."""
    return Estimate(value, error, scalar(-math.inf), scalar(math.inf))


def scalar(number: float) -> Floats:
    """An array of no dimension, as estimates of one look are."""
    return np.array(number, dtype=np.float64)
