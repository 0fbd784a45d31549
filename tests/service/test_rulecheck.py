"""The report of reserved messages that break the rules as they stand now."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from optimizer.errors import NotFound
from optimizer.service import excess as beyond
from optimizer.service import rulecheck, settle, setup
from optimizer.service.rulecheck import Breach
from optimizer.service.wiring import Services
from storage.log import Message
from storage.records import Campaign, Consent, Recipient, Requirement, Suppression, Variant
from storage.rules import (
    MICROS,
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    Rule,
    RuleKind,
    RuleParameters,
    Selector,
    WarmUpStep,
)
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import after, reserve
from tests.storage.builders import make_decision

EMAIL = Selector(channels=("email",))


def put(services: Services, kind: RuleKind, parameters: RuleParameters, rule_id: str = "r", **changes: Any) -> None:
    setup.put_rule(services, Rule(WORKSPACE, rule_id, kind, parameters, **changes))


def found(services: Services, rule_id: str | None = None, limit: int = 500) -> list[Breach]:
    """All breaches, page by page."""
    breaches: list[Breach] = []
    cursor: str | None = None
    for _ in range(100):
        page = rulecheck.breaches(services, WORKSPACE, rule_id, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        breaches += page.items
        cursor = page.cursor
        if cursor is None:
            return breaches
    raise AssertionError("the pages have no end")


def names(services: Services, rule_id: str | None = None) -> list[tuple[str, str]]:
    return sorted((one.rule_id, one.decision_id) for one in found(services, rule_id))


@pytest.fixture(autouse=True)
def _campaign(spring: Campaign) -> None:
    """Every test has the campaign."""


def test_without_a_breach_there_is_nothing_to_tell(services: Services) -> None:
    reserve(services, "a")
    put(services, "cap", Cap(1, rolling_hours=24))
    assert found(services) == []


@pytest.mark.parametrize(
    ("kind", "parameters", "broken"),
    [
        ("cap", Cap(1, rolling_hours=24), ["a", "b"]),
        ("cap", Cap(2, rolling_hours=24), []),
        ("cap", Cap(1, calendar="day"), ["a", "b"]),
        ("cap", Cap(0, rolling_hours=1), ["a", "b", "far"]),
        ("cap", Cap(9, rolling_hours=24, adapt=Adapt(2, 0)), ["a", "b", "far"]),
        ("cap", Cap(9, rolling_hours=24, adapt=Adapt(3, 0)), []),
        ("gap", Cap(1, rolling_hours=3), ["a", "b"]),
        ("gap", Cap(1, rolling_hours=1.5), []),
        ("quiet_hours", QuietHours("15:00", "16:00"), ["a"]),
        ("blackout", Blackout(("2026-03-02",)), ["a", "b"]),
        ("fatigue", Fatigue("unsubscribed", 0.001), []),
    ],
    ids=repr,
)
def test_a_rule_that_came_later_names_what_it_would_not_have_allowed(
    services: Services, kind: RuleKind, parameters: RuleParameters, broken: list[str]
) -> None:
    reserve(services, "a", 6.5)  # 15:30
    reserve(services, "b", 8.5)
    reserve(services, "far", 24.0 * 20)
    services.store.write(lambda writer: writer.add_unanswered(WORKSPACE, "u1", 2))
    put(services, kind, parameters)
    assert names(services) == names(services, "r") == [("r", one) for one in broken]


def test_a_breach_says_which_message_and_when_it_could_go(services: Services) -> None:
    reserve(services, "a", 6.5, status="claimed", channel="push", recipient_id="u7")
    put(services, "quiet_hours", QuietHours("15:00", "16:00"), applies_to=Selector(channels=("push",)))
    setup.put_recipient(services, Recipient(WORKSPACE, "u7", channels={"push": Consent(True)}))
    assert found(services, "r") == [
        Breach(
            decision_id="a",
            recipient_id="u7",
            campaign_id="spring",
            channel="push",
            status="claimed",
            send_at=after(hours=6.5),
            rule_id="r",
            kind="quiet_hours",
            detail="its time is in the recipient's quiet hours",
            next_eligible_at=after(hours=7),
        )
    ]


def test_a_limit_of_zero_is_told_as_never(services: Services) -> None:
    reserve(services, "a")
    put(services, "cap", Cap(0, rolling_hours=1))
    (told,) = found(services)
    assert told.detail.endswith("(limit 0: never)")
    assert told.next_eligible_at is None


def test_only_what_is_reserved_and_not_yet_sent_is_judged(services: Services, clock: FakeClock) -> None:
    for name in ("sent", "released", "kept"):
        reserve(services, name, 6.0)
    clock.forward(hours=7)
    settle.confirm(services, WORKSPACE, "sent", after(hours=6), None, None)
    settle.release(services, WORKSPACE, "released", None)
    put(services, "cap", Cap(1, rolling_hours=24))
    assert names(services) == [("r", "kept")]


def test_a_message_of_another_system_can_break_it_too(services: Services) -> None:
    reserve(services, "a")
    put(services, "cap", Cap(1, rolling_hours=24))
    settle.record_send(services, Message(WORKSPACE, "u1", after(hours=9), "crm-1", "email", "marketing"))
    assert names(services) == [("r", "a")]


def test_a_rule_speaks_only_of_what_it_binds(services: Services) -> None:
    reserve(services, "a")
    reserve(services, "b", 6.0, channel="sms", recipient_id="u2")
    setup.put_recipient(services, Recipient(WORKSPACE, "u2", channels={"sms": Consent(True)}))
    put(services, "cap", Cap(0, rolling_hours=1), applies_to=EMAIL, counts=EMAIL)
    assert names(services, "r") == [("r", "a")]


def test_rules_that_do_not_act_are_not_broken_but_a_dry_run_is_reported_when_asked_for(services: Services) -> None:
    reserve(services, "a")
    put(services, "cap", Cap(0, rolling_hours=1), "dry", dry_run=True)
    put(services, "cap", Cap(0, rolling_hours=1), "off", enabled=False)
    put(services, "capacity", Capacity(0, 60), "dry-capacity", dry_run=True)
    put(services, "cap", Cap(0, rolling_hours=1), "gone")
    setup.archive_rule(services, WORKSPACE, "gone")
    assert found(services) == []
    assert [(one.rule_id, one.dry_run) for one in found(services, "dry")] == [("dry", True)]
    assert [(one.rule_id, one.dry_run) for one in found(services, "dry-capacity")] == [("dry-capacity", True)]
    assert found(services, "off") == []
    for unknown in ("gone", "nope"):
        with pytest.raises(NotFound, match=unknown):
            found(services, unknown)


def test_a_recipient_who_changed_breaks_the_reservation(services: Services) -> None:
    reserve(services, "a", 6.5)
    reserve(services, "b", 6.5, channel="push", recipient_id="u2")
    put(services, "quiet_hours", QuietHours("00:00", "01:00"))
    # Stored as an earlier version did: a record by which somebody refuses more calls off what is reserved there.
    refuses = Recipient(WORKSPACE, "u1", 1, timezone="Asia/Tokyo", suppressed=(Suppression("email"),))
    services.store.write(lambda writer: writer.put_recipient(refuses))
    assert names(services) == [("consent", "b"), ("r", "a"), ("suppression", "a")]
    assert names(services, "r") == [("r", "a")]


def test_conditions_of_a_variant_are_judged_at_the_decision_only(services: Services) -> None:
    reserve(services, "a")
    never = Requirement("nowhere", "opened", True, 1.0)
    setup.put_campaign(services, campaign(variants=(Variant("mens", requires=(never,)),)))
    assert found(services) == []


# Shared limits


def test_the_last_reserved_of_an_overfull_period_are_the_excess(services: Services) -> None:
    put(services, "capacity", Capacity(9, 60), applies_to=EMAIL, counts=EMAIL)
    for number in range(6):
        # Planned the other way round: what counts is the order in which they were reserved.
        reserve(services, f"d{number}", 6.9 - number / 10, recipient_id=f"u{number}")
    reserve(services, "next hour", 7.0)
    assert found(services) == []
    put(services, "capacity", Capacity(4, 60), applies_to=EMAIL, counts=EMAIL)
    assert names(services) == names(services, "r") == [("r", "d4"), ("r", "d5")]
    told = found(services)[0].detail
    assert told == "6 messages are sent or reserved in its period; allowed: 4"


def test_what_is_sent_takes_its_place_before_what_is_reserved(services: Services, clock: FakeClock) -> None:
    put(services, "capacity", Capacity(3, 60))
    for number in range(4):
        reserve(services, f"d{number}", 6.5, recipient_id=f"u{number}")
    clock.forward(hours=7)
    settle.confirm(services, WORKSPACE, "d3", after(hours=6.5), None, None)
    settle.record_send(services, Message(WORKSPACE, "u9", after(hours=6.1), "crm-1", "email", "marketing"))
    assert names(services) == [("r", "d1"), ("r", "d2")]


def test_a_warm_up_has_a_limit_for_every_day(services: Services) -> None:
    for day in range(3):
        for number in range(2):
            reserve(services, f"day {day + 1}, {number}", 24.0 * day + 6, recipient_id=f"u{number}")
    plan = Capacity(9, 60, (WarmUpStep(1, 1), WarmUpStep(2, 0)), starts_on="2026-03-02")
    put(services, "capacity", plan)
    assert names(services) == [("r", "day 1, 1"), ("r", "day 2, 0"), ("r", "day 2, 1")]


def test_a_budget_is_cut_from_the_end_until_it_fits(services: Services) -> None:
    put(services, "budget", Budget(100 * MICROS, "day"))
    for number, cost in enumerate((3, 1, 0, 2)):
        priced = replace(make_decision().snapshot, cost=cost * MICROS)
        reserve(services, f"d{number}", 6.0 + number, recipient_id=f"u{number}", snapshot=priced)
    assert found(services) == []
    put(services, "budget", Budget(4_500_000, "day"))
    assert [(one.decision_id, one.detail) for one in found(services)] == [
        ("d3", "6 is spent or reserved in its period; allowed: 4.5")
    ]
    put(services, "budget", Budget(0, "day"))
    assert names(services) == [("r", "d0"), ("r", "d1"), ("r", "d3")]


# Pages


def test_pages_of_every_size_hold_the_same_breaches_in_the_same_order(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rulecheck, "CHUNK", 3)
    for number in range(8):
        status = "claimed" if number % 3 == 0 else "reserved"
        reserve(
            services,
            f"d{number}",
            6.5,
            status=status,
            recipient_id=f"u{number}",
            decided_at=after(minutes=number),
        )
    for rule_id in ("x", "y"):
        put(services, "cap", Cap(0, rolling_hours=1), rule_id)
    put(services, "quiet_hours", QuietHours("15:00", "16:00"), "z")
    whole = found(services)
    assert len(whole) == len({(one.decision_id, one.rule_id) for one in whole}) == 8 * 3
    assert [one.decision_id for one in whole[::3]] == ["d7", "d5", "d4", "d2", "d1", "d6", "d3", "d0"]
    for limit in (1, 2, 3, 4, 5, 7, 23, 24):
        assert found(services, limit=limit) == whole


def test_a_call_judges_a_bounded_number_and_says_where_to_go_on(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rulecheck, "CHUNK", 2)
    monkeypatch.setattr(rulecheck, "SCAN", 4)
    for number in range(9):
        reserve(services, f"d{number}", 6.0, recipient_id=f"u{number}", decided_at=after(minutes=number))
    reserve(services, "old", 6.0, recipient_id="u0", decided_at=after(minutes=-1))
    put(services, "cap", Cap(1, rolling_hours=24))
    first = rulecheck.breaches(services, WORKSPACE, limit=500)
    assert (first.items, first.cursor is None) == ((), False)
    assert names(services) == [("r", "d0"), ("r", "old")]


@pytest.mark.parametrize("cursor", ["", "nonsense", "WyJicmVhY2hlcyIsLTEsMCwiIl0", "WyJicmVhY2hlcyIsOSwwLCIiXQ"])
def test_a_cursor_that_this_list_did_not_give_is_refused(services: Services, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        rulecheck.breaches(services, WORKSPACE, limit=5, cursor=cursor)


def test_open_decisions_are_read_in_chunks_each_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beyond, "CHUNK", 2)
    for number in range(5):
        reserve(services, f"d{number}", 6.0, decided_at=after(minutes=number))
    reserve(services, "claimed", 6.0, status="claimed", decided_at=after(minutes=9))
    with services.store.read() as reader:
        read = [d.decision_id for d in beyond.open_decisions(reader, WORKSPACE)]
    assert read == ["d4", "d3", "d2", "d1", "d0", "claimed"]


def test_a_period_in_the_past_is_looked_at_as_long_as_something_is_open_in_it(
    services: Services, clock: FakeClock
) -> None:
    reserve(services, "a", 6.0)
    reserve(services, "b", 6.2, recipient_id="u2")
    put(services, "capacity", Capacity(1, 60))
    clock.now += timedelta(hours=7)
    assert names(services) == [("r", "b")]


def test_who_lives_in_a_zone_that_this_host_lacks_is_judged_all_the_same(services: Services) -> None:
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone="America/Nowhere"))
    for name in ("a", "b"):
        reserve(services, name)
    put(services, "cap", Cap(1, rolling_hours=24))
    assert names(services) == [("r", "a"), ("r", "b")]
