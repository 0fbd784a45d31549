"""Off-policy estimates: what a policy would have earned, from rows logged under another one with known propensities.

Shapes everywhere: reward, weight, q_logged, q_policy (n,) float64; cluster (n,) integers, one label a recipient, None =
independent rows. weight = π(a|x)/π_b(a|x) of the logged action, from ``importance_weight``, which refuses propensities
that can't be divided by. q_logged = q̂(x, a) of the logged action, q_policy = Σ_a π(a|x)·q̂(x, a), from a model that was
not trained on the row. Values are conditional on the logged eligible sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optimizer.bandit.clusters import Clusters, Floats, clusters, robust_error
from optimizer.bandit.intervals import Difference, cautious_error, normal_interval

#: A propensity below this is a fault of the log, not a rare action: floors keep it above rate/20/4,096.
TINY_PROPENSITY = 1e-12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its cluster-robust standard error and a normal interval.

    Where the value is doubly robust the error is the cautious one that the gate judges by (see ``intervals``). The
    sample's own is too small where a few heavy rows carry a log: in 1,000 logs of 600 rows, a tenth of them rewarded
    and 2 of 100 with a weight of 20, its interval held the truth 748 times, the cautious one's 997 times.

    ``standard_error`` is infinite, and so are ``low`` and ``high``, with fewer than two clusters.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    effective_sample_size: float


def check_propensity(propensity: ArrayLike) -> Floats:
    """Returns propensities as float64, or refuses them.

    Raises:
        ValueError: one is NaN, below ``TINY_PROPENSITY`` or above 1; the first such row and its value are named.
    """
    p = np.asarray(propensity, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"propensity: shape {p.shape}, must be one-dimensional")
    bad = np.flatnonzero(~((p >= TINY_PROPENSITY) & (p <= 1.0 + 1e-9)))  # negated, so that NaN is bad too
    if bad.size:
        row = int(bad[0])
        raise ValueError(f"propensity: row {row} is {float(p[row])!r}, must lie in [{TINY_PROPENSITY:g}, 1]")
    return p


def importance_weight(target: ArrayLike, propensity: ArrayLike) -> Floats:
    """π(a|x)/π_b(a|x) of the logged actions.

    Args:
        target: (n,) probability of the logged action under the policy to be judged, in [0, 1].
        propensity: (n,) its probability under the logging policy, in [1e-12, 1].

    Raises:
        ValueError: a propensity that ``check_propensity`` refuses, or a target outside [0, 1], with row and value.
    """
    below = check_propensity(propensity)
    above = _rows("target", target, below.size)
    bad = np.flatnonzero((above < 0.0) | (above > 1.0 + 1e-9))
    if bad.size:
        row = int(bad[0])
        raise ValueError(f"target: row {row} is {float(above[row])!r}, must lie in [0, 1]")
    return above / below


def effective_sample_size(weight: ArrayLike) -> float:
    """(Σw)²/Σw² (Kish 1965): how many rows of equal weight carry the same information; 0 when all weights are 0."""
    w = np.asarray(weight, dtype=np.float64)
    square = float(np.sum(w**2))
    return float(np.sum(w)) ** 2 / square if square > 0.0 else 0.0


def ips(
    reward: ArrayLike, weight: ArrayLike, cluster: ArrayLike | Clusters | None = None, level: float = 0.95
) -> Estimate:
    """Inverse propensity score estimate mean(w·r) (Horvitz & Thompson 1952): unbiased, wide."""
    r, w = _reward_and_weight(reward, weight)
    return _mean(w * r, cluster, level, effective_sample_size(w))


def snips(
    reward: ArrayLike, weight: ArrayLike, cluster: ArrayLike | Clusters | None = None, level: float = 0.95
) -> Estimate:
    """Self-normalised estimate Σw·r/Σw (Swaminathan & Joachims 2015); the standard error is the delta method's.

    Raises:
        ValueError: all weights are 0.
    """
    r, w = _reward_and_weight(reward, weight)
    total = float(np.sum(w))
    if total <= 0.0:
        raise ValueError("weight: all rows are 0, no logged action is one that the policy takes")
    value = float(np.sum(w * r)) / total
    error = robust_error(w * (r - value) * (r.size / total), clusters(cluster, r.size))
    low, high = normal_interval(value, error, level)
    return Estimate(value, error, low, high, r.size, effective_sample_size(w))


def direct(q_policy: ArrayLike, cluster: ArrayLike | Clusters | None = None, level: float = 0.95) -> Estimate:
    """The direct method, mean(Σ_a π·q̂): the model's own opinion. Biased where the model is; never enough to publish."""
    q = _rows("q_policy", q_policy, None)
    return _mean(q, cluster, level, float(q.size))


def dr_terms(reward: ArrayLike, weight: ArrayLike, q_logged: ArrayLike, q_policy: ArrayLike) -> Floats:
    """The rows φ = Σ_a π·q̂ + w·(r − q̂) whose mean is the doubly robust estimate (Dudík, Erhan, Langford & Li 2014)."""
    r, w = _reward_and_weight(reward, weight)
    return _rows("q_policy", q_policy, r.size) + w * (r - _rows("q_logged", q_logged, r.size))


