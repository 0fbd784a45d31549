"""``sendtide drill ray``: one process and two nodes decide the same, also where a node dies half-way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from optimizer.config import Settings
from optimizer.service.wiring import utc_now
from simulations.audit import Report
from simulations.drills.nodes import Nodes, two_nodes
from simulations.drills.ray_scene import CAMPAIGN, Size, prepare, switch_shared, write_files
from simulations.drills.rules import proof
from simulations.drills.rules.scene import EMAIL_COST, SECOND_COST
from simulations.drills.scene import WORKSPACE
from simulations.pgserver import PostgresServer, running
from storage.open import open_store
from storage.rules import MICROS

#: Seconds between two looks at how far a command is.
_LOOK = 0.05
#: Batches lock each of their recipients.
_SERVER = {"max_locks_per_transaction": "256", "max_wal_size": "4GB"}
_TEMPLATE = "scene"

Note = Callable[[str], None]


@dataclass(frozen=True)
class Ran:
    """One command: how long it took, what it told, how much was written when a node was killed (None = none was)."""

    seconds: float
    decided: int
    failed: int
    killed_at: int | None


@dataclass(frozen=True)
class Result:
    """What the drill showed.

    Attributes:
        alone, nodes, killed, shared: the runs: one process; two nodes; two of which one is killed; that with capacities
            and budgets.
        same: whether the answers of ``nodes`` and ``killed`` are those of ``alone``, cell for cell.
        stored: decisions in the database after ``killed`` and after ``shared``.
        answered: different decisions among the answers of ``shared``.
        masked: rows of ``alone`` in which a cap or gap masked something, which makes the order of rows matter.
        report: the audit of ``shared``. ran_out: by shared limit, how many of its periods were full.
    """

    size: Size
    alone: Ran
    nodes: Ran
    killed: Ran
    shared: Ran
    same: tuple[bool, bool]
    stored: tuple[int, int]
    answered: int
    masked: int
    report: Report
    ran_out: dict[str, int]

    @property
    def passed(self) -> bool:
        """Whether everything is as promised, and was put to the test."""
        rows = self.size.rows
        runs = (self.alone, self.nodes, self.killed, self.shared)
        complete = all(run.decided == rows and run.failed == 0 for run in runs)
        halfway = all(
            run.killed_at is not None and run.killed_at < self.size.parts for run in (self.killed, self.shared)
        )
        tried = self.masked > 0 and len(self.ran_out) > 0 and all(self.ran_out.values())
        clean = self.report.clean and self.report.unknown == 0
        return complete and halfway and tried and clean and all(self.same) and {*self.stored, self.answered} == {rows}


def run(size: Size, note: Note) -> Result:
    """Runs the drill on a PostgreSQL server and a cluster of its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as on nodes: neither side has more than its processors
    with tempfile.TemporaryDirectory(prefix="sendtide-ray-") as name, running(PostgresServer, _SERVER) as server:
        work = Work.begin(Path(name), server, size)
        with two_nodes(size.processors) as nodes:
            return drilled(work, nodes, note)


