"""``sendtide decide`` on Parquet files of two sizes: rate, and the peak of memory that must not grow with the file."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from simulations.bench import shop
from simulations.bench.figure import Figure
from simulations.bench.served import Shop

SMALL = 20_000
_GIB = 1 << 30


@dataclass(frozen=True)
class Ended:
    """A child process that ended well: seconds by the clock, and the most memory it held."""

    seconds: float
    peak_bytes: int


def measure(stocked: Shop, rows: int) -> list[Figure]:
    """A file of ``rows`` recipients, and one of 20,000."""
    small, large = _decide(stocked, SMALL, "small"), _decide(stocked, rows, "large")
    grown = large.peak_bytes / small.peak_bytes
    return [
        Figure(f"sendtide decide, Parquet of {rows:,}", f"{rows / large.seconds:,.0f}/s, one process"),
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
    out = stocked.folder / f"{name}-out.parquet"
    return ran(stocked, "decide", str(source), "--campaign", "c", "--out", str(out))


def ran(stocked: Shop, *arguments: str) -> Ended:
    """A ``sendtide`` command on the shop's database.

    Raises:
        ChildProcessError: it failed.
    """
    command = [sys.executable, "-P", "-m", "optimizer.cli", *arguments, "--workspace", shop.WORKSPACE]
    environment = stocked.settings.child_environment(os.environ)
    started = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, environment)
    _, status, used = os.wait4(child, 0)
    if status:
        raise ChildProcessError(f"sendtide {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return Ended(time.perf_counter() - started, used.ru_maxrss * 1024)
