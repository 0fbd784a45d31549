"""The audit plays capacities and budgets again in the order of commits, over all recipients."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from simulations.audit.scarce import limit_at, period_at
from storage.log import Decision, Message
from storage.port import Store
from storage.records import Campaign, Channel, Variant
from storage.rules import Budget, Capacity, Selector, WarmUpStep
from tests.simulations.planted import (
    DAY,
    HOUR,
    NOW,
    SHOP,
    audited,
    broken,
    changed,
    log,
    put_rule,
    released,
    reserved,
    tally,
)

TWO_AN_HOUR = Capacity(limit=2, per_minutes=60)
MINUTE = timedelta(minutes=1)
COST = 30_000


def to(recipient: int, send_at: datetime, **changes: Any) -> Decision:
    return reserved(f"to{recipient}", send_at, recipient_id=f"u{recipient}", **changes)


def test_messages_of_all_recipients_share_a_period(store: Store) -> None:
    put_rule(store, TWO_AN_HOUR)
    log(store, *(to(i, NOW + i * MINUTE) for i in (1, 2, 3)), to(4, NOW + 60 * MINUTE), to(5, NOW - MINUTE))
    report = audited(store)
    assert broken(report) == [("capacity", "to3")]
    assert report.breaches[0].detail == "3 in 60 min from 2026-03-02T09:00:00+00:00, limit 2"
    assert tally(report) == {"kept": 4, "violated": 1}


def test_a_place_counts_until_it_is_given_back_and_a_confirm_moves_it(store: Store) -> None:
    put_rule(store, Capacity(limit=1, per_minutes=60))
    log(store, to(1, NOW), to(2, NOW + HOUR), to(3, NOW + 2 * HOUR))
    released(store, "to1")
    changed(store, "to2", "sent", sent_at=NOW + 5 * HOUR)
    log(store, to(4, NOW), to(5, NOW + HOUR), to(6, NOW + 5 * HOUR), to(7, NOW + 2 * HOUR))
    report = audited(store)
    assert broken(report) == [("capacity", "to6"), ("capacity", "to7")]
    assert report.unknown == 0


def test_other_systems_count_from_their_report_on_and_selectors_say_what_counts(store: Store) -> None:
    put_rule(store, Capacity(1, 60), applies_to=Selector(channels=("email",)), counts=Selector(channels=("post",)))
    log(store, to(1, NOW, channel="post"), to(2, NOW + MINUTE))
    log(store, to(3, NOW + HOUR), to(4, NOW + HOUR))
    store.write(lambda w: w.add_message(Message(SHOP, "u3", NOW + HOUR, "theirs", "post", "marketing")))
    log(store, to(5, NOW + HOUR))
    report = audited(store)
    assert broken(report) == [("capacity", "to2"), ("capacity", "to5")]
    assert tally(report) == {"kept": 2, "violated": 2}


def test_another_systems_message_to_a_stranger_takes_a_place_and_the_books_agree(store: Store) -> None:
    put_rule(store, Capacity(limit=1, per_minutes=60))
    store.write(lambda w: w.add_message(Message(SHOP, "stranger", NOW, "theirs", "email", "marketing")))
    log(store, to(1, NOW + MINUTE), to(2, NOW + HOUR))
    report = audited(store)
    assert broken(report) == [("capacity", "to1")]
    assert report.other_systems == 1


def test_each_version_counts_in_its_own_way(store: Store) -> None:
    first = put_rule(store, Capacity(limit=1, per_minutes=60))
    log(store, to(1, NOW), to(2, NOW))
    wider = replace(first, version=2, parameters=Capacity(limit=3, per_minutes=120))
    store.write(lambda w: w.put_rule(wider))
    log(store, to(3, NOW - HOUR), to(4, NOW - HOUR))  # 08:00 to 10:00 is one period now
    store.write(lambda w: w.put_rule(replace(wider, version=3, enabled=False)))
    log(store, to(5, NOW))
    store.write(lambda w: w.put_rule(replace(first, version=4, parameters=Capacity(limit=4, per_minutes=60))))
    log(store, to(6, NOW), to(7, NOW))
    report = audited(store)
    assert broken(report) == [("capacity", "to2"), ("capacity", "to7"), ("capacity", "to4")]
    assert tally(report) == {"kept": 3, "violated": 3}


def test_a_place_of_uncertain_end_makes_the_verdict_unknown(store: Store) -> None:
    put_rule(store, Capacity(limit=1, per_minutes=60))
    log(store, to(1, NOW, status="expired", closed_at=NOW), to(2, NOW))
    report = audited(store)
    assert report.clean
    assert tally(report) == {"kept": 1, "unknown": 1}


def test_a_warm_up_grows_by_its_steps_and_ends_after_the_last(store: Store) -> None:
    plan = Capacity(9, 60 * 12, (WarmUpStep(1, 1), WarmUpStep(3, 2)), "2026-03-02")
    days = [datetime(2026, 3, day, 6, tzinfo=UTC) for day in (1, 2, 3, 4, 5)]
    assert [limit_at(plan, period_at(plan, at)) for at in days] == [1, 1, 1, 2, 9]
    put_rule(store, plan)
    log(store, *(to(i, at) for i, at in enumerate(days)), *(to(i + 10, at) for i, at in enumerate(days)))
    assert broken(audited(store)) == [("capacity", f"to{i}") for i in (10, 11, 12)]


@pytest.fixture
def shop(store: Store) -> Store:
    """A campaign ``paid`` whose message costs .03 by letter and nothing by post."""
    channels = (Channel("letter", 0.02), Channel("post"))
    store.write(lambda w: w.put_campaign(Campaign(SHOP, "paid", (Variant("hello", cost=0.01),), channels, NOW, NOW)))
    free = Campaign(SHOP, "free", (Variant("hello"),), channels, NOW, NOW)
    store.write(lambda w: w.put_campaign(free))
    return store


def paid(recipient: int, send_at: datetime, **changes: Any) -> Decision:
    return to(recipient, send_at, **{"campaign_id": "paid", "channel": "email", "cost": 10_000, **changes})


def test_a_budget_is_what_the_messages_of_a_calendar_period_cost(shop: Store) -> None:
    put_rule(shop, Budget(25_000, "day", "Europe/Berlin"))
    midnight = datetime(2026, 3, 2, 23, tzinfo=UTC)  # in Berlin
    log(
        shop,
        paid(1, midnight - MINUTE),
        paid(2, midnight - HOUR),
        paid(3, midnight),
        paid(4, midnight - MINUTE),
        paid(5, midnight - MINUTE, campaign_id="free", channel="post", cost=0),
    )
    report = audited(shop)
    assert broken(report) == [("budget", "to4")]
    assert report.breaches[0].detail.startswith("0.03 in day")
    assert tally(report) == {"kept": 4, "violated": 1}


def test_a_cost_other_than_that_of_variant_and_channel_is_a_breach_of_the_budget(shop: Store) -> None:
    put_rule(shop, Budget(10**9, "month"))
    log(shop, paid(1, NOW, channel="letter", cost=COST), paid(2, NOW, channel="letter", cost=COST - 1))
    report = audited(shop)
    assert broken(report) == [("budget", "to2")]
    assert report.breaches[0].detail == "logged at 0.029999, variant and channel cost 0.03"


@pytest.mark.parametrize(
    ("budget", "first", "second", "together"),
    [
        (Budget(1, "week"), "2026-03-01T12:00Z", "2026-03-02T12:00Z", False),
        (Budget(1, "week", week_start="sun"), "2026-03-01T12:00Z", "2026-03-02T12:00Z", True),
        (Budget(1, "week", week_start="sat"), "1969-12-30T12:00Z", "1970-01-02T12:00Z", True),
        (Budget(1, "month", "Asia/Tokyo"), "2026-03-31T14:00Z", "2026-03-31T16:00Z", False),
        (Budget(1, "month"), "2026-03-01T00:00Z", "2026-03-31T23:59Z", True),
        (Budget(1, "day", "America/New_York"), "2026-03-02T04:59Z", "2026-03-02T05:00Z", False),
        (Capacity(1, 90), "1969-12-31T22:30Z", "1969-12-31T23:59Z", True),
        (Capacity(1, 90), "1969-12-31T23:59Z", "1970-01-01T00:00Z", False),
    ],
)
def test_periods_follow_the_calendar_or_the_clock(
    budget: Budget | Capacity, first: str, second: str, together: bool
) -> None:
    one, two = (period_at(budget, datetime.fromisoformat(at).astimezone(UTC)) for at in (first, second))
    assert two - one == (0 if together else 1)


def test_sums_that_differ_from_the_messages_are_found(shop: Store, database: str) -> None:
    put_rule(shop, TWO_AN_HOUR)
    put_rule(shop, Budget(10**9, "week"), rule_id="money")
    log(shop, to(1, NOW), paid(2, NOW + DAY))
    released(shop, "to1")
    assert audited(shop).clean
    with sqlite3.connect(database.removeprefix("sqlite:///")) as db:
        db.execute("UPDATE usage SET used = used + 1 WHERE used > 0 AND rule_id = 'the-rule'")
        db.execute("DELETE FROM usage WHERE rule_id = 'money'")
    db.close()
    found = audited(shop).breaches
    assert [(b.kind, b.decision_id) for b in found] == [("books", "money"), ("books", "the-rule")]
    assert found[0].detail.endswith("0 booked, 10000 by the messages")


def test_of_a_period_that_retention_has_cut_more_may_be_booked_than_is_left_and_not_less(
    shop: Store, database: str
) -> None:
    put_rule(shop, Budget(10**9, "week"))
    log(shop, paid(1, NOW), paid(2, NOW + 10 * DAY))
    log(shop, *(paid(i, NOW + days * DAY, decided_at=NOW + DAY) for i, days in ((3, 2), (4, 11), (5, 20))))
    changed(shop, "to1", "sent", sent_at=NOW)
    changed(shop, "to2", "sent", sent_at=NOW + 10 * DAY)
    assert shop.write(lambda writer: writer.prune(SHOP, NOW + HOUR)) == 2
    assert audited(shop).clean
    for statement, found in (
        ("UPDATE usage SET used = used + 1", ["10001 booked, 10000"]),
        ("UPDATE usage SET used = 9999", ["9999 booked, 10000"] * 3),
    ):
        with sqlite3.connect(database.removeprefix("sqlite:///")) as db:
            db.execute(statement)
        db.close()
        told = [breach.detail.partition(": ")[2] for breach in audited(shop).breaches]
        assert told == [f"{one} by the messages" for one in found]
