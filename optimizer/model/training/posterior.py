"""Bayesian logistic regression: Newton steps, prior precisions by empirical Bayes, a Laplace posterior.

The prior is Gaussian with one precision λ a block. For a quadratic approximation of the likelihood the fixed point
λ ← (γ + shape) / (‖w‖² + rate), γ = d − λ·tr Σ (MacKay 1992, with a weak Gamma prior on λ) is iterated a few times
per Newton step: it costs a factorisation and no pass over the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.model.layout import Layout
from optimizer.model.training.cholesky import (
    Floats,
    factored,
    posterior_factor,
    solved,
    spread,
    variances,
    with_prior,
)
from optimizer.model.training.newton import Likelihood, Point
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.rows import Design
from optimizer.model.training.settled import SettledHead

LOWEST = 2.0
#: The precision of a group that has proved idle: its weights are 0 and stay so until precisions are learned anew.
IDLE = 1e6
#: A group is idle once its precision is this near to the largest that the hyperprior allows, shape / rate.
NEARLY = 0.9
#: Over so many live weights, variances are estimated from so many draws.
WIDE, PROBES = 500, 64
#: A fit begins with so many weights at most: beyond them groups of context rest that tell least (``_screened``).
AT_ONCE = 5_000
#: Moves of the precisions in a Newton step; and the share of weights left at which matrices are cut down.
ROUNDS, PRUNE = 4, 0.8
#: Blocks whose precision stays as given: the intercept must go where the base rate is.
FIXED = frozenset({"one*one"})
#: Newton's decrement (nats) and the change of log λ under which a fit has converged.
_DECREMENT = 1e-3
_MOVED = 0.4


@dataclass(frozen=True)
class Posterior:
    """A head's posterior.

    Attributes:
        mean: (d,) the mode. precision: (groups,) prior precisions.
        live: the weights that aren't idle; factor: lower Cholesky factor of their posterior precision.
        offset: prior mean of the intercept, added to every η.
        rows: rows with a known outcome; positives: those where it happened.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    live: NDArray[np.int64]
    factor: Floats
    offset: float
    rows: int
    positives: int

    def draws(self, count: int, seed: int) -> NDArray[np.float32]:
        """Seeded draws of the deviation from the mean: (count, d) float32."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((self.mean.shape[0], count), generator=generator, dtype=torch.float64)[self.live]
        out = np.zeros((count, self.mean.shape[0]), dtype=np.float32)
        out[:, self.live] = spread(self.factor, noise.numpy()).T
        return out


def base_offset(outcome: NDArray[np.float64], seen: NDArray[np.float64]) -> float:
    """Log odds of the base rate (k + ½) / (n + 1), n the sum of the seen shares (n,) of known outcomes (n,).

    k / n is unbiased, since p·G of each row is seen; it is kept below the rate of one missing row.
    """
    known = np.isfinite(outcome)
    rows = float(np.count_nonzero(known))
    rate = min((outcome[known].sum() + 0.5) / (seen[known].sum() + 1.0), (rows + 0.5) / (rows + 1.0))
    return float(np.log(rate / (1.0 - rate)))


def fit_posterior(
    design: Design,
    outcome: NDArray[np.float64],
    offset: float,
    *,
    seen: NDArray[np.float64] | None = None,
    centre: NDArray[np.float64] | None = None,
    mean: NDArray[np.float64] | None = None,
    precision: NDArray[np.float64] | None = None,
    steps: int = 8,
    empirical: bool = True,
    asked: frozenset[str] = frozenset(),
    options: TrainOptions = DEFAULTS,
    differences: bool = False,
    linked: bool = False,
    settled: SettledHead | None = None,
    fixed_groups: frozenset[str] = FIXED,
) -> Posterior:
    """Fits one head to the outcomes (m,) of a design's rows; NaN = unknown.

    Args:
        design: the rows. offset: see ``base_offset``.
        seen: (m,) the share of happenings that would be seen by now (default 1); see ``rowterms``.
        centre: (d,) prior mean of the weights (default 0).
        mean: (d,) where to start (default the centre).
        precision: (groups,) prior precisions to start with (default the layout's).
        steps: most passes over the rows.
        empirical: whether the precisions are learned, or stay as given.
        asked: groups that never rest, since a test of their own has found them: many small weights may tell much
            together, while each alone is as small as what a group of noise has.
        options: the prior on the precisions.
        differences: whether the weights are differences from what was before a change.
        linked: whether they are differences from heads that are in doubt themselves: all but the intercept may rest.
        settled: what earlier rows say beside the design's; its precisions are those to start with.
        fixed_groups: groups whose precision stays as given.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1")
    layout = design.layout
    told = int(np.count_nonzero(np.isfinite(outcome))) + (0 if settled is None else settled.rows)
    hyper = options.of_differences() if differences or linked else options.at(told)
    learned = hyper if empirical else None
    middle = np.zeros(layout.size) if centre is None else centre
    weights = np.zeros(layout.size) if mean is None else mean - middle
    fixed = np.full(design.count, offset) if centre is None else offset + design.logits(centre)
    groups = np.array([start for _, start in layout.groups]) if precision is None else precision.copy()
    awake = np.array([name in asked for name, _ in layout.groups], np.bool_)
    still = np.array([name in fixed_groups for name, _ in layout.groups], np.bool_)
    rests = np.array([linked and name not in FIXED for name, _ in layout.groups], np.bool_) | may_rest(layout)
    if precision is None and layout.size > AT_ONCE:
        groups = _screened(design, outcome, fixed, seen, groups, awake)
    weights = np.where(groups[layout.group] < IDLE, weights, 0.0)
    search = _Search(Likelihood(design, outcome, fixed, seen, settled, middle), layout, awake, still, rests)
    fitted = search.fitted(weights, groups, steps, learned)
    if fitted is None:  # the way there was too far for whole steps: once more, from near the mode
        near = search.likelihood.approached(weights, _quick(layout, groups), groups[layout.group])
        fitted = search.fitted(near, groups, steps, learned) or search.step(near, groups, None)[1]
    known = outcome[np.isfinite(outcome)]
    rows, positives = len(known), int(known.sum())
    if settled is not None:
        rows, positives = rows + settled.rows, positives + settled.positives
    return Posterior(fitted.mean + middle, fitted.precision, fitted.live, fitted.factor, offset, rows, positives)


def _screened(
    design: Design,
    outcome: NDArray[np.float64],
    offset: NDArray[np.float64],
    seen: NDArray[np.float64] | None,
    precision: NDArray[np.float64],
    awake: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """The precisions (groups,) with ``IDLE`` for what a fit of ``AT_ONCE`` weights has no room for.

    Of the groups that may rest those stay that a score test finds to tell most beside all that can't (that screening by
    one thing at a time keeps what matters: Fan & Lv 2008).
    """
    layout = design.layout
    stays = ~may_rest(layout) | awake
    quick = np.flatnonzero(stays[layout.group])
    weights = np.zeros(layout.size)
    _, gradient, information = design.derivatives(weights, outcome, offset, seen, quick)
    weights[quick] = solved(_factor(information, precision[layout.group[quick]], rough=False), gradient)
    slope, curvature = design.slopes(weights, outcome, offset, seen)
    order = np.argsort(np.where(stays, -np.inf, -score(layout, slope, curvature, precision)), kind="stable")
    beyond = order[np.cumsum(np.bincount(layout.group, minlength=len(order))[order]) > AT_ONCE]
    screened = precision.copy()
    screened[beyond[~stays[beyond]]] = IDLE
    return screened


def score(
    layout: Layout, slope: NDArray[np.float64], information: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(groups,) how surely the weights of a group that are 0 tell something, in standard deviations: Σ g²/h over its m
    weights, g the gradient and h the information (d,) there, has mean m and variance 2m where they don't (Rao 1948).
    The prior's ``precision`` (groups,) is added to h: what hardly ever occurs would stand out by chance."""
    count = len(layout.groups)
    size = np.bincount(layout.group, minlength=count)
    told = np.bincount(layout.group, slope**2 / (information + precision[layout.group]), count)
    return np.asarray((told - size) / np.sqrt(2.0 * size))


def may_rest(layout: Layout) -> NDArray[np.bool_]:
    """(groups,) whether a group may become idle: what a context adds."""
    return np.array([":" in name for name, _ in layout.groups], np.bool_)


def _quick(layout: Layout, precision: NDArray[np.float64]) -> NDArray[np.int64]:
    """The weights that aren't idle."""
    return np.flatnonzero(precision[layout.group] < IDLE)


@dataclass(frozen=True)
class _Search:
    """Steps to a head's mode, its precisions learned on the way; see ``_moved_precisions`` for the masks of groups."""

    likelihood: Likelihood
    layout: Layout
    awake: NDArray[np.bool_]
    still: NDArray[np.bool_]
    rests: NDArray[np.bool_]

    def fitted(
        self, weights: NDArray[np.float64], groups: NDArray[np.float64], steps: int, learned: TrainOptions | None
    ) -> _Quadratic | None:
        """What so many steps at most come to; None where one of them went astray."""
        last: Point | None = None
        for _ in range(steps):
            here, found = self.step(weights, groups, learned)
            if last is not None and last.astray(weights, here.likelihood):
                return None
            change = (found.mean - weights)[here.quick]
            decrement = float(change @ (here.gradient - (groups[self.layout.group] * weights)[here.quick]))
            moved = float(np.abs(np.log(found.precision / groups)).max())
            last, weights, groups = here, found.mean, found.precision
            if abs(decrement) < _DECREMENT and moved < _MOVED:
                return found
        astray = last is not None and last.astray(weights, self.likelihood.value(weights, last.quick))
        return None if astray else found

    def step(
        self, weights: NDArray[np.float64], groups: NDArray[np.float64], learned: TrainOptions | None
    ) -> tuple[Point, _Quadratic]:
        """One step of Newton's, and where it began; ``learned`` is the prior on the precisions (None = they stay)."""
        here = self.likelihood.at(weights, _quick(self.layout, groups))
        free = here.gradient + here.information @ weights[here.quick]
        masks = (self.awake, self.still, self.rests)
        return here, _quadratic(self.layout, here.quick, here.information, free, groups, *masks, learned)


@dataclass(frozen=True)
class _Quadratic:
    """Mode (d,) and precisions (groups,) of a quadratic; the Cholesky factor is over the ``live`` weights alone."""

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    live: NDArray[np.int64]
    factor: Floats


def _quadratic(
    layout: Layout,
    known: NDArray[np.int64],
    hessian: NDArray[np.float64],
    linear: NDArray[np.float64],
    precision: NDArray[np.float64],
    awake: NDArray[np.bool_],
    still: NDArray[np.bool_],
    rests: NDArray[np.bool_],
    options: TrainOptions | None,
) -> _Quadratic:
    """Mode of ½wᵀHw − linearᵀw + ½Σλw² with λ moved to its fixed point on the way (None = it stays as it is); the
    factor fits the returned λ. H and linear are of the ``known`` weights (sorted): all that aren't idle, at least.

    Weights of groups that have proved idle are held at 0: that makes matrices of hundreds out of matrices of thousands.
    """
    groups = precision.copy()
    rounds = 0 if options is None else ROUNDS
    live = _live(layout, groups, known)
    matrix, target = _part(hessian, linear, known, live)
    for turn in range(rounds + 1):
        factor = _factor(matrix, groups[layout.group[live]], rough=turn < rounds)
        mean = np.zeros(layout.size)
        mean[live] = solved(factor, target)
        if options is None or turn == rounds:
            break
        groups = _moved_precisions(layout, mean, _variances(layout, live, factor), groups, awake, still, rests, options)
        kept = _live(layout, groups, known)
        if len(kept) < PRUNE * len(live) or (turn == rounds - 1 and len(kept) < len(live)):
            live = kept
            matrix, target = _part(hessian, linear, known, live)
    return _Quadratic(mean, groups, live, factor)


def _factor(matrix: NDArray[np.float64], prior: NDArray[np.float64], *, rough: bool) -> Floats:
    """Lower Cholesky factor of ``matrix`` (d, d) with ``prior`` (d,) on its diagonal.

    ``rough``: precisions are moved by it, and nothing else. Where many weights are live it is in single precision then,
    if that comes to an end: the first round, over all weights, is half of a fit.
    """
    if rough and len(matrix) > WIDE:
        factor = factored(with_prior(matrix.astype(np.float32), prior))
        if factor is not None:
            return factor
    return posterior_factor(matrix, prior)


def _live(layout: Layout, precision: NDArray[np.float64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the ``known`` weights whose group is not idle."""
    return known[precision[layout.group[known]] < IDLE]


def _part(
    hessian: NDArray[np.float64], linear: NDArray[np.float64], known: NDArray[np.int64], live: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the quadratic over the ``known`` weights says of the ``live`` ones among them; both sorted."""
    if len(live) == len(known):
        return hessian, linear
    at = np.searchsorted(known, live)
    return hessian[np.ix_(at, at)], linear[at]


def _variances(layout: Layout, live: NDArray[np.int64], factor: Floats) -> NDArray[np.float64]:
    """(d,) diagonal of (L Lᵀ)⁻¹; 0 for idle weights, where nobody reads it.

    Where many weights are live it is the mean square of ``PROBES`` draws L⁻ᵀε: precisions need its sums over groups
    alone, and the inverse costs three times the factorisation.
    """
    out = np.zeros(layout.size)
    if len(live) > WIDE:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn((len(live), PROBES), generator=generator, dtype=torch.float64).numpy()
        out[live] = (spread(factor, noise) ** 2).mean(axis=1)
    else:
        out[live] = variances(factor)
    return out


def _moved_precisions(
    layout: Layout,
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    precision: NDArray[np.float64],
    awake: NDArray[np.bool_],
    still: NDArray[np.bool_],
    rests: NDArray[np.bool_],
    options: TrainOptions,
) -> NDArray[np.float64]:
    """λ ← (γ + shape) / (‖w‖² + rate) of every group; an idle one stays idle, one of ``rests`` may become it unless
    it is of ``awake``, one of ``still`` stays as it is.

    As a rule only what the context adds may become idle. What actions differ in by themselves stays in doubt however
    little is known: with draws that are all alike, posterior sampling would take one and the same action for ever.
    """
    count = len(layout.groups)
    size = np.bincount(layout.group, minlength=count)
    determined = np.maximum(size - precision * np.bincount(layout.group, variance, count), 0.0)
    moved = (determined + options.shape) / (np.bincount(layout.group, mean**2, count) + options.rate)
    moved = np.where(awake, np.minimum(moved, options.shape / options.rate), moved)
    idle = rests & ~awake & (moved > NEARLY * options.shape / options.rate)
    moved = np.where(idle, IDLE, moved.clip(LOWEST, None))
    return np.where(still | (precision >= IDLE), precision, moved)
