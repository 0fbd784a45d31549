"""The audit over logs that the service wrote, beside the enforcement with which it shares no code; its command."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from click.testing import CliRunner

from optimizer.bandit.actions import build_space
from optimizer.bandit.eligibility import eligible
from optimizer.bandit.localtime import zone
from optimizer.config import Settings
from optimizer.service import settle, setup
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import open_services
from simulations import audit as audits
from simulations.holdings import ByLedger, ByTime, Entry, Held, held_elsewhere
from simulations.proof import judge_rule
from storage.log import Message
from storage.port import Store
from storage.records import (
    Campaign,
    Cap,
    Channel,
    Consent,
    QuietHours,
    Recipient,
    Rule,
    Selector,
    Variant,
    Weekday,
)
from tests.simulations.planted import (
    HOUR,
    NOW,
    SHOP,
    log,
    put_rule,
    spaced,
)


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
    spared = CliRunner().invoke(audits.command, [*flags, "--since", "2026-03-02T11:00:00Z"])
    assert spared.exit_code == 0
    assert "clean" in spared.output


def test_the_command_refuses_a_workspace_that_does_not_exist(store: Store, database: str) -> None:
    refused = CliRunner().invoke(audits.command, ["--database", database, "--workspace", "nobody"])
    assert refused.exit_code == 1
    assert "nobody" in refused.output
    naive = CliRunner().invoke(audits.command, ["--database", database, "--since", "2026-03-02T11:00:00"])
    assert naive.exit_code == 1
    assert "offset" in naive.output


def test_a_log_that_the_service_wrote_is_clean_and_fully_judged(database: str) -> None:
    clock = [NOW]
    services = open_services(Settings(database=database), lambda: clock[0], seed=3, watch=False)
    setup.ensure_workspace(services, SHOP)
    channels = (Channel("email"), Channel("sms"))
    setup.put_campaign(services, Campaign(SHOP, "spring", (Variant("a"), Variant("b")), channels, NOW, NOW))
    for i, cap in enumerate((Cap(limit=2, rolling_hours=30.0), Cap(limit=1, calendar="day"))):
        setup.put_rule(services, Rule(SHOP, f"cap{i}", "cap", cap))
    for i in range(4):
        consent = {"sms": Consent(True)} if i % 2 else {}
        setup.put_recipient(services, Recipient(SHOP, f"u{i}", timezone="Europe/Berlin", channels=consent))
    chance = random.Random(5)
    for i in range(120):
        clock[0] += timedelta(minutes=97)
        window = (clock[0], clock[0] + timedelta(hours=40))
        asked = DecisionRequest("spring", f"u{i % 4}", window=window)
        made = services.decider.decide(SHOP, asked)[0]
        if made.status == "reserved" and chance.random() < 0.5:
            settle.release(services, SHOP, made.decision_id, None)
    with services.store.read() as reader:
        report = audits.audit(reader, SHOP)
    services.close()
    assert report.clean
    assert report.unknown == 0
    assert report.reservations > 40
    assert all(report.tallies[rule]["kept"] > 20 for rule in (("cap0", "cap"), ("cap1", "cap")))


def _random_rule(chance: random.Random) -> Rule:
    every: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    if chance.random() < 0.3:
        start, end = (f"{chance.randrange(24):02}:{chance.choice((0, 30)):02}" for _ in range(2))
        return Rule(SHOP, "r", "quiet_hours", QuietHours(start, end, tuple(d for d in every if chance.random() < 0.6)))
    limit = chance.randrange(0, 4)
    calendar = chance.choice((None, "day", "week", "month"))
    hours = None if calendar else chance.choice((1.0, 24.0, 36.5, 168.0))
    cap = Cap(limit, hours, calendar, chance.choice(every))  # type: ignore[arg-type]  # drawn from its literals
    counts = chance.choice((Selector(), Selector(channels=("email",)), Selector(except_categories=("news",))))
    return Rule(SHOP, "r", "cap", cap, counts=counts)


def test_the_audit_and_the_enforcement_agree_though_they_share_no_code() -> None:
    """2,000 random rules, histories, zones and times: a slot is open exactly where the audit calls it kept."""
    chance = random.Random(11)
    verdicts = {"kept": 0, "violated": 0}
    for _ in range(2000):
        rule, where = _random_rule(chance), chance.choice(("UTC", "America/St_Johns", "Australia/Lord_Howe"))
        at = datetime(2026, 4, 4, tzinfo=UTC) + timedelta(minutes=chance.randrange(60 * 24 * 3))
        channel = chance.choice(("email", "post"))
        messages = [
            Message(SHOP, "u1", at + timedelta(minutes=chance.randrange(-4000, 4000)), f"m{i}", "email", category)
            for i, category in enumerate(chance.choices(("news", "marketing"), k=chance.randrange(8)))
        ]
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
        mine = Campaign(SHOP, "spring", (Variant("v"),), (Channel(channel),), NOW, NOW)
        ruled = eligible(
            space,
            campaign=mine,
            recipient=Recipient(SHOP, "u1"),
            rules=[rule],
            messages=messages,
            zone=zone(where),
        )
        held = Held("d", "u1", channel, "marketing", "spring", at, decided_at=at, timezone=where)
        entries = [Entry(i, "u1", m.message_ref, m.at) for i, m in enumerate(messages)]
        ledger = ByLedger([*entries, Entry(len(messages), "u1", "d", at)])
        found = judge_rule(rule, held, [held_elsewhere(m) for m in messages], ledger)
        assert (found.verdict == "kept") == bool(np.all(ruled.mask)), (rule, where, at, messages)
        verdicts[found.verdict] += 1
    assert min(verdicts.values()) > 400


def test_the_ledger_must_know_the_reservation_that_is_judged() -> None:
    held = Held("d", "u1", "email", "marketing", "spring", NOW, decided_at=NOW)
    with pytest.raises(LookupError, match="reservation of d"):
        ByLedger(()).times(replace(held, ref="other"), held, mutual=True)
    with pytest.raises(ValueError, match="only reservations"):
        ByTime().times(held, replace(held, decided_at=None), mutual=True)
