"""Has something changed? Two samples compared by their shares, and detectors that watch a stream row by row.

All of it is pure arithmetic on counts and predictions. Every test says how often it is wrong when nothing has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.bandit.clusters import Floats


@dataclass(frozen=True, slots=True)
class Shift:
    """Two samples compared bin by bin.

    Attributes:
        stability: the population stability index Σ(p − q)·ln(p/q), 0 for equal shares.
        limit: what it must exceed to be called a shift.
        rows: size of the smaller sample.
    """

    stability: float
    limit: float
    rows: int

    @property
    def shifted(self) -> bool:
        """Whether the samples differ by more than chance and more than a little."""
        return self.stability > self.limit


#: A stability index up to this is a small change, even when it is certain: the usual reading is .1 small, .25 large.
SMALL_SHIFT = 0.2


def compare(older: ArrayLike, newer: ArrayLike, error: float, small: float = SMALL_SHIFT) -> Shift:
    """The population stability index of two samples, with a limit that holds at the given error.

    For two samples of independent rows from one distribution, PSI / (1/n + 1/m) is asymptotically χ² with one degree
    of freedom less than there are bins, as Pearson's statistic is, to which it is equal in second order. So the limit
    is the larger of ``small`` and that quantile: with ``error`` the chance of a false alarm, at most. Half a row is
    added to each bin, so that an empty one stays finite.

    Args:
        older: (B,) counts of the first sample.
        newer: (B,) counts of the second.
        error: chance of a false alarm, in (0, 1).
        small: a certain shift that is smaller is no shift.

    Raises:
        ValueError: shapes that differ, a negative count, or a bad error.
    """
    one, other = np.asarray(older, dtype=np.float64), np.asarray(newer, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"counts: shapes {one.shape} and {other.shape}, must be (B,) both")
    if np.any(one < 0.0) or np.any(other < 0.0):
        raise ValueError("counts: must not be negative")
    used = (one + other) > 0.0
    one, other = one[used], other[used]
    rows = int(min(one.sum(), other.sum()))
    if one.size < 2 or rows == 0:
        return Shift(0.0, small, rows)
    n, m = float(one.sum()), float(other.sum())
    p, q = (one + 0.5) / (n + 0.5 * one.size), (other + 0.5) / (m + 0.5 * other.size)
    index = float(np.sum((p - q) * np.log(p / q)))
    return Shift(index, max(small, chi_square_quantile(error, one.size - 1) * (1.0 / n + 1.0 / m)), rows)


def chi_square_tail(x: float, degrees: int) -> float:
    """P(χ² > x) for a whole number of degrees of freedom, by its finite series (Abramowitz & Stegun 26.4.4-5)."""
    if degrees < 1:
        raise ValueError(f"degrees: {degrees} must be at least 1")
    if x <= 0.0:
        return 1.0
    half = x / 2.0
    if degrees % 2 == 0:
        terms = (k * math.log(half) - half - math.lgamma(k + 1.0) for k in range(degrees // 2))
        return min(1.0, math.fsum(math.exp(t) for t in terms))
    tail = math.erfc(math.sqrt(half))
    terms = ((k - 0.5) * math.log(half) - half - math.lgamma(k + 0.5) for k in range(1, (degrees + 1) // 2))
    return min(1.0, tail + math.fsum(math.exp(t) for t in terms))


def chi_square_quantile(error: float, degrees: int) -> float:
    """x with P(χ² > x) = error.

    Raises:
        ValueError: error outside (0, 1).
    """
    if not 0.0 < error < 1.0:
        raise ValueError(f"error: {error} must lie in (0, 1)")
    low, high = 0.0, float(degrees) + 10.0
    while chi_square_tail(high, degrees) > error:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if chi_square_tail(middle, degrees) > error else (low, middle)
    return high


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) ≥ k), exact.

    Raises:
        ValueError: p outside (0, 1), or k or n negative.
    """
    if not 0.0 < p < 1.0 or k < 0 or n < 0:
        raise ValueError(f"binomial: k {k}, n {n} must be at least 0 and p {p} in (0, 1)")
    if k == 0:
        return 1.0
    whole, yes, no = math.lgamma(n + 1.0), math.log(p), math.log1p(-p)
    terms = (whole - math.lgamma(i + 1.0) - math.lgamma(n - i + 1.0) + i * yes + (n - i) * no for i in range(k, n + 1))
    return min(1.0, math.fsum(math.exp(t) for t in terms))


