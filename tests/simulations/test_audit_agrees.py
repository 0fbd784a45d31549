"""The audit over logs that the service wrote, beside the enforcement with which it shares no code; its command."""

from __future__ import annotations

import ast
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from optimizer.bandit.actions import build_space
from optimizer.bandit.eligibility import Question, cost_micros, eligible
from optimizer.bandit.localtime import zone
from optimizer.service import ingest, setup
from optimizer.service.holidays import holidays_of
from optimizer.service.requests import DecisionRequest, EventInput
from simulations import audit as audits
from simulations.audit import caps, clocks
from simulations.audit.holdings import Held, Neighbours, held_elsewhere
from simulations.audit.people import Person
from simulations.audit.scarce import Sums
from simulations.audit.verdicts import Judgement
from simulations.drills import mutants
from storage.log import Decision, Message
from storage.open import open_rows
from storage.port import Store
from storage.records import Campaign, Channel, EventMapping, Recipient, Variant
from storage.rules import (
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    QuietHours,
    Rule,
    RuleParameters,
    Selector,
    WarmUpStep,
    Weekday,
)
from storage.sql.rows import COPYING
from storage.usage import taken
from tests.simulations.planted import HOUR, NOW, SHOP, log, put_rule, spaced
from tests.simulations.shop import Shop

WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def test_the_command_names_the_breach_and_exits_with_one(store: Store, database: str) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    log(store, *spaced(NOW + 10 * HOUR, NOW + 11 * HOUR))
    flags = ["--database", database, "--workspace", SHOP]
    told = CliRunner().invoke(audits.command, flags)
    assert told.exit_code == 1
    assert "the-rule: d1 to u1: 2 in 24 h from" in told.output
    assert "1 violations" in told.output
    document = json.loads(CliRunner().invoke(audits.command, [*flags, "--json"]).output)
    assert not document["clean"]
    assert document["violations"][0]["decision_id"] == "d1"
    assert {"rule_id": "the-rule", "kind": "cap", "kept": 1, "violated": 1, "unknown": 0} in document["rules"]


def test_the_command_refuses_a_workspace_that_does_not_exist(store: Store, database: str) -> None:
    refused = CliRunner().invoke(audits.command, ["--database", database, "--workspace", "nobody"])
    assert refused.exit_code == 1
    assert "nobody" in refused.output


def test_the_command_refuses_a_copy_that_is_unfinished(store: Store, database: str) -> None:
    with open_rows(database).writing() as writer:
        writer.put_fact(COPYING, "{}")
    refused = CliRunner().invoke(audits.command, ["--database", database, "--workspace", SHOP])
    assert refused.exit_code == 2
    assert "a copy into it is unfinished" in refused.output


def _report_on(shop: Shop) -> audits.Report:
    with shop.services.store.read() as reader:
        return audits.audit(reader, SHOP)


def _worked(database: str, seed: int, steps: int, mutant: str | None = None) -> tuple[audits.Report, Counter[str]]:
    """The audit after so many steps of a shop, and in how many decisions each kind masked something."""
    shop = Shop(database, seed)
    with mutants.mutated(mutant):
        shop.run(steps)
    report = _report_on(shop)
    shop.services.close()
    return report, shop.reasons


def test_a_log_that_the_service_wrote_is_clean_and_judged(tmp_path: Path) -> None:
    kept: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    doubtful: set[str] = set()
    displaced = 0
    for seed in (1, 3, 4):
        report, reasons = _worked(f"sqlite:///{tmp_path}/{seed}.db", seed, 130)
        assert report.breaches == []
        displaced += report.displaced
        masked += reasons
        for (_, kind), tally in report.tallies.items():
            kept[kind] += tally["kept"]
            doubtful |= {kind} if tally["unknown"] else set()
    for kind in ("cap", "gap", "quiet_hours", "blackout", "capacity", "budget", "requires", "consent", "suppression"):
        assert masked[kind] > 50, kind
        assert kept[kind] > (0 if kind == "requires" else 50), kind
    assert displaced > 5
    assert doubtful <= {"consent", "suppression", "timezone", "blackout", "requires"}


