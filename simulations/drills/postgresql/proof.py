"""What was left after the restarts, beside what the clients were told: what is lost, broken, or went on twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from simulations.audit import Report, audit
from simulations.drills.postgresql.load import Work, stored_mark
from simulations.drills.postgresql.size import Size, rules
from simulations.drills.postgresql.trainers import overlapping
from simulations.drills.scene import WORKSPACE
from simulations.pgserver import Blow
from storage.log import items_of
from storage.port import Reader

#: How many of each kind of failure are told.
SHOWN = 5


@dataclass(frozen=True)
class Restart:
    """One restart: how, when, after how many decisions; the seconds until it took connections, and from then until
    somebody was answered again."""

    how: Blow
    at: datetime
    after: int
    took_seconds: float
    answered_seconds: float


@dataclass(frozen=True)
class Attack:
    """What happened under load.

    Attributes:
        restarts: of the server.
        seconds: that the decisions took.
        again: how many decisions were asked for once more at the end.
        differing: those that were answered differently.
        most_trainers: training processes that were alive at a time, at most.
        trainers: all that were seen.
    """

    restarts: tuple[Restart, ...]
    seconds: float
    again: int
    differing: tuple[str, ...]
    most_trainers: int
    trainers: int

    @property
    def last(self) -> datetime:
        """When the last restart began."""
        return max(restart.at for restart in self.restarts)


@dataclass(frozen=True)
class Result:
    """What a run showed.

    Attributes:
        size: of the run. attack: what happened.
        answered: decisions that clients were told of. stored: those in the log.
        lost: request ids whose decision is not stored as it was told.
        lost_events: reported clicks that are not stored. events: all that were acknowledged.
        lost_closings: confirms and releases that are not stored. closings: all that were acknowledged.
        busy: answers 503. broken: connections that broke. refused, errors: other answers that were no decision.
        masked: by rule, in how many decisions it masked something.
        runs: training runs by status. overlapping: those that went on beside another.
        trained_after: seconds from the last restart until a training run had published; None = none did.
        report: of the audit.
    """

    size: Size
    attack: Attack
    answered: int
    stored: int
    lost: tuple[str, ...]
    events: int
    lost_events: tuple[str, ...]
    closings: int
    lost_closings: tuple[str, ...]
    busy: int
    broken: int
    refused: tuple[str, ...]
    errors: tuple[str, ...]
    masked: dict[str, int]
    runs: dict[str, int]
    overlapping: tuple[str, ...]
    trained_after: float | None
    report: Report

    @property
    def nothing_lost(self) -> bool:
        """Whether everything that was acknowledged is stored, once, and is told again in the same words."""
        whole = self.answered == self.stored == self.size.decisions
        return whole and not (self.lost or self.lost_events or self.lost_closings or self.attack.differing)

    @property
    def one_trainer(self) -> bool:
        """Whether trainings went on, and never two at a time."""
        return self.attack.trainers > 0 and self.attack.most_trainers == 1 and not self.overlapping

    @property
    def passed(self) -> bool:
        """Whether every promise was kept, and put to the test."""
        tried = len(self.attack.restarts) == self.size.restarts and all(self.masked.values())
        clean = self.report.clean and not self.report.unknown
        well = not (self.errors or self.refused or self.broken) and self.trained_after is not None
        return tried and clean and well and self.nothing_lost and self.one_trainer


def judged(reader: Reader, work: Work, attack: Attack, trained_after: float | None) -> Result:
    """Compares what was acknowledged with what is stored."""
    told, heard = work.heard.marks, work.heard.others
    events = {ref: decision for one in heard for ref, decision in one.events.items()}
    closed = {ref: how for one in heard for ref, how in one.closed.items()}
    found: dict[str, int] = {}
    statuses: dict[str, str] = {}
    stored_events: set[str] = set()
    masked: Counter[str] = Counter()
    stored = 0
    for row in reader.feedback(WORKSPACE):
        decision = row.decision
        stored += 1
        found[str(decision.request_id)] = stored_mark(decision)
        if decision.decision_id in closed:
            statuses[decision.decision_id] = decision.status
        stored_events |= {event.event_id for event in row.events}
        masked.update({reason.rule_id for reason in decision.reasons if reason.masked})
    runs = list(items_of(lambda at: reader.training_runs(WORKSPACE, limit=500, cursor=at)))
    return Result(
        size=work.size,
        attack=attack,
        answered=len(told),
        stored=stored,
        lost=tuple(name for name, mark in told.items() if found.get(name) != mark),
        events=len(events),
        lost_events=tuple(sorted(events.keys() - stored_events)),
        closings=len(closed),
        lost_closings=tuple(ref for ref, how in closed.items() if statuses.get(ref) != how),
        busy=sum(one.busy for one in heard),
        broken=sum(one.broken for one in heard),
        refused=tuple(work.heard.refused),
        errors=tuple(error for one in heard for error in one.errors),
        masked={name: masked[name] for name in ("cap", "night", *(rule.rule_id for rule in rules(work.size)))},
        runs=dict(Counter(run.status for run in runs)),
        overlapping=tuple(overlapping(runs)),
        trained_after=trained_after,
        report=audit(reader, WORKSPACE),
    )


def document(r: Result) -> dict[str, Any]:
    """The result for programs."""
    a = r.attack
    return {
        "passed": r.passed,
        "decisions": r.answered,
        "stored": r.stored,
        "recipients": r.size.recipients,
        "seconds": round(a.seconds, 1),
        "decisions_per_second": round(r.answered / a.seconds, 1),
        "restarts": [
            {
                "how": one.how,
                "after_decisions": one.after,
                "took_seconds": round(one.took_seconds, 2),
                "answered_seconds": round(one.answered_seconds, 2),
            }
            for one in a.restarts
        ],
        "busy": r.busy,
        "broken_connections": r.broken,
        "refused": r.refused[:SHOWN],
        "errors": r.errors[:SHOWN],
        "lost_decisions": r.lost,
        "events": r.events,
        "lost_events": r.lost_events,
        "closings": r.closings,
        "lost_closings": r.lost_closings,
        "asked_again": a.again,
        "answered_differently": a.differing,
        "masked": r.masked,
        "training_runs": r.runs,
        "training_processes": a.trainers,
        "training_processes_at_a_time": a.most_trainers,
        "overlapping_runs": r.overlapping,
        "trained_after_seconds": r.trained_after,
        "violations": len(r.report.breaches),
        "not_judged": r.report.unknown,
    }


def lines(r: Result) -> Iterator[str]:
    """The result for people: a table of figures."""
    a = r.attack
    by_how = Counter(one.how for one in a.restarts)
    rows: list[tuple[str, object]] = [
        ("decisions answered, stored, lost", f"{r.answered:,}, {r.stored:,}, {len(r.lost)}"),
        ("  seconds, decisions a second", f"{a.seconds:.0f}, {r.answered / a.seconds:,.0f}"),
        ("restarts", f"{len(a.restarts)} ({', '.join(f'{n} {how}' for how, n in by_how.items())})"),
        ("  slowest, until the server was up", f"{_slowest([one.took_seconds for one in a.restarts]):.1f} s"),
        ("  slowest, from then to an answer", f"{_slowest([one.answered_seconds for one in a.restarts]):.2f} s"),
        ("answers 503, broken connections", f"{r.busy}, {r.broken}"),
        ("other refusals, failures (5xx)", f"{len(r.refused)}, {len(r.errors)}"),
        ("events acknowledged, lost", f"{r.events}, {len(r.lost_events)}"),
        ("confirms and releases acknowledged, lost", f"{r.closings}, {len(r.lost_closings)}"),
        ("decisions asked for again, differing", f"{a.again:,}, {len(a.differing)}"),
        ("decisions masked by", ", ".join(f"{name} {count:,}" for name, count in r.masked.items())),
        ("training runs", ", ".join(f"{n} {status}" for status, n in r.runs.items()) or "none"),
        ("  processes, at a time at most, overlaps", f"{a.trainers}, {a.most_trainers}, {len(r.overlapping)}"),
        ("  the first after the last restart", "none" if r.trained_after is None else f"after {r.trained_after:.0f} s"),
        ("audit: violations, not judged", f"{len(r.report.breaches)}, {r.report.unknown}"),
    ]
    yield from (f"{name:<44}{figure}" for name, figure in rows)
    for failures in (r.errors, r.refused, r.lost, a.differing):
        yield from (f"  {one}" for one in failures[:SHOWN])
    yield "passed" if r.passed else "failed"


def _slowest(seconds: Sequence[float]) -> float:
    return max(seconds, default=0.0)
