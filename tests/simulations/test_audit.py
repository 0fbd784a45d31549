"""The audit finds a breach of every kind of rule that is planted in a log, and passes a log that kept them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

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
from storage.log import COUNTED, Decision, Event, Message, Snapshot, Status
from storage.open import open_store
from storage.port import Store
from storage.records import (
    Campaign,
    Cap,
    Channel,
    Consent,
    QuietHours,
    Recipient,
    Rule,
    RuleParameters,
    Selector,
    Suppression,
    Variant,
    Weekday,
    Workspace,
)

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SHOP = "acme"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = open_store(database)
    shop = Workspace(workspace_id=SHOP, name="Acme", mode="live", created_at=NOW - DAY)
    opened.write(lambda w: w.put_workspace(shop))
    campaign = Campaign(SHOP, "spring", (Variant("hello"),), (Channel("email"),), NOW - DAY, NOW - DAY)
    opened.write(lambda w: w.put_campaign(campaign))
    yield opened
    opened.close()


def reserved(ref: str, send_at: datetime | None, decided_at: datetime = NOW, **changes: object) -> Decision:
    """A reservation as the service logs it; without a time, a decision not to send."""
    where = str(changes.pop("timezone", "UTC"))
    overridden = changes.pop("overridden", ())
    snapshot = Snapshot(
        window_start=decided_at,
        window_end=decided_at + 30 * DAY,
        variants=("hello",),
        channels=("email", "sms"),
        timezone=where,
        timezone_source="default",
        overridden_rules=overridden,  # type: ignore[arg-type]  # tests pass fields by name
    )
    values: dict[str, object] = {
        "workspace_id": SHOP,
        "decision_id": ref,
        "request_id": ref,
        "request_hash": b"h",
        "campaign_id": "spring",
        "campaign_version": 1,
        "recipient_id": "u1",
        "status": "no_send" if send_at is None else "reserved",
        "group": "treated",
        "mode": "live",
        "decided_at": decided_at,
        "propensity": 0.5,
        "policy_id": "pol_cold",
        "action": 0,
        "actions": 8,
        "eligible_actions": 8,
        "eligible": b"\xff",
        "snapshot": snapshot,
        "variant_id": None if send_at is None else "hello",
        "channel": None if send_at is None else "email",
        "send_at": send_at,
        **changes,
    }
    return Decision(**values)  # type: ignore[arg-type]


def message_of(decision: Decision) -> Message | None:
    if decision.send_at is None or decision.channel is None or decision.status not in COUNTED:
        return None
    return Message(
        SHOP,
        decision.recipient_id,
        decision.sent_at or decision.send_at,
        decision.decision_id,
        decision.channel,
        decision.category,
        decision.campaign_id,
        decision.variant_id,
        decision.decision_id,
    )


def log(store: Store, *decisions: Decision) -> None:
    store.write(lambda w: w.add_decisions([(d, message_of(d)) for d in decisions]))


def put_rule(store: Store, parameters: RuleParameters, **changes: object) -> None:
    kind = "cap" if isinstance(parameters, Cap) else "quiet_hours"
    rule = replace(Rule(SHOP, "the-rule", kind, parameters), **changes)  # type: ignore[arg-type]
    store.write(lambda w: w.put_rule(rule))


def person(store: Store, **fields: object) -> None:
    recipient = replace(Recipient(SHOP, "u1", 1, updated_at=NOW - DAY), **fields)  # type: ignore[arg-type]
    store.write(lambda w: w.put_recipient(recipient))


def audited(store: Store, *entries: Entry, since: datetime | None = None) -> audits.Report:
    with store.read() as reader:
        return audits.audit(reader, SHOP, counting=ByLedger(entries) if entries else None, since=since)


def broken(report: audits.Report) -> list[tuple[str, str]]:
    return [(breach.kind, breach.decision_id) for breach in report.breaches]


def spaced(*send_at: datetime, **changes: object) -> list[Decision]:
    """Reservations d0, d1, … decided an hour apart, so that their order is certain."""
    return [reserved(f"d{i}", at, NOW + i * HOUR, **changes) for i, at in enumerate(send_at)]


def test_a_log_that_kept_its_rules_is_clean(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    person(store)
    log(store, *spaced(NOW + 12 * HOUR, NOW + 20 * HOUR, NOW + 44 * HOUR))
    report = audited(store)
    assert report.clean
    assert report.unknown == 0
    assert report.reservations == 3
    assert report.tallies["the-rule", "cap"]["kept"] == 3


def test_a_message_too_many_in_a_rolling_window_is_found(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    log(store, *spaced(NOW + 12 * HOUR, NOW + 20 * HOUR, NOW + 36 * HOUR - timedelta(microseconds=1)))
    report = audited(store)
    assert broken(report) == [("cap", "d2")]
    assert report.breaches[0].others == ("d0", "d1")


def test_a_window_before_and_after_the_new_message_counts(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    log(store, *spaced(NOW + 12 * HOUR, NOW + 30 * HOUR, NOW + 20 * HOUR))
    assert broken(audited(store)) == [("cap", "d2")]


def test_a_limit_of_nought_allows_nothing(store: Store) -> None:
    put_rule(store, Cap(limit=0, calendar="day"))
    log(store, reserved("d0", NOW + HOUR))
    assert broken(audited(store)) == [("cap", "d0")]


@pytest.mark.parametrize(
    ("cap", "first", "second", "kept"),
    [
        # Half past eleven at night and half past midnight in Auckland (UTC+13 in March).
        (Cap(limit=1, calendar="day"), "2026-03-04T10:30Z", "2026-03-04T11:30Z", True),
        (Cap(limit=1, calendar="day"), "2026-03-04T11:30Z", "2026-03-05T10:30Z", False),
        # Sunday 8 March and Monday 9 March there.
        (Cap(limit=1, calendar="week"), "2026-03-08T10:00Z", "2026-03-08T12:00Z", True),
        (Cap(1, None, "week", "sun"), "2026-03-08T10:00Z", "2026-03-08T12:00Z", False),
        (Cap(limit=1, calendar="month"), "2026-03-31T10:00Z", "2026-03-31T12:00Z", True),
        (Cap(limit=1, calendar="month"), "2026-03-31T12:00Z", "2026-04-20T12:00Z", False),
    ],
)
def test_calendar_caps_are_judged_in_the_recipients_zone(
    store: Store, cap: Cap, first: str, second: str, kept: bool
) -> None:
    put_rule(store, cap)
    person(store, timezone="Pacific/Auckland")
    times = (datetime.fromisoformat(first), datetime.fromisoformat(second))
    log(store, *spaced(*times, timezone="Pacific/Auckland"))
    assert audited(store).clean == kept


@pytest.mark.parametrize(
    ("days", "at", "kept"),
    [
        (("fri",), "2026-03-06T22:00", False),
        (("fri",), "2026-03-07T07:59", False),  # still Friday's night
        (("fri",), "2026-03-07T08:00", True),
        (("fri",), "2026-03-07T21:00", True),
        (("fri",), "2026-03-06T07:00", True),
        # The clock goes forward on 29 March 2026 in Berlin.
        (("sat",), "2026-03-29T03:30", False),
    ],
)
def test_quiet_hours_are_judged_on_the_recipients_clock(
    store: Store, days: tuple[Weekday, ...], at: str, kept: bool
) -> None:
    put_rule(store, QuietHours("21:00", "08:00", days))
    person(store, timezone="Europe/Berlin")
    local = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    log(store, reserved("d0", local.astimezone(UTC), timezone="Europe/Berlin"))
    assert broken(audited(store)) == ([] if kept else [("quiet_hours", "d0")])


def test_a_message_without_the_consent_its_channel_needs_is_found(store: Store) -> None:
    person(store, channels={"email": Consent(False), "push": Consent(True)})
    log(
        store,
        reserved("no", NOW + HOUR),
        reserved("never-asked", NOW + HOUR, channel="sms"),
        reserved("yes", NOW + HOUR, channel="push"),
        reserved("not-needed", NOW + HOUR, channel="post"),
        reserved("stranger", NOW + HOUR, channel="sms", recipient_id="u2"),
    )
    found = broken(audited(store))
    assert sorted(found) == [("consent", "never-asked"), ("consent", "no"), ("consent", "stranger")]


@pytest.mark.parametrize(
    ("channel", "category", "kept"),
    [("email", "marketing", False), ("*", "*", False), ("sms", "*", True), ("email", "news", True)],
)
def test_a_message_that_a_refusal_covers_is_found(store: Store, channel: str, category: str, kept: bool) -> None:
    person(store, suppressed=(Suppression(channel, category),))
    log(store, reserved("d0", NOW + HOUR))
    assert broken(audited(store)) == ([] if kept else [("suppression", "d0")])


def test_a_recipient_who_changed_since_is_not_judged_but_for_refusals_of_known_time(store: Store) -> None:
    refusal = Suppression("email", "marketing", source="event:unsubscribed:e1", at=NOW)
    person(store, suppressed=(refusal,), channels={"email": Consent(False)}, updated_at=NOW + 5 * DAY)
    log(store, reserved("before", NOW + HOUR, NOW - HOUR), reserved("after", NOW + 3 * HOUR, NOW + 2 * HOUR))
    report = audited(store)
    assert broken(report) == [("suppression", "after")]
    assert report.tallies["suppression", "suppression"]["unknown"] == 1
    assert report.tallies["consent", "consent"]["unknown"] == 2


def test_rules_read_in_another_zone_than_the_recipients_are_found(store: Store) -> None:
    person(store, timezone="Asia/Kolkata")
    log(store, reserved("d0", NOW + HOUR, timezone="UTC"), reserved("d1", NOW + DAY, timezone="Asia/Kolkata"))
    assert broken(audited(store)) == [("timezone", "d0")]


def test_selectors_say_whom_a_rule_binds_and_what_it_counts(store: Store) -> None:
    put_rule(
        store,
        Cap(limit=1, rolling_hours=24.0),
        applies_to=Selector(except_categories=("transactional",)),
        counts=Selector(channels=("email",)),
    )
    log(
        store,
        reserved("mail", NOW + 8 * HOUR, NOW),
        reserved("receipt", NOW + 9 * HOUR, NOW + HOUR, category="transactional"),
        reserved("letter", NOW + 3 * DAY, NOW + 2 * HOUR, channel="post"),
        reserved("second-letter", NOW + 3 * DAY, NOW + 3 * HOUR, channel="post"),
        reserved("over", NOW + 10 * HOUR, NOW + 4 * HOUR, channel="post"),
    )
    report = audited(store)
    assert broken(report) == [("cap", "over")]
    assert report.breaches[0].others == ("mail", "receipt")


@pytest.mark.parametrize("idle", [{"enabled": False}, {"dry_run": True}, {"archived": True}])
def test_a_rule_that_is_off_binds_nothing(store: Store, idle: dict[str, bool]) -> None:
    put_rule(store, Cap(limit=0, calendar="day"), **idle)
    log(store, reserved("d0", NOW + HOUR))
    assert audited(store).clean


@pytest.mark.parametrize("status", ["released", "revoked", "displaced", "expired"])
def test_a_place_given_back_counts_until_then_and_not_after(store: Store, status: Status) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    log(
        store,
        reserved("back", NOW + 10 * HOUR, NOW, status=status, closed_at=NOW + 2 * HOUR),
        reserved("too-soon", NOW + 30 * HOUR, NOW + HOUR, status="released", closed_at=NOW + 90 * timedelta(minutes=1)),
        reserved("over", NOW + 11 * HOUR, NOW + 100 * timedelta(minutes=1), status=status, closed_at=NOW + 3 * HOUR),
        reserved("fits", NOW + 12 * HOUR, NOW + 4 * HOUR),
    )
    assert broken(audited(store)) == [("cap", "too-soon"), ("cap", "over")]


def test_of_two_reserved_at_once_the_later_is_charged(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    second = timedelta(seconds=1)
    log(store, reserved("a", NOW + HOUR, NOW), reserved("b", NOW + 2 * HOUR, NOW + second))
    assert broken(audited(store)) == [("cap", "b")]


def test_an_order_that_the_log_lacks_is_told_and_not_guessed(store: Store) -> None:
    """A release a second after the decision: which was committed first can't be told from the times."""
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    second = timedelta(seconds=1)
    log(
        store,
        reserved("a", NOW + HOUR, NOW, status="released", closed_at=NOW + 3 * second),
        reserved("b", NOW + 2 * HOUR, NOW + 2 * second),
    )
    report = audited(store)
    assert report.clean
    assert report.tallies["the-rule", "cap"] == {"kept": 1, "unknown": 1}
    place_a, back_a = Entry(1, "u1", "a", NOW + HOUR), Entry(2, "u1", "a", None)
    kept = audited(store, place_a, back_a, Entry(3, "u1", "b", NOW + 2 * HOUR))
    assert kept.exact
    assert kept.clean
    assert kept.unknown == 0
    over = audited(store, place_a, Entry(2, "u1", "b", NOW + 2 * HOUR), replace(back_a, position=3))
    assert broken(over) == [("cap", "b")]


