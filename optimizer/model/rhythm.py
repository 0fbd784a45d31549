"""A person's own weekly rhythm: at which local hours somebody is active and answers, learned as deviations from all.

The log rate of person u at hour h of the week is m(h) + θ_uᵀτ_u(h) + a constant: m is the population's curve, τ_u are
13 Fourier features of the week, θ_u ~ N(0, Σ). Σ is learned from everyone (empirical Bayes), so it knows which shapes
occur: early risers, lunch hours, other weekends. Given a total, counts by hour are multinomial (McCullagh & Nelder
1989, 6.4), hence a constant per person needs no estimate. A person's state is decayed counts by hour, nothing more.

Two kinds of evidence share θ_u, each with a population curve of its own:

* ``active``: hours in which the person did something unprompted. Every hour of the week could have been one.
* ``answered`` of ``sent``: messages by the hour they went out. Hours at which more was sent don't look better for it:
  the sends are the exposure, so that a policy can't confirm itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from optimizer.model.timefeatures import DAY, HOURS_OF_WEEK, TIME_NAMES, WEEKEND, harmonics
from storage.rhythm import RHYTHM_KINDS

Floats = NDArray[np.float64]

#: The name of the tallies among a decision's effects.
EFFECT = "rhythm"
#: How many features τ_u has: four daily harmonics, the weekend, and the weekend times the first two of them.
WIDTH = 13
HOUR = 3_600
_DAYS = 7
#: Monday 1970-01-05 00:00, in local seconds: hour 0 of the week.
_MONDAY = 4 * DAY
_DAILY = tuple(TIME_NAMES.index(f"day{k}_{part}") for k in (1, 2, 3, 4) for part in ("cos", "sin"))
#: Prior precision of a coefficient of a population curve; with hundreds of events it is as good as none.
_RIDGE = 1.0
#: Prior of Σ: inverse Wishart with this many people of this variance. It only keeps Σ regular where there are few.
_PEOPLE, _VARIANCE = 5.0, 0.05
_ROUNDS = 20
#: Most Newton steps from scratch, and from the modes of the round before.
_STEPS, _WARM_STEPS = 12, 2
#: Steps are over when none moved a log rate by more than this: the error is about its square.
_CONVERGED = 1e-3
#: No Newton step moves a log rate by more than this: from far away a full step overshoots.
_LARGEST = 2.0


def rhythm_features(local: NDArray[np.int64]) -> Floats:
    """τ_u at local seconds (n,): (n, 13). Each averages to 0 over the week."""
    columns = harmonics(local)
    weekend = columns[:, WEEKEND, None]
    return np.hstack((columns[:, _DAILY], weekend, columns[:, _DAILY[:4]] * weekend))


def _centres() -> NDArray[np.int64]:
    """The middle of every hour of the week, as local seconds."""
    return _MONDAY + HOUR * np.arange(HOURS_OF_WEEK, dtype=np.int64) + HOUR // 2


def _pairs(features: Floats) -> Floats:
    """Products of every two features, (m, d²), of features (m, d)."""
    return (features[:, :, None] * features[:, None, :]).reshape(len(features), -1)


#: τ_u in the middle of every hour of the week, (168, 13), and its products.
FEATURES = rhythm_features(_centres())
_PAIRS = _pairs(FEATURES)


@dataclass(frozen=True)
class Tallies:
    """Decayed counts of n people by local hour of the week, each (n, 168), hour 0 = Monday 00:00.

    Attributes:
        active: hours with something unprompted. answered, sent: messages, by the hour at which they went out.
    """

    active: Floats
    answered: Floats
    sent: Floats

    @classmethod
    def of_activity(cls, active: Floats) -> Tallies:
        """Tallies of people who were sent nothing."""
        return cls(active, np.zeros_like(active), np.zeros_like(active))

    def __post_init__(self) -> None:
        shape = (len(self.active), HOURS_OF_WEEK)
        for name in ("active", "answered", "sent"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, must be {shape}")

    def __len__(self) -> int:
        return len(self.active)

    def kinds(self) -> Iterator[tuple[Floats, Floats]]:
        """Counts and log exposure of each kind of evidence, (n, 168) each; −inf where nothing could be counted.

        Answers to messages that were never tallied say nothing, and are left out.
        """
        yield self.active, np.zeros_like(self.active)
        exposed = self.sent > 0
        exposure = np.log(self.sent, out=np.full_like(self.sent, -np.inf), where=exposed)
        yield np.where(exposed, self.answered, 0.0), exposure


#: What a decision was told of one person: by kind, pairs of an hour of the week and a count.
Told = Mapping[str, Sequence[Sequence[float]]]


def tallies_of(told: Sequence[Told]) -> Tallies:
    """Tallies of n people as decisions were told of them."""
    pairs = [one.get(kind, ()) for kind in RHYTHM_KINDS for one in told]
    hours, counts = np.fromiter(chain.from_iterable(chain.from_iterable(pairs)), np.float64).reshape(-1, 2).T
    out = np.zeros((len(pairs), HOURS_OF_WEEK))
    out[np.repeat(np.arange(len(pairs)), [*map(len, pairs)]), hours.astype(np.int64)] = counts
    by_kind = out.reshape(len(RHYTHM_KINDS), len(told), HOURS_OF_WEEK)
    return Tallies(**dict(zip(RHYTHM_KINDS, by_kind, strict=True)))


@dataclass(frozen=True)
class RhythmPrior:
    """What is known of a person nobody has seen yet.

    Attributes:
        curves: (2, 168) log rates of the population by hour of the week, up to a constant: activity, answers.
        covariance: (13, 13) Σ.
    """

    curves: Floats
    covariance: Floats

    def __post_init__(self) -> None:
        for name, shape in (("curves", (2, HOURS_OF_WEEK)), ("covariance", (WIDTH, WIDTH))):
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite with shape {shape}, has {value.shape}")

    @cached_property
    def precision(self) -> Floats:
        """Σ⁻¹, (13, 13)."""
        return np.asarray(np.linalg.inv(self.covariance))


@dataclass(frozen=True)
class Rhythms:
    """Laplace posteriors of n people: ``mode`` (n, 13) and ``precision`` (n, 13, 13) of θ_u."""

    mode: Floats
    precision: Floats

    @cached_property
    def covariance(self) -> Floats:
        """The inverse of ``precision``, which most don't ask for."""
        return np.asarray(np.linalg.inv(self.precision))


