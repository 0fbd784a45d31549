"""What a decision costs in the process: the pure middle alone, then with the store.

The pure middle starts from what was read: the space, the eligible set with its reasons, scores, the whole probability
vector, the draw and the record of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count

from optimizer.bandit import kernel
from optimizer.service.drafting import Drafter
from optimizer.service.facts import gather
from optimizer.service.record import named_request
from optimizer.service.rows import Moment
from optimizer.service.wiring import Services
from simulations.bench.figure import Figure, medians
from simulations.bench.shop import WORKSPACE, requests, shop

SINGLE, BATCH = 300, 2_000
#: Seven days of hours: 6 x 168 x 3 actions.
WEEK = timedelta(days=7)


def measure() -> list[Figure]:
    """Figures of this machine now."""
    with shop() as services:
        day, week = (_pure(services, window) for window in (None, WEEK))
        with _in_numpy():
            day_in_numpy, week_in_numpy = (_pure(services, window) for window in (None, WEEK))
        (durable, batch) = medians([_rows(services, SINGLE, batch=False), _rows(services, BATCH, batch=True)])
    return [
        *_told("a decision without store, 433 actions", day, day_in_numpy, 200.0),
        *_told("a decision without store, 3,025 actions", week, week_in_numpy, 800.0),
        Figure("a decision, durable, in the process", f"{durable:,.0f} µs"),
        Figure("a row of a batch, durable, in the process", f"{batch:,.0f} µs"),
    ]


@contextmanager
def _in_numpy() -> Iterator[None]:
    """As where nothing was compiled."""
    before, kernel.available = kernel.available, False
    try:
        yield
    finally:
        kernel.available = before


def _told(what: str, taken: list[float], in_numpy: list[float], goal: float) -> list[Figure]:
    median, slow = statistics.median(taken), statistics.median(in_numpy)
    p99 = statistics.quantiles(taken, n=100)[98]
    beside = f"without the compiled loops: {slow:,.0f} µs"
    return [
        Figure(what, f"{median:,.0f} µs", beside, f"{median / slow:.2f}x", f"<= {goal:g} µs", median <= goal),
        Figure("its p99", f"{p99:,.0f} µs", "the median", f"{p99 / median:.2f}x", "<= 2x", p99 <= 2 * median),
    ]


def _pure(services: Services, window: timedelta | None) -> list[float]:
    """Microseconds of each of many decisions."""
    drafter = Drafter(services.policies, services.salt)
    now = services.clock()
    asked = requests(0, 3 * SINGLE)
    if window is not None:
        asked = [replace(one, window=(now, now + window)) for one in asked]
    asks = [named_request(services.salt, WORKSPACE, one, f"pure{i}") for i, one in enumerate(asked)]
    taken = []
    with services.store.read() as reader:
        reads = gather(reader, services.catalog, WORKSPACE, services.salt, asks, Moment(now, now), drafting=False)
        reads.pasts.update((ask.request.recipient_id, ()) for ask in asks)
        for ask in asks:
            started = time.perf_counter()
            drafter.finish(drafter.plan(reader, drafter.prepare(reader, ask, reads), reads), 0)
            taken.append((time.perf_counter() - started) * 1e6)
    return taken[SINGLE:]  # the first warm up


def _rows(services: Services, rows: int, *, batch: bool) -> Callable[[], float]:
    """Microseconds a row."""
    numbers = count(1_000 if batch else 2_000)

    def work() -> float:
        number = next(numbers)
        asked = requests(number * BATCH, rows)
        started = time.perf_counter()
        if batch:
            services.decider.decide_batch(WORKSPACE, asked, f"run{number}")
        else:
            for request in asked:
                services.decider.decide(WORKSPACE, request)
        return (time.perf_counter() - started) / rows * 1e6

    return work
