"""Empirical likelihood interval of an off-policy value: nothing is assumed of the rows but a mean weight of 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.bandit.clusters import Clusters, Floats, clusters
from optimizer.bandit.intervals import quantile

_SEARCHES = 60
#: An end is found to this share of a standard error.
_PRECISION = 1e-6
_NEWTON_STEPS = 60
_TOLERANCE = 1e-10


def empirical_likelihood_interval(
    reward: ArrayLike,
    weight: ArrayLike,
    cluster: ArrayLike | Clusters | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of the value E[w·r] that uses E[w] = 1 as known (Karampatziakis, Langford & Mineiro 2020; Owen 2001).

    The set of v for which the rows can be reweighted to mean weight 1 and mean w·r = v at a profile likelihood ratio
    −2 log R ≤ z². Rows of one recipient are summed first (blockwise empirical likelihood, Kitamura 1997). The interval
    follows the skewness of the rows. Where the weights don't vary or all lie on one side of 1, the constraint on them
    can't be used, and the self-normalised equation E[w·(r − v)] = 0 stands alone. The ends never leave the hull of the
    rows: with no rewarded row the interval is a point, so rare harms need ``intervals.rate_upper``.

    Args:
        reward: (n,) rewards.
        weight: (n,) importance weights ≥ 0.
        cluster: (n,) integer labels or None.
        level: coverage aimed at.

    Returns:
        (low, high); (−inf, inf) with fewer than two clusters or no weight at all.
    """
    r, w = np.asarray(reward, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    groups = clusters(cluster, r.size)
    if groups.count < 2 or not np.any(w > 0.0):
        return -math.inf, math.inf
    rows, mass, gain = groups.used_sums(np.ones(r.size)), groups.used_sums(w), groups.used_sums(w * r)
    excess = mass - rows
    constrained = bool(np.min(excess) < -_TOLERANCE and np.max(excess) > _TOLERANCE)
    scale = rows if constrained else mass
    free, centre = 0.0, float(np.sum(gain) / np.sum(mass))
    if constrained:
        free, tilt = _log_ratio(excess[:, None], math.inf)
        chance = 1.0 / (1.0 + excess * tilt[0])  # G·p of each cluster once the mean weight is 1
        centre = float(chance @ gain / (chance @ rows))
    z = quantile(level)

    def surplus(value: float) -> float:
        moment = gain - value * scale
        moments = np.column_stack((excess, moment)) if constrained else moment[:, None]
        ratio, _ = _log_ratio(moments, free + 4.0 * z**2)
        return math.sqrt(max(2.0 * (ratio - free), 0.0)) - z

    hull = gain[scale > 0.0] / scale[scale > 0.0]
    half = z * math.sqrt(float(np.sum((gain - centre * scale) ** 2))) / float(np.sum(scale))
    low = _edge(surplus, centre, min(float(np.min(hull)), centre), -half)
    return low, _edge(surplus, centre, max(float(np.max(hull)), centre), half)


def _edge(surplus: Callable[[float], float], centre: float, end: float, step: float) -> float:
    """Where ``surplus`` turns positive between ``centre`` and ``end``, or ``end``; ``step`` guesses the way there.

    The signed root of the likelihood ratio is close to linear, so false position (Illinois) takes a few evaluations.
    """
    if step == 0.0 or centre == end:
        return centre
    beyond = min if step > 0.0 else max
    near, below = centre, surplus(centre)
    far = beyond(end, centre + 1.2 * step)
    above = surplus(far)
    while above <= 0.0:
        if far == end:
            return end
        near, below = far, above
        far = beyond(end, centre + 2.0 * (far - centre))
        above = surplus(far)
    side = 0
    for _ in range(_SEARCHES):
        if abs(far - near) <= _PRECISION * abs(step):
            break
        middle = near - below * (far - near) / (above - below)
        at = surplus(middle)
        if at <= 0.0:
            near, below, above, side = middle, at, above / 2.0 if side < 0 else above, -1
        else:
            far, above, below, side = middle, at, below / 2.0 if side > 0 else below, 1
        if abs(at) <= _PRECISION:
            return middle
    return near


def _log_ratio(moments: Floats, enough: float) -> tuple[float, Floats]:
    """−log R of "the mean of ``moments`` is 0": max over λ of Σ log(1 + λᵀg), by damped Newton.

    Args:
        moments: (G, d) estimating functions g, d = 1 or 2.
        enough: the search stops above this value, as it does when 0 lies outside the hull and there is no maximum.

    Returns:
        The value and its λ (d,).
    """
    spread = np.sqrt(np.mean(moments**2, axis=0))
    spread = np.where(spread > 0.0, spread, 1.0)
    g = moments / spread
    tilt = np.zeros(g.shape[1])
    value, first, second = _pseudo_log(1.0 + g @ tilt)
    for _ in range(_NEWTON_STEPS):
        if value > enough:
            break
        gradient = g.T @ first
        curvature = (g * -second[:, None]).T @ g
        step = np.linalg.solve(curvature + 1e-12 * np.trace(curvature) * np.eye(tilt.size), gradient)
        decrement = float(gradient @ step)
        if decrement < _TOLERANCE:
            break
        share = 1.0
        trial = _pseudo_log(1.0 + g @ (tilt + step))
        while trial[0] < value + 0.25 * share * decrement and share > 1e-6:
            share /= 2.0
            trial = _pseudo_log(1.0 + g @ (tilt + share * step))
        tilt = tilt + share * step
        value, first, second = trial
    return value, tilt / spread


def _pseudo_log(x: Floats) -> tuple[float, Floats, NDArray[np.float64]]:
    """Σ log* x and its terms' first two derivatives: log above 1/G, a quadratic that continues it below (Owen 2001)."""
    edge = 1.0 / x.size
    inner = x >= edge
    safe = np.where(inner, x, edge)
    t = x / edge
    value = np.where(inner, np.log(safe), math.log(edge) - 1.5 + 2.0 * t - t**2 / 2.0)
    first = np.where(inner, 1.0 / safe, (2.0 - t) / edge)
    second = np.where(inner, -1.0 / safe**2, -1.0 / edge**2)
    return float(np.sum(value)), first, second
