"""The audit judges by the version in force, adapted caps, blackouts, and a policy's limits on predicted risks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from storage.policies import Component, Policy
from storage.port import Store
from storage.records import Campaign, Channel, Variant
from storage.rules import Adapt, Blackout, Cap, Fatigue, RiskLimit, Rule
from tests.simulations.planted import (
    DAY,
    HOUR,
    NOW,
    SHOP,
    audited,
    broken,
    log,
    person,
    put_rule,
    released,
    reserved,
    tally,
)

NEVER = Cap(limit=0, calendar="day")


def put_version(store: Store, first: Rule, version: int, **changes: Any) -> None:
    store.write(lambda w: w.put_rule(replace(first, version=version, **changes)))


def test_each_reservation_is_judged_by_the_version_in_force(store: Store) -> None:
    log(store, reserved("before", NOW + HOUR))
    first = put_rule(store, NEVER)
    log(store, reserved("never", NOW + 2 * HOUR))
    put_version(store, first, 2, parameters=Cap(limit=9, calendar="day"))
    log(store, reserved("nine", NOW + 3 * HOUR))
    put_version(store, first, 3, enabled=False)
    log(store, reserved("off", NOW + 4 * HOUR))
    put_version(store, first, 4)
    put_version(store, first, 5, dry_run=True)
    log(store, reserved("dry", NOW + 5 * HOUR))
    report = audited(store)
    assert broken(report) == [("cap", "never")]
    assert tally(report) == {"violated": 1, "kept": 1}


def test_a_rule_whose_first_versions_are_not_stored_is_not_judged_before_the_oldest(store: Store) -> None:
    from simulations.audit.rulebook import Rulebook

    book = Rulebook([Rule(SHOP, "r", "cap", NEVER, version=3, changed_after=7)])
    assert [(one.lost, one.rule.version) for one in book.standing(7)] == [(True, 3)]
    assert [(one.lost, one.rule.version) for one in book.standing(8)] == [(False, 3)]
    assert Rulebook([Rule(SHOP, "r", "cap", NEVER, changed_after=7)]).standing(7) == ()


@pytest.mark.parametrize(("unanswered", "kept"), [(0, True), (9, True), (10, False), (11, False)])
def test_the_stored_count_of_unanswered_messages_decides_an_adaptive_limit(
    store: Store, unanswered: int, kept: bool
) -> None:
    put_rule(store, Cap(2, 24.0, adapt=Adapt(after_unengaged=10, limit=1)))
    log(store, reserved("d0", NOW + HOUR, unanswered=0), reserved("d1", NOW + 2 * HOUR, unanswered=unanswered))
    assert broken(audited(store)) == ([] if kept else [("cap", "d1")])


def test_an_adaptive_cap_never_loosens_and_needs_a_stored_count(store: Store) -> None:
    put_rule(store, Cap(1, 24.0, adapt=Adapt(after_unengaged=10, limit=5)))
    log(store, reserved("d0", NOW + HOUR, unanswered=10), reserved("d1", NOW + 2 * HOUR, unanswered=10))
    log(store, reserved("uncounted", NOW + 9 * DAY))
    assert broken(audited(store)) == [("cap", "d1"), ("cap", "uncounted")]


@pytest.mark.parametrize(
    ("blackout", "country", "at", "kept"),
    [
        # Christmas Eve in UTC is Christmas Day in Auckland.
        (Blackout(dates=("2026-12-25",)), None, "2026-12-24T12:00Z", False),
        (Blackout(dates=("2026-12-25",)), None, "2026-12-25T12:00Z", True),
        (Blackout(country_holidays=True), "NZ", "2026-02-05T12:00Z", False),  # Waitangi Day
        (Blackout(country_holidays=True), "nz", "2026-02-05T12:00Z", False),
        (Blackout(country_holidays=True), "DE", "2026-02-05T12:00Z", True),
        (Blackout(country_holidays=True, default_country="NZ"), None, "2026-02-05T12:00Z", False),
        (Blackout(country_holidays=True, default_country="NZ"), "DE", "2026-02-05T12:00Z", True),
        (Blackout(country_holidays=True), None, "2026-02-05T12:00Z", True),
        (Blackout(country_holidays=True), "Middle-earth", "2026-02-05T12:00Z", True),
        (Blackout(dates=("2026-02-06",)), "NZ", "2026-02-05T12:00Z", False),
    ],
)
def test_a_blackout_closes_dates_and_holidays_of_the_recipients_country(
    store: Store, blackout: Blackout, country: str | None, at: str, kept: bool
) -> None:
    put_rule(store, blackout)
    person(store, timezone="Pacific/Auckland", attributes={} if country is None else {"country": country})
    log(store, reserved("d0", datetime.fromisoformat(at).astimezone(UTC), timezone="Pacific/Auckland"))
    assert broken(audited(store)) == ([] if kept else [("blackout", "d0")])


def test_a_holiday_of_a_recipient_who_changed_since_is_unknown_and_a_listed_date_is_not(store: Store) -> None:
    put_rule(store, Blackout(dates=("2026-12-25",), country_holidays=True))
    log(store, reserved("listed", datetime(2026, 12, 25, tzinfo=UTC)), reserved("other", NOW + HOUR))
    person(store, attributes={"country": "DE"})
    report = audited(store)
    assert broken(report) == [("blackout", "listed")]
    assert tally(report) == {"violated": 1, "unknown": 1}


LIMIT = RiskLimit("the-rule", "unsubscribed", 0.01)


@pytest.fixture
def learned(store: Store) -> Store:
    """A shop with a fatigue rule and a policy ``pol_a`` that has a model."""
    put_rule(store, Fatigue("unsubscribed", 0.01))
    mixture = (Component(0.5, "art_a"), Component(0.5, None))
    store.write(lambda w: w.add_policy(Policy(SHOP, "pol_a", "spring", NOW, mixture)))
    return store


@pytest.mark.parametrize(
    ("risks", "limits", "kept"),
    [
        ((0.01, 0.5), (LIMIT,), True),
        ((0.02, None), (LIMIT,), True),  # the component without a model masks nothing
        ((0.02, 0.011), (LIMIT,), False),
        ((0.001, 0.001), (), False),
        ((0.001, 0.001), (replace(LIMIT, max_risk=0.5),), False),
        ((0.001, 0.001), (replace(LIMIT, channels=("sms",)),), False),
        ((0.02, 0.02), (replace(LIMIT, channels=("email",)),), False),
    ],
)
def test_a_learned_policy_must_have_found_the_action_within_the_limit(
    learned: Store, risks: tuple[float | None, ...], limits: tuple[RiskLimit, ...], kept: bool
) -> None:
    log(learned, reserved("d0", NOW + HOUR, policy_id="pol_a", risks={"unsubscribed": risks}, limits=limits))
    assert broken(audited(learned)) == ([] if kept else [("fatigue", "d0")])


def test_no_stored_risk_is_a_breach_and_what_no_model_chose_is_none(learned: Store) -> None:
    high = {"unsubscribed": (0.9,)}
    log(
        learned,
        reserved("none-stored", NOW + HOUR, policy_id="pol_a", limits=(LIMIT,)),
        reserved("cold", NOW + HOUR),
        reserved("baseline", NOW + HOUR, policy_id="pol_a", group="baseline", risks=high),
        reserved("shadow", NOW + HOUR, policy_id="pol_a", mode="shadow", risks=high),
    )
    report = audited(learned)
    assert broken(report) == [("fatigue", "none-stored")]
    assert tally(report) == {"violated": 1, "kept": 3}


def test_limits_are_kept_by_one_and_the_same_component(learned: Store) -> None:
    put_rule(learned, Fatigue("complained", 0.01), rule_id="other")
    limits = (LIMIT, RiskLimit("other", "complained", 0.01))
    risks = {"unsubscribed": (0.001, 0.02), "complained": (0.02, 0.001)}
    log(learned, reserved("d0", NOW + HOUR, policy_id="pol_a", risks=risks, limits=limits))
    assert sorted(b.rule_id for b in audited(learned).breaches) == ["other", "the-rule"]


def test_where_not_sending_is_not_allowed_the_least_risk_may_go_out(learned: Store) -> None:
    always = Campaign(SHOP, "always", (Variant("hello"),), (Channel("email"),), NOW, NOW, allow_no_send=False)
    learned.write(lambda w: w.put_campaign(always))
    high = {"unsubscribed": (0.9, 0.8)}
    log(learned, reserved("d0", NOW + HOUR, campaign_id="always", policy_id="pol_a", risks=high, limits=(LIMIT,)))
    report = audited(learned)
    assert report.clean
    assert tally(report) == {"unknown": 1}


def test_a_place_that_a_gap_needs_is_free_again_after_a_release(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=4.0), kind="gap")
    log(store, reserved("d0", NOW + HOUR), reserved("near", NOW + 5 * HOUR - HOUR / 3600))
    released(store, "d0")
    released(store, "near")
    log(store, reserved("again", NOW + 3 * HOUR), reserved("apart", NOW + 7 * HOUR))
    assert broken(audited(store)) == [("gap", "near")]
