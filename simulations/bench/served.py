"""The service under gunicorn on a taught database, and the rival routes under the same settings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from optimizer.config import Settings
from optimizer.service import setup
from simulations.bench import rival, shop
from simulations.server import Server, free_port
from storage.port import Writer
from storage.records import Consent, Recipient

#: Recipients that are stored before; every request asks about another.
PEOPLE = 400_000


@dataclass(frozen=True)
class Shop:
    """A taught database on disk, ready to be served."""

    folder: Path
    settings: Settings
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}


def prepared(folder: Path, people: int = PEOPLE, days: float = 4.0) -> Shop:
    """Teaches a policy ``days`` ago, and stores ``people`` recipients ``p0`` … with consent."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)
    with shop.opened(folder, start) as services:
        _, secret = setup.create_key(services, shop.WORKSPACE, "bench", ["decide", "feedback", "read", "admin"])
        rng = np.random.default_rng(7)
        yes = {name: Consent(True) for name in shop.CHANNELS}
        made = [shop.attributes(rng) for _ in range(1_000)]
        for first in range(0, people, 5_000):
            rows = [
                Recipient(shop.WORKSPACE, f"p{i}", 1, shop.ZONES[i % 3], made[i % 1_000], yes, updated_at=start)
                for i in range(first, min(people, first + 5_000))
            ]
            services.store.write(partial(_put, rows))
    settings = replace(
        Settings(), database=shop.database_in(folder), bind=f"127.0.0.1:{free_port()}", gate=False, scheduler=False
    )
    return Shop(folder, settings, secret)


def _put(rows: Sequence[Recipient], writer: Writer) -> None:
    for row in rows:
        writer.put_recipient(row)


@contextmanager
def serving(stocked: Shop) -> Iterator[str]:
    """The address of the service while it runs."""
    with Server(stocked.settings, stocked.folder):
        yield stocked.settings.bind


@contextmanager
def rivals(stocked: Shop) -> Iterator[str]:
    """The address of the rival routes, under as many workers and threads."""
    database, bind = stocked.folder / "rival.db", f"127.0.0.1:{free_port()}"
    rival.create(str(database))
    command = [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--bind", bind, "--log-level", "error"]
    command += ["--workers", str(stocked.settings.workers), "--threads", str(stocked.settings.threads)]
    command += ["--no-control-socket", "simulations.bench.rival:app"]
    process = subprocess.Popen(  # noqa: S603  our own command
        command, env={**os.environ, rival.DATABASE: str(database)}, start_new_session=True
    )
    try:
        _wait_for(bind)
        yield bind
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def _wait_for(bind: str) -> None:
    host, port = bind.split(":")
    until = time.monotonic() + 20.0
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {bind}")
