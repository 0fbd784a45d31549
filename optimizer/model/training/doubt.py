"""Draws in which prior precisions are in doubt, too.

Empirical Bayes finds one precision λ a group of weights. With evidence worth γ weights λ is known no better than its
posterior tells, nearly Gamma with shape (γ + shape) / 2 and mean λ (MacKay 1992): where only some weights of a group
were ever tried and differ little, the others may differ far more. Draws with one fixed λ deny it, so posterior sampling
keeps to what it has tried, such as two days of the week for as long as outcomes are rare.

So each draw has precisions of its own. To a draw for λ, λ/s² adds (H + Λ)⁻¹ √Λ ε √(s² − 1), H the information of the
rows: where they tell nothing the variance is s²/λ then, as it should be; where they tell much it is what it was. One
factorisation does for all draws.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from optimizer.model.layout import Layout
from optimizer.model.training.cholesky import solved
from optimizer.model.training.options import DEFAULTS
from optimizer.model.training.posterior import FIXED, LOWEST, Posterior, may_rest


def in_doubt(posterior: Posterior, layout: Layout, drawn: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """What precisions of their own add to ``drawn`` deviations from the mean (M, d); seeded, (M, d) float32.

    What a context adds keeps its precision, as what is fixed does: which features matter is not learned by trying. The
    shape is that of the defaults: a refresh doesn't know which one a workspace was tuned to.
    """
    live, group = posterior.live, layout.group[posterior.live]
    # The same noise for the same weights, whatever else was learned: a refreshed bank moves no more than it must.
    generator = np.random.default_rng(seed)
    wider = _wider(posterior, layout, drawn, generator.random((len(drawn), len(layout.groups))))
    noise = generator.standard_normal(drawn.shape)[:, live]
    pushed = noise * np.sqrt(posterior.precision[group]) * wider[:, group]
    out = np.zeros(drawn.shape, np.float32)
    out[:, live] = solved(posterior.factor, np.asfortranarray(pushed.T)).T
    return out


def _wider(
    posterior: Posterior, layout: Layout, drawn: NDArray[np.float32], quantile: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(count, groups) √(s² − 1) of each draw, at these quantiles of the groups' precisions; 0 where a precision is not
    below the group's, and for groups whose precision is not in doubt."""
    groups, precision = len(layout.groups), posterior.precision
    size = np.bincount(layout.group, minlength=groups)
    variance = np.bincount(layout.group, (drawn.astype(np.float64) ** 2).mean(axis=0), groups)
    determined = np.maximum(size - precision * variance, 0.0)
    shape = 0.5 * (determined + DEFAULTS.shape)
    share = gammaincinv(shape, quantile) / shape
    squared = 1.0 / np.maximum(share, LOWEST / np.maximum(precision, LOWEST))
    known = may_rest(layout) | np.array([name in FIXED for name, _ in layout.groups], np.bool_)
    return np.asarray(np.sqrt(np.where(known, 0.0, np.maximum(squared - 1.0, 0.0))))
