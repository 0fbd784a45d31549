"""One run of the gate study: a uniformly logged experiment arrives in steps, with a retrain and a verdict after each.

The experiment was randomised when it was made, so its log is what a service at its cold start would have written. That
is used literally: every customer's request id is chosen so that the service's own keyed draw is the recorded
assignment. The log that the gate sees is the service's own, replayable to the last draw, and no row is wasted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from optimizer.bandit.exploration import draw_uniform, sample, uniform
from optimizer.service.ids import decision_id
from optimizer.service.progress import freed
from simulations.hillstrom import ARMS, Customers, load
from simulations.stage import CLIMBED, WORKSPACE, AppStage, app_stage, put_campaign, served
from simulations.stream import CAMPAIGN, Replayed, UnexpectedError, arrive, campaign_body

#: Keeps this study's random numbers apart from those of the replay.
_STREAM = 201


#: ``null``: outcomes are dealt out anew, so nothing can be learned. ``power``: the true ones. ``later``: the true ones
#: until a first policy serves, and from then on dealt out anew whatever is chosen: every policy is worth the same.
Part = Literal["null", "later", "power"]
#: Keeps the parts' random numbers apart.
_SEED_OF: Mapping[Part, int] = {"power": 0, "null": 1, "later": 2}
#: Matured rows within which a first policy must have come for ``later``.
FIRST_ROWS = 10_000


@dataclass(frozen=True)
class Study:
    """What is repeated. ``retrains``: of ``later`` those after the first policy."""

    data: Path
    part: Part
    retrains: int = 40
    step_rows: int = 250


@dataclass(frozen=True)
class Run:
    """A run at its end: the first promotion ends it.

    Attributes:
        promoted_at: in matured rows; None = never.
        results: of these retrains, in order.
        refreshes: of ``later``: how each refresh ended.
        shared: of ``later``: retrains before which two models had shared the traffic.
        freed: of ``later``: the same before which refreshed models were no longer held near the first policy, as they
            were shown to foresee outcomes better (``service.progress``). No wrong promotion: that policy was learned
            from outcomes that have changed since.
    """

    seed: int
    part: Part
    promoted_at: int | None
    results: tuple[str, ...]
    seconds: float
    training_seconds: float
    refreshes: tuple[str, ...] = ()
    shared: int = 0
    freed: int = 0


def run_once(study: Study, seed: int, on_progress: Callable[[int], None] | None = None) -> Run:
    """Logs customers in steps and retrains after each, until a candidate is promoted or all steps are done."""
    started = time.perf_counter()
    with app_stage(seed=seed, gate=True) as stage:
        put_campaign(stage, CAMPAIGN, campaign_body(stage.attribution_hours))
        play = _Play(stage, study, seed)
        if study.part == "later":
            play.until_first()
        for step in range(study.retrains):
            if play.exhausted or play.step() == "publish":
                break
            if on_progress is not None:
                on_progress(step + 1)
    promoted_at = play.rows if play.results and play.results[-1] == "publish" else None
    return Run(
        seed,
        study.part,
        promoted_at,
        tuple(play.results),
        time.perf_counter() - started,
        play.training,
        tuple(play.refreshes),
        play.shared,
        play.freed,
    )


class _Play:
    """A run under way: the next customers arrive, and then a retrain judges."""

    def __init__(self, stage: AppStage, study: Study, seed: int) -> None:
        rng = np.random.default_rng([_STREAM, _SEED_OF[study.part], seed])
        everyone = load(study.data)
        self._study, self._stage, self._replayed = study, stage, Replayed()
        dealt = everyone.shuffled(rng) if study.part == "null" else everyone
        order = rng.permutation(len(dealt))
        self._arriving = dealt.take(order)
        self._dealt_anew = self._arriving.shuffled(rng)
        self.results: list[str] = []
        self.refreshes: list[str] = []
        self.training, self.shared, self.freed = 0.0, 0, 0

    @property
    def rows(self) -> int:
        """Matured rows so far."""
        return len(self._replayed.reward)

    @property
    def exhausted(self) -> bool:
        """Whether fewer customers are left than a step takes."""
        return self._replayed.consumed + self._study.step_rows > len(self._arriving)

    def until_first(self) -> None:
        """Goes on with the true outcomes until a first policy serves.

        Raises:
            UnexpectedError: none did within ``FIRST_ROWS``.
        """
        while self.rows < FIRST_ROWS and not self.exhausted:
            if self._logged() == "publish":
                return
        raise UnexpectedError(f"no first policy within {self.rows:,} rows of the true outcomes")

    def step(self) -> str:
        """The next customers, and how the retrain after them ended."""
        self.results.append(self._logged() if self._study.part != "later" else self._served())
        return self.results[-1]

    def _places(self) -> range:
        start = self._replayed.consumed
        return range(start, start + self._study.step_rows)

    def _logged(self) -> str:
        """Customers as the experiment assigned them, at a cold start."""
        places = self._places()
        arrive(
            self._stage,
            self._arriving,
            self._replayed,
            agreeing_ids(self._stage.services.salt, self._arriving, places),
        )
        return self._retrained()

    def _served(self) -> str:
        """A refresh, and customers as the policy chooses, who do the same whatever that is."""
        self.refreshes.append(self._timed(full=False))
        if self.refreshes[-1] == CLIMBED:
            return "publish"
        live, _ = served(self._stage, CAMPAIGN)
        self.shared += len(live.mixture) > 1
        self.freed += self._free()
        ids = {place: f"arrival-{place}" for place in self._places()}
        arrive(self._stage, self._dealt_anew, self._replayed, ids, all_count=True)
        return self._retrained()

    def _free(self) -> bool:
        """Whether what serves is held near no judged policy."""
        with self._stage.services.store.read() as reader:
            pointer = reader.pointer(WORKSPACE, CAMPAIGN)
            policy = None if pointer is None else reader.policy(WORKSPACE, pointer.policy_id)
        return policy is not None and freed(policy)

    def _retrained(self) -> str:
        self._stage.mature()
        result = self._timed(full=True)
        return "publish" if result == CLIMBED else result

    def _timed(self, *, full: bool) -> str:
        before = time.perf_counter()
        result = self._stage.learn(CAMPAIGN, full=full)
        self.training += time.perf_counter() - before
        return result


def agreeing_ids(salt: bytes, customers: Customers, places: Sequence[int]) -> dict[int, str]:
    """For each place a request id under which a cold start draws the recorded assignment, each of three alike."""
    vector = uniform(np.ones(len(ARMS), dtype=np.bool_))

    def drawn(request_id: str) -> int:
        return sample(vector, draw_uniform(salt, decision_id(salt, WORKSPACE, request_id), 0))

    def first(place: int) -> str:
        tries = (f"arrival-{place}/{n}" for n in count())
        return next(one for one in tries if drawn(one) == customers.assigned[place])

    return {place: first(place) for place in places}
