"""Intervals of means of logged rows: normal, skewness-corrected, cluster bootstrap, and a bound for rare outcomes."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from optimizer.bandit.clusters import Clusters, Floats, clusters, robust_error

_NORMAL = NormalDist()


def quantile(level: float) -> float:
    """z with P(|N(0,1)| ≤ z) = level.

    Raises:
        ValueError: level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level: {level} must lie in (0, 1)")
    return _NORMAL.inv_cdf((1.0 + level) / 2.0)


def one_sided_quantile(error: float) -> float:
    """z with P(N(0,1) > z) = error.

    Raises:
        ValueError: error outside (0, 1).
    """
    if not 0.0 < error < 1.0:
        raise ValueError(f"error: {error} must lie in (0, 1)")
    return -_NORMAL.inv_cdf(error)


def normal_interval(value: float, standard_error: float, level: float = 0.95) -> tuple[float, float]:
    """value ± z · standard_error; (−inf, inf) when the standard error is infinite."""
    half = quantile(level) * standard_error
    return value - half, value + half


def lower_bound(values: Floats, cluster: ArrayLike | Clusters | None, z: float) -> float:
    """One-sided lower bound of a mean: the normal one, lowered where the rows lean to the left.

    Importance-weighted rows are skewed. Leaning left (rare costs with a large weight) makes the normal lower bound let
    through more than it says. Hall's monotone transformation (Hall 1992, "On the removal of skewness by
    transformation") repairs that to second order; where it would *raise* the bound the normal one stays, so a
    correction can only make the test stricter.

    Args:
        values: (n,) rows.
        cluster: (n,) labels or None.
        z: one-sided standard normal quantile.

    Returns:
        The bound; −inf with fewer than two clusters.
    """
    groups = clusters(cluster, values.size)
    if groups.count < 2:
        return -math.inf
    mean = float(np.mean(values))
    residual = values - mean
    error = robust_error(residual, groups)
    normal: float = mean - z * error
    sums = groups.sums(residual)
    second = float(np.sum(sums**2)) / groups.count
    if second <= 0.0:
        return normal
    skew = float(np.sum(sums**3)) / groups.count / math.pow(second, 1.5)
    if abs(skew) < 1e-6:  # the transformation is the identity there, and its formula divides by the skewness
        return normal
    root = math.sqrt(groups.count)
    shifted = 1.0 + skew * (z / root - skew / (6.0 * groups.count))
    quantile_of_t = 3.0 / skew * (math.cbrt(shifted) - 1.0)
    return min(normal, mean - error * root * quantile_of_t)


def upper_bound(values: Floats, cluster: ArrayLike | Clusters | None, z: float) -> float:
    """One-sided upper bound of a mean: the mirror image of ``lower_bound``."""
    return -lower_bound(-values, cluster, z)


def bootstrap_interval(
    numerator: Floats,
    denominator: Floats | None = None,
    cluster: ArrayLike | Clusters | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    repetitions: int = 1000,
) -> tuple[float, float]:
    """Percentile interval by resampling whole clusters (Efron 1979; Field & Welsh 2007).

    Args:
        numerator: (n,) rows, such as w·r (IPS, SNIPS) or doubly robust terms.
        denominator: (n,) rows for a ratio Σ numerator / Σ denominator, such as w (SNIPS); None = the mean.
        cluster: (n,) labels or None.
        rng: source of the resampling; the same state gives the same interval.
        level: coverage aimed at.
        repetitions: bootstrap samples.

    Returns:
        The two percentiles; (−inf, inf) with fewer than two clusters.

    Raises:
        ValueError: a resampled denominator of 0, or arrays of other lengths.
    """
    n = numerator.size
    below = np.ones(n) if denominator is None else denominator
    if below.shape != numerator.shape:
        raise ValueError(f"denominator: shape {below.shape}, must be {numerator.shape}")
    groups = clusters(cluster, n)
    if groups.count < 2:
        return -math.inf, math.inf
    top, bottom = groups.used_sums(numerator), groups.used_sums(below)
    estimates = np.empty(repetitions)
    for k in range(repetitions):
        times = np.bincount(rng.integers(groups.count, size=groups.count), minlength=groups.count)
        divisor = float(times @ bottom)
        if divisor == 0.0:
            raise ValueError(f"denominator: sums to 0 in bootstrap sample {k}; too few rows with weight")
        estimates[k] = float(times @ top) / divisor
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(estimates, (tail, 1.0 - tail))
    return float(low), float(high)


def rate_upper(happened: Floats, weight: Floats, cluster: ArrayLike | Clusters | None, z: float) -> float:
    """One-sided upper bound of a weighted rate of rare outcomes, the mean of w·h.

    The weighted count is treated as a scaled Poisson count (as Fay & Feuer 1997 do with weighted sums of Poisson
    counts): s times a count, s the weight of a typical case, with the score bound k + z²/2 + z√(k + z²/4). With no case
    at all this is z²·s/n with s = Σw²/Σw, which is z² over the effective sample size: a rate is never called 0 because
    nothing was seen. Cases of one recipient may repeat, so the clustered normal bound holds where it is higher.

    A lower bound is ``-rate_upper(happened, -weight, …)``, and is on the cautious (low) side.

    Args:
        happened: (n,) 0 or 1.
        weight: (n,) weights of mean 1; or differences of two such, whose negative ones count as cases avoided.
        cluster: (n,) labels or None.
        z: one-sided standard normal quantile.

    Returns:
        The bound, in cases per row; infinity with fewer than two clusters.
    """
    n = weight.size
    groups = clusters(cluster, n)
    if groups.count < 2:
        return math.inf
    case = weight * happened
    positive, positive_case = np.maximum(weight, 0.0), np.maximum(case, 0.0)
    scale = max(_size_biased(positive), _size_biased(positive_case))
    spread = math.sqrt(float(np.sum(case**2)) + (scale * z / 2.0) ** 2)
    score = (float(np.sum(case)) + scale * z**2 / 2.0 + z * spread) / n
    mean = float(np.mean(case))
    return max(score, mean + z * robust_error(case - mean, groups))


def _size_biased(values: Floats) -> float:
    """Σx²/Σx of values ≥ 0: the size of the x that a unit of the sum comes from; 0 for no values."""
    total = float(np.sum(values))
    return float(np.sum(values**2)) / total if total > 0.0 else 0.0
