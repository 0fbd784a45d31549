"""The cheap test whether shared limits close the same as before, against computing it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.actions import build_space
from optimizer.bandit.eligibility import Question, eligible
from optimizer.bandit.localtime import zone
from optimizer.service.shared import NOTHING_SHARED, Shared, dearest_of
from storage.log import Message
from storage.records import Channel, Recipient, Variant
from storage.rules import Budget, Cap, Capacity, Rule, Selector
from storage.usage import Usage, period_of
from tests.service.conftest import START, WORKSPACE, campaign

CAMPAIGN = campaign(
    variants=(Variant("plain"), Variant("gift", cost=0.5)), channels=(Channel("email"), Channel("letter", cost=0.25))
)
UTC_ZONE = zone("UTC")
QUESTION = Question(
    space=build_space(
        variants=("plain", "gift"),
        channels=("email", "letter"),
        window=(START, START + timedelta(hours=5)),
        slot_minutes=60,
        spread=False,
        immediate=False,
        no_send=True,
        decision_id="dec_1",
        zone=UTC_ZONE,
    ),
    campaign=CAMPAIGN,
    recipient=Recipient(WORKSPACE, "u1"),
    messages=(),
    zone=UTC_ZONE,
)
RATE = Rule(WORKSPACE, "rate", "capacity", Capacity(2, per_minutes=60), applies_to=Selector(channels=("email",)))
WIDE = Rule(WORKSPACE, "wide", "capacity", Capacity(3, per_minutes=150))
MONEY = Rule(WORKSPACE, "money", "budget", Budget(2_000_000, per="day"))
RULES = (RATE, WIDE, MONEY)


def places(rule: Rule) -> list[int]:
    """The periods of the question's window and two beyond."""
    parameters = rule.parameters
    assert isinstance(parameters, Capacity | Budget)
    found = sorted({period_of(parameters, START + timedelta(minutes=30 * i)) for i in range(10)})
    return [*found, found[-1] + 1, found[-1] + 2]


def usages() -> st.SearchStrategy[Usage]:
    amounts = {RATE: st.integers(0, 3), WIDE: st.integers(0, 4), MONEY: st.integers(0, 9).map(lambda n: n * 250_000)}
    fields: dict[tuple[str, int], Any] = {
        (rule.rule_id, period): amount for rule, amount in amounts.items() for period in places(rule)
    }
    return st.fixed_dictionaries(fields)


@settings(max_examples=300, deadline=None)
@given(usages(), usages())
def test_alike_means_the_same_set_and_the_same_masks_of_each_rule(one: Usage, other: Usage) -> None:
    a, b = (Shared.of(RULES, usage, dearest_of([CAMPAIGN])) for usage in (one, other))
    first, second = eligible(QUESTION, RULES, one), eligible(QUESTION, RULES, other)
    masks_of_each = all(
        (eligible(QUESTION, (rule,), one).mask == eligible(QUESTION, (rule,), other).mask).all() for rule in RULES
    )
    assert a.closes_as(b, QUESTION) == masks_of_each
    if a.tight == b.tight:
        assert (first.mask == second.mask).all()
        assert first.reasons == second.reasons


@settings(max_examples=100, deadline=None)
@given(usages(), st.lists(st.tuples(st.integers(0, 4), st.sampled_from(("email", "letter")), st.booleans())))
def test_booking_message_by_message_is_what_the_sums_say(usage: Usage, moves: list[tuple[int, str, bool]]) -> None:
    state, expected = Shared.of(RULES, usage, dearest_of([CAMPAIGN])), dict(usage)
    for hours, channel, added in moves:
        cost = 250_000 if channel == "letter" else 0
        at = START + timedelta(hours=hours)
        message = Message(WORKSPACE, "u1", at, "m", channel, "marketing", "spring", "plain", "m", cost)
        state = state.booked([message], []) if added else state.booked([], [message])
        for rule, amount in ((RATE, 1), (WIDE, 1), (MONEY, cost)):
            parameters = rule.parameters
            assert isinstance(parameters, Capacity | Budget)
            expected[rule.rule_id, period_of(parameters, at)] += amount if added else -amount
    assert dict(state.usage) == expected
    assert state == Shared.of(RULES, expected, dearest_of([CAMPAIGN]))


def test_a_state_is_never_changed() -> None:
    before = Shared.of(RULES, {("rate", 1): 1}, 1)
    before.booked([Message(WORKSPACE, "u1", datetime(1970, 1, 1, 1, tzinfo=UTC), "m", "email", "x")], [])
    assert dict(before.usage) == {("rate", 1): 1}


def test_where_a_dry_run_may_report_something_else_it_is_asked_again() -> None:
    period = places(RATE)[0]
    dry = replace(RATE, dry_run=True)
    one, other = (Shared.of((dry,), {("rate", period): used}, 1) for used in (1, 2))
    assert not one.closes_as(other, QUESTION)
    assert one.closes_as(Shared.of((dry,), {("rate", period): 0}, 1), QUESTION)


def test_rules_that_share_nothing_play_no_part() -> None:
    cap = Rule(WORKSPACE, "cap", "cap", Cap(1, calendar="day"))
    message = Message(WORKSPACE, "u1", START, "m", "email", "x")
    assert Shared.of((cap,), {}, 0).booked([message], []) == NOTHING_SHARED
