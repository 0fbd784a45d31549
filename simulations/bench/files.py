"""``sendtide decide`` on Parquet files of two sizes: rate, and the peak of memory that must not grow with the file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import parquet

from optimizer.cli.train_job import NICE
from optimizer.config import Settings
from simulations.bench import shop
from simulations.bench.figure import Figure
from simulations.bench.served import Shop

SMALL = 20_000
#: As many as the API has workers, whose rate it is compared with.
PROCESSES = 2
_GIB = 1 << 30
#: Seconds from one look at a command's memory to the next.
_LOOK = 0.1


@dataclass(frozen=True)
class Ended:
    """A command that ended well: seconds by the clock, and the most memory that its processes held, taken together."""

    seconds: float
    peak_bytes: int


def measure(stocked: Shop, rows: int) -> list[Figure]:
    """A file of ``rows`` recipients, and one of 20,000."""
    small, large = _decide(stocked, SMALL, "small"), _decide(stocked, rows, "large")
    grown = large.peak_bytes / small.peak_bytes
    return [
        Figure(f"sendtide decide, Parquet of {rows:,}", f"{rows / large.seconds:,.0f}/s, {PROCESSES} processes"),
        Figure(
            "its peak of memory",
            f"{large.peak_bytes / (1 << 20):,.0f} MiB",
            f"with {SMALL:,} rows: {small.peak_bytes / (1 << 20):,.0f} MiB",
            f"{grown:.2f}x",
            "<= 1 GiB, flat",
            large.peak_bytes <= _GIB and grown <= 1.2,
        ),
    ]


def _decide(stocked: Shop, rows: int, name: str) -> Ended:
    source = stocked.folder / f"{name}.parquet"
    rng = np.random.default_rng(rows)
    parquet.write_table(
        pa.table(
            {
                "recipient_id": [f"{name}{i}" for i in range(rows)],
                "timezone": [shop.ZONES[i % 3] for i in range(rows)],
                "attributes.plan": rng.choice(["pro", "free"], rows),
                "attributes.country": rng.choice(["DE", "US", "IN"], rows),
                "attributes.age": rng.integers(18, 80, rows),
                "attributes.orders": rng.poisson(2, rows),
                "attributes.days": rng.exponential(30, rows),
                **{f"channels.{channel}": np.ones(rows, np.bool_) for channel in shop.CHANNELS},
            }
        ),
        source,
    )
    out = stocked.folder / f"{name}-out"
    asked = ("decide", str(source), "--campaign", "c", "--out", str(out), "--processes", str(PROCESSES))
    return ran(stocked.settings, shop.WORKSPACE, *asked)


def ran(settings: Settings, workspace: str, *arguments: str, aside: bool = False) -> Ended:
    """A ``sendtide`` command on the database of these settings; ``aside``: as the scheduler has its trainings run, with
    one thread and low priority.

    Raises:
        ChildProcessError: it failed.
    """
    first = ("nice", "-n", str(NICE)) if aside else ()
    command = [*first, sys.executable, "-P", "-m", "optimizer.cli", *arguments, "--workspace", workspace]
    environment = settings.training_environment(os.environ) if aside else settings.child_environment(os.environ)
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, env=environment) as child:  # noqa: S603  our own
        while child.poll() is None:
            peak = max(peak, _held(child.pid))
            time.sleep(_LOOK)
    if child.returncode:
        raise ChildProcessError(f"sendtide {' '.join(arguments)} ended with {child.returncode}")
    return Ended(time.perf_counter() - started, peak)


def _held(pid: int) -> int:
    """The most bytes that a process and those below it have each held so far, summed over those that live."""
    try:
        family = [pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_peak, family))


def _peak(pid: int) -> int:
    """``VmHWM`` of a process. What ``wait4`` tells is no less than the memory of the process that started it."""
    try:
        told = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) << 10 for line in told if line.startswith("VmHWM:"))
