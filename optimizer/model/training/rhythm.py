"""Learning the rhythm term: a prior from recipients' tallies, and a scale for each outcome that held-out rows want.

The scale of an outcome is a logistic regression with one weight on top of the fitted heads: η + scale · θ_uᵀτ_u(s). It
is kept when scales that were learned from other recipients make rows clearly more likely; else it is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.funnel import taught
from optimizer.model.rhythm import EFFECT, Floats, RhythmPrior, fit_prior, tallies_of
from optimizer.model.rhythmterm import RhythmTerm, deviations
from optimizer.model.training.evaluate import clustered_z, likelihood
from optimizer.model.training.fits import Fits
from optimizer.model.training.rows import Design, RowSet
from optimizer.model.training.table import Table

#: Recipients whose tallies teach the prior: fewer say nothing of Σ, more cost time and tell little.
FEWEST, MOST = 50, 5_000
#: Rows that scales are learned from: one number an outcome needs no more, and each costs a posterior.
ROWS = 40_000
#: z of the held-out gain that a scale needs.
CLEAR = 2.0
FOLDS = 5
#: Prior precision of a scale (around 0), and the largest: a scale of 1 takes activity for a chance to answer.
_PRECISION, _LARGEST = 4.0, 3.0
_STEPS = 15


def fit_rhythm(table: Table, fits: Fits, *, seed: int) -> RhythmTerm | None:
    """The term for fitted message heads; None where tallies are few or no outcome follows them.

    Args:
        table: the rows. fits: the message heads.
        seed: of the choice of recipients and of the folds.
    """
    examples, layout = table.examples, table.message[1]
    prior = rhythm_prior(examples, seed=seed)
    if prior is None:
        return None
    rows = _told(table.message[0], examples, seed)
    deviation = deviations(prior, [examples.effects[i] for i in rows.rows.tolist()], rows.local[rows.rows])
    cluster = examples.cluster[rows.rows]
    design = Design(layout, rows)
    scales = {}
    for name, fitted in sorted(fits.posteriors.items()):
        eta = design.logits(fitted.mean) + fitted.offset
        column, share = taught(examples, name)
        final = np.where(share == 1.0, column, np.nan)  # one number needs no young rows
        scale = _wanted(eta, deviation, final[rows.rows], cluster, seed)
        if scale > 0.0:
            scales[name] = scale
    return RhythmTerm(prior, scales) if scales else None


def rhythm_prior(examples: Examples, *, seed: int) -> RhythmPrior | None:
    """The prior from each recipient's latest tallies; None where fewer than ``FEWEST`` have any."""
    latest: dict[int, int] = {}
    clusters = examples.cluster.tolist()
    for row in np.argsort(examples.local, kind="stable").tolist() if examples.effects else ():
        if examples.effects[row]:
            latest[clusters[row]] = row
    if len(latest) < FEWEST:
        return None
    rows = np.array([latest[key] for key in sorted(latest)])
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    return fit_prior(tallies_of([examples.effects[row].get(EFFECT, {}) for row in rows.tolist()]))


def _told(rows: RowSet, examples: Examples, seed: int) -> RowSet:
    """The rows whose decisions were told of a rhythm, or ``ROWS`` of them."""
    chosen = np.array([i for i, row in enumerate(rows.rows.tolist()) if examples.effects[row]], dtype=np.int64)
    if len(chosen) > ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, ROWS, replace=False))
    return RowSet(rows.rows[chosen], rows.actions, rows.cell[chosen], rows.context, rows.local)


def _wanted(eta: Floats, deviation: Floats, outcome: Floats, cluster: NDArray[np.int64], seed: int) -> float:
    """The scale, or 0 where the scales of other recipients' rows don't clearly predict better than none."""
    known = np.flatnonzero(np.isfinite(outcome) & (deviation != 0.0))
    eta, deviation, outcome = eta[known], deviation[known], outcome[known]
    distinct, place = np.unique(cluster[known], return_inverse=True)
    if len(distinct) < FEWEST:
        return 0.0
    fold = (np.random.default_rng(seed).permutation(len(distinct)) % FOLDS)[place.reshape(-1)]
    gain = np.empty(len(known))
    for part in range(FOLDS):
        judge = fold == part
        scale = _scale(eta[~judge], deviation[~judge], outcome[~judge])
        final = np.ones(int(judge.sum()))
        with_it = likelihood(eta[judge] + scale * deviation[judge], outcome[judge], final)
        gain[judge] = with_it - likelihood(eta[judge], outcome[judge], final)
    _, z = clustered_z(gain, cluster[known])
    return _scale(eta, deviation, outcome) if z >= CLEAR and gain.sum() > 0 else 0.0


def _scale(eta: Floats, deviation: Floats, outcome: Floats) -> float:
    """The mode of the scale's posterior by Newton's method, within [0, 3]: nobody answers where they are not."""
    scale = 0.0
    for _ in range(_STEPS):
        chance = 0.5 * (1.0 + np.tanh(0.5 * (eta + scale * deviation)))
        slope = float(deviation @ (outcome - chance)) - _PRECISION * scale
        curvature = float(deviation**2 @ (chance * (1.0 - chance))) + _PRECISION
        moved = min(_LARGEST, max(0.0, scale + slope / curvature))
        if abs(moved - scale) < 1e-6:
            break
        scale = moved
    return scale
