"""One seed of ``sendtide scarcity``: a crowd, the same days before, every way of choosing on the same requests."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulations.scarcity.arms import Taken, copied, earn, learn, learn_policy, tell_truth
from simulations.scarcity.crowd import DAY, START, Course, Crowd, crowd
from simulations.scarcity.hindsight import best_gain, options, predicted_gains


@dataclass(frozen=True)
class Way:
    """A way of choosing.

    Attributes:
        label: what it is called.
        knowledge: ``true`` (trained on many outcomes of the same truth), ``learned`` (from the learning days) or
            ``none`` (uniform choices).
        priced: whether prices are worked out; else it is first come, first served.
        explores: whether the policy explores as the service does; else what it costs to learn is left out.
    """

    label: str
    knowledge: str
    priced: bool
    explores: bool = True


WAYS = (
    Way("true knowledge, no exploration, prices", "true", True, explores=False),
    Way("true knowledge, no exploration, first come, first served", "true", False, explores=False),
    Way("learned, no exploration, prices", "learned", True, explores=False),
    Way("learned, prices", "learned", True),
    Way("learned, first come, first served", "learned", False),
    Way("random", "none", False),
)


@dataclass(frozen=True)
class Outcome:
    """What one way of choosing earned.

    Attributes:
        gain: true expected reward less costs over the earning days.
        of_best: that over what the linear program reaches with hindsight on the true gains.
        of_known: that over what the program reaches with hindsight on the gains that the policy expects (NaN: none).
        of_all_days: the same as ``of_best`` over all days, the learning days' uniform choices included.
        sent: share of the requests that got a message.
    """

    gain: float
    of_best: float
    of_known: float
    of_all_days: float
    sent: float


@dataclass(frozen=True)
class Seed:
    """One seed's outcomes, by label."""

    seed: int
    best: float
    outcomes: dict[str, Outcome]
    seconds: float


def run_seed(
    course: Course, ways: tuple[Way, ...], seed: int, on_progress: Callable[[int], None] | None = None
) -> Seed:
    """Plays one seed; progress is counted in steps of ``total_steps``."""
    began = time.perf_counter()
    people = crowd(course, seed)
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if on_progress is not None:
            on_progress(steps)

    with tempfile.TemporaryDirectory(prefix="sendtide-", ignore_cleanup_errors=True) as folder:
        bases = {"none": Path(folder) / "none"}
        bases["none"].mkdir()
        before = learn(bases["none"], course, people, seed)
        for name, teach in (("true", tell_truth), ("learned", learn_policy)):
            if any(way.knowledge == name for way in ways):
                bases[name] = copied(bases["none"], name)
                teach(bases[name], course, seed)
        taken = {}
        for way in ways:
            own = copied(bases[way.knowledge], "playing")
            taken[way.label] = earn(own, course, people, seed, priced=way.priced, explores=way.explores, on_step=step)
            shutil.rmtree(own)
        known = {name: _known(bases[name], course, people, seed, before) for name in bases if name != "none"}
    best, best_of_all = _best(course, people, before), _best_of_all(course, people)
    outcomes = {
        way.label: Outcome(
            gain=float(taken[way.label].gain.sum()),
            of_best=float(taken[way.label].gain.sum()) / best,
            of_known=float(taken[way.label].gain.sum()) / known.get(way.knowledge, float("nan")),
            of_all_days=float((before + taken[way.label]).gain.sum()) / best_of_all,
            sent=float(taken[way.label].sent.mean()),
        )
        for way in ways
    }
    return Seed(seed, best, outcomes, time.perf_counter() - began)


def total_steps(course: Course, ways: tuple[Way, ...]) -> int:
    """How many steps a seed has."""
    return len(ways) * course.earning * course.steps


def _earning(course: Course, people: Crowd) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.flatnonzero(people.at >= START + course.learning * DAY)


def _best(course: Course, people: Crowd, before: Taken) -> float:
    return best_gain(course, people, options(course, people, _earning(course, people)), before)


def _best_of_all(course: Course, people: Crowd) -> float:
    """What hindsight reaches on all days, with nothing before them."""
    none = np.zeros(0, np.int64)
    nothing = Taken(np.zeros(0, np.bool_), none, none, none, np.zeros(0))
    return best_gain(course, people, options(course, people, np.arange(len(people))), nothing)


def _known(folder: Path, course: Course, people: Crowd, seed: int, before: Taken) -> float:
    """The true gain of the program's solution on the gains that the folder's policy expects."""
    rows = _earning(course, people)
    expected = predicted_gains(folder, course, people, rows, seed)
    return best_gain(course, people, options(course, people, rows, expected), before)
