"""One run of the gate study: a uniformly logged experiment arrives in steps, with a retrain and a verdict after each.

The experiment was randomised when it was made, so its log is what a service at its cold start would have written. That
is used literally: every customer's request id is chosen so that the service's own keyed draw is the recorded
assignment. The log that the gate sees is the service's own, replayable to the last draw, and no row is wasted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from optimizer.bandit.exploration import draw_uniform, sample, uniform
from optimizer.service.ids import decision_id
from simulations.hillstrom import ARMS, Customers, load
from simulations.stage import WORKSPACE, app_stage, put_campaign
from simulations.stream import CAMPAIGN, Replayed, arrive, campaign_body

#: Keeps this study's random numbers apart from those of the replay.
_STREAM = 201


@dataclass(frozen=True)
class Study:
    """What is repeated: ``shuffled`` outcomes (nothing can be learned) or the true ones."""

    data: Path
    shuffled: bool
    retrains: int = 40
    step_rows: int = 250


@dataclass(frozen=True)
class Run:
    """A run at its end: the first promotion ends it. ``promoted_at`` is in matured rows, None = never."""

    seed: int
    shuffled: bool
    promoted_at: int | None
    results: tuple[str, ...]
    seconds: float
    training_seconds: float


def run_once(study: Study, seed: int, on_progress: Callable[[int], None] | None = None) -> Run:
    """Logs customers in steps and retrains after each, until a candidate is promoted or all steps are done."""
    started = time.perf_counter()
    rng = np.random.default_rng([_STREAM, study.shuffled, seed])
    everyone = load(study.data)
    dealt = everyone.shuffled(rng) if study.shuffled else everyone
    arriving = dealt.take(rng.permutation(len(dealt))[: study.retrains * study.step_rows])
    results: list[str] = []
    promoted_at, training = None, 0.0
    with app_stage(seed=seed, gate=True) as stage:
        put_campaign(stage, CAMPAIGN, campaign_body(stage.attribution_hours))
        replayed = Replayed()
        for step in range(study.retrains):
            places = range(step * study.step_rows, min((step + 1) * study.step_rows, len(arriving)))
            arrive(stage, arriving, replayed, agreeing_ids(stage.services.salt, arriving, places))
            stage.mature()
            before = time.perf_counter()
            results.append(stage.learn(CAMPAIGN, full=True))
            training += time.perf_counter() - before
            if on_progress is not None:
                on_progress(step + 1)
            if results[-1] == "publish":
                promoted_at = len(replayed.reward)
                break
    return Run(seed, study.shuffled, promoted_at, tuple(results), time.perf_counter() - started, training)


def agreeing_ids(salt: bytes, customers: Customers, places: Sequence[int]) -> dict[int, str]:
    """For each place a request id under which a cold start draws the recorded assignment, each of three alike."""
    vector = uniform(np.ones(len(ARMS), dtype=np.bool_))

    def drawn(request_id: str) -> int:
        return sample(vector, draw_uniform(salt, decision_id(salt, WORKSPACE, request_id), 0))

    def first(place: int) -> str:
        tries = (f"arrival-{place}/{n}" for n in count())
        return next(one for one in tries if drawn(one) == customers.assigned[place])

    return {place: first(place) for place in places}
