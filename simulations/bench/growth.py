"""Whether decisions stay as quick as the log grows, and what one takes of the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from optimizer.service.wiring import Services
from simulations.bench import shop
from simulations.bench.figure import ROUNDS, Figure, at_most, medians
from simulations.bench.grown import multiply

#: Decisions of the small log.
SMALL = 10_000
ASKED = 300
_LATER = shop.START + timedelta(days=10)


def measure(decisions: int) -> list[Figure]:
    """A log of 10,000 decisions of 10,000 people, and one of ``decisions`` of a tenth as many."""
    with TemporaryDirectory(prefix="sendtide-grown-") as name:
        small, large = Path(name) / "small", Path(name) / "large"
        for folder in (small, large):
            folder.mkdir()
            with shop.opened(folder, shop.START) as services:
                for first in range(0, SMALL, 2_000):
                    services.decider.decide_batch(shop.WORKSPACE, shop.requests(first, 2_000), f"grow{first}")
        before = _bytes(large)
        copies = -(-decisions // (SMALL + shop.TRAINED_ON))
        stored = copies * (SMALL + shop.TRAINED_ON)
        multiply(large / "bench.db", copies, people=max(1, copies // 10))
        with shop.reopened(small, _LATER) as little, shop.reopened(large, _LATER) as much:
            few, many = medians([_asking(little), _asking(much)], ROUNDS)
        per_decision = (_bytes(large) - before) / stored
    return [
        at_most(
            f"a durable decision with {stored:,} stored",
            f"{many:,.0f} µs",
            f"with {SMALL:,}: {few:,.0f} µs",
            many / few,
            1.3,
        ),
        Figure(
            "database bytes a decision, its message and recipient included",
            f"{per_decision:,.0f} B",
            "",
            "",
            "<= 1,200 B",
            per_decision <= 1_200,
        ),
    ]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _asking(services: Services) -> Callable[[], float]:
    """Microseconds of a decision about somebody who is known."""
    numbers = count()

    def work() -> float:
        asked = [replace(one, recipient=None) for one in shop.requests(next(numbers) * ASKED, ASKED)]
        started = time.perf_counter()
        for request in asked:
            services.decider.decide(shop.WORKSPACE, request)
        return (time.perf_counter() - started) / ASKED * 1e6

    return work
