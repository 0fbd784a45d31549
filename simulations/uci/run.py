"""One run of a policy on one order of a set, and the tuning of a rival on orders that no comparison uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.exploration import sample
from optimizer.model.adf import Action, AdfModel
from optimizer.model.kway import distribution
from optimizer.model.tokens import tokens
from optimizer.model.training.adf import AdfRow
from optimizer.model.training.kway import KwayLearner, KwayOptions
from optimizer.model.training.plain import LoopTrainer
from optimizer.service.personalizer.choosing import distribution as distribution_of_loop
from optimizer.service.personalizer.loop import Loop
from simulations.baselines import tuned as tunings
from simulations.baselines.grids import search
from simulations.uci.data import Classification, load
from simulations.uci.rivals import changed, named, play

Floats = NDArray[np.float64]

OURS = "sendtide"
#: What serves callers of Personalizer's API, at a loop's defaults: at most a fifth is explored.
LOOP = "loop"
#: Policies that are no rivals, so that nobody tunes them.
OWN = (OURS, LOOP)
#: Rounds between two updates of our model: as many as a tenth of what was seen, at most this many.
BLOCK = 20
#: The same of a loop, whose linear model takes seconds to fit.
LOOP_BLOCK = 100
#: Orders that rivals are tuned on are numbered from here, the compared ones from 1.
TUNING_SEEDS = 1_000
#: Parts of a run whose errors are kept.
PARTS = 50
PATH = Path(__file__).with_name("tuned.json")
_ORDER, _DRAW = 41, 43


@dataclass(frozen=True)
class Run:
    """One policy on one order of a set.

    Attributes:
        error: share of rounds with a wrong class.
        parts: the same in each fiftieth of the rounds.
        seconds: processor time.
    """

    set: str
    policy: str
    seed: int
    error: float
    parts: tuple[float, ...]
    seconds: float


def run_once(
    folder: Path, name: str, policy: str, seed: int, rounds: int, told: Callable[[int], object] | None = None
) -> Run:
    """Plays a policy: ours, or a rival at what it was tuned to."""
    del told  # a run is too short for progress of its own
    stream = _stream(folder, name, seed, rounds)
    started = time.process_time()
    if policy == OURS:
        reward = play_ours(stream, seed)
    elif policy == LOOP:
        reward = play_loop(stream, seed)
    else:
        start, _ = named(policy)
        reward = play(stream, changed(start, tuned(name, policy).get("options", {})), seed)
    wrong = 1.0 - reward
    parts = tuple(float(part.mean()) for part in np.array_split(wrong, min(PARTS, len(wrong))))
    return Run(name, policy, seed, float(wrong.mean()), parts, time.process_time() - started)


def play_ours(stream: Classification, seed: int, options: KwayOptions | None = None) -> Floats:
    """The rewards (n,) of the K-way learner, which decides and learns a block of rounds at a time."""
    learner = KwayLearner(stream.classes, seed=seed, options=options, attributes=stream.attributes)
    rng = np.random.default_rng([_DRAW, seed])
    reward = np.zeros(len(stream.contexts))
    start = 0
    while start < len(reward):
        end = min(len(reward), start + max(1, min(BLOCK, start // 10)))
        contexts = stream.contexts[start:end]
        vectors = [distribution(score, None, learner.gamma, learner.hope) for score in learner.scores(contexts)]
        action = np.array([sample(vector, float(rng.random())) for vector in vectors], dtype=np.int64)
        reward[start:end] = action == stream.label[start:end]
        learner.learn(contexts, action, reward[start:end])
        start = end
    return reward


def play_loop(stream: Classification, seed: int) -> Floats:
    """The rewards (n,) of a Personalizer loop whose actions are the classes, known by ids alone: its learner and its
    way of choosing, refreshed once a twentieth more has been seen, at the latest after ``LOOP_BLOCK`` rounds."""
    loop = Loop()
    actions = [Action(str(one), ()) for one in range(stream.classes)]
    mask = np.ones(len(actions), np.bool_)
    trainer, rng = LoopTrainer(), np.random.default_rng([_DRAW, seed])
    model: AdfModel | None = None
    reward = np.zeros(len(stream.contexts))
    start = 0
    while start < len(reward):
        end = min(len(reward), start + max(1, min(LOOP_BLOCK, start // 20)))
        taught = []
        for place in range(start, end):
            context = [stream.contexts[place]]
            p = distribution_of_loop(model, loop.settings, loop.exploration, context, actions, mask)
            chosen = sample(p, float(rng.random()))
            reward[place] = chosen == stream.label[place]
            told = tokens(context, "c"), tokens((), "a", actions[chosen].id)
            taught.append(AdfRow(*told, float(reward[place])))
        trainer.add(taught)
        model = trainer.fit()
        start = end
    return reward


def tune_once(
    folder: Path, name: str, policy: str, seeds: int, rounds: int, told: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """Searches a rival's grid on seeds of its own; what was found and every setting that was tried, with its error."""
    streams = [(_stream(folder, name, TUNING_SEEDS + i, rounds), TUNING_SEEDS + i) for i in range(1, seeds + 1)]
    start, turns = named(policy)
    tried = 0

    def error(options: Any) -> float:
        nonlocal tried
        tried += 1
        if told is not None:
            told(tried)
        return float(np.mean([1.0 - play(stream, options, seed).mean() for stream, seed in streams]))

    found = search(start, turns, error, changed)
    return {**found, "seeds": [seed for _, seed in streams], "rounds": rounds}


def tuned(name: str, policy: str) -> Mapping[str, Any]:
    """What a rival was tuned to on a set: ``options, regret (the error), tried, seeds, rounds``; empty = not tuned."""
    found: Mapping[str, Any] = tunings.stored(PATH).get(name, {}).get(policy, {})
    return found


def store(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Keeps tunings, by set and rival, beside those of other sets and rivals."""
    everything = {name: dict(one) for name, one in tunings.stored(PATH).items()}
    for name, by_policy in found.items():
        everything.setdefault(name, {}).update(by_policy)
    tunings.write(everything, PATH)


@cache
def _loaded(folder: Path, name: str) -> Classification:
    return load(folder, name)


def _stream(folder: Path, name: str, seed: int, rounds: int) -> Classification:
    return _loaded(folder, name).stream(rounds, np.random.default_rng([_ORDER, seed]))
