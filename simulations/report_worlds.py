"""Made-up campaigns of eight weeks, and the lift that a report would have stated on each of their days.

All looks of a campaign are computed at once: a recipient's sums change only on days with a decision of theirs, so the
moments that a ratio's error is made of are running sums of changes. ``optimizer.bandit.comparison`` computes the same
from the rows of one look; a test compares the two. Where the control group's share changed, it is asked on each day.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.comparison import lift_of
from optimizer.bandit.intervals import quantile
from optimizer.bandit.lift import LEAST_OUTCOMES, Arm, Estimate, Rows, bounded, own_sums, scalar, unbounded

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAYS = 56
#: Share of recipients in the control group.
CONTROL = 0.1


@dataclass(frozen=True)
class World:
    """A campaign's decisions, n of them, and the truth.

    Attributes:
        unit: (n,) recipient. day: (n,) on which its reward is final. value: (n,) reward.
        control: (n,) whether its recipient was in the control group then.
        lift: (DAYS,) what a treated decision of that day brings more, on average.
        changes: days on which the control group's share changed.
    """

    unit: Ints
    day: Ints
    value: Floats
    control: NDArray[np.bool_]
    lift: Floats
    changes: tuple[int, ...] = ()

    @property
    def truth(self) -> Floats:
        """(DAYS,) the lift over all decisions up to each day."""
        count = np.bincount(self.day, minlength=DAYS)
        truth: Floats = np.cumsum(count * self.lift) / np.maximum(np.cumsum(count), 1)
        return truth

    def rows(self, day: int, *, control: bool) -> Rows:
        """What a report has of one group on a day."""
        mine = (self.day <= day) & (self.control == control)
        value, at = self.value[mine], self.day[mine]
        return Rows(self.unit[mine], at, value, np.abs(value), np.searchsorted(self.changes, at, side="right"))


def _made(
    rng: np.random.Generator, recipients: int, decisions: Floats, share: Floats | float = CONTROL
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Unit, day and control; ``share`` (DAYS,) of recipients in the control group, each of whom enters and leaves it
    once."""
    unit = np.repeat(np.arange(recipients), rng.poisson(decisions))
    day, place = rng.integers(0, DAYS, unit.size), rng.random(recipients)
    return unit, day, place[unit] < np.broadcast_to(share, DAYS)[day]


def _coins(rng: np.random.Generator, base: float, lift: Floats, recipients: int = 20_000) -> World:
    unit, day, control = _made(rng, recipients, np.full(recipients, 2.0))
    chance = base + np.where(control, 0.0, lift[day])
    return World(unit, day, (rng.random(unit.size) < chance).astype(np.float64), control, lift)


def _nothing(rng: np.random.Generator) -> World:
    return _coins(rng, 0.1, np.zeros(DAYS))


def _coin(rng: np.random.Generator) -> World:
    return _coins(rng, 0.1, np.full(DAYS, 0.02))


def _rare(rng: np.random.Generator) -> World:
    return _coins(rng, 0.005, np.full(DAYS, 0.001), recipients=100_000)


def _learning(rng: np.random.Generator) -> World:
    return _coins(rng, 0.1, 0.03 * np.arange(DAYS) / DAYS)


def _orders(rng: np.random.Generator) -> World:
    """One in thirty buys, for a log-normal amount (σ = 1)."""
    more = 0.003
    unit, day, control = _made(rng, 40_000, np.full(40_000, 2.0))
    buys = rng.random(unit.size) < 0.03 + np.where(control, 0.0, more)
    return World(unit, day, buys * rng.lognormal(0.0, 1.0, unit.size), control, np.full(DAYS, more * math.exp(0.5)))


def _clusters(rng: np.random.Generator) -> World:
    """Recipients differ in what they do (beta-distributed chances, mean .1) and in how often they are asked about
    (log-normal, mean 4, the busiest hundredth above 25 times)."""
    recipients = 12_000
    unit, day, control = _made(rng, recipients, 4.0 * rng.lognormal(-0.5, 1.0, recipients))
    chance = rng.beta(0.5, 4.5, recipients)[unit] * np.where(control, 1.0, 1.2)
    value = (rng.random(unit.size) < chance).astype(np.float64)
    return World(unit, day, value, control, np.full(DAYS, 0.02))


def _shares(rng: np.random.Generator, changes: Mapping[int, float], more: float) -> World:
    """Everybody clicks three times as often at the end as at the start, while the control group's share changes: from
    each of the days on it is the one told. Recipients differ: their own chances scatter by a half."""
    recipients, days = 20_000, np.arange(DAYS)
    share = np.array(list(changes.values()))[np.searchsorted(list(changes), days, side="right") - 1]
    unit, day, control = _made(rng, recipients, np.full(recipients, 2.0), share)
    chance = (0.05 + 0.1 * day / DAYS) * rng.gamma(4.0, 0.25, recipients)[unit] + np.where(control, 0.0, more)
    value = (rng.random(unit.size) < chance).astype(np.float64)
    return World(unit, day, value, control, np.full(DAYS, more), tuple(changes)[1:])


