"""What capacities and budgets count: periods, limits, and what a message takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.rules import Budget, Cap, Capacity, Rule, Selector, WarmUpStep
from storage.usage import counted_by, limit_in, period_of, scarce, taken
from tests.storage.builders import at, foreign_message, make_rule

times = st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def budget(per: Any, zone: str = "UTC", **changes: Any) -> Budget:
    return Budget(1, per, zone, **changes)


@given(times, st.integers(1, 50_000))
def test_a_capacitys_periods_follow_each_other_from_1970_on(moment: datetime, minutes: int) -> None:
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes) * period_of(Capacity(1, minutes), moment)
    assert start <= moment < start + timedelta(minutes=minutes)


@pytest.mark.parametrize("zone", ["UTC", "America/Santiago", "Asia/Kathmandu", "Pacific/Apia", "Africa/Cairo"])
@pytest.mark.parametrize("start", NAMES)
def test_a_budgets_periods_change_with_the_local_date(zone: str, start: Any) -> None:
    """Half an hour at a time over a year and a half: clocks change at midnight in some of these zones."""
    moment, step = datetime(2011, 10, 1, tzinfo=UTC), timedelta(minutes=30)
    rules = {"day": budget("day", zone), "week": budget("week", zone, week_start=start), "month": budget("month", zone)}
    before = {per: period_of(rule, moment) for per, rule in rules.items()}
    for _ in range(26_000):
        last, moment = moment.astimezone(ZoneInfo(zone)), moment + step
        now = moment.astimezone(ZoneInfo(zone))
        days = (now.date() - last.date()).days
        passed = [NAMES[(last.date() + timedelta(days=n)).weekday()] for n in range(1, days + 1)]
        expected = {"day": days, "week": passed.count(start), "month": int(now.month != last.month)}
        after = {per: period_of(rule, moment) for per, rule in rules.items()}
        assert {per: after[per] - before[per] for per in after} == expected
        before = after


def test_periods_are_numbered_from_1970() -> None:
    first = datetime(1970, 1, 1, tzinfo=UTC)
    assert [period_of(budget(per), first) for per in ("day", "month")] == [0, 0]
    assert period_of(budget("day"), first - timedelta(microseconds=1)) == -1
    assert period_of(budget("month"), datetime(2026, 3, 1, tzinfo=UTC)) == 56 * 12 + 2
    assert period_of(budget("day", "America/New_York"), first) == -1


@settings(max_examples=50)
@given(times, st.sampled_from(["day", "week", "month"]), st.sampled_from(NAMES))
def test_periods_never_fall_with_time(moment: datetime, per: str, start: str) -> None:
    rule = budget(per, "Europe/Berlin", week_start=start)
    later = [period_of(rule, moment + timedelta(hours=n)) for n in range(60)]
    assert all(after - before in (0, 1) for before, after in pairwise(later))


def test_the_limit_of_a_warm_up_grows_by_the_day_and_ends_with_its_last_step() -> None:
    plan = (WarmUpStep(1, 10), WarmUpStep(2, 20), WarmUpStep(4, 40))
    capacity = Capacity(1000, 720, plan, "2026-03-10")
    days = [datetime(2026, 3, day, hour, tzinfo=UTC) for day in range(8, 16) for hour in (0, 12)]
    assert [limit_in(capacity, period_of(capacity, day)) for day in days[::2]] == [10, 10, 10, 20, 20, 40, 1000, 1000]
    assert [limit_in(capacity, period_of(capacity, day)) for day in days[1::2]] == [10, 10, 10, 20, 20, 40, 1000, 1000]


def test_the_limit_without_a_warm_up_is_that_of_the_rule() -> None:
    assert [limit_in(Capacity(7, 60), period) for period in (-9, 0, 500_000)] == [7, 7, 7]
    assert [limit_in(Budget(7, "week"), period) for period in (-9, 0, 500_000)] == [7, 7, 7]
    late = Capacity(7, 60, (WarmUpStep(3, 1),), "2026-03-10")
    hour = period_of(late, datetime(2026, 3, 10, tzinfo=UTC))
    assert [limit_in(late, hour + 24 * day) for day in range(4)] == [1, 1, 1, 7], (
        "before its first step the first holds"
    )


def test_a_message_takes_one_of_a_capacity_and_its_cost_of_a_budget() -> None:
    message = foreign_message(at=at(0), cost=300_000)
    capacity = make_rule(kind="capacity", parameters=Capacity(1, 60), counts=Selector())
    costs = make_rule(kind="budget", parameters=Budget(1, "day"), counts=Selector())
    assert taken(capacity, message) == (int(at(0).timestamp()) // 3600, 1)
    assert taken(costs, message) == (int(at(0).timestamp()) // 86_400, 300_000)
    assert taken(make_rule(counts=Selector()), message) is None
    for selector in (
        Selector(channels=("sms",)),
        Selector(except_categories=("marketing",)),
        Selector(campaigns=("x",)),
    ):
        assert taken(make_rule(kind="capacity", parameters=Capacity(1, 60), counts=selector), message) is None


def test_sums_hang_on_what_is_counted_and_on_nothing_else() -> None:
    same = make_rule(kind="capacity", parameters=Capacity(1, 60))
    plan = (WarmUpStep(1, 1),)
    for other in (
        make_rule(
            kind="capacity", parameters=Capacity(2, 60, plan, "2026-03-10"), enabled=False, dry_run=True, version=9
        ),
        make_rule(kind="capacity", parameters=Capacity(1, 60), applies_to=Selector(channels=("sms",))),
    ):
        assert counted_by(other) == counted_by(same)
    several: list[Rule] = [
        same,
        make_rule(kind="capacity", parameters=Capacity(1, 61)),
        make_rule(kind="capacity", parameters=Capacity(1, 60), counts=Selector()),
        make_rule(kind="budget", parameters=Budget(1, "week")),
        make_rule(kind="budget", parameters=Budget(1, "day")),
        make_rule(kind="budget", parameters=Budget(1, "week", "Europe/Berlin")),
        make_rule(kind="budget", parameters=Budget(1, "week", week_start="sun")),
    ]
    assert len({counted_by(rule) for rule in several}) == len(several)
    assert all(scarce(rule) for rule in several)
    assert counted_by(make_rule(kind="capacity", parameters=Capacity(1, 60), archived=True)) is None
    assert counted_by(make_rule(parameters=Cap(1, 60.0))) is None