@dataclass(frozen=True)
class Work:
    """Where a drill works: its folder, its server, and the time that every run decides at."""

    folder: Path
    server: PostgresServer
    size: Size
    now: datetime

    @classmethod
    def begin(cls, folder: Path, server: PostgresServer, size: Size) -> Work:
        """Makes the files and the database that every run gets a copy of."""
        write_files(folder / "people", size)
        prepare(server.create(name=_TEMPLATE), size)
        return cls(folder, server, size, utc_now())

    @contextmanager
    def copy(self) -> Iterator[str]:
        """A database as it was prepared, for the length of the block."""
        url = self.server.create(template=_TEMPLATE)
        yield url
        self.server.drop(url)

    def command(self, out: Path, nodes: Nodes | None = None) -> list[str]:
        """The command that decides all files; ``nodes`` None = in one process."""
        what = ["decide", str(self.folder / "people"), "--campaign", CAMPAIGN, "--workspace", WORKSPACE, "--json"]
        how = ["--out", str(out), "--part-rows", str(self.size.part_rows), "--now", self.now.isoformat()]
        where = [] if nodes is None else ["--ray", nodes.address]
        return [sys.executable, "-m", "optimizer.cli", *what, *how, *where]

    def decide(self, name: str, database: str, nodes: Nodes | None = None, *, kill: bool = False) -> Ran:
        """Calls the command; with ``kill``, kills a node when half of the parts are there."""
        out, told = self.folder / name, self.folder / f"{name}.json"
        environment = Settings(database=database).child_environment(os.environ)
        began, killed_at = time.monotonic(), None
        with (
            told.open("wb") as answer,
            subprocess.Popen(self.command(out, nodes), stdout=answer, env=environment) as at_work,  # noqa: S603
        ):
            while at_work.poll() is None:
                if kill and nodes is not None and killed_at is None and 2 * len(parts(out)) >= self.size.parts:
                    nodes.kill()
                    killed_at = len(parts(out))
                time.sleep(_LOOK)
        seconds = time.monotonic() - began
        if killed_at is not None and nodes is not None:
            nodes.replace()
        if at_work.returncode:
            raise ChildProcessError(f"sendtide decide ended with {at_work.returncode}")
        counts = orjson.loads(told.read_bytes())
        return Ran(seconds, counts["decided"], counts["failed"], killed_at)


def drilled(work: Work, nodes: Nodes, note: Note) -> Result:
    """The four runs, and what they come to."""
    folder, size = work.folder, work.size
    note(f"{size.recipients:,} recipients, {size.rows:,} rows; one process decides")
    with work.copy() as database:
        alone = work.decide("alone", database)
    note(f"{size.rows / alone.seconds:,.0f} rows/s; two nodes decide")
    with work.copy() as database:
        together = work.decide("nodes", database, nodes)
    note(f"{size.rows / together.seconds:,.0f} rows/s; two nodes, of which one is killed")
    with work.copy() as database:
        killed = work.decide("killed", database, nodes, kill=True)
        count = stored(database)
    note(f"killed after {killed.killed_at} of {size.parts} parts; the same with capacities and budgets")
    with work.copy() as database:
        switch_shared(database, on=True)
        shared = work.decide("shared", database, nodes, kill=True)
        note("now the audit")
        return Result(
            size=size,
            alone=alone,
            nodes=together,
            killed=killed,
            shared=shared,
            same=(same(folder / "alone", folder / "nodes"), same(folder / "alone", folder / "killed")),
            stored=(count, stored(database)),
            answered=len({name for part in parts(folder / "shared") for name in _column(part, "decision_id")}),
            masked=sum(_by_order(text) for part in parts(folder / "alone") for text in _column(part, "reasons")),
            report=proof.audited(database),
            ran_out=_ran_out(database),
        )


def parts(out: Path) -> list[Path]:
    """The files of answers that are there, in order."""
    return sorted(out.glob("part-*"))


def _column(part: Path, name: str) -> list[Any]:
    from pyarrow import parquet

    values: list[Any] = parquet.read_table(part, columns=[name]).column(name).to_pylist()
    return values


def _by_order(reasons: str) -> bool:
    """Whether an earlier message masked something."""
    return any(reason["kind"] in ("cap", "gap") for reason in orjson.loads(reasons))


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same answers, cell for cell, in the same parts."""
    from pyarrow import parquet

    pairs = list(zip(parts(one), parts(other), strict=False))
    same = all(a.name == b.name and parquet.read_table(a).equals(parquet.read_table(b)) for a, b in pairs)
    return same and len(pairs) == len(parts(one)) == len(parts(other))


def stored(database: str) -> int:
    """How many decisions a database holds."""
    import psycopg

    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM decisions").fetchone()
    return 0 if row is None else int(row[0])


def _ran_out(database: str) -> dict[str, int]:
    store = open_store(database)
    try:
        with store.read() as reader:
            return dict(proof.ran_out(reader, round((EMAIL_COST + SECOND_COST) * MICROS)))
    finally:
        store.close()