def decay(age: NDArray[np.int64] | NDArray[np.float64], half_life_days: float) -> Floats:
    """Weights 2^(−age / half-life) of ages in seconds; an infinite half-life forgets nothing."""
    return np.asarray(np.exp2(-np.asarray(age, dtype=np.float64) / (half_life_days * DAY)))


def fit_prior(people: Tallies) -> RhythmPrior:
    """The population's curves and Σ, by EM with Laplace posteriors.

    Args:
        people: everyone's tallies. With none, the curves are flat and Σ is the prior of Σ.
    """
    curves = np.stack([_curve(counts.sum(axis=0), exposure) for counts, exposure in people.kinds()])
    covariance = 0.3 * np.eye(WIDTH)
    mode: Floats | None = None
    for _ in range(_ROUNDS if len(people) else 0):
        steps = _STEPS if mode is None else _WARM_STEPS
        fitted = posterior(RhythmPrior(curves, covariance), people, start=mode, steps=steps)
        # the curves are those of the average person, not of all events: few people make most of the events
        centre = fitted.mode.sum(axis=0) / (len(people) + 1.0)
        curves = curves + FEATURES @ centre
        mode = fitted.mode - centre
        spread = mode.T @ mode + fitted.covariance.sum(axis=0)
        covariance = (spread + _PEOPLE * _VARIANCE * np.eye(WIDTH)) / (len(people) + _PEOPLE)
    return RhythmPrior(curves, covariance)


