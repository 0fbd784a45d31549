"""One course through the service: its decider, its store, its prices, on a clock that is moved.

Every arm starts from a copy of the same database: the same days of uniform choices under the same rule. Then it answers
the same requests, step by step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from optimizer.config import Settings
from optimizer.model.artifact import pack, unpack
from optimizer.model.examples import Examples
from optimizer.service import setup
from optimizer.service.ids import fresh
from optimizer.service.ingest import ingest
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.wiring import Services, open_services
from simulations.clock import SteppingClock
from simulations.scarcity.crowd import (
    CAMPAIGN,
    CHANNELS,
    DAY,
    HOUR,
    START,
    VARIANTS,
    WORKSPACE,
    Course,
    Crowd,
    Floats,
    Ints,
    campaign,
    crowd,
    rule,
    window,
)
from simulations.stage import LearningError
from storage.log import Decision
from storage.policies import Component

#: Rows of outcomes that the policy with true knowledge was trained on.
TRUE_ROWS = 40_000
_DATABASE = "simulation.db"


@dataclass(frozen=True, eq=False)
class Taken:
    """What an arm did with each of n requests.

    Attributes:
        sent: (n,) bool.
        send_at: (n,) int64, 0 where nothing was sent.
        variant, channel: (n,) int64, index, -1 where nothing was sent.
        gain: (n,) float64, the true expected reward less cost; 0 where nothing was sent.
    """

    sent: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    send_at: Ints
    variant: Ints
    channel: Ints
    gain: Floats

    def __add__(self, later: Taken) -> Taken:
        """Both courses, one after the other."""
        return Taken(
            *(np.concatenate([getattr(self, name), getattr(later, name)]) for name in self.__dataclass_fields__)
        )


@contextmanager
def opened(folder: Path, seed: int, at: int) -> Iterator[tuple[Services, SteppingClock]]:
    """The service on the folder's database at a moment."""
    clock = SteppingClock(datetime.fromtimestamp(at, UTC))
    settings = Settings(database=f"sqlite:///{folder / _DATABASE}", gate=False, log_level="error")
    services = open_services(settings, clock, seed=seed, watch=False)
    try:
        yield services, clock
    finally:
        services.close()


def learn(folder: Path, course: Course, people: Crowd, seed: int) -> Taken:
    """Sets up, lives through the learning days with uniform choices, and reports what was clicked."""
    rng = np.random.default_rng([12, seed])
    with opened(folder, seed, START) as (services, clock):
        setup.ensure_workspace(services, WORKSPACE)
        setup.put_campaign(services, campaign())
        setup.put_rule(services, rule(course))
        rows = np.flatnonzero(people.at < START + course.learning * DAY)
        done = _answer(services, clock, course, people, rows)
        events = [
            EventInput(
                type="clicked", occurred_at=decision.send_at + timedelta(minutes=1), decision_id=decision.decision_id
            )
            for decision, gain in done[1]
            if decision.send_at is not None and rng.random() < gain
        ]
        ingest(services, WORKSPACE, events)
        return done[0]


def earn(
    folder: Path,
    course: Course,
    people: Crowd,
    seed: int,
    *,
    priced: bool,
    explores: bool = True,
    on_step: Callable[[], None] | None = None,
) -> Taken:
    """Lives through the other days with the policy that the folder's campaign serves.

    Args:
        folder: of the database; it is changed.
        course: the course.
        people: its requests.
        seed: of the installation.
        priced: whether prices are worked out.
        explores: whether the policy explores; else it takes the action that it expects most of.
        on_step: told of each step.
    """
    with opened(folder, seed, START + course.learning * DAY) as (services, clock):
        if not explores:
            _stop_exploring(services)
        rows = np.flatnonzero(people.at >= START + course.learning * DAY)
        return _answer(services, clock, course, people, rows, priced=priced, on_step=on_step)[0]


def copied(folder: Path, name: str) -> Path:
    """A copy of a folder's database in a folder beside it."""
    other = folder.parent / name
    shutil.copytree(folder, other)
    return other


def _answer(
    services: Services,
    clock: SteppingClock,
    course: Course,
    people: Crowd,
    rows: Ints,
    *,
    priced: bool = False,
    on_step: Callable[[], None] | None = None,
) -> tuple[Taken, list[tuple[Decision, float]]]:
    """Answers requests step by step; with ``priced``, works prices out anew before each."""
    from optimizer.service.gains import Memory
    from optimizer.service.pricing import reprice

    memory = Memory()
    decided: list[Decision] = []
    for at in np.unique(people.at[rows]).tolist():
        clock.advance(max(0.0, at - clock().timestamp()))
        if priced:
            reprice(services, WORKSPACE, memory=memory)
            services.policies.refresh_now()
        requests = [
            DecisionRequest(
                CAMPAIGN,
                f"person-{people.person[i]}",
                request_id=f"request-{i}",
                window=window(course, at),
                context=people.context(i),
            )
            for i in rows[people.at[rows] == at].tolist()
        ]
        answers = services.decider.decide_batch(WORKSPACE, requests, f"step-{at}")
        for answer in answers:
            if not isinstance(answer, Decision):
                raise answer
            decided.append(answer)
        if on_step is not None:
            on_step()
    taken = _taken(people, rows, decided)
    chances = taken.gain + np.array([CHANNELS[c][1] if c >= 0 else 0.0 for c in taken.channel])
    return taken, list(zip(decided, chances.tolist(), strict=True))


