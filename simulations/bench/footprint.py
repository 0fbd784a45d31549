"""What the service takes while it does nothing: memory of a worker, time to be ready, CPU of the idle service."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

import psutil

from simulations.bench import load
from simulations.bench.figure import Figure, medians
from simulations.bench.http import PATH
from simulations.bench.served import Shop, serving
from simulations.server import Server

#: After the start a refresh looks at what there is, within so many seconds; once it has ended, nothing happens.
FIRST_REFRESH = 180.0
SETTLING = 10.0
IDLE_SECONDS = 65.0
MIB = 1 << 20


def measure(stocked: Shop) -> list[Figure]:
    """With the scheduler, as people run it."""
    with_scheduler = replace(stocked, settings=replace(stocked.settings, scheduler=True))
    (ready,) = medians([lambda: _ready_seconds(with_scheduler)])
    with serving(with_scheduler) as bind:
        mine = psutil.Process().children(recursive=True)
        _until_refreshed()
        before = sum(_cpu(p) for p in mine)
        time.sleep(IDLE_SECONDS)
        idle = (sum(_cpu(p) for p in mine) - before) / IDLE_SECONDS
        load.run(bind, PATH, stocked.headers, clients=16, seconds=3)
        workers = [p for p in mine if "gunicorn" in _command(p) and _is_worker(p)]
        used = [p.memory_info().rss / MIB for p in workers]
    return [
        Figure("memory of one API worker", f"{max(used):.0f} MiB", "", "", "<= 150 MiB", max(used) <= 150),
        Figure("ready after start", f"{ready:.1f} s", "", "", "<= 3 s", ready <= 3.0),
        Figure(
            f"CPU of the idle service over {IDLE_SECONDS:g} s",
            f"{idle:.2%} of a core",
            "",
            "",
            "none to measure",
            idle <= 0.01,
        ),
    ]


def _until_refreshed() -> None:
    """Waits for the first refresh to begin and to end."""
    until, begun = time.monotonic() + FIRST_REFRESH, False
    while time.monotonic() < until:
        running = any("train-job" in _command(p) for p in psutil.Process().children(recursive=True))
        if begun and not running:
            time.sleep(SETTLING)  # until its parent has counted its time, and workers have what it published
            return
        begun = begun or running
        time.sleep(1.0)
    raise TimeoutError(f"no refresh began and ended within {FIRST_REFRESH:g} s")


def _command(process: psutil.Process) -> str:
    """The command line; of one that has just ended, nothing."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _is_worker(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and "optimizer.gunicorn" in _command(parent)


def _cpu(process: psutil.Process) -> float:
    """Seconds, those of its children that have ended included."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _ready_seconds(stocked: Shop) -> float:
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(Server(stocked.settings, stocked.folder))
        return time.perf_counter() - started