def test_one_that_was_given_back_at_once_is_charged_with_none_reserved_at_the_same_time(store: Store) -> None:
    """The earlier by time may have been committed after the later one had been given back."""
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    second = timedelta(seconds=1)
    log(
        store,
        reserved("a", NOW + HOUR, NOW),
        reserved("b", NOW + 2 * HOUR, NOW + second, status="released", closed_at=NOW + 2 * second),
    )
    report = audited(store)
    assert report.clean
    assert report.unknown == 1


def test_messages_of_other_systems_count_from_their_report_on(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    foreign = Message(SHOP, "u1", NOW - HOUR, "theirs", "email", "marketing")
    store.write(lambda w: w.add_message(foreign))
    log(store, reserved("d0", NOW + HOUR))
    by_time = audited(store)
    assert by_time.clean
    assert by_time.other_systems == 1
    assert by_time.tallies["the-rule", "cap"]["unknown"] == 1  # it may have been reported after the decision
    before = audited(store, Entry(1, "u1", "theirs", NOW - HOUR), Entry(2, "u1", "d0", NOW + HOUR))
    assert broken(before) == [("cap", "d0")]
    after = audited(store, Entry(1, "u1", "d0", NOW + HOUR), Entry(2, "u1", "theirs", NOW - HOUR))
    assert after.clean
    assert after.unknown == 0


def test_a_sent_message_counts_at_its_real_time_once_confirmed(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    late = NOW + 30 * HOUR
    log(
        store,
        reserved("late", NOW + HOUR, NOW, status="sent", sent_at=late),
        reserved("before", NOW + 25 * HOUR, NOW + 2 * HOUR, status="released", closed_at=NOW + 3 * HOUR),
        reserved("after", NOW + 52 * HOUR, NOW + 40 * HOUR),
    )
    report = audited(store)
    assert report.clean  # when the confirm came is not in the log
    assert report.tallies["the-rule", "cap"] == {"kept": 2, "unknown": 1}
    planned, real = Entry(1, "u1", "late", NOW + HOUR), Entry(4, "u1", "late", late)
    rest = (Entry(2, "u1", "before", NOW + 25 * HOUR), Entry(3, "u1", "before", None))
    exact = audited(store, planned, real, *rest, Entry(5, "u1", "after", NOW + 52 * HOUR))
    assert broken(exact) == [("cap", "after")]


def test_rules_overridden_by_request_are_listed_apart(store: Store) -> None:
    put_rule(store, Cap(limit=0, calendar="day"))
    log(store, reserved("d0", NOW + HOUR, overridden=("the-rule",)))
    report = audited(store)
    assert report.clean
    assert report.overridden == [("d0", "the-rule")]


def test_what_the_sender_did_otherwise_is_listed_apart(store: Store) -> None:
    minute = timedelta(minutes=1)
    log(
        store,
        reserved("on-time", NOW + HOUR, status="sent", sent_at=NOW + HOUR + minute),
        reserved("early", NOW + HOUR, status="sent", sent_at=NOW + HOUR - 10 * minute),
        reserved("late", NOW + HOUR, status="sent", sent_at=NOW + 3 * HOUR),
        reserved("back", NOW + HOUR, status="sent", sent_at=NOW + HOUR, closed_at=NOW + minute, close_reason="x"),
        reserved("assumed", NOW + HOUR, status="sent", sent_at=NOW + HOUR, closed_at=NOW + 3 * HOUR),
        reserved("nothing", None),
        reserved("gone", NOW + HOUR, status="released", closed_at=NOW + minute),
    )
    events = [
        Event(SHOP, f"e-{ref}", "delivered", NOW + HOUR, NOW + HOUR, matched=True, decision_id=ref, recipient_id="u1")
        for ref in ("nothing", "gone", "on-time")
    ]
    store.write(lambda w: w.add_events(events))
    report = audited(store)
    assert report.clean
    assert {what: sorted(ids) for what, ids in report.otherwise.items()} == {
        "sent_early": ["early"],
        "sent_late": ["late"],
        "sent_after_close": ["back"],
        "sent_unreserved": ["gone", "nothing"],
    }


def test_books_that_contradict_the_decisions_are_found(store: Store) -> None:
    lost, kept = reserved("lost", NOW + HOUR), reserved("kept", NOW + HOUR, status="released", closed_at=NOW)
    place = message_of(replace(kept, status="reserved"))
    store.write(lambda w: w.add_decisions([(lost, None), (kept, place)]))
    assert sorted(broken(audited(store))) == [("books", "kept"), ("books", "lost")]


def test_earlier_reservations_are_counted_and_not_judged(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    log(store, *spaced(NOW + 10 * HOUR, NOW + 11 * HOUR, NOW + 12 * HOUR))
    report = audited(store, since=NOW + 2 * HOUR)
    assert broken(report) == [("cap", "d2")]
    assert report.earlier == 2


def test_imported_history_is_not_judged(store: Store) -> None:
    put_rule(store, Cap(limit=0, calendar="day"))
    log(store, reserved("d0", NOW - DAY, status="sent", sent_at=NOW - DAY, imported=True))
    report = audited(store)
    assert report.clean
    assert (report.reservations, report.imported) == (0, 1)


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