def test_messages_of_people_who_unsubscribe_later_are_judged(database: str) -> None:
    shop = Shop(database, 5)
    mapped = Campaign(SHOP, "sale", (Variant("a"),), (Channel("email"),), NOW, NOW, allow_no_send=False)
    setup.put_campaign(shop.services, replace(mapped, event_mapping={"left": EventMapping("unsubscribed")}))

    def asked(run: str) -> list[Decision]:
        rows = [DecisionRequest("sale", f"u{i}") for i in range(1, 7)]
        return [made for made in shop.services.decider.decide_batch(SHOP, rows, run) if isinstance(made, Decision)]

    def heard(type_: str, made: Decision) -> None:
        shop.now += HOUR
        ingest.ingest(shop.services, SHOP, [EventInput(type_, shop.now, decision_id=made.decision_id)])

    first = asked("one")
    for made, type_ in zip(first, ("unsubscribed", "complained", "left", "bounced", "unsubscribed"), strict=False):
        heard(type_, made)
    heard("unsubscribed", first[4])
    shop.now += HOUR
    ingest.ingest(shop.services, SHOP, [EventInput("left", shop.now, recipient_id=first[5].recipient_id)])
    assert [made.status for made in asked("two")].count("withheld") == 6
    assert _report_on(shop).unknown == 0
    heard("resubscribed", first[0])
    found = _report_on(shop)
    shop.services.close()
    assert found.breaches == []
    assert {kind for (_, kind), tally in found.tallies.items() if tally["unknown"]} >= {"suppression", "timezone"}
    assert found.unknown < found.reservations


@pytest.mark.parametrize("kind", [kind for kind in mutants.KINDS if kind != "fatigue"])
def test_the_audit_finds_each_enforcement_that_is_switched_off(database: str, kind: str) -> None:
    report, _ = _worked(database, 3, 100, kind)
    found = {breach.kind for breach in report.breaches}
    assert found == {"cap" if kind == "adapt" else kind}


def _random_rule(chance: random.Random) -> Rule:
    counts = chance.choice((Selector(), Selector(channels=("email",)), Selector(except_categories=("news",))))
    parameters = chance.choice((_random_cap, _random_cap, _random_quiet, _random_blackout, _random_shared))(chance)
    kinds = {QuietHours: "quiet_hours", Blackout: "blackout", Capacity: "capacity", Budget: "budget", Cap: "cap"}
    return Rule(SHOP, "r", kinds[type(parameters)], parameters, counts=counts)  # type: ignore[arg-type]


def _random_quiet(chance: random.Random) -> RuleParameters:
    start, end = (f"{chance.randrange(24):02}:{chance.choice((0, 30)):02}" for _ in range(2))
    return QuietHours(start, end, tuple(d for d in WEEKDAYS if chance.random() < 0.6))


def _random_cap(chance: random.Random) -> RuleParameters:
    calendar = chance.choice((None, "day", "week", "month"))
    hours = None if calendar else chance.choice((1.0, 24.0, 36.5, 168.0))
    adapt = Adapt(chance.randrange(1, 5), chance.randrange(3)) if chance.random() < 0.3 else None
    return Cap(chance.randrange(4), hours, calendar, chance.choice(WEEKDAYS), adapt)  # type: ignore[arg-type]


def _random_blackout(chance: random.Random) -> RuleParameters:
    dates = tuple(f"2026-04-{chance.randrange(3, 9):02}" for _ in range(chance.randrange(3)))
    return Blackout(dates, chance.random() < 0.6, chance.choice((None, "DE", "CA", "XX")))


def _random_shared(chance: random.Random) -> RuleParameters:
    if chance.random() < 0.5:
        plan = (WarmUpStep(1, chance.randrange(3)), WarmUpStep(3, chance.randrange(4)))
        warm = (plan, f"2026-04-0{chance.randrange(1, 8)}") if chance.random() < 0.5 else ((), None)
        return Capacity(chance.randrange(8), chance.choice((30, 60, 1440, 10_000)), *warm)
    zones = ("UTC", "America/St_Johns", "Australia/Lord_Howe")
    per = chance.choice(("day", "week", "month"))
    return Budget(chance.randrange(9) * 10_000, per, chance.choice(zones), chance.choice(WEEKDAYS))  # type: ignore[arg-type]


