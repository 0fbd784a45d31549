"""What comes after a look or a click: how much of what tells of those holds for it, too.

Purchases and unsubscribes are rare and weigh much. Learned by themselves they are mostly noise, and by what they are
worth that noise outweighs what is known of clicks. But who buys has mostly clicked before: so the weights of looks and
clicks, times a share each that the rows tell, are the prior means of a later outcome's weights, and what is learned of
it are the differences. (That a frequent, early outcome stands in for a rare, late one: Prentice 1989 on surrogates.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import LOOKED
from optimizer.model.heads import Links
from optimizer.model.training.fits import DRAWS, Fits
from optimizer.model.training.rows import Design
from optimizer.model.training.table import Target

Floats = NDArray[np.float64]

#: Prior precision of a share: it is about a half at most.
SHARE = 4.0
#: Most of Newton's steps for the shares, and the change at which they have arrived.
_STEPS, _ARRIVED = 25, 1e-6
#: So much at least of what is known of a row is taken to come from other rows.
_LEAST_LEFT = 0.1


def earlier(names: Sequence[str]) -> tuple[str, ...]:
    """The outcomes of a message that come first: a look (or an open), and a click."""
    seen = LOOKED if LOOKED in names else "opened"
    return tuple(name for name in (seen, "clicked") if name in names)


def later(names: Sequence[str]) -> tuple[str, ...]:
    """The outcomes that may follow from those; none where nothing comes first."""
    first = {"opened", *earlier(names)}
    return tuple(name for name in names if name not in first) if earlier(names) else ()


def links(design: Design, told: Mapping[str, Target], first: Fits, index: NDArray[np.int64] | None) -> Links:
    """The shares of each later outcome: a logistic regression of it on what earlier heads say of the row.

    Args:
        design: the rows, or some of them. told: targets of all rows. first: the earlier outcomes' posteriors.
        index: which of all rows those of the design are (None = all).
    """
    at = slice(None) if index is None else index
    names = earlier(tuple(told))
    said = np.stack([_said(design, first, name, told[name].outcome[at]) for name in names], axis=1)
    out = {}
    for name in later(tuple(told)):
        shares = _shares(said, told[name].outcome[at], told[name].seen[at])
        out[name] = dict(zip(names, shares.tolist(), strict=True))
    return out


def _said(design: Design, first: Fits, name: str, outcome: Floats) -> Floats:
    """(m,) what a head says of each row, as if it had not learned from that row: a purchase follows from the very
    click that is in it. To first order, with leverages from draws (Pregibon 1981)."""
    posterior = first.posteriors[name]
    eta = posterior.offset + design.logits(posterior.mean)
    variance = np.zeros(design.count)
    for drawn in posterior.draws(DRAWS, 0):
        variance += design.logits(drawn.astype(np.float64)) ** 2 / DRAWS
    chance = 0.5 * (1.0 + np.tanh(0.5 * eta))
    left = np.maximum(1.0 - variance * chance * (1.0 - chance), _LEAST_LEFT)
    return np.where(np.isfinite(outcome), eta - variance / left * (np.nan_to_num(outcome) - chance), eta)


def _shares(said: Floats, outcome: Floats, seen: Floats) -> Floats:
    """(k,) slopes of final outcomes on what k heads say (m, k), beside an intercept; 0 where all outcomes are alike."""
    known = np.isfinite(outcome) & (seen == 1.0)
    y = outcome[known]
    if not 0.0 < y.sum() < y.size:
        return np.zeros(said.shape[1])
    rows = np.column_stack((np.ones(y.size), said[known] - said[known].mean(axis=0)))
    prior = np.array([1e-3] + [SHARE] * said.shape[1])
    rate = (y.sum() + 0.5) / (y.size + 1.0)
    weights = np.zeros(len(prior))
    weights[0] = np.log(rate / (1.0 - rate))
    for _ in range(_STEPS):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (rows @ weights)))
        slope = rows.T @ (y - chance) - prior * weights
        information = (rows * (chance * (1.0 - chance))[:, None]).T @ rows + np.diag(prior)
        step = np.linalg.solve(information, slope)
        weights = weights + step
        if float(np.abs(step).max()) < _ARRIVED:
            break
    return weights[1:]
