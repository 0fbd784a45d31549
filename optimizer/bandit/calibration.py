"""Do predicted chances mean what they say? Logistic recalibration of one head (Cox 1958)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optimizer.bandit.clusters import Clusters, Floats, clusters

#: Predictions are kept this far from 0 and 1, so that one overconfident row can't carry an infinite likelihood.
_MARGIN = 1e-9
_NEWTON_STEPS = 100
#: A slope beyond this is a separable sample on its way to infinity, not a calibration.
_RUNAWAY = 1e3


@dataclass(frozen=True, slots=True)
class Calibration:
    """logit P(y = 1) = logit p + intercept + (slope − 1)·(logit p − mean_logit).

    Attributes:
        slope: 1 for a calibrated head, below 1 for an overconfident one. NaN when the data can't tell.
        intercept: 0 for a calibrated head, above 0 when outcomes happen more often than predicted. Taken at the mean
            logit, where it hardly correlates with the slope; Cox's own, at logit 0, is this + (1 − slope)·mean_logit.
        slope_se: cluster-robust standard error; infinite when the slope is NaN.
        intercept_se: likewise.
        log_likelihood: mean log-likelihood of a row under the predictions as they are, in nats.
        n: rows used.
        events: how many of them happened.
        mean_logit: mean of logit p.
    """

    slope: float
    intercept: float
    slope_se: float
    intercept_se: float
    log_likelihood: float
    n: int
    events: int
    mean_logit: float


def calibration(prob: ArrayLike, outcome: ArrayLike, cluster: ArrayLike | Clusters | None = None) -> Calibration:
    """Fits slope and intercept by Newton's method; errors by the cluster sandwich (Liang & Zeger 1986).

    With outcomes of one kind only nothing can be fitted (NaN, infinite errors); with constant predictions, or outcomes
    that the predictions separate fully, the slope can't be (NaN), and the intercept is fitted with slope 1.

    Args:
        prob: (n,) predicted chances in [0, 1], from a model that did not see the row.
        outcome: (n,) 0 or 1; NaN = not known yet, left out.
        cluster: (n,) integer labels or None.

    Raises:
        ValueError: a chance outside [0, 1], an outcome other than 0, 1 or NaN (row and value named), or no known row.
    """
    p, y, groups = _known(prob, outcome, cluster)
    logit = np.log(p) - np.log1p(-p)
    mean_logit = float(np.mean(logit))
    likelihood = float(np.mean(np.where(y > 0.0, np.log(p), np.log1p(-p))))
    events = int(np.sum(y))
    if events in (0, y.size):
        return Calibration(math.nan, math.nan, math.inf, math.inf, likelihood, y.size, events, mean_logit)
    centred = logit - mean_logit
    fit = None
    if float(np.ptp(centred)) > 1e-6 and not _separable(centred, y):
        fit = _fit(np.column_stack((np.ones(y.size), centred)), logit, y, groups)
    if fit is None:
        alone = _fit(np.ones((y.size, 1)), logit, y, groups)
        shift, shift_error = (math.nan, math.inf) if alone is None else (float(alone[0][0]), float(alone[1][0]))
        return Calibration(math.nan, shift, math.inf, shift_error, likelihood, y.size, events, mean_logit)
    (shift, change), (shift_error, slope_error) = fit[0].tolist(), fit[1].tolist()
    return Calibration(1.0 + change, shift, slope_error, shift_error, likelihood, y.size, events, mean_logit)


def _separable(logit: Floats, y: Floats) -> bool:
    """Whether a threshold of the logit splits the outcomes (ties at it allowed): then the likelihood has no maximum."""
    happened, failed = logit[y > 0.0], logit[y == 0.0]
    return bool(np.min(happened) >= np.max(failed) or np.max(happened) <= np.min(failed))


def _known(
    prob: ArrayLike, outcome: ArrayLike, cluster: ArrayLike | Clusters | None
) -> tuple[Floats, Floats, Clusters]:
    p, y = np.asarray(prob, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"outcome: shape {y.shape}, must be that of prob, {p.shape} = (n,)")
    groups = clusters(cluster, p.size)
    for name, values, bad, allowed in (
        ("prob", p, ~((p >= 0.0) & (p <= 1.0)), "lie in [0, 1]"),
        ("outcome", y, ~(np.isnan(y) | (y == 0.0) | (y == 1.0)), "be 0, 1 or NaN"),
    ):
        if np.any(bad):
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(f"{name}: row {row} is {float(values[row])!r}, must {allowed}")
    known = ~np.isnan(y)
    if not np.any(known):
        raise ValueError("outcome: no row is known")
    return np.clip(p[known], _MARGIN, 1.0 - _MARGIN), y[known], clusters(groups.code[known], int(np.sum(known)))


def _fit(design: Floats, offset: Floats, y: Floats, groups: Clusters) -> tuple[Floats, Floats] | None:
    """Logistic coefficients beside ``offset`` and their robust errors; None when the sample is separable."""
    beta = np.zeros(design.shape[1])
    value = _log_likelihood(offset + design @ beta, y)
    for _ in range(_NEWTON_STEPS):
        fitted = _logistic(offset + design @ beta)
        gradient = design.T @ (y - fitted)
        information = (design * (fitted * (1.0 - fitted))[:, None]).T @ design
        if np.linalg.cond(information) > 1e14:
            return None
        step = np.linalg.solve(information, gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-14 * y.size:
            return beta, _errors(design, y - fitted, information, groups)
        share = 1.0
        while (trial := _log_likelihood(offset + design @ (beta + share * step), y)) < value and share > 1e-8:
            share /= 2.0
        beta, value = beta + share * step, trial
        if float(np.max(np.abs(beta))) > _RUNAWAY:
            return None
    return None


def _errors(design: Floats, residual: Floats, information: Floats, groups: Clusters) -> Floats:
    if groups.count < 2:
        return np.full(design.shape[1], math.inf)
    scores = np.column_stack([groups.sums(design[:, j] * residual) for j in range(design.shape[1])])
    inverse = np.linalg.inv(information)
    variance = inverse @ (scores.T @ scores) @ inverse * (groups.count / (groups.count - 1))
    return np.sqrt(np.diag(variance))


def _log_likelihood(eta: Floats, y: Floats) -> float:
    return float(np.sum(y * eta - np.logaddexp(0.0, eta)))


def _logistic(eta: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * eta))
