"""PostgreSQL beside SQLite, on one host and in turn: single decisions over HTTP and in the process, and batches.

The PostgreSQL server is one of its own on this host with the same durability: every answer is on disk. Both databases
hold the same rows. CPU time is that of the process that decides and of the server together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

import psutil

from optimizer.service.wiring import open_services
from simulations.bench import batches, load
from simulations.bench.figure import Figure, at_least, medians
from simulations.bench.served import Shop, serving
from simulations.bench.shop import WORKSPACE, requests
from simulations.pgserver import PostgresServer, running
from simulations.server import free_port
from storage.open import open_rows
from storage.transfer import transfer

SINGLE, BATCH = 400, 10_000
CLIENTS = 64
PATH = "/v1/decisions"
#: Throughput on PostgreSQL over that on SQLite.
SINGLE_GOAL, BATCH_GOAL = 0.6, 0.5
_SERVER = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200"}
#: Recipients before this one are asked about by other figures.
_FIRST = 30_000_000

Work = Callable[[], float]


def measure(stocked: Shop) -> list[Figure]:
    """Single decisions and batches, over HTTP and in the process."""
    with running(PostgresServer, _SERVER) as server:
        shared = copied(stocked, server)
        both = (stocked, shared)
        return [*_in_process(both, server), *_over_http(both)]


def copied(stocked: Shop, server: PostgresServer) -> Shop:
    """The same shop on a new database of the server."""
    url = server.create()
    transfer(open_rows(stocked.settings.database), open_rows(url))
    settings = replace(stocked.settings, database=url, bind=f"127.0.0.1:{free_port()}")
    return replace(stocked, settings=settings)


def _over_http(both: Sequence[Shop]) -> list[Figure]:
    numbers = count()
    with ExitStack() as running_ones:
        binds = [running_ones.enter_context(serving(one)) for one in both]

        def rate(place: int) -> Work:
            return lambda: load.run(binds[place], PATH, both[place].headers, clients=CLIENTS).rate

        def rows(place: int) -> Work:
            return lambda: batches.rate(binds[place], both[place], [next(numbers)], lines=True)

        for bind, one in zip(binds, both, strict=True):
            load.run(bind, PATH, one.headers, clients=CLIENTS, seconds=2)  # warm
        embedded, shared = medians([rate(0), rate(1)])
        little, much = medians([rows(0), rows(1)])
        alone = [load.run(bind, PATH, one.headers, clients=1) for bind, one in zip(binds, both, strict=True)]
    return [
        _beside(f"POST /v1/decisions, {CLIENTS} clients", shared, embedded, SINGLE_GOAL),
        _beside(f"a batch of {BATCH:,}, NDJSON", much, little, BATCH_GOAL),
        Figure("latency at one client", f"{alone[1].p50:.2f} ms", f"SQLite: {alone[0].p50:.2f} ms"),
    ]


def _beside(what: str, shared: float, embedded: float, goal: float) -> Figure:
    return at_least(what, f"{shared:,.0f}/s", f"SQLite: {embedded:,.0f}/s", shared / embedded, goal)


def _in_process(both: Sequence[Shop], server: PostgresServer) -> list[Figure]:
    with ExitStack() as opened:
        deciders = []
        for one in both:
            services = open_services(one.settings, watch=False)
            opened.callback(services.close)
            deciders.append(services.decider)
        numbers = count(_FIRST, BATCH)
        spent: dict[tuple[int, bool], list[float]] = {}

        def rate(place: int, batch: bool) -> Work:
            decider = deciders[place]

            def work() -> float:
                first = next(numbers)
                asked = requests(first, BATCH if batch else SINGLE)
                began, cpu = time.perf_counter(), _cpu(server)
                if batch:
                    decider.decide_batch(WORKSPACE, asked, f"run{first}")
                else:
                    for request in asked:
                        decider.decide(WORKSPACE, request)
                taken = time.perf_counter() - began
                spent.setdefault((place, batch), []).append((_cpu(server) - cpu) / len(asked) * 1e6)
                return len(asked) / taken

            return work

        works = [rate(place, batch) for batch in (False, True) for place in (0, 1)]
        for work in works[:2]:
            work()  # warm
        spent.clear()
        single, shared_single, batch, shared_batch = medians(works)
    cpu = {key: min(values) for key, values in spent.items()}
    return [
        _beside("a decision in the process, one after the other", shared_single, single, SINGLE_GOAL),
        _cpu_figure("its CPU time", cpu[1, False], cpu[0, False]),
        _beside(f"a batch of {BATCH:,} in the process", shared_batch, batch, BATCH_GOAL),
        _cpu_figure("CPU time of its row", cpu[1, True], cpu[0, True]),
    ]


def _cpu_figure(what: str, shared: float, embedded: float) -> Figure:
    """Microseconds, the smallest of all rounds; the ratio is that of rates."""
    beside = f"SQLite: {embedded:,.0f} µs"
    return Figure(what, f"{shared:,.0f} µs", beside, f"{embedded / shared:.2f}x")


def _cpu(server: PostgresServer) -> float:
    """Seconds of CPU that this process and the server have used."""
    main, *children = server.processes()
    ended = sum(main.cpu_times()[2:4])  # of sessions that are over
    return ended + sum(sum(one.cpu_times()[:2]) for one in (psutil.Process(), main, *children))
