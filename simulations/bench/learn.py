"""Training on a long log, beside Vowpal Wabbit's ``learn`` over the same decisions and actions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from optimizer.service import runs
from optimizer.service.ids import fresh
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.wiring import Services
from simulations.baselines.vw import Learner, VwOptions
from simulations.bench import load, shop
from simulations.bench.batches import adf_lines, shared_line
from simulations.bench.figure import ROUNDS, Figure, at_least, at_most, medians
from simulations.bench.files import ran
from simulations.bench.http import CLIENTS, PATH
from simulations.bench.served import Shop, prepared, serving
from simulations.clock import SteppingClock
from storage.policies import TrainingRun

#: The log spans so many days, and is made in parts of so many decisions.
DAYS, PART = 45.0, 2_000
LEARNED = 200
#: Decisions whose outcomes a refresh learns.
NEW = 10_000
_GIB = 1 << 30
_RETRAIN = ("retrain", "--campaign", "c", "--no-gate", "--encoder", "none")


def measure(decisions: int) -> list[Figure]:
    """One retrain of a log of ``decisions``, of which the policy was taught a tenth before."""
    with TemporaryDirectory(prefix="sendtide-learn-") as name:
        stocked = prepared(Path(name), people=60_000, days=DAYS)
        _logged(stocked, decisions)
        ended = ran(stocked.settings, shop.WORKSPACE, *_RETRAIN)
        (rate,) = medians([_learning()])
        refreshed = _refreshing(stocked)
        beside = _beside_serving(stocked)
    ours = decisions / ended.seconds
    return [
        at_least(
            f"retrain on {decisions:,} decisions",
            f"{ended.seconds:,.0f} s, {ours:,.0f} decisions/s",
            f"Vowpal Wabbit's learn: {rate:,.0f}/s",
            ours / rate,
            10,
        ),
        Figure(
            "its peak of memory",
            f"{ended.peak_bytes / _GIB:.2f} GiB",
            "",
            "",
            "<= 3 GiB",
            ended.peak_bytes <= 3 * _GIB,
        ),
        refreshed,
        beside,
    ]


def _logged(stocked: Shop, decisions: int) -> None:
    """Decisions of six weeks with what came of them; one retrain after a tenth of them, so that the policy is no
    beginner's, of which the drift alarm would tell."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=DAYS - 4)
    step = timedelta(days=DAYS - 8) * PART / decisions
    rng = np.random.default_rng(5)
    waiting: list[EventInput] = []
    with shop.reopened(stocked.folder, start) as services:
        clock = cast(SteppingClock, services.clock)
        for first in range(0, decisions, PART):
            waiting += _made(services, rng, shop.requests(first, PART))
            beginner = first == decisions // 10 // PART * PART
            last = first + PART >= decisions
            clock.advance((timedelta(days=1, hours=2) if beginner or last else step).total_seconds())
            ingest(services, shop.WORKSPACE, [event for event in waiting if event.occurred_at <= clock()])
            waiting = [event for event in waiting if event.occurred_at > clock()]
            if beginner:
                ran(stocked.settings, shop.WORKSPACE, *_RETRAIN)
                services.policies.refresh_now()


def _made(services: Services, rng: np.random.Generator, people: Sequence[DecisionRequest]) -> list[EventInput]:
    """Decisions for some people; returns what will come of them."""
    events = []
    for first in range(0, len(people), PART):
        part = people[first : first + PART]
        decided = services.decider.decide_batch(shop.WORKSPACE, part, f"learn {part[0].recipient_id}")
        events += shop.outcomes(decided, rng)
    return events


def _learning() -> Callable[[], float]:
    """Examples a second that Vowpal Wabbit learns from."""
    learner = Learner(VwOptions(algorithm="squarecb").arguments(1))
    actions = adf_lines()
    rng = np.random.default_rng(0)
    examples = []
    for request in shop.requests(1, LEARNED):
        chosen = int(rng.integers(len(actions)))
        label = f"0:{-float(rng.random() < 0.1):g}:{1 / len(actions):.6g} "
        examples.append([shared_line(request), *(label + a if j == chosen else a for j, a in enumerate(actions))])

    def work() -> float:
        started = time.perf_counter()
        for example in examples:
            learner.learn(example)
        return LEARNED / (time.perf_counter() - started)

    return work


def _refreshing(stocked: Shop) -> Figure:
    """A refresh after the outcomes of so many new decisions, all of them final, beside one that reads the whole log."""
    rng, numbers = np.random.default_rng(6), count(20_000_000, NEW)
    with shop.reopened(stocked.folder, datetime.now(UTC)) as services:
        clock = cast(SteppingClock, services.clock)

        def work() -> float:
            people = [replace(one, immediate=True) for one in shop.requests(next(numbers), NEW)]
            events = _made(services, rng, people)
            clock.advance(timedelta(hours=2).total_seconds())
            ingest(services, shop.WORKSPACE, events)
            return _refreshed(services)

        whole = work()
        (since,) = medians([work], 3)
    return Figure(
        f"refresh after the outcomes of {NEW:,} new decisions",
        f"{since:.1f} s",
        f"the first after a retrain, which reads all: {whole:.0f} s",
        "",
        "<= 2 s",
        since <= 2.0,
    )


def _refreshed(services: Services) -> float:
    """Seconds of a refresh, as the scheduler's child does it."""
    from optimizer.service.training import carry_out  # imports torch

    now, holder = services.clock(), "bench"
    queued = TrainingRun(shop.WORKSPACE, fresh("run"), "refresh", "queued", now)
    services.store.write(lambda writer: writer.put_training_run(queued))
    run = runs.start(services, shop.WORKSPACE, holder)
    if run is None:
        raise LookupError("no run was started")
    started = time.perf_counter()
    ended = carry_out(services, run)
    seconds = time.perf_counter() - started
    if ended.status != "published":
        raise ValueError(f"the refresh ended as {ended.status}: {ended.verdict}")
    runs.finish(services, run, holder, ended)
    return seconds


def _beside_serving(stocked: Shop) -> Figure:
    """p99 of decisions at a modest load, while the scheduler's retrain runs and while none does."""
    from concurrent.futures import ThreadPoolExecutor

    with serving(stocked) as bind, ThreadPoolExecutor(1) as pool:
        most = load.run(bind, PATH, stocked.headers, clients=CLIENTS, seconds=3).rate

        def p99() -> float:
            return load.run(bind, PATH, stocked.headers, clients=CLIENTS, seconds=4, rate=most / 4).p99

        alone = statistics.median(p99() for _ in range(ROUNDS))
        training = pool.submit(ran, stocked.settings, shop.WORKSPACE, *_RETRAIN, aside=True)
        busy = []
        while not training.done():
            busy.append(p99())
        training.result()  # one that failed measured nothing
    return at_most(
        "p99 of decisions at a quarter of the load while a retrain runs",
        f"{statistics.median(busy):.1f} ms",
        f"without: {alone:.1f} ms",
        statistics.median(busy) / alone,
        1.5,
    )
