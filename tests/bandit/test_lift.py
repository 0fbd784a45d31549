"""Lifts with bounds that hold at every look: by hand, by recipient, by stretch, and on walks."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from optimizer.bandit.comparison import lift_of
from optimizer.bandit.lift import (
    LEAST_OUTCOMES,
    Rows,
    arm,
    clear_after,
    effective,
    first_look,
    half_width,
    mean_of,
)
from optimizer.bandit.sequences import delayed_start_boundary


def rows(unit: list[int] | np.ndarray, value: list[float] | np.ndarray, look: object = 0, epoch: object = 0) -> Rows:
    values = np.asarray(value, dtype=np.float64)
    n = values.size
    looks, epochs = (np.broadcast_to(np.asarray(one, dtype=np.int64), n).copy() for one in (look, epoch))
    return Rows(np.asarray(unit, dtype=np.int64), looks, values, np.abs(values), epochs)


def coins(seed: int, n: int, chance: float, first: int = 0, per_unit: int = 1) -> Rows:
    rng = np.random.default_rng(seed)
    return rows(
        first + np.arange(n) // per_unit, (rng.random(n) < chance).astype(float), np.sort(rng.integers(0, 30, n))
    )


def test_the_error_counts_recipients_and_not_decisions() -> None:
    # Three recipients with sums of residuals 2·(1 − .5), −1 and 0 around the mean .5 of six decisions.
    found = arm(rows([0, 0, 1, 1, 2, 2], [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    assert float(found.rows) == 6
    assert float(found.value) == 0.5
    assert found.variance == pytest.approx((1.0 + 1.0 + 0.0) / 36 * 3 / 2)
    assert found.outcomes == pytest.approx(9 / 5), "two recipients with worths 2 and 1"


def test_repeating_everybodys_decisions_makes_nothing_surer() -> None:
    once = coins(1, 1_000, 0.3)
    unit, look, epoch = (np.tile(part, 3) for part in (once.unit, once.look, once.epoch))
    thrice = Rows(unit, look, np.tile(once.value, 3), np.tile(once.worth, 3), epoch)
    assert arm(thrice).variance == pytest.approx(float(arm(once).variance))


def test_a_single_recipient_says_nothing_of_the_error() -> None:
    assert math.isinf(float(arm(rows([5, 5], [1.0, 0.0])).variance))


def test_nothing_is_stated_before_there_are_outcomes_enough() -> None:
    few = rows(np.arange(200), [1.0] * 49 + [0.0] * 151)
    assert first_look(few) is None
    assert math.isinf(float(mean_of(few).high))
    enough = rows(np.arange(200), [1.0] * 50 + [0.0] * 150, look=np.arange(200) // 10)
    assert first_look(enough) == 4, "the fiftieth recipient with an outcome counts at the fifth look"
    found = lift_of(enough, few)
    assert found is not None
    assert math.isinf(float(found.low))
    assert float(found.value) == pytest.approx(0.005)


def test_two_large_orders_are_not_outvoted_by_many_small_opens() -> None:
    assert effective(np.ones(50)) == pytest.approx(50.0)
    assert effective(np.array([0.01] * 1_000 + [100.0] * 2)) < 3
    assert effective(np.zeros(4)) == 0.0
    assert first_look(rows(np.arange(1_002), [0.01] * 1_000 + [100.0] * 2)) is None


def test_worth_of_one_recipient_is_summed_over_looks() -> None:
    unit = np.repeat(np.arange(60), 2)
    look = np.tile([0, 7], 60)
    assert first_look(rows(unit, np.tile([0.0, 1.0], 60), look)) == 7
    lone = rows([0] * 400, [1.0] * 400, look=np.arange(400) // 10)
    assert first_look(lone) is None, "one recipient stays one"


def test_the_boundary_is_robbins_less_what_daily_looks_leave_out() -> None:
    base = delayed_start_boundary(0.05)
    error, start = np.array(2.0), np.array(100.0)
    fresh = half_width(error, np.array(400.0), start, np.array(400.0))
    assert float(fresh) == pytest.approx(2.0 * math.sqrt(base**2 + math.log(4.0)))
    stepped = half_width(error, np.array(400.0), start, np.array(380.0))
    assert float(stepped) == pytest.approx(float(fresh) - 2.0 * 0.5826 * math.sqrt(math.log(400 / 380)))
    at_once = half_width(error, np.array(400.0), start, np.array(0.0))
    assert float(at_once) == pytest.approx(float(fresh) - 2.0 * 0.5826 * 0.5), "a long step counts as a short one"


def test_daily_looks_at_gaussian_walks_leave_the_bounds_no_more_often_than_stated() -> None:
    """20,000 walks from day 5 to 200: at a true rate of .05 more than 5.4 % would leave in 0.5 % of such tests."""
    rng, start, walks = np.random.default_rng(3), 5, 20_000
    walk, left = rng.normal(size=walks) * math.sqrt(start), np.zeros(walks, dtype=np.bool_)
    for day in range(start, 201):
        if day > start:
            walk += rng.normal(size=walks)
        clock, begin, before = (np.array(float(one)) for one in (day, start, day - 1))
        half = half_width(np.array(math.sqrt(day)), clock, begin, before)
        left |= np.abs(walk) > half
    assert 0.03 < left.mean() < 0.054


def test_a_clear_lift_is_found_and_wider_than_at_a_fixed_time() -> None:
    treated, control = coins(1, 20_000, 0.14), coins(2, 20_000, 0.10, first=20_000)
    found = lift_of(treated, control)
    assert found is not None
    assert 0.0 < float(found.low) < 0.04 < float(found.high)
    fixed = NormalDist().inv_cdf(0.975) * float(found.error)
    assert 1.3 < float(found.high - found.value) / fixed < 1.7


def test_the_time_until_a_lift_is_clear_is_when_its_size_exceeds_the_boundary() -> None:
    found = lift_of(coins(1, 20_000, 0.105), coins(2, 20_000, 0.10, first=20_000))
    assert found is not None
    factor = clear_after(found, 10_000.0, 2_000.0)
    shrunk, clock = found.error / math.sqrt(factor), np.array(10_000.0 * factor)
    assert float(half_width(shrunk, clock, np.array(2_000.0), clock)) == pytest.approx(
        abs(float(found.value)), rel=0.01
    )
    nothing = lift_of(coins(3, 20_000, 0.1), coins(3, 20_000, 0.1, first=20_000))
    assert nothing is not None
    assert math.isinf(clear_after(nothing, 10_000.0, 2_000.0))
    assert LEAST_OUTCOMES == 50
