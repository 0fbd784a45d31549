"""The contest on one log: settings chosen within the first halves, then everything once on the second halves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from optimizer.model.rhythm import Floats
from optimizer.model.timefeatures import DAY
from optimizer.service.rhythms import HALF_LIFE_DAYS
from simulations.send_times import ways
from simulations.send_times.logs import Histories, Ints
from simulations.send_times.ways import HALF_LIVES, SHRINKAGES, Setting

#: Parts of the people for the question about strangers: those of a part meet a prior learned from the others.
FOLDS = 10
#: Events of a new recipient's history, and those after it that are to be hit.
HISTORY, AFTER = 10, 10
#: Share of everybody's histogram in a histogram whose likelihood is taken, so that no hour is impossible.
_LEAST = 1e-3

GLOBAL, OWN, SHRUNK, RECENT = "global best", "own histogram", "shrunk", "shrunk, decayed"
#: Ours with the half-life that the service has, and with one that is chosen for the log as rivals' settings are.
OURS, CHOSEN = "rhythm", "rhythm, chosen"


@dataclass(frozen=True)
class Result:
    """One way on one log: hit rates (n,) and log-likelihoods (n,) by person, and its setting."""

    setting: Setting | None
    hits: Floats
    likelihood: Floats


@dataclass(frozen=True)
class Contest:
    """What happened on one log.

    Attributes:
        name: of the log. people, events: how many, and how many events of second halves.
        results: by way, settings chosen from first halves and judged on second halves.
        kept_up: by way, hit rates (n,) on the second halves when each day's choice knows everything before that day, of
            the person; what is learned of people in general, and settings, are from the first halves.
        hindsight: the best hit rate on the second halves that any tried shrinkage would have had: (n,) by person.
        stranger: by way, hit rates (n,) on the ten events after a new recipient's first ten.
        tried: held-out log-likelihood within the first halves, by way and setting.
    """

    name: str
    people: int
    events: int
    results: Mapping[str, Result]
    kept_up: Mapping[str, Floats]
    hindsight: Floats
    stranger: Mapping[str, Floats]
    tried: Mapping[str, Sequence[tuple[Setting, float]]]


#: Predictions (n, 7, 24) for some people from their past, given everybody's past.
Predict = Callable[[Sequence[Ints], Sequence[Ints], Setting], Floats]


def compare(log: Histories) -> Contest:
    """The whole contest on one log."""
    tried = {name: _held_out(log.earlier(), predict, _grid(name)) for name, predict in _TUNED.items()}
    settings = {name: max(scores, key=lambda one: one[1])[0] for name, scores in tried.items()}
    settings[OURS] = Setting(HALF_LIFE_DAYS)
    results = {}
    for name, predict in _WAYS.items():
        setting = settings.get(name)
        hours = predict(log.first, log.first, setting or Setting())
        likelihood = ways.log_likelihoods(_possible(hours, log.first), log.second)
        results[name] = Result(setting, ways.hit_rates(ways.windows(hours), log.second), likelihood)
    rivals = [
        ways.hit_rates(ways.windows(_shrunk(log.first, log.first, Setting(inf, k))), log.second) for k in SHRINKAGES
    ]
    return Contest(
        log.name,
        len(log),
        sum(len(one) for one in log.second),
        results,
        _kept_up(log, settings),
        max(rivals, key=lambda hits: float(hits.mean())),
        _strangers(log, settings),
        tried,
    )


def _held_out(log: Histories, predict: Predict, grid: Sequence[Setting]) -> list[tuple[Setting, float]]:
    """Mean log-likelihood of each setting on the second halves of ``log``."""
    out = []
    for setting in grid:
        hours = _possible(predict(log.first, log.first, setting), log.first)
        out.append((setting, float(ways.log_likelihoods(hours, log.second).mean())))
    return out


def _possible(hours: Floats, population: Sequence[Ints]) -> Floats:
    """Probabilities with a pinch of everybody's and of chance mixed in, so that what never happened can."""
    everyone = ways.everybody(ways.counts(population), len(hours))
    return np.asarray((1.0 - 2.0 * _LEAST) * hours + _LEAST * everyone + _LEAST / hours.shape[-1])


def _kept_up(log: Histories, settings: Mapping[str, Setting]) -> dict[str, Floats]:
    """Hit rates (n,) by way, each day's window chosen from all that the person did before that day."""
    owner, past, day = _days(log)
    events = np.array([len(one) for one in day], dtype=np.float64)
    out = {}
    for name, predict in _WAYS.items():
        hours = predict(log.first, past, settings.get(name) or Setting())
        hits = np.bincount(owner, weights=events * ways.hit_rates(ways.windows(hours), day))
        out[name] = hits / np.bincount(owner, weights=events)
    return out


def _days(log: Histories) -> tuple[Ints, list[Ints], list[Ints]]:
    """For every day of every second half: whose it is, everything before it, and that day's events."""
    owner, past, day = [], [], []
    for person, (first, second) in enumerate(zip(log.first, log.second, strict=True)):
        whole = np.concatenate((first, second))
        for number in np.unique(second // DAY).tolist():
            start = int(np.searchsorted(whole, number * DAY))
            owner.append(person)
            # a day that the middle cuts belongs to both halves: its first events are known
            past.append(whole[: max(start, len(first))])
            day.append(second[second // DAY == number])
    return np.array(owner, dtype=np.int64), past, day


def _strangers(log: Histories, settings: Mapping[str, Setting]) -> dict[str, Floats]:
    """People whom nobody has met: ten events are known of them, and all else is learned from others' first halves."""
    whole = [np.concatenate(halves) for halves in zip(log.first, log.second, strict=True)]
    known = [one[:HISTORY] for one in whole]
    later = [one[HISTORY : HISTORY + AFTER] for one in whole]
    folds = min(FOLDS, len(log))
    fold = np.random.default_rng(0).permutation(len(log)) % folds
    out = {name: np.empty(len(log)) for name in _WAYS}
    for part in range(folds):
        inside = np.flatnonzero(fold == part).tolist()
        others = [log.first[i] for i in np.flatnonzero(fold != part).tolist()]
        for name, predict in _WAYS.items():
            hours = predict(others, [known[i] for i in inside], settings.get(name) or Setting())
            out[name][inside] = ways.hit_rates(ways.windows(hours), [later[i] for i in inside])
    return out


def _global(population: Sequence[Ints], people: Sequence[Ints], setting: Setting) -> Floats:
    del setting
    return ways.everybody(ways.counts(population), len(people))


def _shrunk(population: Sequence[Ints], people: Sequence[Ints], setting: Setting) -> Floats:
    half_life = setting.half_life_days
    return ways.shrunk(ways.counts(population, half_life), ways.counts(people, half_life), setting.shrinkage)


def _rhythm(population: Sequence[Ints], people: Sequence[Ints], setting: Setting) -> Floats:
    half_life = setting.half_life_days
    prior = ways.rhythm_prior(ways.active_hours(population, half_life))
    return ways.rhythm(prior, ways.active_hours(people, half_life))


_TUNED: dict[str, Predict] = {SHRUNK: _shrunk, RECENT: _shrunk, CHOSEN: _rhythm}
_WAYS: dict[str, Predict] = {GLOBAL: _global, OWN: _shrunk, **_TUNED, OURS: _rhythm}


def _grid(name: str) -> list[Setting]:
    if name == CHOSEN:
        return [Setting(half_life) for half_life in HALF_LIVES]
    half_lives = (inf,) if name == SHRUNK else HALF_LIVES
    return [Setting(half_life, shrinkage) for half_life in half_lives for shrinkage in SHRINKAGES]
