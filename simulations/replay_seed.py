"""One seed of the Hillstrom replay: one random order of the customers, through the service and through its rivals."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simulations import rivals
from simulations.evaluation import HeldOut, choices, evaluate
from simulations.hillstrom import ARMS, Customers, load
from simulations.rivals import Floats
from simulations.stage import Stage, app_stage, served, server_stage
from simulations.stream import CAMPAIGN, Replayed, replay

Through = Literal["app", "gunicorn"]
#: Keeps the seeds of different uses apart: the order of customers, the rivals, the folds.
_ORDER, _THOMPSON, _UNIFORM = 101, 102, 103


@dataclass(frozen=True)
class Options:
    """What is replayed. ``customers`` None: as many as it takes."""

    data: Path
    accepted: int = 10_000
    refresh_every: int = 250
    gate: bool = False
    through: Through = "app"
    customers: int | None = None
    held_out: bool = True


@dataclass(frozen=True)
class SeedResult:
    """One seed: rewards of the accepted customers under each way of choosing, and the final policy's value."""

    seed: int
    service: Floats
    thompson: Floats
    uniform: Floats
    static: Floats
    best_arm: int
    consumed: int
    shares: tuple[float, ...]
    steps: tuple[dict[str, Any], ...]
    held_out: HeldOut | None
    seconds: float


def run_seed(options: Options, seed: int, on_progress: Callable[[int], None] | None = None) -> SeedResult:
    """Replays one random order of the customers through the service and through its rivals."""
    started = time.perf_counter()
    everyone = load(options.data)
    order = np.random.default_rng([_ORDER, seed]).permutation(len(everyone))
    arriving = everyone.take(order[: options.customers])
    with _stage(options, seed) as stage:
        replayed = replay(
            stage,
            arriving,
            accepted=options.accepted,
            refresh_every=options.refresh_every,
            on_progress=on_progress,
        )
        best = rivals.best_static(everyone.assigned, everyone.visit, arms=len(ARMS))
        unseen = everyone.take(order[replayed.consumed :])
        value = _held_out(stage, unseen, best, seed) if options.held_out and len(unseen) else None
    wanted = len(replayed.reward)
    return SeedResult(
        seed=seed,
        service=replayed.rewards,
        thompson=rivals.thompson(
            arriving.assigned,
            arriving.visit,
            arms=len(ARMS),
            wanted=wanted,
            every=options.refresh_every,
            rng=np.random.default_rng([_THOMPSON, seed]),
        ),
        uniform=rivals.uniform(
            arriving.assigned,
            arriving.visit,
            arms=len(ARMS),
            wanted=wanted,
            rng=np.random.default_rng([_UNIFORM, seed]),
        ),
        static=rivals.static(arriving.assigned, arriving.visit, arm=best, wanted=wanted),
        best_arm=best,
        consumed=replayed.consumed,
        shares=_shares(replayed),
        steps=tuple(asdict(step) for step in replayed.steps),
        held_out=value,
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _stage(options: Options, seed: int) -> Iterator[Stage]:
    made: AbstractContextManager[Stage]
    if options.through == "gunicorn":
        made = server_stage(seed=seed, gate=options.gate)
    else:
        made = app_stage(seed=seed, gate=options.gate)
    with made as stage:
        yield stage


def _held_out(stage: Stage, unseen: Customers, best: int, seed: int) -> HeldOut:
    live, campaign = served(stage, CAMPAIGN)
    policy, greedy = choices(live, campaign, unseen.contexts, stage.now())
    return evaluate(unseen, policy, greedy, best, seed)


def _shares(replayed: Replayed) -> tuple[float, ...]:
    """How often each arm was chosen among the last tenth of the accepted customers."""
    last = np.array(replayed.chosen[-max(1, len(replayed.chosen) // 10) :], dtype=np.int64)
    return tuple(float(share) for share in np.bincount(last, minlength=len(ARMS)) / max(1, last.size))
