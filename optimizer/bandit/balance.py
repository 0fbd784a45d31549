"""Balance test: were actions drawn from the probabilities that the log claims?

For a subset S of actions (a variant, a channel, a daypart) the count of logged actions in S minus the sum of its
claimed probabilities has mean 0, whatever the rewards. A wrong redraw, a stale mask or a swapped field shows here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.bandit.clusters import Floats

#: Below this variance of the count the normal tail is wrong by far: one case where .01 is expected has z = 10.
_NORMAL_FROM = 25.0


@dataclass(frozen=True, slots=True)
class SubsetBalance:
    """One subset: logged count, expected count, standardised difference, two-sided p, Holm-adjusted p."""

    name: str
    observed: int
    expected: float
    z: float
    p: float
    p_holm: float


@dataclass(frozen=True, slots=True)
class Balance:
    """All subsets. ``minimum_p`` is the smallest adjusted p (1 for none), ``passed`` whether it is above ``level``."""

    subsets: tuple[SubsetBalance, ...]
    level: float
    minimum_p: float
    passed: bool


def balance_test(
    indicators: ArrayLike,
    expected: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    level: float = 0.01,
) -> Balance:
    """Tests Σ(1[a ∈ S] − π_b(S|x)) = 0 for each subset S, Holm-corrected (Holm 1979).

    z = Σ(1 − π)/√Σπ(1 − π), which is exact in variance for draws made independently given what came before.
    Where the count varies little (variance below 25) the p-value is twice the smaller Poisson tail, which bounds the
    tail of a sum of unequal coins outside one of its mean (Anderson & Samuels 1967), so rare subsets don't cry wolf.

    Args:
        indicators: (n, S) bool, whether the logged action lies in S.
        expected: (n, S), the claimed probability of S, in [0, 1].
        names: S names for the report; None = "0", "1", …
        level: family-wise error of ``passed``.

    Raises:
        ValueError: shapes that differ, or a probability outside [0, 1], with its row, subset and value.
    """
    inside = np.asarray(indicators, dtype=bool)
    chance = np.asarray(expected, dtype=np.float64)
    if inside.ndim != 2 or inside.shape != chance.shape:
        raise ValueError(f"expected: shape {chance.shape}, must be that of indicators, {inside.shape} = (n, subsets)")
    labels = [str(s) for s in range(inside.shape[1])] if names is None else list(names)
    if len(labels) != inside.shape[1]:
        raise ValueError(f"names: {len(labels)} for {inside.shape[1]} subsets")
    # Sums of 4,096 float probabilities may exceed 1 by rounding; more is a fault.
    bad = np.argwhere(~((chance >= -1e-9) & (chance <= 1.0 + 1e-9)))
    if bad.size:
        row, subset = (int(i) for i in bad[0])
        raise ValueError(
            f"expected: row {row}, subset {labels[subset]!r} is {float(chance[row, subset])!r}, must lie in [0, 1]"
        )
    chance = np.clip(chance, 0.0, 1.0)
    tests = [_subset(inside[:, s], chance[:, s]) for s in range(inside.shape[1])]
    adjusted = holm([p for _, p in tests])
    subsets = tuple(
        SubsetBalance(name, int(np.count_nonzero(inside[:, s])), float(np.sum(chance[:, s])), *tests[s], adjusted[s])
        for s, name in enumerate(labels)
    )
    minimum = min(adjusted, default=1.0)
    return Balance(subsets, level, minimum, minimum > level)


def holm(p: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values: each may be compared with the family-wise level (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [1.0] * len(p)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def _subset(inside: NDArray[np.bool_], chance: Floats) -> tuple[float, float]:
    """(z, two-sided p) of one subset."""
    if np.any(inside & (chance <= 0.0)) or np.any(~inside & (chance >= 1.0)):
        return (math.inf if float(np.sum(inside)) > float(np.sum(chance)) else -math.inf), 0.0
    total = float(np.sum(inside - chance))
    variance = float(np.sum(chance * (1.0 - chance)))
    if variance < 1e-12:
        return 0.0, 1.0
    z = total / math.sqrt(variance)
    if variance < _NORMAL_FROM:
        return z, _poisson_p(inside, chance)
    return z, math.erfc(abs(z) / math.sqrt(2.0))


def _poisson_p(inside: NDArray[np.bool_], chance: Floats) -> float:
    """Twice the smaller Poisson tail of the count, or of the count outside S when S is the common case."""
    uncertain = chance < 1.0  # certain rows carry no information and would only widen the Poisson
    count, mean = int(np.count_nonzero(inside & uncertain)), float(np.sum(chance[uncertain]))
    rows = int(np.count_nonzero(uncertain))
    if mean > rows / 2.0:
        count, mean = rows - count, rows - mean
    log_terms = [k * math.log(mean) - mean - math.lgamma(k + 1.0) for k in range(count + 1)]
    at = math.exp(log_terms[count])
    below = min(1.0, math.fsum(math.exp(t) for t in log_terms))
    return min(1.0, 2.0 * min(below, 1.0 - below + at))
