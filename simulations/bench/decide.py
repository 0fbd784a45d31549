"""``python -m simulations.bench``: what a decision costs, beside the bare inserts that bound it, in one run.

Medians of five rounds. The bound is a plain ``sqlite3`` insert with the same durability (WAL, ``synchronous=FULL``) of
a row of the same size: one transaction a row for single decisions, ``executemany`` for a batch.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from optimizer.service.wiring import Services
from simulations.bench.shop import WORKSPACE, requests, shop

ROUNDS = 5
#: Rows a round, single and batch.
SINGLE, BATCH = 200, 2000
#: Bytes of a bare row: about what a decision's row takes.
ROW_BYTES = 700


@dataclass(frozen=True)
class Figure:
    """A median time a row, in microseconds, and the bound that stands beside it."""

    name: str
    microseconds: float
    beside: str
    bound_microseconds: float | None = None


def per_row(work: Callable[[], int]) -> float:
    """Median over the rounds of the microseconds a row; ``work`` returns how many rows it did."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        rows = work()
        taken.append((time.perf_counter() - started) / rows * 1e6)
    return statistics.median(taken)


def bare_inserts() -> tuple[float, float]:
    """Microseconds a row of bare durable inserts: one transaction each, and in one ``executemany``."""
    with TemporaryDirectory(prefix="sendtide-bench-") as folder:
        connection = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, b)"
        )
        row = bytes(ROW_BYTES)

        def single() -> int:
            for _ in range(SINGLE):
                connection.execute("INSERT INTO t (b) VALUES (?)", (row,))
            return SINGLE

        def many() -> int:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO t (b) VALUES (?)", [(row,)] * BATCH)
            connection.execute("COMMIT")
            return BATCH

        try:
            return per_row(single), per_row(many)
        finally:
            connection.close()


def measure() -> list[Figure]:
    """All figures of this machine now."""
    single_bound, batch_bound = bare_inserts()
    with shop() as services:
        figures = [
            Figure("decide one, nothing stored (433 actions)", per_row(_previews(services)), "-"),
            Figure("decide one, durable", per_row(_singles(services)), "bare insert", single_bound),
            Figure("decide in a batch, durable, a row", per_row(_batches(services)), "bare executemany", batch_bound),
        ]
    with shop(slot_minutes=9) as services:
        figures.append(Figure("decide one, nothing stored (2,881 actions)", per_row(_previews(services)), "-"))
    return figures


def _previews(services: Services) -> Callable[[], int]:
    numbers = count()

    def work() -> int:
        for request in requests(next(numbers) * SINGLE, SINGLE):
            services.decider.decide(WORKSPACE, replace(request, preview=True))
        return SINGLE

    return work


def _singles(services: Services) -> Callable[[], int]:
    numbers = count(1000)

    def work() -> int:
        for request in requests(next(numbers) * SINGLE, SINGLE):
            services.decider.decide(WORKSPACE, request)
        return SINGLE

    return work


def _batches(services: Services) -> Callable[[], int]:
    numbers = count(1000)

    def work() -> int:
        number = next(numbers)
        services.decider.decide_batch(WORKSPACE, requests(number * BATCH + 1_000_000, BATCH), f"run{number}")
        return BATCH

    return work
