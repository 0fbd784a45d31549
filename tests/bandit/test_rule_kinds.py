"""Capacity, budget, blackout, adaptive caps, requires and fatigue, spelled out; and what must be read for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings

from optimizer.bandit.actions import build_space
from optimizer.bandit.eligibility import (
    Question,
    cost_micros,
    countries,
    eligible,
    longest_reach,
    needs_unanswered,
    risk_limits,
    scarcity,
    usage_spans,
)
from optimizer.bandit.localtime import zone
from storage.log import Answer, Message, Reason
from storage.records import Campaign, Channel, Consent, Recipient, Requirement, Variant
from storage.rules import (
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    RiskLimit,
    Rule,
    RuleParameters,
    Selector,
    WarmUpStep,
)
from storage.usage import Usage
from tests.bandit.rule_cases import CHANNELS, cases
from tests.bandit.rules_reference import Case

T0 = datetime(2026, 11, 24, 9, tzinfo=UTC)  # a Tuesday
HOUR = timedelta(hours=1)
NUMBER = int(T0.timestamp()) // 3600
DAY_NUMBER = (T0.date() - date(1970, 1, 1)).days


def campaign(*requires: Requirement) -> Campaign:
    """Variant a is free, b costs 3 cents; email is free, sms costs 5 cents."""
    variants = (Variant("a"), Variant("b", cost=0.03, requires=requires))
    return Campaign("w", "spring", variants, (Channel("email"), Channel("sms", 0.05)), T0, T0)


def question(
    hours: int = 3, where: str = "UTC", asked: Campaign | None = None, country: object = None, start: datetime = T0
) -> Question:
    space = build_space(
        variants=("a", "b"),
        channels=("email", "sms"),
        window=(start, start + hours * HOUR),
        slot_minutes=60,
        spread=False,
        immediate=False,
        no_send=True,
        decision_id="d",
        zone=zone(where),
    )
    told = {} if country is None else {"country": country}
    who = Recipient("w", "u", attributes=told, channels={"sms": Consent(True)})
    return Question(space, asked or campaign(), who, (), zone(where), now=int(start.timestamp()))


def rule(kind: str, parameters: RuleParameters, **more: object) -> Rule:
    return Rule("w", "r", kind, parameters, **more)  # type: ignore[arg-type] # the caller names a kind


def table(asked: Question, rules: list[Rule], usage: Usage | None = None) -> dict[str, str]:
    """For each variant and channel its slots, + open, - closed."""
    mask = eligible(asked, rules, usage or {}).mask[:-1].reshape(asked.space.shape)
    return {
        f"{v} {c}": "".join("+" if ok else "-" for ok in mask[i, :, j])
        for i, v in enumerate(asked.space.variants)
        for j, c in enumerate(asked.space.channels)
    }


def reason(asked: Question, rules: list[Rule], usage: Usage | None = None) -> Reason:
    (found,) = eligible(asked, rules, usage or {}).reasons
    return found


# --- capacity --------------------------------------------------------------------------------------------------------


def test_a_capacity_closes_the_periods_that_are_full_for_whom_it_binds() -> None:
    rules = [rule("capacity", Capacity(10, 60), applies_to=Selector(channels=("email",)))]
    usage = {("r", NUMBER): 10, ("r", NUMBER + 1): 9, ("r", NUMBER + 2): 11, ("other", NUMBER + 1): 50}
    assert table(question(), rules, usage) == {"a email": "-+-", "a sms": "+++", "b email": "-+-", "b sms": "+++"}
    assert reason(question(), rules, usage) == Reason("r", "capacity", 4, T0 + HOUR)


def test_a_full_capacity_looks_two_periods_beyond_the_last_slot() -> None:
    rules = [rule("capacity", Capacity(1, 60))]
    full = {("r", NUMBER + i): 1 for i in range(5)}
    assert reason(question(), rules, full).next_eligible_at is None
    del full["r", NUMBER + 4]
    assert reason(question(), rules, full).next_eligible_at == T0 + 4 * HOUR


def test_a_warm_up_holds_from_each_step_to_the_next_and_the_last_for_its_own_day() -> None:
    steps = (WarmUpStep(1, 1), WarmUpStep(3, 2))
    rules = [rule("capacity", Capacity(3, 1440, steps, starts_on=T0.date().isoformat()))]

    def most(day: int) -> int:
        """How many may be used on a day of the warm-up for one more to be allowed."""
        asked = question(1, start=T0 + timedelta(days=day - 1))
        number = DAY_NUMBER + day - 1
        return sum(table(asked, rules, {("r", number): used})["a email"] == "+" for used in range(5))

    assert [most(day) for day in (-1, 1, 2, 3, 4, 5)] == [1, 1, 1, 2, 3, 3]


def test_a_limit_of_zero_says_never_in_words() -> None:
    for kind, parameters in (
        ("cap", Cap(0, 24)),
        ("capacity", Capacity(0, 60)),
        ("budget", Budget(0, "day")),
        ("cap", Cap(5, 24, adapt=Adapt(0, 0))),
    ):
        found = reason(question(), [rule(kind, parameters)])
        assert (found.note, found.next_eligible_at) == ("limit 0: never", None)
    warming = Capacity(0, 60, (WarmUpStep(1, 5),), starts_on="2026-11-01")
    assert reason(question(), [rule("capacity", warming)]).note == ""


# --- budget ----------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_variant_and_channel_in_micros() -> None:
    assert cost_micros(campaign(), ("a", "b"), ("email", "sms")).tolist() == [[0, 50_000], [30_000, 80_000]]
    assert cost_micros(campaign(), ("b",), ("sms",)).tolist() == [[80_000]]


def test_a_budget_closes_what_is_too_dear_and_never_what_is_free() -> None:
    rules = [rule("budget", Budget(1_000_000, "day"))]
    left = {"a email": "+++", "a sms": "+++", "b email": "+++", "b sms": "+++"}
    for used, closed in ((920_000, ()), (920_001, ("b sms",)), (950_001, ("a sms", "b sms"))):
        assert table(question(), rules, {("r", DAY_NUMBER): used}) == {**left, **dict.fromkeys(closed, "---")}
    empty = {**left, **dict.fromkeys(("a sms", "b email", "b sms"), "---")}
    assert table(question(), rules, {("r", DAY_NUMBER): 2_000_000}) == empty


def test_a_budget_opens_when_the_cheapest_action_that_it_masked_fits_again() -> None:
    rules = [rule("budget", Budget(1_000_000, "day", "America/New_York"))]
    midnight = datetime(2026, 11, 25, 5, tzinfo=UTC)
    usage = {("r", DAY_NUMBER): 1_000_000, ("r", DAY_NUMBER + 1): 970_000}
    assert reason(question(), rules, usage) == Reason("r", "budget", 9, midnight)
    # What is dear fits on the day after only.
    dear = Selector(channels=("sms",))
    found = reason(question(), [rule("budget", rules[0].parameters, applies_to=dear)], usage)
    assert (found.masked, found.next_eligible_at) == (6, midnight + timedelta(days=1))


# --- blackout --------------------------------------------------------------------------------------------------------


def test_a_blackout_closes_local_dates_and_holidays_of_the_recipients_country() -> None:
    dates = [rule("blackout", Blackout(("2026-11-25",)))]
    asked = question(24, "Asia/Tokyo")
    assert table(asked, dates)["a email"] == "++++++" + "-" * 18  # 09:00 UTC is 18:00 in Tokyo
    holidays = [rule("blackout", Blackout(country_holidays=True, default_country="de"))]
    known = {"DE": frozenset({DAY_NUMBER}), "US": frozenset({DAY_NUMBER + 1})}

    def closed(country: object) -> bool:
        return "-" in table(replace(question(country=country), holidays=known), holidays)["a email"]

    assert [closed(country) for country in (None, "DE", "de", "US", "XX", 7, "")] == [
        True, True, True, False, False, True, True,
    ]  # fmt: skip


def test_a_blackout_opens_on_the_first_day_that_is_not_closed() -> None:
    dates = tuple((T0.date() + timedelta(days=n)).isoformat() for n in (0, 1, 3))
    found = reason(question(1), [rule("blackout", Blackout(dates))])
    assert found.next_eligible_at == datetime(2026, 11, 26, tzinfo=UTC)
    year = tuple((T0.date() + timedelta(days=n)).isoformat() for n in range(366))
    assert reason(question(1), [rule("blackout", Blackout(year))]).next_eligible_at is None


# --- adaptive caps ---------------------------------------------------------------------------------------------------


def test_an_adaptive_cap_tightens_for_who_leaves_messages_unanswered() -> None:
    rules = [rule("cap", Cap(3, 24, adapt=Adapt(10, 1)))]
    sent = [Message("w", "u", T0 - HOUR, "m", "email", "marketing")]
    for unanswered, expected in ((9, "+++"), (10, "---")):
        asked = replace(question(), messages=sent, unanswered=unanswered)
        assert table(asked, rules)["a email"] == expected
    loose = [rule("cap", Cap(1, 24, adapt=Adapt(10, 5)))]
    assert table(replace(question(), messages=sent, unanswered=99), loose)["a email"] == "---"  # it never loosens


# --- requires --------------------------------------------------------------------------------------------------------


def opened(hours_after: float | None, *, sent: datetime, variant: str = "hello") -> Answer:
    outcomes = {} if hours_after is None else {"opened": sent + timedelta(hours=hours_after)}
    return Answer("welcome", variant, sent, outcomes)


@pytest.mark.parametrize(
    ("happened", "hours_after", "sent_ago", "holds"),
    [
        (True, 1, 100, True),
        (True, 24, 100, True),
        (True, 24.001, 100, False),
        (True, None, 100, False),
        (True, -1, 100, False),
        (False, None, 24, True),
        (False, None, 23.999, False),
        (False, 1, 100, False),
        (False, 24.001, 100, True),
    ],
)
def test_a_variant_is_open_only_after_what_it_requires(
    happened: bool, hours_after: float | None, sent_ago: float, holds: bool
) -> None:
    asked = campaign(Requirement("welcome", "opened", happened, within_hours=24))
    answers = (opened(hours_after, sent=T0 - timedelta(hours=sent_ago)),)
    assert table(replace(question(asked=asked), answers=answers), [])["b email"] == ("+++" if holds else "---")
    assert table(question(asked=asked), [])["b email"] == "---"  # nothing was ever sent
    assert table(replace(question(asked=asked), answers=answers), [])["a email"] == "+++"


def test_the_last_message_of_the_named_variant_counts() -> None:
    first = opened(1, sent=T0 - 50 * HOUR)
    later = opened(None, sent=T0 - 40 * HOUR, variant="bye")
    for variant, expected in (("hello", "+++"), ("bye", "---"), (None, "---")):
        asked = campaign(Requirement("welcome", "opened", True, 24, variant))
        for answers in ((first, later), (later, first)):
            assert table(replace(question(asked=asked), answers=answers), [])["b email"] == expected
    other = replace(question(asked=campaign(Requirement("spring", "opened", True, 24))), answers=(first,))
    assert table(other, [])["b email"] == "---"


def test_requires_opens_when_the_silence_has_lasted_if_nothing_else_is_missing() -> None:
    silence = Requirement("welcome", "opened", happened=False, within_hours=24)
    answers = (opened(None, sent=T0 - 4 * HOUR),)
    found = reason(replace(question(asked=campaign(silence)), answers=answers), [])
    assert found == Reason("requires", "requires", 6, T0 + 20 * HOUR)
    more = campaign(silence, Requirement("welcome", "clicked", happened=True, within_hours=24))
    assert reason(replace(question(asked=more), answers=answers), []).next_eligible_at is None


# --- fatigue, and what must be read -----------------------------------------------------------------------------------


def test_fatigue_masks_nothing_here_and_limits_the_policy_on_the_channels_it_binds() -> None:
    fatigue = Fatigue("unsubscribed", 0.002)
    rules = [
        rule("fatigue", fatigue),
        replace(rule("fatigue", fatigue, applies_to=Selector(channels=("sms", "fax"))), rule_id="sms"),
        rule("fatigue", fatigue, applies_to=Selector(campaigns=("other",))),
        rule("fatigue", fatigue, dry_run=True),
        rule("fatigue", fatigue, enabled=False),
    ]
    assert eligible(question(), rules).reasons == ()
    assert risk_limits(rules, campaign()) == (
        RiskLimit("r", "unsubscribed", 0.002, None),
        RiskLimit("sms", "unsubscribed", 0.002, ("sms",)),
    )


def test_what_must_be_read_is_asked_for_by_rules_that_act_or_report() -> None:
    adaptive = rule("cap", Cap(3, 24, adapt=Adapt(10, 1)), dry_run=True)
    assert needs_unanswered([rule("cap", Cap(3, 24)), adaptive])
    assert not needs_unanswered([rule("cap", Cap(3, 24)), replace(adaptive, enabled=False)])
    assert longest_reach([adaptive]) == timedelta(days=1)
    assert longest_reach([replace(adaptive, archived=True)]) == timedelta(0)
    blackouts = [
        rule("blackout", Blackout(country_holidays=True, default_country="fr")),
        rule("blackout", Blackout(country_holidays=True)),
        rule("blackout", Blackout(("2026-12-25",), default_country="IT")),
    ]
    assert countries(blackouts, Recipient("w", "u")) == ("FR",)
    assert countries(blackouts, Recipient("w", "u", attributes={"country": "de"})) == ("DE",)
    assert countries([replace(blackouts[0], archived=True)], Recipient("w", "u")) == ()


def test_usage_is_read_from_the_first_period_to_two_beyond_the_last() -> None:
    rules = [
        rule("capacity", Capacity(1, 60)),
        replace(rule("budget", Budget(1, "day", "Asia/Tokyo")), rule_id="money"),
        rule("capacity", Capacity(1, 60), enabled=False),
        rule("cap", Cap(1, 24)),
    ]
    first, last = int(T0.timestamp()), int(T0.timestamp()) + 10 * 3600
    assert usage_spans(rules, first, last) == [
        ("r", NUMBER, NUMBER + 12),
        ("money", DAY_NUMBER - 1, DAY_NUMBER + 3),  # 19:00 UTC is tomorrow in Tokyo
    ]


@given(cases())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_scarcity_is_what_shared_limits_close(case: Case) -> None:
    shared = [r for r in case.rules if isinstance(r.parameters, Capacity | Budget)]
    free = replace(case.campaign, variants=tuple(replace(v, requires=()) for v in case.campaign.variants))
    willing = Recipient("w", "u", channels={c: Consent(True) for c in CHANNELS})
    asked = replace(case, rules=shared, campaign=free, recipient=willing)
    closed = ~asked.run().mask[: case.space.messages]
    expected = np.packbits(closed).tobytes() if closed.any() else b""
    assert scarcity(case.question(), case.rules, case.usage()) == expected