def posterior(prior: RhythmPrior, people: Tallies, *, start: Floats | None = None, steps: int = _STEPS) -> Rhythms:
    """Posteriors of everyone's θ_u, each by Newton's method on its own concave log posterior.

    Args:
        prior: of the population. people: n people's tallies.
        start: (n, 13) modes to start from (default the prior's, 0).
        steps: most Newton steps.
    """
    precision = prior.precision
    mode = np.zeros((len(people), WIDTH)) if start is None else start
    evidence = [
        (counts, exposure + curve)
        for (counts, exposure), curve in zip(people.kinds(), prior.curves, strict=True)
        if counts.any()
    ]
    hessian = np.broadcast_to(precision, (len(people), WIDTH, WIDTH))
    for _ in range(steps if evidence else 0):
        gradient, hessian = -mode @ precision, np.broadcast_to(precision, (len(people), WIDTH, WIDTH))
        for counts, base in evidence:
            slope, curvature = _derivatives(counts, base, mode, FEATURES, _PAIRS)
            gradient, hessian = gradient + slope, hessian + curvature
        change = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        moved = np.abs(change @ FEATURES.T).max(axis=1, keepdims=True)
        mode = mode + change * np.minimum(1.0, _LARGEST / np.maximum(moved, _LARGEST))
        if moved.max(initial=0.0) < _CONVERGED:
            break
    return Rhythms(mode, np.asarray(hessian))


def activity(prior: RhythmPrior, people: Rhythms) -> Floats:
    """Where in each day the next activity lies: (n, 7, 24) probabilities that sum to 1 over the hours of a day.

    The average over the posterior by spherical cubature (Arasaratnam & Haykin 2009: 2·13 points, exact to the third
    degree), not the curve at the mode: what is uncertain is flatter.
    """
    reach = np.linalg.cholesky(people.covariance) * np.sqrt(WIDTH)
    total = np.zeros((len(people.mode), _DAYS, HOURS_OF_WEEK // _DAYS))
    for axis in range(WIDTH):
        for sign in (1.0, -1.0):
            rates = prior.curves[0] + (people.mode + sign * reach[:, :, axis]) @ FEATURES.T
            total += _shares(rates.reshape(total.shape))
    return total / (2 * WIDTH)


def _curve(counts: Floats, exposure: Floats) -> Floats:
    """A smooth log rate (168,) of all people's counts (168,) under their exposures (n, 168)."""
    if not counts.any():
        return np.zeros(HOURS_OF_WEEK)
    with np.errstate(divide="ignore"):
        base = np.log(np.exp(exposure).sum(axis=0))
    features = _population_features()
    pairs = _pairs(features)
    weights = np.zeros((1, features.shape[1]))
    ridge = _RIDGE * np.eye(features.shape[1])
    for _ in range(30):
        slope, curvature = _derivatives(counts[None], base[None], weights, features, pairs)
        change = np.linalg.solve(curvature[0] + ridge, slope[0] - ridge @ weights[0])
        moved = float(np.abs(features @ change).max())
        weights = weights + change * min(1.0, _LARGEST / max(moved, _LARGEST))
        if moved < _CONVERGED:
            break
    return np.asarray(features @ weights[0])


def _population_features() -> Floats:
    """Features of a population's curve, (168, 31): eight daily harmonics, four for the weekend, and the days.

    It can be finer than a person's: it is learned from all.
    """
    hour = np.arange(HOURS_OF_WEEK)
    angle = 2.0 * np.pi * ((hour % 24 + 0.5) / 24.0)[:, None] * np.arange(1, 9)
    daily = np.hstack((np.cos(angle), np.sin(angle)))
    weekend = FEATURES[:, [8]]
    return np.hstack((daily, daily[:, [0, 1, 2, 3, 8, 9, 10, 11]] * weekend, np.eye(_DAYS)[hour // 24]))


def _derivatives(
    counts: Floats, base: Floats, weights: Floats, features: Floats, pairs: Floats
) -> tuple[Floats, Floats]:
    """Gradient (n, d) and negative Hessian (n, d, d) of n multinomials with logits base + weights·featuresᵀ."""
    total = counts.sum(axis=1)
    base = np.where(total[:, None] > 0, base, 0.0)  # who has counted nothing may have been exposed to nothing
    share = _shares(base + weights @ features.T)
    mean = share @ features
    gradient = counts @ features - total[:, None] * mean
    second = (share @ pairs).reshape(len(counts), features.shape[1], features.shape[1])
    return gradient, total[:, None, None] * (second - mean[:, :, None] * mean[:, None, :])


def _shares(rates: Floats) -> Floats:
    """Softmax over the last axis."""
    out = np.exp(rates - rates.max(axis=-1, keepdims=True))
    return np.asarray(out / out.sum(axis=-1, keepdims=True))
