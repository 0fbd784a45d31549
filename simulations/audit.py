"""``sendtide audit``: proves from the log that every rule held at each reservation, or names where it didn't.

Reads through the store's port alone and shares no code with what enforces the rules (``simulations.proof`` and
``simulations.holdings`` are written from the contract). What a sender did otherwise than reserved is no breach of a
rule and is listed apart.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import click

from optimizer.cli.call import Call, option
from optimizer.cli.call import command as shared_flags
from optimizer.cli.group import EXIT_CODES
from optimizer.errors import Invalid, NotFound
from simulations.holdings import IN_FLIGHT, ByTime, Counting, Held, held_by, held_elsewhere
from simulations.otherwise import done_otherwise, misbooked
from simulations.proof import Judgement, Verdict, binds, in_force, judge_consent, judge_rule, judge_suppression, selects
from storage.log import FeedbackRow, Message
from storage.open import open_store
from storage.port import Reader
from storage.records import Recipient, Rule

#: How many recipients are looked at together, and how many findings of a kind are shown to people.
CHUNK = 500
SHOWN = 20
_ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
_VERDICTS: tuple[Verdict, ...] = ("kept", "violated", "unknown")


@dataclass(frozen=True, slots=True)
class Breach:
    """A reservation that broke a rule; ``others`` are the messages that it broke it with."""

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
    ``otherwise``: by what was done, the ids of decisions whose sender did something else than was reserved.
    """

    workspace_id: str
    exact: bool
    decisions: int = 0
    reservations: int = 0
    imported: int = 0
    earlier: int = 0
    other_systems: int = 0
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


def audit(
    reader: Reader,
    workspace_id: str,
    *,
    counting: Counting | None = None,
    since: datetime | None = None,
    in_flight: timedelta = IN_FLIGHT,
) -> Report:
    """Judges every reservation of a workspace.

    Rules keep no history: each reservation is judged by the rules as they stand now.

    Args:
        reader: a snapshot of the store.
        workspace_id: whose log.
        counting: what counted at each reservation; None = as far as the times in the log tell.
        since: earlier reservations count but are not judged (rules keep no history: the time of their last change).
        in_flight: the longest time from reading the clock to the commit.
    """
    counting = counting or ByTime(in_flight)
    report = Report(workspace_id, counting.exact)
    places = _read_log(reader.feedback(workspace_id), report)
    rules = tuple(rule for rule in reader.rules(workspace_id) if in_force(rule))
    court = _Court(reader, workspace_id, rules, counting, since, in_flight)
    for chunk in _chunks(sorted(places)):
        recipients = reader.recipients(workspace_id, chunk)
        messages = reader.messages(workspace_id, chunk, *_ALL_TIME)
        for recipient_id in chunk:
            stored = messages.get(recipient_id, ())
            _check_books(places[recipient_id], stored, report)
            foreign = [held_elsewhere(m) for m in stored if m.decision_id is None]
            report.other_systems += len(foreign)
            court.judge_all(places[recipient_id], foreign, recipients.get(recipient_id), report)
    return report


def _read_log(rows: Iterator[FeedbackRow], report: Report) -> dict[str, list[Held]]:
    """The places that decisions took, by recipient; notes on the way what senders did otherwise."""
    places: dict[str, list[Held]] = defaultdict(list)
    for row in rows:
        report.decisions += 1
        report.imported += row.decision.imported
        for what in done_otherwise(row):
            report.otherwise[what].append(row.decision.decision_id)
        held = held_by(row.decision)
        if held is not None:
            places[held.recipient_id].append(held)
    return places


def _check_books(held: Iterable[Held], stored: Sequence[Message], report: Report) -> None:
    """What counts against the caps must be what the decisions say: no place freed twice, none kept after its end."""
    for one, detail in misbooked(held, stored):
        report.note("books", "books", one, Judgement("violated", detail))


