"""Ways of choosing a two-hour window for a person and a day, each from past events alone.

A way gives probabilities of the hours of each day, (n, 7, 24); the window chosen is the one with the most of them.
Rivals: the best window of all, a person's own histogram, and that histogram shrunk to everybody's. Ours is the rhythm
of ``optimizer.model.rhythm``, the code the service runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from optimizer.model.rhythm import Floats, RhythmPrior, Tallies, activity, decay, fit_prior, posterior
from optimizer.model.timefeatures import HOURS_OF_DAY, HOURS_OF_WEEK, hour_of_week
from simulations.send_times.logs import Ints

HOUR = 3_600
#: Hours of a window; it starts on any full hour of the day.
WINDOW = 2
#: Half-lives of the past that are tried, in days.
HALF_LIVES = (7.0, 14.0, 28.0, 56.0, 112.0, 224.0, 448.0, inf)
#: Events of everybody's histogram that are added to a person's, as tried.
SHRINKAGES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)


@dataclass(frozen=True)
class Setting:
    """What is chosen by held-out likelihood: how fast the past fades, and how much a histogram is shrunk."""

    half_life_days: float = inf
    shrinkage: float = 0.0


def counts(histories: Sequence[Ints], half_life_days: float = inf) -> Floats:
    """Events by hour of the week, (n, 168), each with the weight that its age at the person's last event leaves."""
    return _binned(histories, [decay(one[-1] - one, half_life_days) for one in histories])


def active_hours(histories: Sequence[Ints], half_life_days: float) -> Floats:
    """Hours with an event by hour of the week, (n, 168), decayed like ``counts``: a burst is one sign of life."""
    hours = [np.unique(one // HOUR) * HOUR for one in histories]
    return _binned(hours, [decay(one[-1] - one, half_life_days) for one in hours])


def _binned(moments: Sequence[Ints], weights: Sequence[Floats]) -> Floats:
    out = np.zeros((len(moments), HOURS_OF_WEEK))
    for row, (at, weight) in enumerate(zip(moments, weights, strict=True)):
        out[row] = np.bincount(hour_of_week(at), weights=weight, minlength=HOURS_OF_WEEK)
    return out


def everybody(population: Floats, people: int) -> Floats:
    """The histogram of all events, for everyone."""
    return _every_day(np.broadcast_to(_daily(population).sum(axis=0), (people, HOURS_OF_DAY)))


def shrunk(population: Floats, own: Floats, shrinkage: float) -> Floats:
    """Histograms of ``own`` counts with ``shrinkage`` events of everybody's added; 0 leaves a person's own.

    By hour of the day: by hour of the week they are too thin to be a rival (20 events over 168 hours).
    """
    share = _daily(population).sum(axis=0)
    return _every_day(_daily(own) + shrinkage * share / share.sum())


def rhythm(prior: RhythmPrior, own: Floats) -> Floats:
    """Ours: the posterior activity of people with these active hours."""
    people = Tallies.of_activity(own)
    return activity(prior, posterior(prior, people))


def rhythm_prior(population: Floats) -> RhythmPrior:
    """Ours: what is learned from everybody's active hours."""
    return fit_prior(Tallies.of_activity(population))


def windows(hours: Floats) -> Ints:
    """The hour at which the best window of each day starts, (n, 7); the earliest of equals."""
    total = sum(np.roll(hours, -step, axis=-1) for step in range(WINDOW))
    return np.asarray(np.argmax(np.round(total, 12), axis=-1))


def hit_rates(chosen: Ints, later: Sequence[Ints]) -> Floats:
    """The share of each person's later events that lie in the window chosen for their day, (n,)."""
    out = np.empty(len(later))
    for row, at in enumerate(later):
        day, hour = np.divmod(hour_of_week(at), HOURS_OF_DAY)
        out[row] = np.mean((hour - chosen[row, day]) % HOURS_OF_DAY < WINDOW)
    return out


def log_likelihoods(hours: Floats, later: Sequence[Ints]) -> Floats:
    """Mean log probability of the hour of each person's later events within their day, (n,)."""
    with np.errstate(divide="ignore"):
        logs = np.log(hours.reshape(len(hours), -1))
    return np.array([logs[row, hour_of_week(at)].mean() for row, at in enumerate(later)])


def _daily(counts: Floats) -> Floats:
    return np.asarray(counts.reshape(len(counts), -1, HOURS_OF_DAY).sum(axis=1))


def _every_day(hours: Floats) -> Floats:
    """Hours (n, 24) as the same probabilities on each of seven days."""
    share = hours / hours.sum(axis=1, keepdims=True)
    return np.repeat(share[:, None, :], HOURS_OF_WEEK // HOURS_OF_DAY, axis=1)
