"""Single decisions over HTTP, beside routes that store one row, or nothing."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from simulations.bench import load
from simulations.bench.figure import Figure, at_least, medians
from simulations.bench.served import Shop, rivals, serving

CLIENTS = 64
PATH = "/v1/decisions"


def measure(stocked: Shop) -> list[Figure]:
    """Throughput at 64 clients; latency at half load and at one client."""
    with serving(stocked) as ours, rivals(stocked) as theirs:
        load.run(ours, PATH, stocked.headers, clients=CLIENTS, seconds=2)  # warm
        load.run(theirs, "/insert", stocked.headers, clients=CLIENTS, seconds=2)
        rate, inserting, bare = medians(
            [
                lambda: load.run(ours, PATH, stocked.headers, clients=CLIENTS).rate,
                lambda: load.run(theirs, "/insert", stocked.headers, clients=CLIENTS).rate,
                lambda: load.run(theirs, "/bare", stocked.headers, clients=CLIENTS).rate,
            ]
        )
        p99, bare_p99, flush = medians(
            [
                lambda: load.run(ours, PATH, stocked.headers, clients=CLIENTS, rate=rate / 2).p99,
                lambda: load.run(theirs, "/bare", stocked.headers, clients=CLIENTS, rate=rate / 2).p99,
                lambda: flush_milliseconds(stocked.folder),
            ]
        )
        alone = load.run(ours, PATH, stocked.headers, clients=1)
    allowed = 4 * flush + 3 * bare_p99
    return [
        at_least(
            "POST /v1/decisions, 64 clients",
            f"{rate:,.0f}/s",
            f"a route that inserts one row in its own transaction: {inserting:,.0f}/s",
            rate / inserting,
            1.0,
        ),
        at_least("the same", f"{rate:,.0f}/s", f"a route without a store: {bare:,.0f}/s", rate / bare, 0.45),
        Figure(
            "its p99 at half load",
            f"{p99:.1f} ms",
            f"4 flushes of {flush:.2f} ms + 3 p99s of the bare route, {bare_p99:.1f} ms: {allowed:.1f} ms",
            f"{p99 / allowed:.2f}x",
            "<= 1x",
            p99 <= allowed,
        ),
        Figure("its latency at one client", f"{alone.p50:.2f} ms, p99 {alone.p99:.2f} ms"),
    ]


def flush_milliseconds(folder: Path) -> float:
    """Median time of writing and flushing 4 kB."""
    taken = []
    with (folder / "flush").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)
