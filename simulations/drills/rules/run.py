"""``sendtide drill rules``: processes decide under every kind of rule at once; then it is proved what held."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from math import ceil
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from optimizer.bandit.balance import Balance
from optimizer.cli.onprocesses import THREADS
from optimizer.config import Settings
from optimizer.service.wiring import utc_now
from simulations.audit import Report
from simulations.drills.checks import TOLERANCE
from simulations.drills.rules import proof, scene
from simulations.drills.rules.proof import Part
from simulations.drills.rules.scene import Size
from simulations.drills.rules.work import Done, Job, share, work
from storage.open import open_store
from storage.rules import MICROS

#: Seconds that processes wait for each other to start.
START_SECONDS = 300.0
#: Seconds between two reports of progress.
REPORT_SECONDS = 10.0
#: What must happen in a run of a million decisions, and in others in proportion.
MILLION = 1_000_000
LEAST_MASKED, LEAST_DISPLACING = 1_000, 100
LEAST_RESERVED = 0.2
#: A log of so many decisions is read sooner than processes start.
SMALL = 5_000
#: Slices of the log that are looked at one after the other by each process.
SLICES = 4

Note = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a run showed. ``mutant`` None = the service as it is, which must pass; a mutant must be found.

    ``ran_out``: by capacity or budget, how many of its periods were full at the end. ``seconds``: of deciding and of
    proving.
    """

    mutant: str | None
    size: Size
    seconds: tuple[float, float]
    answers: int
    unkept: int
    busy: int
    refused: tuple[str, ...]
    part: Part
    report: Report
    balance: Balance
    redrawn_balance: Balance
    ran_out: dict[str, int]

    @property
    def honest(self) -> bool:
        """Whether every rule held, nothing was lost and every propensity is exact."""
        exact = self.part.largest_error <= TOLERANCE and self.part.other_draws == 0
        kept = self.report.clean and self.report.unknown == 0
        stored = self.unkept == 0 and self.answers == len(self.part.marks) == self.size.decisions
        return kept and stored and exact and self.balance.passed and self.redrawn_balance.passed and not self.refused

    @property
    def wanting(self) -> list[str]:
        """What did not happen often enough for the run to prove anything."""
        n = self.size.decisions
        least = ceil(LEAST_MASKED * n / MILLION)
        found = [
            f"{name} masked in {count} decisions, of {least}" for name, count in self.masked.items() if count < least
        ]
        if self.part.reserved < LEAST_RESERVED * n:
            found.append(f"{self.part.reserved} reserved, of {ceil(LEAST_RESERVED * n)}")
        if self.part.displacing < ceil(LEAST_DISPLACING * n / MILLION):
            found.append(f"{self.part.displacing} displacing, of {ceil(LEAST_DISPLACING * n / MILLION)}")
        return found + [f"{name} never ran out" for name, periods in self.ran_out.items() if not periods]

    @property
    def masked(self) -> dict[str, int]:
        """By rule, in how many decisions it masked something. A fatigue rule masks nothing of the eligible set."""
        names = [r.rule_id for r in scene.rules(self.size.decisions, date.min) if r.kind != "fatigue"]
        return {name: self.part.masked[name] for name in names}

    @property
    def found(self) -> int:
        """How many breaches of the mutant's own kind the audit names."""
        kind = "cap" if self.mutant == "adapt" else self.mutant
        return sum(breach.kind == kind for breach in self.report.breaches)

    @property
    def as_expected(self) -> bool:
        """A mutant is to be found by the audit; without one everything is to hold and to have been put to the test."""
        return self.found > 0 if self.mutant is not None else self.honest and not self.wanting


def run(size: Size, mutants: Sequence[str], note: Note, on: str | None = None) -> Iterator[Result]:
    """Runs without a fault, then once with each of ``mutants``, each time on a new database: the first time on ``on``,
    where one is given."""
    for name in THREADS:
        os.environ.setdefault(name, "1")
    yield _run_one(size, None, note, on)
    for mutant in mutants:
        yield _run_one(size.smaller(), mutant, note)


def _run_one(size: Size, mutant: str | None, note: Note, on: str | None = None) -> Result:
    with tempfile.TemporaryDirectory(prefix="sendtide-rules-") as folder:
        database = on or f"sqlite:///{Path(folder) / 'rules.db'}"
        note(f"== {'as it is' if mutant is None else 'mutant ' + mutant}: {size.decisions:,} decisions")
        start = scene.prepare(Settings(database=database), size)
        began, since = time.monotonic(), utc_now()
        done = _decide(Job(database, size, start, mutant), note)
        decided, until = time.monotonic(), utc_now()
        note(f"decided in {decided - began:.0f} s; now the proof")
        report, part = _prove(database, size.decisions, since, until, note)
        whole, again = proof.balances(part)
        store = open_store(database)
        try:
            with store.read() as reader:
                dearest = round((scene.PUSH_COST + scene.SECOND_COST) * MICROS)
                ran_out = dict(proof.ran_out(reader, dearest))
        finally:
            store.close()
        answers = [mark for one in done for mark in one.answers]
        return Result(
            mutant=mutant,
            size=size,
            seconds=(decided - began, time.monotonic() - decided),
            answers=len(answers),
            unkept=proof.unkept(answers, part.marks),
            busy=sum(one.busy for one in done),
            refused=tuple(told for one in done for told in one.refused),
            part=part,
            report=report,
            balance=whole,
            redrawn_balance=again,
            ran_out=ran_out,
        )


def _decide(job: Job, note: Note) -> list[Done]:
    """Runs the processes side by side; one that fails fails the run."""
    processes = job.size.processes
    context = multiprocessing.get_context("spawn")
    units, decided = context.Value("q", 0), context.Value("q", 0)
    shared = (units, decided, context.Barrier(processes, timeout=START_SECONDS))
    with ProcessPoolExecutor(processes, context, initializer=share, initargs=shared) as pool:
        running = [pool.submit(work, job) for _ in range(processes)]
        with _reporting(decided, job.size.decisions, note) as report:
            _watch(running, report)
        return [one.result() for one in running]


def _watch(running: Sequence[Future[Done]], report: Callable[[], None]) -> None:
    """Waits for all, reporting now and then; stops early when one has failed."""
    left = set(running)
    while left:
        done, left = wait(left, timeout=REPORT_SECONDS)
        report()
        if any(one.exception() is not None for one in done):
            return


@contextmanager
def _reporting(decided: Synchronized[int], total: int, note: Note) -> Iterator[Callable[[], None]]:
    """A function that tells how far the run is and how fast it goes."""
    began = time.monotonic()

    def report() -> None:
        seconds = time.monotonic() - began
        note(f"{decided.value:,} of {total:,} decisions, {decided.value / seconds:,.0f}/s")

    yield report


def _prove(database: str, decisions: int, since: datetime, until: datetime, note: Note) -> tuple[Report, Part]:
    """The audit beside the replay of every draw, in a process for each processor; a small log right here."""
    if decisions <= SMALL:
        return proof.audited(database), proof.looked_at(database, (None, None))
    processors = max(2, os.cpu_count() or 1)
    count = SLICES * processors
    edges = [since + (until - since) * i / count for i in range(1, count)]
    spans = list(zip([None, *edges], [*edges, None], strict=True))
    with ProcessPoolExecutor(processors, multiprocessing.get_context("spawn")) as pool:
        audit = pool.submit(proof.audited, database)
        parts = [pool.submit(proof.looked_at, database, span) for span in spans]
        whole = proof.together([part.result() for part in parts])
        note("every draw was replayed; the audit goes on")
        return audit.result(), whole
