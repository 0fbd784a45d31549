"""Rewards are a function of the set of events: any order, any repetition, the same outcomes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit import rewards
from optimizer.bandit.rewards import Outcome, clock_start, outcomes, reward
from optimizer.bandit.spoken import max_window, outcome_names, window_hours
from storage.log import COUNTED, Decision, Event, Snapshot, Status
from storage.records import Campaign, Channel, EventMapping, Guardrail, OutcomeWeight, Variant

DECIDED = datetime(2026, 11, 24, 9, tzinfo=UTC)
PLANNED = DECIDED + timedelta(hours=5)
LATER = DECIDED + timedelta(days=30)
SECOND = timedelta(seconds=1)

CAMPAIGN = Campaign(
    "w",
    "spring",
    (Variant("a", cost=0.02), Variant("b")),
    (Channel("email", cost=0.001), Channel("sms", cost=0.03)),
    DECIDED,
    DECIDED,
    objective={
        "opened": OutcomeWeight(0.1),
        "converted": OutcomeWeight(0.5, 1.0, 500.0),
        "unsubscribed": OutcomeWeight(-20.0),
    },
    attribution_hours={"opened": 48, "converted": 168, "visited": 24},
    guardrails={"complained": Guardrail(0.01)},
    event_mapping={
        "Order Completed": EventMapping("converted", "revenue"),
        "Product Viewed": EventMapping("visited"),
    },
)
DECISION = Decision(
    "w",
    "dec_1",
    "req_1",
    b"",
    "spring",
    1,
    "u1",
    "sent",
    "treated",
    "live",
    DECIDED,
    0.1,
    "pol_1",
    0,
    3,
    3,
    b"",
    Snapshot(DECIDED, LATER, ("a", "b"), ("email",), "UTC", "default"),
    variant_id="a",
    channel="email",
    send_at=PLANNED,
)
SILENT = replace(DECISION, status="no_send", variant_id=None, channel=None, send_at=None)


def event(type_: str, at: datetime, event_id: str = "e", **fields: Any) -> Event:
    fields = {"decision_id": "dec_1"} | fields
    return Event("w", event_id, type_, at, at + SECOND, True, **fields)


def organic(type_: str, at: datetime, event_id: str = "e", **fields: Any) -> Event:
    return event(type_, at, event_id, **{"decision_id": None, "recipient_id": "u1"} | fields)


def happened(*events: Event, decision: Decision = DECISION, campaign: Campaign = CAMPAIGN) -> set[str]:
    return {name for name, o in outcomes(campaign, decision, events, LATER).items() if o.happened}


# --- the set ---------------------------------------------------------------------------------------------------------

times = st.integers(-2, 200).map(lambda h: DECIDED + timedelta(hours=h)) | st.sampled_from(
    [DECIDED - timedelta(seconds=s) for s in (1, 300, 301)]
)
events_of = st.builds(
    Event,
    st.just("w"),
    st.sampled_from([f"e{i}" for i in range(8)]),
    st.sampled_from(["opened", "converted", "Order Completed", "unsubscribed", "visited", "other"]),
    times,
    times,
    st.booleans(),
    decision_id=st.sampled_from(["dec_1", "dec_2", None]),
    recipient_id=st.sampled_from(["u1", "u2", None]),
    campaign_id=st.sampled_from([None, "spring", "winter"]),
    message_id=st.sampled_from([None, None, "m"]),
    value=st.none() | st.floats(-1e6, 1e6) | st.sampled_from([0.1, 0.2, 1e16, -1e16]),
    automated=st.sampled_from([False, False, False, True]),
    properties=st.fixed_dictionaries({}, optional={"revenue": st.sampled_from([3, 0.1, "many", True, float("nan")])}),
)


@given(st.lists(events_of, max_size=12), st.randoms(use_true_random=False), st.sampled_from([DECISION, SILENT]), times)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_any_order_and_any_repetition_gives_the_same_outcomes_and_reward(
    events: list[Event], random: Random, decision: Decision, now: datetime
) -> None:
    once = outcomes(CAMPAIGN, decision, events, now)
    again = events + random.choices(events, k=len(events)) if events else []
    random.shuffle(again)
    assert outcomes(CAMPAIGN, decision, again, now) == once
    assert reward(CAMPAIGN, decision, outcomes(CAMPAIGN, decision, again, now)) == reward(CAMPAIGN, decision, once)


def counted_by_reference(events: list[Event], decision: Decision, name: str) -> list[Event]:
    """One event an id, each asked the rules one by one."""
    hours = {"opened": 48, "converted": 168, "visited": 24, "unsubscribed": 72, "complained": 72}[name]
    message = name in ("opened", "unsubscribed", "complained")
    sent = decision.decided_at if decision.variant_id is None else decision.send_at
    start = sent if message else decision.snapshot.window_end
    assert start is not None
    kept = []
    for e in events:
        means = {"Order Completed": "converted", "Product Viewed": "visited"}.get(e.type, e.type)
        on_time = e.occurred_at <= start + timedelta(hours=hours)
        earliest = decision.decided_at - (timedelta(0) if e.decision_id is None else timedelta(minutes=5))
        on_time = on_time and earliest <= e.occurred_at
        if e.decision_id is not None:
            mine = e.decision_id == decision.decision_id
        else:
            mine = e.recipient_id == "u1" and e.campaign_id in (None, "spring") and not message and not e.message_id
        if message and decision.variant_id is None:
            mine = False
        if means == name and on_time and mine and not e.automated:
            kept.append(e)
    return kept


@given(st.lists(events_of, max_size=8, unique_by=lambda e: e.event_id), st.sampled_from([DECISION, SILENT]), times)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_outcomes_equal_the_rules_read_aloud(events: list[Event], decision: Decision, now: datetime) -> None:
    found = outcomes(CAMPAIGN, decision, events, now)
    assert set(found) == {"opened", "converted", "unsubscribed", "complained", "visited"}
    for name, outcome in found.items():
        counted = counted_by_reference(events, decision, name)
        assert outcome.happened == bool(counted)
        times = [max(e.occurred_at, decision.decided_at) for e in counted]
        assert outcome.at == min(times, default=None)


def test_the_sum_of_values_is_the_same_in_every_order() -> None:
    # Added one after another, these sum to 0.1 or to .10000002 by their order.
    many = [event("converted", PLANNED, str(i), value=v) for i, v in enumerate((1e9, 0.1, -1e9))]
    for order in permutations(many):
        assert outcomes(CAMPAIGN, DECISION, order, LATER)["converted"].value == 0.1


@pytest.mark.parametrize(("sign", "bound"), [(1, 2e9), (-1, -2e9)])
def test_values_beyond_what_an_event_may_be_worth_count_as_the_largest(sign: int, bound: float) -> None:
    """Their sum would be more than a double holds."""
    told = [event("converted", PLANNED, f"e{i}", value=sign * 1e308) for i in range(2)]
    assert outcomes(CAMPAIGN, DECISION, told, LATER)["converted"].value == bound


def test_of_two_events_of_one_id_the_first_received_counts() -> None:
    first = event("converted", PLANNED, value=5.0)
    second = replace(first, value=7.0, received_at=first.received_at + SECOND)
    for order in ((first, second), (second, first)):
        assert outcomes(CAMPAIGN, DECISION, order, LATER)["converted"].value == 5.0


# --- what counts -----------------------------------------------------------------------------------------------------


def test_the_clock_starts_at_the_send_else_at_the_plan_and_without_a_message_at_the_decision() -> None:
    sent = PLANNED + timedelta(minutes=7)
    assert clock_start(DECISION) == PLANNED
    assert clock_start(replace(DECISION, sent_at=sent)) == sent
    assert clock_start(SILENT) == DECIDED
    assert clock_start(replace(SILENT, status="withheld", action=None)) == DECIDED


def test_what_names_a_decision_happened_at_it_where_a_clock_dates_it_before() -> None:
    """A sender that tells whole seconds dates what comes of an immediate message before its decision."""
    early = DECIDED - timedelta(milliseconds=400)
    for name in ("opened", "converted"):
        outcome = outcomes(CAMPAIGN, DECISION, [event(name, early)], LATER)[name]
        assert (outcome.happened, outcome.at) == (True, DECIDED)
    assert happened(organic("converted", early)) == set()


def test_a_message_that_is_told_to_have_left_before_its_decision_has_its_whole_window() -> None:
    lagging = replace(DECISION, sent_at=DECIDED - 2 * SECOND)
    assert clock_start(lagging) == DECIDED
    last = DECIDED + timedelta(hours=48)
    assert happened(event("opened", last), decision=lagging) == {"opened"}
    assert happened(event("opened", last + SECOND), decision=lagging) == set()


def test_a_window_is_the_campaigns_or_three_days_and_the_longest_is_known() -> None:
    assert [window_hours(CAMPAIGN, name) for name in ("opened", "unsubscribed")] == [48, 72]
    assert max_window(CAMPAIGN) == 168
    assert max_window(replace(CAMPAIGN, attribution_hours={"opened": 1})) == 72
    assert max_window(replace(CAMPAIGN, objective={}, attribution_hours={}, guardrails={})) == 72


def test_both_ends_of_the_window_count() -> None:
    last = PLANNED + timedelta(hours=48)
    assert happened(event("opened", DECIDED)) == happened(event("opened", last)) == {"opened"}
    assert happened(event("opened", last + SECOND)) == set()
    assert happened(organic("converted", DECIDED)) == {"converted"}
    assert happened(organic("converted", DECIDED - SECOND)) == set()
    assert happened(event("opened", DECIDED - timedelta(minutes=5))) == {"opened"}
    assert happened(event("opened", DECIDED - timedelta(minutes=5) - SECOND)) == set()


def test_a_later_real_send_moves_the_window() -> None:
    last = PLANNED + timedelta(hours=49)
    assert happened(event("opened", last)) == set()
    assert happened(event("opened", last), decision=replace(DECISION, sent_at=PLANNED + timedelta(hours=1))) == {
        "opened"
    }


def test_automated_events_never_count() -> None:
    assert happened(event("opened", PLANNED, automated=True)) == set()


def test_an_event_of_another_decision_or_recipient_or_campaign_does_not_count() -> None:
    assert happened(event("converted", PLANNED, decision_id="dec_2", recipient_id="u1")) == set()
    assert happened(organic("converted", PLANNED, recipient_id="u2")) == set()
    assert happened(organic("converted", PLANNED, campaign_id="winter")) == set()
    assert happened(organic("converted", PLANNED, campaign_id="spring")) == {"converted"}


def test_a_recipients_purchase_counts_without_a_message_and_an_open_does_not() -> None:
    assert happened(organic("converted", PLANNED)) == {"converted"}
    assert happened(organic("converted", PLANNED), decision=SILENT) == {"converted"}
    assert happened(organic("opened", PLANNED)) == set()


def test_an_event_that_names_a_message_waits_for_its_decision() -> None:
    waiting = organic("converted", PLANNED, provider="ses", message_id="m1")
    assert happened(waiting) == set()


@pytest.mark.parametrize("name", sorted(rewards.MESSAGE_OUTCOMES))
def test_an_outcome_that_needs_a_message_never_counts_without_one(name: str) -> None:
    campaign = replace(CAMPAIGN, objective={name: OutcomeWeight(1.0)})
    assert happened(event(name, DECIDED), campaign=campaign) == {name}
    assert happened(event(name, DECIDED), campaign=campaign, decision=SILENT) == set()


def test_mapped_events_take_their_value_from_the_named_property() -> None:
    order = event("Order Completed", PLANNED, value=1.0, properties={"revenue": 80})
    assert outcomes(CAMPAIGN, DECISION, [order], LATER)["converted"].value == 80.0
    for text in ("80", " 80.0 ", "8e1"):
        told = replace(order, properties={"revenue": text})
        assert outcomes(CAMPAIGN, DECISION, [told], LATER)["converted"].value == 80.0
    for unusable in ("80 €", "", "nan", "1e999", 10**400, True, float("inf"), None, ["80"]):
        odd = replace(order, properties={"revenue": unusable})
        assert outcomes(CAMPAIGN, DECISION, [odd], LATER)["converted"].value == 1.0
    assert happened(event("Product Viewed", PLANNED)) == {"visited"}


def until(hours: float, decision: Decision = DECISION) -> Decision:
    """The decision with a message that could have been planned for so many hours after ``PLANNED`` at the latest."""
    return replace(decision, snapshot=replace(decision.snapshot, window_end=PLANNED + timedelta(hours=hours)))


def test_outcomes_mature_when_their_own_window_has_passed() -> None:
    def known(hours: float) -> list[str]:
        found = outcomes(CAMPAIGN, until(6.0), [], PLANNED + timedelta(hours=hours))
        assert rewards.matured(CAMPAIGN, found) == (hours >= 174)
        return sorted(name for name, o in found.items() if o.matured)

    assert known(29.99) == []
    assert known(30) == ["visited"]
    assert known(48) == ["opened", "visited"]
    assert known(72) == ["complained", "opened", "unsubscribed", "visited"]
    assert known(173.99) == ["complained", "opened", "unsubscribed", "visited"]
    assert known(174) == ["complained", "converted", "opened", "unsubscribed", "visited"]
    assert rewards.planned_end(CAMPAIGN, until(6.0)) == PLANNED + timedelta(hours=174)


def test_what_needs_no_message_counts_as_long_whatever_was_drawn() -> None:
    last = PLANNED + timedelta(hours=6 + 168)
    late = replace(DECISION, send_at=PLANNED + timedelta(hours=6), sent_at=PLANNED + timedelta(hours=9))
    now = replace(SILENT, decided_at=DECIDED, status="withheld", action=None)
    for drawn in (DECISION, late, SILENT, now):
        assert happened(organic("converted", last), decision=until(6.0, drawn)) == {"converted"}, drawn
        assert happened(organic("converted", last + SECOND), decision=until(6.0, drawn)) == set(), drawn


def test_what_is_sent_at_once_could_not_have_been_sent_later() -> None:
    at_once = replace(DECISION, snapshot=replace(DECISION.snapshot, immediate=True), send_at=DECIDED)
    last = DECIDED + timedelta(hours=168)
    assert happened(organic("converted", last), decision=at_once) == {"converted"}
    assert happened(organic("converted", last + SECOND), decision=at_once) == set()


def test_an_outcome_that_is_missing_is_not_matured() -> None:
    assert not rewards.matured(CAMPAIGN, {})


# --- what it is worth ------------------------------------------------------------------------------------------------


def worth(*events: Event, decision: Decision = DECISION) -> float:
    return reward(CAMPAIGN, decision, outcomes(CAMPAIGN, decision, events, LATER))


def test_reward_by_hand() -> None:
    cost = 0.021
    assert worth() == pytest.approx(-cost)
    assert worth(event("opened", PLANNED, "1"), event("opened", PLANNED, "2")) == pytest.approx(0.1 - cost)
    two = [event("converted", PLANNED, str(i), value=30.0) for i in range(2)]
    assert worth(*two) == pytest.approx(60.5 - cost)
    assert worth(event("converted", PLANNED)) == pytest.approx(0.5 - cost)
    assert worth(event("unsubscribed", PLANNED)) == pytest.approx(-20 - cost)


def test_the_summed_value_is_clipped_and_a_refund_is_not() -> None:
    many = [event("converted", PLANNED, str(i), value=400.0) for i in range(2)]
    assert worth(*many) == pytest.approx(500.5 - 0.021)
    assert worth(event("converted", PLANNED, value=-30.0)) == pytest.approx(-29.5 - 0.021)


@pytest.mark.parametrize("status", ["reserved", "claimed", "sent", "assumed_sent", "released", "revoked", "expired"])
def test_a_message_costs_while_it_is_held_or_out(status: Status) -> None:
    assert worth(decision=replace(DECISION, status=status)) == (pytest.approx(-0.021) if status in COUNTED else 0.0)


def test_silence_costs_nothing_and_earns_what_comes_by_itself() -> None:
    assert worth(decision=SILENT) == 0.0
    assert worth(organic("converted", PLANNED, value=9.0), decision=SILENT) == 9.5


def test_outcomes_outside_the_objective_are_worth_nothing() -> None:
    known = {"complained": Outcome(True, PLANNED, 5.0, True), "unknown": Outcome(True, PLANNED, 5.0, True)}
    assert reward(CAMPAIGN, SILENT, known) == 0.0


CLICKING = replace(CAMPAIGN, attribution_hours={"clicked": 24}, event_mapping={"Read": EventMapping("opened")})


def looked(*events: Event, decision: Decision = DECISION, now: datetime = LATER) -> Outcome:
    found = rewards.looked(CLICKING, decision, events, now)
    assert found is not None
    return found


def test_a_look_is_an_open_or_a_click_within_the_window_of_clicks() -> None:
    opened, clicked = event("opened", PLANNED + 2 * SECOND, "o"), event("clicked", PLANNED + SECOND, "c")
    assert looked(opened).at == opened.occurred_at
    assert looked(opened, clicked).at == clicked.occurred_at, "whoever clicked has looked, by then"
    assert looked(event("Read", PLANNED, "m")).happened, "by the campaign's mapping too"
    assert not looked(event("opened", PLANNED + timedelta(hours=24) + SECOND, "late")).happened
    assert not looked(replace(opened, automated=True)).happened
    assert not looked(event("converted", PLANNED, "b")).happened
    assert not looked(opened, decision=SILENT).happened


def test_looks_mature_with_clicks_and_only_where_clicks_matter() -> None:
    end = PLANNED + timedelta(hours=24)
    assert not looked(now=end - SECOND).matured
    assert looked(now=end).matured
    assert rewards.looked(CAMPAIGN, DECISION, [], LATER) is None
    assert rewards.needs_message(rewards.LOOKED)
    assert rewards.LOOKED not in outcome_names(CLICKING)


@pytest.mark.parametrize("campaign", [CAMPAIGN, CLICKING])
@pytest.mark.parametrize("made", [DECISION, SILENT, replace(DECISION, sent_at=LATER + timedelta(days=6))])
def test_of_no_events_the_same_is_known_before_windows_close_and_after(campaign: Campaign, made: Decision) -> None:
    for hours in range(0, 24 * 45, 6):
        now = DECIDED + timedelta(hours=hours)
        for at in (now - SECOND, now):
            briefly = rewards.outcomes_and_look(campaign, made, (), at)
            assert briefly == rewards.outcomes_and_look(campaign, made, [], at)