def doubly_robust(
    reward: ArrayLike,
    weight: ArrayLike,
    q_logged: ArrayLike,
    q_policy: ArrayLike,
    cluster: ArrayLike | Clusters | None = None,
    level: float = 0.95,
) -> Estimate:
    """Doubly robust estimate: unbiased for any q̂ that didn't see the row, narrow for a good one (``dr_terms``)."""
    w = np.asarray(weight, dtype=np.float64)
    rows = dr_terms(reward, w, q_logged, q_policy)
    return cautious_mean(rows, w - 1.0, _residual(reward, q_logged), cluster, level, effective_sample_size(w))


def switch_dr(
    reward: ArrayLike,
    weight: ArrayLike,
    q_logged: ArrayLike,
    q_policy: ArrayLike,
    threshold: float,
    cluster: ArrayLike | Clusters | None = None,
    level: float = 0.95,
) -> Estimate:
    """Switch-DR (Wang, Agarwal & Dudík 2017): above ``threshold`` the weight is dropped and the model believed.

    threshold 0 is the direct method, infinity is doubly robust. Biased by the model on the rows it switches off.

    Raises:
        ValueError: a negative threshold.
    """
    if not threshold >= 0.0:
        raise ValueError(f"threshold: {threshold} must be at least 0")
    _, w = _reward_and_weight(reward, weight)
    kept = np.where(w <= threshold, w, 0.0)
    rows = dr_terms(reward, kept, q_logged, q_policy)
    return cautious_mean(rows, kept - 1.0, _residual(reward, q_logged), cluster, level, effective_sample_size(kept))


def paired_difference(
    reward: ArrayLike,
    weight_a: ArrayLike,
    weight_b: ArrayLike,
    q_logged: ArrayLike,
    q_a: ArrayLike,
    q_b: ArrayLike,
    cluster: ArrayLike | Clusters | None = None,
    level: float = 0.95,
) -> Estimate:
    """Doubly robust V(a) − V(b) from the same rows: what both policies share cancels row by row before the variance.

    The effective sample size is that of ``weight_a``.
    """
    a, b = (np.asarray(weight, dtype=np.float64) for weight in (weight_a, weight_b))
    rows = dr_terms(reward, a, q_logged, q_a) - dr_terms(reward, b, q_logged, q_b)
    return cautious_mean(rows, a - b, _residual(reward, q_logged), cluster, level, effective_sample_size(a))


def _residual(reward: ArrayLike, q_logged: ArrayLike) -> Floats:
    """(n,) r − q̂ of the logged action."""
    return np.asarray(reward, dtype=np.float64) - np.asarray(q_logged, dtype=np.float64)


def cautious_mean(
    rows: Floats,
    change: Floats,
    residual: Floats,
    cluster: ArrayLike | Clusters | None,
    level: float,
    effective: float,
) -> Estimate:
    """The mean of rows that hold residuals times ``change``, with its cautious error.

    Args:
        rows: (n,). change: (n,) Δw; of a policy's own value w − 1, which is its difference to what was logged.
        residual: (n,) r − q̂ of the logged action.
        cluster: (n,) labels or None. level: of the interval. effective: the sample size to tell.
    """
    value = float(np.mean(rows))
    error = cautious_error(Difference(rows - change * residual, change, residual), cluster)
    return Estimate(value, error, *normal_interval(value, error, level), rows.size, effective)


def _mean(rows: Floats, cluster: ArrayLike | Clusters | None, level: float, effective: float) -> Estimate:
    if rows.size == 0:
        raise ValueError("reward: no rows to estimate from")
    value = float(np.mean(rows))
    error = robust_error(rows - value, clusters(cluster, rows.size))
    low, high = normal_interval(value, error, level)
    return Estimate(value, error, low, high, rows.size, effective)


def _reward_and_weight(reward: ArrayLike, weight: ArrayLike) -> tuple[Floats, Floats]:
    r = _rows("reward", reward, None)
    w = _rows("weight", weight, r.size)
    bad = np.flatnonzero(w < 0.0)
    if bad.size:
        raise ValueError(f"weight: row {int(bad[0])} is {float(w[bad[0]])!r}, must be at least 0")
    if r.size == 0:
        raise ValueError("reward: no rows to estimate from")
    return r, w


def _rows(name: str, values: ArrayLike, n: int | None) -> Floats:
    """float64 (n,) and finite, or a ValueError that names the field, the row and the value."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or (n is not None and rows.size != n):
        raise ValueError(f"{name}: shape {rows.shape}, must be ({'n' if n is None else n},)")
    bad = np.flatnonzero(~np.isfinite(rows))
    if bad.size:
        raise ValueError(f"{name}: row {int(bad[0])} is {float(rows[bad[0]])!r}, must be finite")
    return rows
