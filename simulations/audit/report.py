"""What an audit found: figures by rule, each breach, and the words for people and for programs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from simulations.audit.holdings import Held
from simulations.audit.verdicts import VERDICTS, Judgement, Verdict

#: How many findings of a kind are shown to people.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Breach:
    """A reservation that broke a rule; ``others`` are the messages that it broke it with.

    Where the books are wrong about a period or a stray message, ``decision_id`` names that.
    """

    rule_id: str
    kind: str
    decision_id: str
    recipient_id: str
    detail: str
    others: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What the audit of one workspace found.

    ``tallies``: by (rule id, kind), how many reservations kept it, violated it, can't be judged (``unknown``).
    ``unmarked``: reservations from before the order of commits was noted; they count, but are not judged.
    ``otherwise``: by what was done, the ids of decisions whose sender did something else than was reserved.
    """

    workspace_id: str
    decisions: int = 0
    reservations: int = 0
    imported: int = 0
    unmarked: int = 0
    other_systems: int = 0
    displaced: int = 0
    tallies: dict[tuple[str, str], Counter[Verdict]] = field(default_factory=lambda: defaultdict(Counter))
    breaches: list[Breach] = field(default_factory=list)
    overridden: list[tuple[str, str]] = field(default_factory=list)
    otherwise: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def clean(self) -> bool:
        """Whether no rule was broken."""
        return not self.breaches

    @property
    def unknown(self) -> int:
        """How many judgements the log doesn't allow."""
        return sum(tally["unknown"] for tally in self.tallies.values())

    def note(self, rule_id: str, kind: str, held: Held, found: Judgement) -> None:
        """Counts a judgement and keeps a breach."""
        self.tallies[rule_id, kind][found.verdict] += 1
        if found.verdict == "violated":
            self.breaches.append(Breach(rule_id, kind, held.ref, held.recipient_id, found.detail, found.others))

    def misbooked(self, what: str, recipient_id: str, detail: str) -> None:
        """Keeps a breach of the books."""
        self.tallies["books", "books"]["violated"] += 1
        self.breaches.append(Breach("books", "books", what, recipient_id, detail))


def as_document(report: Report) -> dict[str, object]:
    """The report for programs."""
    return {
        "workspace_id": report.workspace_id,
        "clean": report.clean,
        "unknown": report.unknown,
        "decisions": report.decisions,
        "reservations": report.reservations,
        "displaced": report.displaced,
        "imported": report.imported,
        "not_judged_without_marks": report.unmarked,
        "other_systems_messages": report.other_systems,
        "rules": [
            {"rule_id": rule_id, "kind": kind, **{name: tally[name] for name in VERDICTS}}
            for (rule_id, kind), tally in sorted(report.tallies.items())
        ],
        "violations": [asdict(breach) for breach in report.breaches],
        "overridden": [{"decision_id": ref, "rule_id": rule_id} for ref, rule_id in report.overridden],
        "otherwise": dict(report.otherwise),
    }


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    yield (
        f"{report.workspace_id}: {report.decisions} decisions, {report.reservations} reservations judged by the rules "
        f"in force at each, {report.other_systems} messages of other systems, {report.imported} imported"
    )
    if report.unmarked:
        yield f"{report.unmarked} reservations are from before the order of commits was noted: they are not judged"
    yield f"{'rule':<32}{'kind':<14}{'kept':>9}{'violated':>10}{'unknown':>9}"
    for (rule_id, kind), tally in sorted(report.tallies.items()):
        yield f"{rule_id:<32}{kind:<14}" + "".join(
            f"{tally[name]:>{width}}" for name, width in zip(VERDICTS, (9, 10, 9), strict=True)
        )
    yield "kept: the reservations that a rule bound and that kept it; what it kept others from, their reasons tell"
    if report.unknown:
        yield "unknown: what was known at the reservation can't be told from the log any more"
    yield from _listed(
        "violations", [f"{b.rule_id}: {b.decision_id} to {b.recipient_id}: {b.detail}" for b in report.breaches]
    )
    yield from _listed("rules overridden by request", [f"{rule_id}: {ref}" for ref, rule_id in report.overridden])
    for what, ids in sorted(report.otherwise.items()):
        yield from _listed(f"done otherwise, {what}", ids)
    yield _verdict(report)


def _verdict(report: Report) -> str:
    if not report.clean:
        return f"{len(report.breaches)} violations"
    return f"no violations; {report.unknown} judgements can't be made" if report.unknown else "clean: every rule held"


def _listed(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"{title}: {len(items)}"
        yield from (f"  {item}" for item in items[:SHOWN])
        if len(items) > SHOWN:
            yield f"  … and {len(items) - SHOWN} more (all with --json)"
