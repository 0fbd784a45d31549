"""Eligibility: equal to a slow, obviously right reference on random cases, and the rules spelled out one by one.

``pytest tests/bandit/test_eligibility.py -n 0 --hypothesis-profile=thorough`` looks at 20,000 cases of all kinds mixed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit import judge
from optimizer.bandit.actions import build_space
from optimizer.bandit.eligibility import eligible_many, span
from optimizer.bandit.localtime import zone
from storage.log import Message
from storage.records import Consent, Recipient, Suppression
from storage.rules import Cap, QuietHours, Rule, RuleParameters, Selector
from tests.bandit.rule_cases import (
    ALL,
    CHANNELS,
    KINDS,
    blackouts,
    budgets,
    calendar,
    campaign,
    capacities,
    cases,
    crowds,
    nights,
    rolling,
)
from tests.bandit.rules_reference import Case, reference, told

EXAMPLES = max(300, settings().max_examples)
AROUND = date(2026, 3, 28)


# --- the promise -----------------------------------------------------------------------------------------------------


@given(cases())
@settings(max_examples=EXAMPLES, derandomize=True, deadline=None)
def test_masks_and_reasons_equal_the_reference(case: Case) -> None:
    found, expected = case.run(), reference(case)
    assert found.mask.dtype == np.bool_
    assert found.mask.tolist() == expected.mask
    assert told(found) == expected.reasons


@pytest.mark.parametrize(
    "parameters",
    [rolling, calendar, nights, blackouts(AROUND), capacities(AROUND), budgets],
    ids=["rolling", "calendar", "nights", "blackouts", "capacities", "budgets"],
)
def test_each_kind_alone_equals_the_reference(parameters: st.SearchStrategy[RuleParameters]) -> None:
    @given(cases(parameters))
    @settings(max_examples=EXAMPLES // 6, derandomize=True, deadline=None)
    def equals(case: Case) -> None:
        found, expected = case.run(), reference(case)
        assert found.mask.tolist() == expected.mask
        assert told(found) == expected.reasons

    equals()


@given(crowds())
@settings(max_examples=EXAMPLES // 5, derandomize=True, deadline=None)
def test_many_at_once_get_the_answers_that_each_gets_alone(crowd: list[Case]) -> None:
    usage = {key: used for case in crowd for key, used in case.usage().items()}
    together = eligible_many([case.question() for case in crowd], crowd[0].rules, usage)
    alone = [case.run() for case in crowd]
    assert [one.mask.tolist() for one in together] == [one.mask.tolist() for one in alone]
    assert [one.reasons for one in together] == [one.reasons for one in alone]


@given(cases())
@settings(max_examples=EXAMPLES // 3, derandomize=True, deadline=None)
def test_one_recipient_gets_number_by_number_what_arrays_give(case: Case) -> None:
    found = case.run()
    with mock.patch.object(judge, "MANY", 0):
        arrays = case.run()
    assert found.mask.tolist() == arrays.mask.tolist()
    assert found.reasons == arrays.reasons


@given(cases())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_messages_outside_the_span_and_their_order_change_nothing(case: Case) -> None:
    start, end = span(case.rules, case.space)
    inside = [m for m in case.messages if start <= m.at <= end]
    first, second = case.run(), replace(case, messages=inside[::-1]).run()
    assert first.mask.tolist() == second.mask.tolist()
    assert first.reasons == second.reasons


@given(cases())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_another_message_never_opens_an_action_and_no_send_is_always_open(case: Case) -> None:
    fewer = replace(case, messages=case.messages[:-1], shared=case.shared[:-1]).run().mask
    assert not (case.run().mask & ~fewer).any()
    if case.space.no_send_index is not None:
        assert case.run().mask[case.space.no_send_index]


# --- spelled out -----------------------------------------------------------------------------------------------------

T0 = datetime(2026, 11, 24, 9, tzinfo=UTC)  # a Tuesday


def one(
    parameters: RuleParameters,
    *ago: float,
    start: datetime = T0,
    hours: int = 1,
    where: str = "UTC",
    counts: Selector = ALL,
    enabled: bool = True,
    dry_run: bool = False,
    archived: bool = False,
) -> Case:
    """One email slot an hour, one rule, messages so many hours before the start."""
    space = build_space(
        variants=("a",),
        channels=("email",),
        window=(start, start + timedelta(hours=hours)),
        slot_minutes=60,
        spread=False,
        immediate=False,
        no_send=True,
        decision_id="d",
        zone=zone(where),
    )
    rule = Rule("w", "r", KINDS[type(parameters)], parameters, ALL, counts, enabled, dry_run, archived)
    messages = [Message("w", "u", start - timedelta(hours=h), f"m{h}", "email", "marketing", "spring") for h in ago]
    return Case(space, campaign(), Recipient("w", "u"), [rule], messages, where)


def open_slots(case: Case) -> str:
    return "".join("+" if ok else "-" for ok in case.run().mask[:-1])


def opening(case: Case) -> datetime | None:
    (reason,) = case.run().reasons
    return reason.next_eligible_at


def test_a_rolling_window_is_half_open() -> None:
    assert open_slots(one(Cap(1, 24), 24)) == "+"
    assert open_slots(one(Cap(1, 24), 24 - 1e-6)) == "-"
    assert open_slots(one(Cap(1, 24), -24)) == "+"
    # Two messages exactly one length apart never share a window, so neither fills it for a time between them.
    assert open_slots(one(Cap(2, 24), 12, -12)) == "+"
    assert open_slots(one(Cap(2, 24), 12, -12 + 1e-6)) == "-"


def test_windows_are_half_open_for_every_row_of_a_batch() -> None:
    hours = (24, 24 - 1e-6, -24, -24 + 1e-6, 23, 25)
    rows = [one(Cap(1, 24), ago, hours=2) for ago in hours]
    found = eligible_many([row.question() for row in rows], rows[0].rules)
    slots = ["".join("+" if ok else "-" for ok in answer.mask[:-1]) for answer in found]
    assert slots == ["++", "-+", "+-", "--", "-+", "++"]


def test_a_reservation_in_the_future_counts_too() -> None:
    # Two messages less than 24 h apart fill a window together with any time less than 24 h from both.
    assert open_slots(one(Cap(2, 24), 5, -5, hours=3)) == "---"
    assert open_slots(one(Cap(2, 24), 12, -12.5, hours=3)) == "+++"
    assert open_slots(one(Cap(2, 24), 12, -11.5, hours=3)) == "---"


def test_a_rolling_cap_opens_when_its_oldest_message_leaves_the_window() -> None:
    assert opening(one(Cap(2, 24), 20, 3)) == T0 + timedelta(hours=4)
    # A reservation 10 hours from now: with the message of 3 hours ago it blocks until 21 hours from now.
    assert opening(one(Cap(2, 24), 20, 3, -10)) == T0 + timedelta(hours=21)


def test_a_gap_of_a_single_instant_is_an_opening() -> None:
    # One message leaves the window at the very time at which the next would enter it.
    assert opening(one(Cap(1, 24), 20, -28)) == T0 + timedelta(hours=4)
    assert opening(one(Cap(1, 24), 20, -28 + 1e-6)) is None


def test_an_opening_as_far_from_the_last_slot_as_the_cap_reaches_is_known() -> None:
    assert opening(one(Cap(1, 24), 0)) == T0 + timedelta(hours=24)


def test_an_opening_beyond_what_is_known_is_unknown() -> None:
    # Chained reservations: each time that one leaves, the next fills the place.
    assert opening(one(Cap(1, 24), 20, -3, -26, -49)) is None


def test_a_limit_of_zero_never_opens() -> None:
    for cap in (Cap(0, 24), Cap(0, calendar="day")):
        assert open_slots(one(cap, hours=2)) == "--"
        assert opening(one(cap)) is None


def test_a_full_cap_blocks_a_bound_request_that_it_would_not_count() -> None:
    """``counts`` looks at transactional mail only, the campaign is marketing: it is bound all the same."""
    counts = Selector(categories=("transactional",))
    case = one(Cap(1, 24), 3, counts=counts)
    assert open_slots(case) == "+"
    mail = replace(case.messages[0], category="transactional")
    assert open_slots(replace(case, messages=[mail])) == "-"
    assert open_slots(one(Cap(0, 24), counts=counts)) == "-"


def test_a_calendar_day_ends_at_the_recipients_midnight() -> None:
    evening = datetime(2026, 11, 24, 21, tzinfo=UTC)
    assert open_slots(one(Cap(1, calendar="day"), 2, start=evening, hours=5, where="Europe/Berlin")) == "--+++"
    assert opening(one(Cap(1, calendar="day"), 2, start=evening, where="Europe/Berlin")) == evening + timedelta(hours=2)
    assert open_slots(one(Cap(1, calendar="day"), 2, start=evening, hours=5, where="Asia/Kathmandu")) == "-----"


def test_a_week_starts_on_the_day_that_the_rule_says() -> None:
    monday = datetime(2026, 11, 23, 12, tzinfo=UTC)
    for week_start, seen in (("mon", "+"), ("sun", "-"), ("tue", "-")):
        cap = Cap(1, calendar="week", week_start=week_start)  # type: ignore[arg-type] # mypy widens the literal
        assert open_slots(one(cap, 20, start=monday)) == seen


def test_a_month_opens_on_its_first_day() -> None:
    case = one(Cap(1, calendar="month"), 24 * 20, start=T0, where="America/St_Johns")
    assert opening(case) == datetime(2026, 12, 1, 3, 30, tzinfo=UTC)


def test_an_hour_that_the_clock_repeats_belongs_to_the_date_it_shows() -> None:
    # St. John's, 7 November 2010: at 00:01 back to 23:01 of the 6th. A message of the 6th fills that day twice.
    start = datetime(2010, 11, 7, 2, 30, tzinfo=UTC)  # 00:00 of the 7th, for one minute
    case = one(Cap(1, calendar="day"), 3, start=start, hours=2, where="America/St_Johns")
    assert open_slots(case) == "++"
    late = one(Cap(1, calendar="day"), 3, start=start + timedelta(minutes=10), where="America/St_Johns")
    assert open_slots(late) == "-"
    assert opening(late) == start + timedelta(hours=1)


def test_messages_on_both_sides_of_a_repeated_midnight_fill_their_own_dates() -> None:
    # In order of time: one at 00:00 of the 7th, then one at 23:10 of the 6th.
    start = datetime(2010, 11, 7, 2, 31, tzinfo=UTC)  # 23:01 of the 6th, the second time
    case = one(Cap(1, calendar="day"), 1 / 60, -9 / 60, start=start, hours=2, where="America/St_Johns")
    assert open_slots(case) == "--"


def test_messages_before_and_after_a_midnight_that_comes_twice_fill_one_date_together() -> None:
    # In order of time: at 23:40 of the 6th, at 00:00:30 of the 7th, at 23:10 of the 6th.
    start = datetime(2010, 11, 7, 2, 40, 30, tzinfo=UTC)  # 23:10:30 of the 6th, the second time
    case = one(Cap(2, calendar="day"), 0.5, 10 / 60, 1 / 120, start=start, hours=2, where="America/St_Johns")
    assert open_slots(case) == "-+"
    assert opening(case) == start + timedelta(minutes=49, seconds=30)


def test_a_night_belongs_to_the_day_it_starts() -> None:
    friday = QuietHours("21:00", "08:00", ("fri",))
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)  # Thursday
    quiet = [noon + timedelta(hours=i) for i, s in enumerate(open_slots(one(friday, start=noon, hours=72))) if s == "-"]
    assert quiet == [datetime(2026, 11, 27, 21, tzinfo=UTC) + timedelta(hours=i) for i in range(11)]


def test_equal_ends_are_a_whole_day_from_start_to_start() -> None:
    saturday = QuietHours("06:00", "06:00", ("sat",))
    midnight = datetime(2026, 11, 28, tzinfo=UTC)
    assert open_slots(one(saturday, start=midnight, hours=36)) == "+" * 6 + "-" * 24 + "+" * 6
    assert opening(one(QuietHours("06:00", "06:00"))) is None
    assert opening(one(saturday, start=midnight, hours=36)) == midnight + timedelta(hours=30)


def test_a_night_over_a_clock_change_ends_by_the_wall_clock() -> None:
    start = datetime(2026, 3, 28, 21, tzinfo=UTC)  # 22:00 in Berlin; the night is an hour short
    assert opening(one(QuietHours("21:00", "08:00"), start=start, where="Europe/Berlin")) == start + timedelta(hours=9)


@pytest.mark.parametrize(("enabled", "archived"), [(False, False), (True, True)])
def test_a_rule_that_is_off_masks_nothing_and_gives_no_reason(enabled: bool, archived: bool) -> None:
    case = one(Cap(0, 24), enabled=enabled, archived=archived)
    assert open_slots(case) == "+"
    assert case.run().reasons == ()
    assert span(case.rules, case.space) == (T0, T0)


def test_a_dry_run_masks_nothing_and_tells_what_it_would_have_masked() -> None:
    case = one(Cap(1, 24), 3, hours=2, dry_run=True)
    assert open_slots(case) == "++"
    assert told(case.run()) == [("r", "cap", 2, T0 + timedelta(hours=21), True, "")]


def test_the_span_is_the_widest_window_and_the_same_again_after_it() -> None:
    rules = [one(p).rules[0] for p in (Cap(1, 24), Cap(1, calendar="week"), QuietHours("21:00", "08:00"))]
    space = one(Cap(1, 24), hours=5).space
    last = T0 + timedelta(hours=4)
    assert span(rules, space) == (T0 - timedelta(days=8), last + timedelta(days=16))
    assert span(rules[:1], space) == (T0 - timedelta(days=1), last + timedelta(days=2))


def test_a_window_longer_than_time_itself_is_no_overflow() -> None:
    for hours in (1e7, 1e12, 1e300):
        case = one(Cap(1, hours), 24 * 365)
        assert span(case.rules, case.space)[0].year == (1 if hours > 1e8 else 886)
        assert open_slots(case) == "-"


def test_a_space_without_slots_or_channels_has_nothing_to_mask() -> None:
    case = one(Cap(0, 24), hours=0)
    assert case.run().mask.tolist() == [True]
    assert case.run().reasons == ()
    assert span(case.rules, case.space) == (datetime(1970, 1, 1, tzinfo=UTC),) * 2


def test_reasons_of_consent_and_suppression_come_first_and_count_their_actions() -> None:
    case = one(Cap(0, 24), hours=3)
    space = replace(case.space, variants=("a", "b"), channels=CHANNELS)
    recipient = Recipient(
        "w",
        "u",
        channels={"push": Consent(True)},
        suppressed=(Suppression("email", "marketing"), Suppression("*", "x")),
    )
    found = replace(case, space=space, recipient=recipient).run()
    assert [(r.rule_id, r.kind, r.masked, r.next_eligible_at) for r in found.reasons] == [
        ("consent", "consent", 6, None),
        ("suppression", "suppression", 6, None),
        ("r", "cap", 18, None),
    ]
    assert found.mask.tolist() == [False] * 18 + [True]