def area_under_curve(score: ArrayLike, outcome: ArrayLike) -> float:
    """Chance that a row where it happened has a higher score than one where it didn't, ties counting half.

    NaN where one kind of row is missing.
    """
    s, y = np.asarray(score, dtype=np.float64), np.asarray(outcome, dtype=np.float64) > 0.0
    values, place = np.unique(s, return_inverse=True)
    yes: Floats = np.bincount(place.reshape(-1)[y], minlength=values.size).astype(np.float64)
    no: Floats = np.bincount(place.reshape(-1)[~y], minlength=values.size).astype(np.float64)
    pairs = float(yes.sum() * no.sum())
    if pairs == 0.0:
        return math.nan
    below = np.concatenate(([0.0], np.cumsum(no)[:-1]))
    return float(yes @ (below + no / 2.0)) / pairs


#: A head may be off by this much, in logits, without an alarm: shrinkage, and what is chosen being a little overrated.
TOLERANCE = 0.4
#: What a bet on unbalanced draws stakes.
_STAKE = 0.3


@dataclass(frozen=True, slots=True)
class Crossing:
    """A detector that has crossed its limit: at which row of those given, and since when it had been rising."""

    name: str
    row: int
    since: float


@dataclass(frozen=True, slots=True)
class Detectors:
    """Detectors of change side by side, one log likelihood ratio a row each (Page 1954; Shin, Ramdas & Rinaldo 2023).

    Each is C ← max(C, 0) + ℓ, where e^ℓ has a conditional mean of at most 1 while nothing has changed. So e^C is an
    e-detector: the mean number of rows until it first reaches e^limit by mistake is at least e^limit, whatever the
    distribution, however often somebody looks. A detector that has crossed starts again from 0.

    Attributes:
        names: D names.
        value: (D,) C.
        since: (D,) time of the first row since C was last 0, in epoch seconds (meaningless where C is 0).
        limit: what C is compared with.
    """

    names: tuple[str, ...]
    value: tuple[float, ...]
    since: tuple[float, ...]
    limit: float

    @classmethod
    def start(cls, names: Sequence[str], rows: float) -> Detectors:
        """Detectors that all together have at least ``rows`` rows between false alarms, on average."""
        nothing = (0.0,) * len(names)
        return cls(tuple(names), nothing, nothing, math.log(rows * max(1, len(names))))

    def after(self, ratios: Floats, at: Floats) -> tuple[Detectors, list[Crossing]]:
        """The detectors after more rows, and what has crossed.

        Args:
            ratios: (n, D) log likelihood ratios; NaN = the row tells nothing.
            at: (n,) times of the rows, in order, in epoch seconds.
        """
        value, since = np.array(self.value), np.array(self.since)
        crossed: list[Crossing] = []
        for i, ratio in enumerate(np.nan_to_num(ratios, nan=0.0, neginf=-1e300)):
            since[value <= 0.0] = at[i]
            value = np.maximum(value, 0.0) + ratio
            for d in np.flatnonzero(value >= self.limit):
                crossed.append(Crossing(self.names[d], i, float(since[d])))
                value[d] = 0.0
        kept = np.maximum(value, 0.0)
        return replace(self, value=tuple(kept.tolist()), since=tuple(since.tolist())), crossed


#: The three ways in which a head is watched.
CALIBRATION = ("lower", "higher", "flatter")


def calibration_ratios(chance: Floats, outcome: Floats, centre: Floats) -> Floats:
    """Log likelihood ratios of "off by twice the tolerance" against "off by the tolerance", (n, 3).

    Outcomes happen less often than predicted; more often; less where much and more where little was predicted (tastes
    were swapped). At a true chance within the tolerance the ratio has a mean of at most 1: it is 1 at the edge, and the
    likelihood ratio of two coins falls with the chance of the side that it bets against.

    Args:
        chance: (n,) predicted, by a model that is older than the row.
        outcome: (n,) 0 or 1; NaN = not known.
        centre: (n,) logits above which a prediction counts as high, known before the row.
    """
    p = np.clip(chance, 1e-9, 1.0 - 1e-9)
    logit = np.log(p) - np.log1p(-p)
    sides = [_ratio(logit + sign * TOLERANCE, logit + sign * 2.0 * TOLERANCE, outcome) for sign in (-1.0, 1.0)]
    return np.column_stack((*sides, np.where(logit > centre, *sides)))


def balance_ratios(inside: NDArray[np.bool_], expected: Floats) -> Floats:
    """Log of bets that draws fall into subsets of actions more often, and less often, than logged: (n, 2·S).

    1 ± λ·(1[a ∈ S] − π(S|x)) has a mean of exactly 1 while actions are drawn from the logged probabilities.

    Args:
        inside: (n, S) whether the drawn action lies in the subset.
        expected: (n, S) the subset's logged probability.
    """
    surplus = inside - expected
    return np.concatenate((np.log1p(_STAKE * surplus), np.log1p(-_STAKE * surplus)), axis=1)


def _ratio(null: Floats, other: Floats, outcome: Floats) -> Floats:
    """log f(y; other) − log f(y; null) of coins with these logits."""
    found: Floats = outcome * (other - null) - np.logaddexp(0.0, other) + np.logaddexp(0.0, null)
    return found