def _taken(people: Crowd, rows: Ints, decided: list[Decision]) -> Taken:
    names = [name for name, _ in CHANNELS]
    send_at = np.array([0 if d.send_at is None else int(d.send_at.timestamp()) for d in decided], dtype=np.int64)
    variant = np.array([-1 if d.variant_id is None else VARIANTS.index(d.variant_id) for d in decided], dtype=np.int64)
    channel = np.array([-1 if d.channel is None else names.index(d.channel) for d in decided], dtype=np.int64)
    chance = people.chance(rows, send_at)[np.arange(len(rows)), variant, channel]
    cost = np.array([cost for _, cost in CHANNELS])[channel]
    sent = variant >= 0
    return Taken(sent, send_at, variant, channel, np.where(sent, chance - cost, 0.0))


def learn_policy(folder: Path, course: Course, seed: int) -> None:
    """Trains on the learning days' log, as a retrain does, and publishes."""
    from optimizer.service.retrain import retrain

    with opened(folder, seed, START + course.learning * DAY) as (services, _):
        verdict = retrain(services, WORKSPACE)[0]
        if verdict["decision"] != "publish":
            raise LearningError(f"the learning days gave no policy: {verdict['reason']}")


def _stop_exploring(services: Services) -> None:
    """The served model goes on as a policy without a floor, and with posterior draws of no width."""
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, CAMPAIGN)
        policy = None if pointer is None else reader.policy(WORKSPACE, pointer.policy_id)
        stored = None if policy is None else reader.artifact(WORKSPACE, policy.mixture[-1].artifact_id or "")
    if policy is None or stored is None:
        raise LearningError("the campaign serves no learned policy")
    graph, arrays, meta = unpack(stored.blob)
    now = services.clock()
    greedy = artifact_of(WORKSPACE, pack(graph, arrays, {**meta, "width": 0.0}), stored.feature_hash, now)
    parts = (Component(1.0, greedy.artifact_id),)
    revision = replace(policy, policy_id=fresh("pol"), created_at=now, mixture=parts, parent_id=policy.policy_id)
    setup.put_campaign(services, campaign(exploration_rate=0.0))
    publish(services, [greedy], revision, pointer, now)


def tell_truth(folder: Path, course: Course, seed: int) -> None:
    """Publishes a policy that was trained on ``TRUE_ROWS`` further outcomes of the same truth."""
    from optimizer.model.training.train import train

    trained = train(_outcomes(course, seed), attributes=(), seed=seed, network=False)
    with opened(folder, seed, START + course.learning * DAY) as (services, clock):
        artifact = artifact_of(WORKSPACE, trained.blob, trained.feature_hash, clock())
        numbers = {"anneal": 1.0 / (1.0 + TRUE_ROWS / 20_000), "rows": TRUE_ROWS}
        policy = new_policy(
            WORKSPACE,
            CAMPAIGN,
            clock(),
            (Component(1.0, artifact.artifact_id),),
            parent=None,
            exploration={**numbers, "matured_rows": dict.fromkeys(VARIANTS, TRUE_ROWS // 2)},
            verdict={"decision": "publish", "reason": "trained on made-up outcomes"},
            run_id=None,
        )
        publish(services, [artifact], policy, None, clock())


def _outcomes(course: Course, seed: int) -> Examples:
    """Rows of people of the same kind, with uniform choices over the week."""
    rng = np.random.default_rng([13, seed])
    days = -(-TRUE_ROWS // course.requests)
    others = crowd_of(course, days, seed)
    rows = np.arange(TRUE_ROWS)
    local = START + rng.integers(0, 7 * 24, TRUE_ROWS) * HOUR
    sent = rng.random(TRUE_ROWS) < 0.95
    variant, channel = (np.where(sent, rng.integers(0, 2, TRUE_ROWS), -1) for _ in range(2))
    chance = others.chance(rows, local)[rows, variant, channel]
    clicked = np.where(sent, (rng.random(TRUE_ROWS) < chance).astype(float), np.nan)
    zero = np.zeros(TRUE_ROWS, dtype=np.int64)
    return Examples(
        [others.context(i) for i in range(TRUE_ROWS)],
        (campaign(),),
        zero,
        variant,
        channel,
        local,
        {"clicked": clicked},
        {"clicked": np.full(TRUE_ROWS, np.nan)},
        rows,
    )


def crowd_of(course: Course, days: int, seed: int) -> Crowd:
    """Another crowd of the same kind."""
    return crowd(replace(course, learning=days, earning=0, people=course.requests), 10_000 + seed)