def _audited(rule: Rule, held: Held, messages: Sequence[Message], recipient: Recipient) -> Judgement:
    parameters = rule.parameters
    if isinstance(parameters, QuietHours):
        return clocks.judge_quiet(parameters, held)
    if isinstance(parameters, Blackout):
        return clocks.judge_blackout(parameters, held, Person(recipient, {}).record, steady=True)
    others = [held_elsewhere(m) for m in messages]
    if isinstance(parameters, Cap):
        return caps.judge(rule, parameters, held, Neighbours([*others, held]))
    sums = Sums(rule)
    for other in others:
        sums.move(other, frozenset(), frozenset({other.planned}))
    return sums.judge(rule, held)


def _random_message(chance: random.Random, at: datetime, i: int) -> Message:
    moved, category = at + timedelta(minutes=chance.randrange(-4000, 4000)), chance.choice(("news", "marketing"))
    return Message(SHOP, "u1", moved, f"m{i}", "email", category, cost=chance.randrange(3) * 10_000)


def test_the_audit_and_the_enforcement_agree_though_they_share_no_code() -> None:
    """3,000 random rules, histories, zones and times: a slot is open exactly where the audit calls it kept."""
    chance = random.Random(11)
    verdicts: dict[tuple[str, str], int] = {}
    for _ in range(3000):
        rule, where = _random_rule(chance), chance.choice(("UTC", "America/St_Johns", "Australia/Lord_Howe"))
        at = datetime(2026, 4, 4, tzinfo=UTC) + timedelta(minutes=chance.randrange(60 * 24 * 3))
        channel, unanswered = chance.choice(("email", "post")), chance.randrange(6)
        country = chance.choice(({}, {"country": "au"}, {"country": "CA"}, {"country": "Mars"}, {"country": 7}))
        recipient = Recipient(SHOP, "u1", attributes=country)
        messages = [_random_message(chance, at, i) for i in range(chance.randrange(8))]
        space = build_space(
            variants=("v",),
            channels=(channel,),
            window=(at, at + HOUR),
            slot_minutes=60,
            spread=False,
            immediate=True,
            no_send=False,
            decision_id="d",
            zone=zone(where),
        )
        mine = Campaign(SHOP, "spring", (Variant("v", cost=0.02),), (Channel(channel),), NOW, NOW)
        usage: dict[tuple[str, int], int] = {}
        for message in messages:
            if (booked := taken(rule, message)) is not None:
                usage["r", booked[0]] = usage.get(("r", booked[0]), 0) + booked[1]
        days = holidays_of([rule], recipient, space)
        question = Question(space, mine, recipient, messages, zone(where), unanswered=unanswered, holidays=days)
        ruled = eligible(question, [rule], usage)
        held = Held(
            "d",
            "u1",
            channel,
            "marketing",
            "spring",
            at,
            position=1,
            decided_at=at,
            timezone=where,
            unanswered=unanswered,
            cost=int(cost_micros(mine, ("v",), (channel,))[0, 0]),
        )
        found = _audited(rule, held, messages, recipient)
        assert (found.verdict == "kept") == bool(np.all(ruled.mask)), (rule, where, at, messages)
        verdicts[rule.kind, found.verdict] = verdicts.get((rule.kind, found.verdict), 0) + 1
    assert len(verdicts) == 10
    assert min(verdicts.values()) > 50, verdicts


def test_what_judges_imports_nothing_of_what_enforces() -> None:
    """Neither the optimizer's code nor the store's arithmetic of periods; only the command knows the command line."""
    folder = Path(audits.__file__).parent
    for module in folder.glob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        ours = {name for name in imported if name.startswith(("optimizer", "storage.usage", "storage.sql"))}
        assert all(name.startswith(("optimizer.cli", "optimizer.errors")) for name in ours), module
        assert module.name == "__init__.py" or not ours, module