def _shrunk(rng: np.random.Generator) -> World:
    return _shares(rng, {0: 0.2, 21: 0.01}, 0.0)


def _grown(rng: np.random.Generator) -> World:
    return _shares(rng, {0: 0.02, 14: 0.1, 35: 0.3}, 0.02)


#: What each world is like, and how one is made.
WORLDS: Mapping[str, tuple[str, Callable[[np.random.Generator], World]]] = {
    "nothing": ("no lift: 10 % click in both groups", _nothing),
    "coins": ("bounded: 12 % against 10 %", _coin),
    "rare": ("rare: 0.6 % against 0.5 %", _rare),
    "orders": ("heavy-tailed: 3.3 % against 3 % buy, log-normal amounts", _orders),
    "clusters": ("recipients asked about 1 to 100 times who differ, a fifth more from all", _clusters),
    "learning": ("a lift that grows from 0 to 3 points", _learning),
    "shrunk": ("no lift; control 20 %, from day 22 on 1 %, while clicks rise from 5 to 15 %", _shrunk),
    "grown": ("2 points more; control 2 %, then 10 and 30 %, while clicks rise from 5 to 15 %", _grown),
}


@dataclass(frozen=True)
class Seen:
    """What was stated on the days of one campaign, (DAYS,) each; infinite bounds before the first statement."""

    estimate: Estimate
    truth: Floats

    @property
    def stated(self) -> NDArray[np.bool_]:
        """(DAYS,) on which days there were bounds."""
        return np.isfinite(self.estimate.high)

    @property
    def covered(self) -> bool:
        """Whether the truth lay within the bounds on every day."""
        return bool(np.all((self.estimate.low <= self.truth) & (self.truth <= self.estimate.high)))

    @property
    def relative_widths(self) -> Floats:
        """Widths of the stated bounds over those of fixed-time 95 % intervals of the same estimates."""
        half = (self.estimate.high - self.estimate.low)[self.stated] / 2.0
        widths: Floats = half / (quantile(0.95) * self.estimate.error[self.stated])
        return widths


def watch(world: World) -> Seen:
    """Looks at a campaign on each of its days."""
    if world.changes:
        return _watch_each(world)
    treated, control = _arms(world)
    value, error = treated.value - control.value, np.sqrt(treated.variance + control.variance)
    clock = 1.0 / (1.0 / np.maximum(treated.rows, 1e-9) + 1.0 / np.maximum(control.rows, 1e-9))
    least = LEAST_OUTCOMES * (1.0 - 1e-9)
    enough = np.logical_or.accumulate(treated.outcomes >= least) & np.logical_or.accumulate(control.outcomes >= least)
    before = np.concatenate(([0.0], clock[:-1]))
    start = clock[int(np.argmax(enough))]
    found = bounded(value, error, clock, np.full(DAYS, start), before)
    low, high = np.where(enough, found.low, -np.inf), np.where(enough, found.high, np.inf)
    return Seen(Estimate(value, error, low, high), world.truth)


def _watch_each(world: World) -> Seen:
    looks = []
    for day in range(DAYS):
        found = lift_of(world.rows(day, control=False), world.rows(day, control=True))
        looks.append(unbounded(scalar(0.0), scalar(math.inf)) if found is None else found)
    columns = [np.array([getattr(look, name) for look in looks]) for name in ("value", "error", "low", "high")]
    return Seen(Estimate(*columns), world.truth)


def _arms(world: World) -> tuple[Arm, Arm]:
    """Treated and control on every day."""
    order = np.lexsort((world.day, world.unit))
    unit, day, value = world.unit[order], world.day[order], world.value[order]
    # A recipient's decisions and rewards before each of the rows.
    count, total = own_sums(unit, np.ones(unit.size)) - 1.0, own_sums(unit, value) - value
    changes = {
        "rows": np.ones(unit.size),
        "units": (count < 0.5).astype(np.float64),
        "y": value,
        "yy": 2.0 * total * value + value**2,
        "yn": total + value * (count + 1.0),
        "nn": 2.0 * count + 1.0,
    }
    in_control = world.control[order]
    return _arm(day, changes, ~in_control), _arm(day, changes, in_control)


def _arm(day: Ints, changes: Mapping[str, Floats], chosen: NDArray[np.bool_]) -> Arm:
    m = {
        name: np.cumsum(np.bincount(day[chosen], weights=change[chosen], minlength=DAYS)).astype(np.float64)
        for name, change in changes.items()
    }
    rows = np.maximum(m["rows"], 1.0)
    mean = m["y"] / rows
    square = np.maximum(m["yy"] - 2.0 * mean * m["yn"] + mean**2 * m["nn"], 0.0)
    variance = square / rows**2 * m["units"] / np.maximum(m["units"] - 1.0, 1.0)
    return Arm(m["rows"], mean, variance, m["y"] ** 2 / np.maximum(m["yy"], 1e-300))
