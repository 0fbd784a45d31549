"""``sendtide drill race``: processes race for the caps of few people; what they left behind is then proved or not."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimizer.bandit.balance import Balance
from optimizer.config import Settings
from optimizer.service.replay import Replayer
from optimizer.service.wiring import SALT, utc_now
from simulations.audit import Report, audit
from simulations.drills import checks, scene
from simulations.drills.checks import Replayed
from simulations.drills.racers import Job, Run, race, share
from storage.log import Decision
from storage.open import open_store
from storage.port import Reader

#: Seconds that processes wait for each other to start.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """How large a race is; see the flags of the command."""

    processes: int = 8
    threads: int = 8
    decisions: int = 20_000
    recipients: int = 500
    cap: int = 3
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """What a race showed. ``mutant`` None = the service as it is, which must pass; a mutant must be found."""

    mutant: str | None
    decisions: int
    seconds: float
    busy: int
    statuses: dict[str, int]
    report: Report
    lost: list[str]
    replayed: Replayed

    @property
    def balanced(self) -> bool:
        """Whether the drawn actions agree with their propensities, over all and over the redrawn decisions."""
        return self.replayed.balance.passed and self.replayed.redrawn_balance.passed

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        audited = self.report.clean and self.report.unknown == 0
        return audited and not self.lost and self.replayed.exact and self.balanced

    @property
    def as_expected(self) -> bool:
        """A mutant is to be found by the check that is meant for it; without one everything is to hold."""
        if self.mutant is None:
            return self.passed
        return not self.balanced if self.mutant == "action-keyed" else not self.report.clean


def run(size: Size, mutants: Sequence[str] = ()) -> list[Result]:
    """Races without a fault, then once with each of ``mutants``, each time on a new database."""
    return [_run_one(size, mutant) for mutant in (None, *mutants)]


def _run_one(size: Size, mutant: str | None) -> Result:
    with tempfile.TemporaryDirectory(prefix="sendtide-race-") as folder:
        database = f"sqlite:///{Path(folder) / 'race.db'}"
        scene.prepare(Settings(database=database), size.recipients, size.cap, size.seed)
        start = utc_now().replace(minute=0, second=0, microsecond=0) + scene.BEFORE
        job = Job(database, size.threads, size.decisions, size.recipients, start, size.seed, mutant)
        began = time.monotonic()
        runs = _race(job, size.processes)
        seconds = time.monotonic() - began
        store = open_store(database)
        try:
            with store.read() as reader:
                return _judged(reader, runs, mutant, seconds)
        finally:
            store.close()


def _race(job: Job, processes: int) -> list[Run]:
    """Runs the processes side by side; one that fails fails the race."""
    context = multiprocessing.get_context("spawn")
    shared = (context.Value("q", 0), context.Barrier(processes, timeout=START_SECONDS))
    with ProcessPoolExecutor(processes, context, initializer=share, initargs=shared) as pool:
        return [one.result() for one in [pool.submit(race, job) for _ in range(processes)]]


def _judged(reader: Reader, runs: Sequence[Run], mutant: str | None, seconds: float) -> Result:
    stored = list(_stored(reader))
    salt = reader.meta(SALT)
    if salt is None:
        raise LookupError("the database has no salt")
    answers = [answer for run in runs for answer in run.answers]
    return Result(
        mutant=mutant,
        decisions=len(answers),
        seconds=seconds,
        busy=sum(run.busy for run in runs),
        statuses=_counted(d.status for d in stored),
        report=audit(reader, scene.WORKSPACE),
        lost=checks.lost(reader, scene.WORKSPACE, answers),
        replayed=checks.replayed(Replayer(reader, bytes.fromhex(salt)), stored),
    )


def _stored(reader: Reader) -> Iterator[Decision]:
    return (row.decision for row in reader.feedback(scene.WORKSPACE))


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def document(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results for programs."""
    return [
        {
            "mutant": r.mutant,
            "as_expected": r.as_expected,
            "passed": r.passed,
            "decisions": r.decisions,
            "decisions_per_second": round(r.decisions / r.seconds, 1),
            "busy": r.busy,
            "statuses": r.statuses,
            "drawn": r.replayed.drawn,
            "redrawn": r.replayed.redrawn,
            "lost": r.lost,
            "violations": len(r.report.breaches),
            "not_judged": r.report.unknown,
            "largest_propensity_error": r.replayed.largest_error,
            "other_draws": r.replayed.other_draws,
            "balance": balance_document(r.replayed.balance),
            "redrawn_balance": balance_document(r.replayed.redrawn_balance),
        }
        for r in results
    ]


def balance_document(balance: Balance) -> dict[str, Any]:
    """A balance test for programs."""
    subsets = [{"name": s.name, "z": s.z, "p": s.p, "p_holm": s.p_holm} for s in balance.subsets]
    return {"passed": balance.passed, "minimum_p": balance.minimum_p, "level": balance.level, "subsets": subsets}


def lines(results: Sequence[Result]) -> Iterator[str]:
    """The results for people."""
    for r in results:
        yield f"== {'as it is' if r.mutant is None else 'mutant ' + r.mutant}"
        yield (
            f"{r.decisions} decisions in {r.seconds:.1f} s ({r.decisions / r.seconds:.0f}/s), "
            f"{r.busy} refusals of a busy store; " + ", ".join(f"{n} {name}" for name, n in r.statuses.items())
        )
        yield (
            f"audit: {len(r.report.breaches)} violations, {r.report.unknown} not judged, "
            f"{r.report.reservations} reservations"
        )
        yield f"answered decisions that are not stored as answered: {len(r.lost)}"
        yield (
            f"replayed: largest error of a propensity {r.replayed.largest_error:.1e}, "
            f"other draws {r.replayed.other_draws} of {r.replayed.drawn}"
        )
        yield from balance_lines(f"balance over all {r.replayed.drawn} draws", r.replayed.balance)
        yield from balance_lines(f"balance over the {r.replayed.redrawn} redrawn", r.replayed.redrawn_balance)
        verdict = "passed" if r.passed else "failed"
        yield f"{verdict}{', as it must' if r.as_expected else ', AND THAT IS WRONG'}"


def balance_lines(title: str, balance: Balance) -> Iterator[str]:
    """A balance test for people."""
    outcome = "holds" if balance.passed else "FAILS"
    yield f"{title}: {outcome}, smallest adjusted p {balance.minimum_p:.2g} (level {balance.level:g})"
    for s in balance.subsets:
        yield f"  {s.name:<16}{s.observed:>8} drawn{s.expected:>11.1f} expected{s.z:>8.2f} z{s.p_holm:>10.2g} p"