@dataclass(frozen=True)
class _Court:
    """Judges reservations by one state of the set-up."""

    reader: Reader
    workspace_id: str
    rules: tuple[Rule, ...]
    counting: Counting
    since: datetime | None
    in_flight: timedelta
    zones: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def judge_all(
        self, own: Sequence[Held], foreign: Sequence[Held], recipient: Recipient | None, report: Report
    ) -> None:
        """Judges all reservations of one recipient."""
        everything = [*own, *foreign]
        for held in own:
            if not held.judged or held.decided_at is None:
                continue
            report.reservations += 1
            if self.since is not None and held.decided_at < self.since:
                report.earlier += 1
                continue
            self._judge_person(held, held.decided_at, recipient, report)
            others = [one for one in everything if one is not held]
            for rule in self.rules:
                self._judge_rule(rule, held, others, report)

    def _judge_rule(self, rule: Rule, held: Held, others: Sequence[Held], report: Report) -> None:
        if rule.rule_id in held.overridden and selects(rule.applies_to, held):
            report.overridden.append((held.ref, rule.rule_id))
        elif binds(rule, held):
            report.note(rule.rule_id, rule.kind, held, judge_rule(rule, held, others, self.counting))

    def _judge_person(self, held: Held, decided_at: datetime, recipient: Recipient | None, report: Report) -> None:
        changed = recipient.updated_at if recipient is not None else None
        surely_before = decided_at - self.in_flight
        # A request's own news of its recipient carry the very time of its decision and were there before the choice.
        steady = changed is None or changed <= surely_before or changed == decided_at
        report.note("consent", "consent", held, judge_consent(held, recipient, steady))
        report.note("suppression", "suppression", held, judge_suppression(held, recipient, steady, surely_before))
        report.note("timezone", "timezone", held, self._judge_zone(held, recipient, steady))

    def _judge_zone(self, held: Held, recipient: Recipient | None, steady: bool) -> Judgement:
        """Whether the zone that the rules were read in was the recipient's, else the campaign's, else UTC."""
        own = recipient.timezone if recipient is not None else None
        right = own or self._campaign_zone(held) or "UTC"
        if not steady:
            return Judgement("unknown", "the recipient's record has changed since")
        return Judgement("kept" if right == held.timezone else "violated", f"read in {held.timezone}, not {right}")

    def _campaign_zone(self, held: Held) -> str | None:
        key = (held.campaign_id or "", held.campaign_version)
        if key not in self.zones:
            campaign = self.reader.campaign(self.workspace_id, *key)
            self.zones[key] = campaign.timezone if campaign is not None else None
        return self.zones[key]


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    return iter(partial(lambda: list(itertools.islice(rest, CHUNK))), [])


def as_document(report: Report) -> dict[str, object]:
    """The report for programs."""
    return {
        "workspace_id": report.workspace_id,
        "clean": report.clean,
        "exact": report.exact,
        "decisions": report.decisions,
        "reservations": report.reservations,
        "imported": report.imported,
        "not_judged_before_since": report.earlier,
        "other_systems_messages": report.other_systems,
        "rules": [
            {"rule_id": rule_id, "kind": kind, **{name: tally[name] for name in _VERDICTS}}
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
        f"as they stand now, {report.other_systems} messages of other systems, {report.imported} imported"
    )
    if report.earlier:
        yield f"{report.earlier} reservations before --since are not judged"
    yield f"{'rule':<32}{'kind':<14}{'kept':>9}{'violated':>10}{'unknown':>9}"
    for (rule_id, kind), tally in sorted(report.tallies.items()):
        yield f"{rule_id:<32}{kind:<14}" + f"{tally['kept']:>9}{tally['violated']:>10}{tally['unknown']:>9}"
    if report.unknown:
        yield "unknown: what was known at the reservation can't be told from the log; see --in-flight-seconds"
    yield from _listed(
        "violations", [f"{b.rule_id}: {b.decision_id} to {b.recipient_id}: {b.detail}" for b in report.breaches]
    )
    yield from _listed("rules overridden by request", [f"{rule_id}: {ref}" for ref, rule_id in report.overridden])
    for what, ids in sorted(report.otherwise.items()):
        yield from _listed(f"done otherwise, {what}", ids)
    yield "clean: every rule held" if report.clean else f"{len(report.breaches)} violations"


def _listed(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"{title}: {len(items)}"
        yield from (f"  {item}" for item in items[:SHOWN])
        if len(items) > SHOWN:
            yield f"  … and {len(items) - SHOWN} more (all with --json)"


def audit_workspace(call: Call, since: datetime | None, in_flight: timedelta) -> Report:
    """Audits the workspace that a command names.

    Raises:
        NotFound: there is no such workspace; an empty log must not pass for a clean one.
    """
    store = open_store(call.settings.database)
    try:
        with store.read() as reader:
            if reader.workspace(call.workspace) is None:
                raise NotFound(f"no workspace {call.workspace!r} in {call.settings.database}")
            return audit(reader, call.workspace, since=since, in_flight=in_flight)
    finally:
        store.close()


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid.field("--since", f"{text!r}; allowed: a time with an offset, such as 2026-03-02T09:00:00Z")
    return moment.astimezone(UTC)


@click.command(name="audit", epilog=EXIT_CODES)
@option("--since", help="Judge only reservations from this time on (RFC 3339), such as the last change of a rule.")
@option(
    "--in-flight-seconds",
    type=click.FloatRange(min=0),
    default=IN_FLIGHT.total_seconds(),
    show_default=True,
    help="Longest time from a request to its commit; what lies closer together has no certain order.",
)
@shared_flags()
def command(call: Call, since: str | None, in_flight_seconds: float) -> None:
    """Prove from the log that every rule held at each reservation; exit code 1 names where one didn't.

    Consent, suppression, caps and quiet hours are worked out anew by code that shares nothing with what enforces them.
    Rules keep no history, so the present ones are used. What a sender did otherwise than reserved is listed apart.
    """
    report = audit_workspace(call, _instant(since), timedelta(seconds=in_flight_seconds))
    call.answer(as_document(report), *lines(report))
    if not report.clean:
        click.get_current_context().exit(1)
