"""Prices of capacity and budget rules, from past questions and from what is left."""

from __future__ import annotations

from datetime import UTC, datetime
from math import gcd
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.scarce import Asked, Priced, Scarce, near_blocks, price_all, usual_capacity
from optimizer.bandit.tolls import Price
from storage.rules import MICROS, Budget, Capacity, Rule, WarmUpStep
from storage.usage import period_of

DAY, HOUR = 86_400, 3_600
#: A Wednesday, 10:30 UTC.
AT = datetime(2026, 3, 11, 10, 30, tzinfo=UTC)
NOW = int(AT.timestamp())
MIDNIGHT = NOW // DAY * DAY


def capacity(limit: int, per_minutes: int, **more: Any) -> Rule:
    return Rule("w", "cap", "capacity", Capacity(limit, per_minutes, **more))


def budget(amount: float, per: Any, timezone: str = "UTC") -> Rule:
    return Rule("w", "money", "budget", Budget(round(amount * MICROS), per, timezone))


def asked(questions: int, hours: tuple[int, ...], rules: int, *, seed: int = 1, cost: float = 1.0) -> Asked:
    """Questions of the last two days, evenly over the day; each may be answered in any of these hours of its day."""
    rng = np.random.default_rng(seed)
    decided = NOW - rng.integers(0, 2 * DAY, questions)
    level = np.exp(rng.normal(0, 0.5, questions))
    question = np.repeat(np.arange(questions), len(hours))
    send_at = np.repeat(decided // DAY * DAY, len(hours)) + np.tile(np.array(hours) * HOUR + 60, questions)
    send_at += DAY * (send_at < decided[question])
    n = len(question)
    gain = level[question] * rng.uniform(0.5, 1.0, n)
    return Asked(
        decided, np.full(questions, 0.5), question, send_at, gain, np.full(n, cost), np.ones((n, rules), np.bool_)
    )


def test_a_typical_day_has_each_hours_periods() -> None:
    assert usual_capacity(Scarce(capacity(7, 60), {}), NOW).tolist() == [7.0] * 24
    assert usual_capacity(Scarce(capacity(2, 15), {}, share=0.5), NOW).tolist() == [4.0] * 24
    long = usual_capacity(Scarce(capacity(8, 480), {}), NOW)
    assert [int(hour) for hour in np.flatnonzero(long)] == [0, 8, 16]
    assert long.sum() == 24.0


def test_blocks_that_move_from_day_to_day_share_out_what_a_day_has() -> None:
    hourly = usual_capacity(Scarce(capacity(70, 420), {}, share=0.5), NOW)
    assert hourly == pytest.approx([35.0 * 1_440 / 420 / 24] * 24)
    long = usual_capacity(Scarce(capacity(60, 960), {}), NOW)
    assert [int(hour) for hour in np.flatnonzero(long)] == [0, 8, 16]
    assert long.sum() == pytest.approx(90.0)


def test_limits_that_outlast_a_day_serve_a_days_part() -> None:
    assert usual_capacity(Scarce(capacity(70, 7 * 1_440), {}), NOW) == pytest.approx([10.0])
    assert usual_capacity(Scarce(budget(310.0, "month"), {}), NOW) == pytest.approx([310.0 / 30])
    assert usual_capacity(Scarce(budget(70.0, "week"), {}, busy=7.0), NOW) == pytest.approx([70.0])
    assert usual_capacity(Scarce(budget(10.0, "day"), {}, busy=7.0), NOW) == pytest.approx([10.0])


def test_near_blocks_hold_what_is_left_of_the_day_to_come() -> None:
    rule = capacity(7, 60)
    present = period_of(rule.parameters, AT)  # type: ignore[arg-type]
    blocks = near_blocks(Scarce(rule, {("cap", present): 3, ("cap", present + 2): 9}), NOW)
    assert len(blocks) == 24
    assert blocks[0].start == MIDNIGHT + 10 * HOUR
    assert blocks[-1].end == MIDNIGHT + DAY + 10 * HOUR
    assert [b.capacity for b in blocks[:4]] == [4.0, 7.0, 0.0, 7.0]


def test_a_quarter_hours_periods_that_are_over_are_not_left() -> None:
    blocks = near_blocks(Scarce(capacity(2, 15), {}), NOW)
    assert blocks[0].capacity == 4.0  # 10:30 and 10:45
    assert blocks[1].capacity == 8.0


def test_a_warm_up_gives_each_day_its_limit() -> None:
    rule = capacity(100, 60, warm_up=(WarmUpStep(1, 5), WarmUpStep(2, 10)), starts_on="2026-03-11")
    blocks = near_blocks(Scarce(rule, {}), NOW)
    assert (blocks[1].capacity, blocks[-1].capacity) == (5.0, 10.0)


def test_a_budget_lasts_to_its_periods_end() -> None:
    rule = budget(100.0, "month")
    present = period_of(rule.parameters, AT)  # type: ignore[arg-type]
    (block,) = near_blocks(Scarce(rule, {("money", present): 40 * MICROS}), NOW)
    april = int(datetime(2026, 4, 1, tzinfo=UTC).timestamp())
    assert (block.start, block.end) == (NOW, april)
    assert block.capacity == pytest.approx(60.0 * DAY / (april - NOW))


def test_a_daily_budget_ends_at_the_zones_midnight() -> None:
    blocks = near_blocks(Scarce(budget(9.0, "day", "Asia/Tokyo"), {}), NOW)
    assert [b.end for b in blocks] == [MIDNIGHT + 15 * HOUR]


#: Lengths of periods that divide a day, that don't, and that outlast it.
LENGTHS = [1, 7, 13, 45, 50, 60, 61, 100, 420, 719, 721, 960, 1_000, 1_439, 1_440, 1_441, 2_000, 10_000, 10_080, 44_640]


def all_day(questions: int, hours: int) -> Asked:
    """The last week's questions, 2,400 a day in its first hours, each for ten minutes later only."""
    rng = np.random.default_rng(3)
    decided = NOW // DAY * DAY - rng.integers(1, 8, questions) * DAY + rng.integers(0, hours * HOUR, questions)
    return Asked(
        decided,
        np.full(questions, 2_400 / questions),
        np.arange(questions),
        decided + 600,
        rng.uniform(0.5, 1.0, questions),
        np.zeros(questions),
        np.ones((questions, 1), np.bool_),
    )


@pytest.mark.parametrize("minutes", LENGTHS)
def test_what_is_not_scarce_costs_nothing_whatever_its_period(minutes: int) -> None:
    enough = Scarce(capacity(round(200 * minutes / 60) + 1, minutes), {})
    found = priced(all_day(3_000, 24), enough)[0]
    assert not found.binds, (found.usual, found.values)


@pytest.mark.parametrize("minutes", [60, 420, 719, 1_000, 1_439, 1_441])
def test_a_few_hours_crowd_may_use_all_of_its_block(minutes: int) -> None:
    enough = Scarce(capacity(3_000, minutes), {})
    assert not priced(all_day(3_000, 1), enough)[0].binds


@pytest.mark.parametrize("minutes", LENGTHS[2:])
def test_what_half_can_have_costs_what_the_middle_one_gains(minutes: int) -> None:
    found = priced(all_day(4_000, 24), Scarce(capacity(round(50 * minutes / 60), minutes), {}))[0]
    starts = np.unique(np.arange(0, DAY, gcd(found.every, DAY)) // HOUR)
    given = np.array(found.usual)[starts if len(found.usual) > 1 else [0]]
    assert given.mean() == pytest.approx(0.75, abs=0.03)
    assert given == pytest.approx(0.75, abs=0.08)


def test_only_blocks_that_hold_the_crowd_are_dear_on_whichever_day() -> None:
    found = priced(all_day(4_000, 1), Scarce(capacity(1_200, 420), {}))[0]
    prices = Price("cap", "capacity", ("email",), found.usual, found.every)
    midnights = MIDNIGHT + DAY * np.arange(40, 70)
    held = np.unique((midnights + HOUR // 2) // found.every)
    assert prices.at(held * found.every) == pytest.approx(0.75, abs=0.08)
    assert not prices.at(midnights + 9 * HOUR).any()


def priced(question: Asked, *rules: Scarce) -> list[Priced]:
    return price_all(question, rules, NOW)


def test_the_crowded_hour_is_dear_and_the_others_are_free() -> None:
    everybody = asked(400, (9, 15), 1)
    early = everybody.send_at % DAY // HOUR == 9
    crowded = Asked(
        everybody.decided,
        everybody.weight,
        everybody.question,
        everybody.send_at,
        everybody.gain + 0.5 * early,
        everybody.cost,
        everybody.bound,
    )
    found = priced(crowded, Scarce(capacity(110, 60), {}))[0]
    assert found.usual[9] > 0.0
    assert [h for h, value in enumerate(found.usual) if value] == [9]


def test_a_near_price_rises_where_more_is_gone_than_usual() -> None:
    rule = capacity(10, 60)
    noon = (MIDNIGHT + 12 * HOUR) // HOUR
    spent = {("cap", noon): 7}
    usual, gone = (priced(asked(600, (12, 18), 1), Scarce(rule, usage))[0] for usage in ({}, spent))
    assert usual.usual == gone.usual
    before, after = (p.values[p.starts.index(MIDNIGHT + 12 * HOUR)] for p in (usual, gone))
    assert after > 1.2 * before > 0.0


def test_where_every_day_is_alike_the_day_to_come_costs_what_is_usual() -> None:
    # Tomorrow at eight lies within the day to come and at twenty beyond it, so all that is known of both plays a part.
    found = priced(asked(3_000, (8, 20), 1), Scarce(capacity(200, 60), {}))[0]
    tomorrow = found.values[found.starts.index(MIDNIGHT + DAY + 8 * HOUR)]
    assert found.usual[8] > 0.2
    assert tomorrow == pytest.approx(found.usual[8], rel=0.1)


def test_what_others_take_is_not_left_for_the_priced() -> None:
    rule = capacity(8, 60)
    all_, half = (near_blocks(Scarce(rule, {}, share), NOW)[3].capacity for share in (1.0, 0.5))
    assert (all_, half) == (8.0, 4.0)


def test_a_budget_spent_early_costs_more_for_the_rest() -> None:
    rule = budget(1_500.0, "month")
    present = period_of(rule.parameters, AT)  # type: ignore[arg-type]
    question = asked(600, (12, 18), 1)
    even, early = (
        priced(question, Scarce(rule, {("money", present): used * MICROS}))[0].values[0] for used in (500, 1_400)
    )
    assert early > 1.2 * even > 0.0


def test_rules_that_bind_nothing_are_free() -> None:
    question = asked(300, (12,), 2)
    one, other = priced(question, Scarce(capacity(10_000, 60), {}), Scarce(budget(10_000.0, "day"), {}))
    assert not one.binds
    assert not other.binds


def test_an_action_pays_only_the_rules_that_it_takes_of() -> None:
    question = asked(300, (12,), 1)
    free = Asked(
        question.decided,
        question.weight,
        question.question,
        question.send_at,
        question.gain,
        question.cost,
        np.zeros_like(question.bound),
    )
    assert not priced(free, Scarce(capacity(1, 60), {}))[0].binds
    assert priced(question, Scarce(capacity(1, 60), {}))[0].binds


def test_without_questions_nothing_has_a_price() -> None:
    nothing = asked(3, (), 1)
    assert not priced(nothing, Scarce(capacity(1, 60), {}))[0].binds
