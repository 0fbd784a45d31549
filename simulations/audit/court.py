"""The audit itself: reads the log once, then judges recipient by recipient, then what all recipients share."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from simulations.audit import books, caps, clocks, displacing, fatigue, people, requires, scarce
from simulations.audit.campaigns import Campaigns
from simulations.audit.holdings import Held, Neighbours, held_by, held_elsewhere, moves
from simulations.audit.people import REFUSALS, Heard, Person
from simulations.audit.report import Report
from simulations.audit.requires import Reply
from simulations.audit.rulebook import Rulebook, binds, selects
from simulations.audit.verdicts import LOST, Judgement, Verdict
from storage.log import FeedbackRow, Message
from storage.port import Reader
from storage.records import Recipient, Variant
from storage.rules import Blackout, Budget, Cap, Fatigue, QuietHours, Rule

#: How many recipients are looked at together.
CHUNK = 500
#: A fact of the installation: decisions up to this position are from before the order of commits was noted.
MARKED_AFTER = "marked_after"
_ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


def audit(reader: Reader, workspace_id: str) -> Report:
    """Judges every reservation of a workspace by the rules in force at its position.

    Args:
        reader: a snapshot of the store.
        workspace_id: whose log.
    """
    report = Report(workspace_id)
    marked_after = int(reader.meta(MARKED_AFTER) or 0)
    log = read_log(reader, workspace_id, marked_after, report)
    court = Court(reader, workspace_id, log, Rulebook(reader.rule_history(workspace_id)), marked_after)
    everything: list[Held] = []
    strangers = {m.recipient_id for m in reader.message_log(workspace_id) if m.decision_id is None}
    for recipient_id in strangers:  # another system may have written to people whom we never did
        log.places.setdefault(recipient_id, [])
    for chunk in _chunks(sorted(log.places)):
        recipients = reader.recipients(workspace_id, chunk)
        messages = reader.messages(workspace_id, chunk, *_ALL_TIME)
        for recipient_id in chunk:
            stored = messages.get(recipient_id, ())
            own = log.places[recipient_id]
            _check_books(own, stored, report)
            both = [*own, *(held_elsewhere(m) for m in stored if m.decision_id is None)]
            report.other_systems += len(both) - len(own)
            everything += both
            court.judge_recipient(own, both, recipients.get(recipient_id), report)
    court.judge_shared(everything, report)
    return report


@dataclass
class Log:
    """What is kept of a log: places by recipient (also those who have none), and what events tell.

    ``positions``: of all decisions, ascending. ``answers``: what people did with messages, by reference, as far as some
    variant asks for it. ``refusals``: by recipient, marks of the refusals that events recorded.
    """

    campaigns: Campaigns
    places: dict[str, list[Held]] = field(default_factory=lambda: defaultdict(list))
    positions: list[int] = field(default_factory=list)
    answers: dict[str, Sequence[Reply]] = field(default_factory=dict)
    refusals: dict[str, dict[str, Heard]] = field(default_factory=lambda: defaultdict(dict))


def read_log(reader: Reader, workspace_id: str, marked_after: int, report: Report) -> Log:
    """Reads every decision and event once; notes on the way what senders did otherwise."""
    log = Log(Campaigns(reader, workspace_id))
    wanted = log.campaigns.required()
    mapped = log.campaigns.mapped_to(REFUSALS)
    for row in reader.feedback(workspace_id):
        decision = row.decision
        report.decisions += 1
        report.imported += decision.imported
        log.positions.append(decision.position)
        log.campaigns.seen(decision)
        for what in books.done_otherwise(row):
            report.otherwise[what].append(decision.decision_id)
        if row.events:
            _note_events(log, row, wanted, mapped)
        held = held_by(decision, marked_after)
        places = log.places[decision.recipient_id]
        if held is not None:
            places.append(held)
    log.positions.sort()
    for places in log.places.values():
        places.sort(key=lambda held: held.position)
    return log


def _note_events(
    log: Log, row: FeedbackRow, wanted: frozenset[tuple[str, str]], mapped: frozenset[tuple[str | None, str]]
) -> None:
    decision = row.decision
    if wanted and (heard := requires.replies(decision, row.events, wanted)):
        log.answers[decision.decision_id] = heard
    if refused := people.refusals_by_event(decision, row.events, mapped):
        log.refusals[decision.recipient_id] |= refused


def _check_books(own: Sequence[Held], stored: Sequence[Message], report: Report) -> None:
    """What counts against the caps must be what the decisions say: no place freed twice, none kept after its end."""
    for one, detail in books.misbooked(own, stored):
        report.misbooked(one.ref, one.recipient_id, detail)
    for stray in books.ownerless(own, stored):
        report.misbooked(stray.message_ref, stray.recipient_id, "counts for a decision that reserved no message")


@dataclass(frozen=True)
class Court:
    """Judges the reservations of a log by its rules."""

    reader: Reader
    workspace_id: str
    log: Log
    rulebook: Rulebook
    marked_after: int
    _learned: dict[str, bool] = field(default_factory=dict)

    def judge_recipient(
        self, own: Sequence[Held], everything: Sequence[Held], recipient: Recipient | None, report: Report
    ) -> None:
        """Judges all reservations of one recipient by what concerns no other; ``everything``: all their messages."""
        person = Person(recipient, self.log.refusals.get(own[0].recipient_id, {}) if own else {})
        neighbours = Neighbours(everything)
        for held in own:
            if not held.judged:
                continue
            if held.position <= self.marked_after:
                report.unmarked += 1
                continue
            report.reservations += 1
            self._judge_person(held, person, report)
            for rule in self._rules_for(held, report):
                report.note(rule.rule_id, rule.kind, held, self._judge(rule, held, neighbours, person))
            self._judge_choice(held, everything, report)
        for held, found in displacing.unaccounted(own):
            report.note("priority", "priority", held, found)

    def _rules_for(self, held: Held, report: Report) -> Iterator[Rule]:
        """The rules of one recipient that bind a reservation; notes those overridden or no longer known."""
        for standing in self.rulebook.standing(held.position):
            rule = standing.rule
            if rule.rule_id in held.overridden and selects(rule.applies_to, held):
                report.overridden.append((held.ref, rule.rule_id))
            elif scarce.shared(rule) or not binds(rule, held):
                continue
            elif standing.lost:
                report.note(rule.rule_id, rule.kind, held, LOST)
            else:
                yield rule

    def _judge(self, rule: Rule, held: Held, neighbours: Neighbours, person: Person) -> Judgement:
        parameters = rule.parameters
        if isinstance(parameters, Cap):
            return caps.judge(rule, parameters, held, neighbours)
        if isinstance(parameters, QuietHours):
            return clocks.judge_quiet(parameters, held)
        if isinstance(parameters, Blackout):
            return clocks.judge_blackout(parameters, held, person.record, person.steady(held))
        if isinstance(parameters, Fatigue):
            campaign = self.log.campaigns.at(held.campaign_id, held.campaign_version)
            always = campaign is not None and not campaign.allow_no_send
            return fatigue.judge(rule, parameters, held, learned=self._has_learned(held.policy_id), sends_always=always)
        raise TypeError(f"rule {rule.rule_id} is of kind {rule.kind}, which is shared by all recipients")

    def _judge_person(self, held: Held, person: Person, report: Report) -> None:
        campaign = self.log.campaigns.at(held.campaign_id, held.campaign_version)
        zone = campaign.timezone if campaign is not None else None
        report.note("consent", "consent", held, people.judge_consent(held, person))
        report.note("suppression", "suppression", held, people.judge_suppression(held, person))
        report.note("timezone", "timezone", held, people.judge_zone(held, person, zone))

    def _judge_choice(self, held: Held, everything: Sequence[Held], report: Report) -> None:
        """The conditions of the variant, and what the message displaced."""
        variant = self._variant(held)
        if variant is not None and variant.requires:
            past = requires.Past(everything, self.log.answers, self.log.campaigns.meanings)
            report.note("requires", "requires", held, requires.judge(variant.requires, held, past))
        if held.displaced:
            report.displaced += len(held.displaced)
            bench = displacing.Displacing(self.log.campaigns, self.log.positions)
            report.note("priority", "priority", held, bench.judge(held, everything, self._capped))

    def _variant(self, held: Held) -> Variant | None:
        campaign = self.log.campaigns.at(held.campaign_id, held.campaign_version)
        variants = campaign.variants if campaign is not None else ()
        return next((v for v in variants if v.id == held.variant_id), None)

    def _capped(self, held: Held, neighbours: Neighbours) -> Verdict:
        """Whether all caps and gaps in force are kept: the worst that is found of one."""
        found: set[Verdict] = set()
        for standing in self.rulebook.standing(held.position):
            rule = standing.rule
            if not isinstance(rule.parameters, Cap) or not binds(rule, held):
                continue
            found.add("unknown" if standing.lost else caps.judge(rule, rule.parameters, held, neighbours).verdict)
        return "violated" if "violated" in found else "unknown" if "unknown" in found else "kept"

    def _has_learned(self, policy_id: str) -> bool:
        if policy_id not in self._learned:
            policy = self.reader.policy(self.workspace_id, policy_id)
            self._learned[policy_id] = policy is not None and any(c.artifact_id is not None for c in policy.mixture)
        return self._learned[policy_id]

    def judge_shared(self, everything: Sequence[Held], report: Report) -> None:
        """Judges capacities and budgets over all recipients, and compares the sums that the store keeps."""
        shared = {
            rule_id: versions
            for rule_id, versions in self.rulebook.versions.items()
            if any(map(scarce.shared, versions))
        }
        if not shared:
            return
        judged = sorted(
            (h for h in everything if h.judged and h.position > self.marked_after), key=lambda h: h.position
        )
        order = moves(everything)
        for rule_id, versions in shared.items():
            for rule, held, found in scarce.judge_all(versions, order, judged):
                report.note(rule_id, rule.kind, held, self._with_cost(rule, held, found))
            newest = versions[-1]
            if scarce.shared(newest) and not newest.archived:
                for detail in books.miscounted(self.reader, self.workspace_id, newest, everything):
                    report.misbooked(rule_id, "", detail)

    def _with_cost(self, rule: Rule, held: Held, found: Judgement) -> Judgement:
        """A budget is kept only if the cost that it counted is the message's."""
        if not isinstance(rule.parameters, Budget) or found.verdict == "violated":
            return found
        campaign = self.log.campaigns.at(held.campaign_id, held.campaign_version)
        return books.judge_cost(held, campaign) or found


def _chunks(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    return iter(partial(lambda: list(itertools.islice(rest, CHUNK))), [])
