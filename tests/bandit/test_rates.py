"""Rates of harms and sizes of groups: bounds that hold at all times together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from optimizer.bandit.rates import ANY_RATE, RARE, difference_bounds, mismatch, rate_bounds

SHARES = {"treated": 0.85, "random": 0.05, "baseline": 0.0, "holdout": 0.1}


@given(st.integers(0, 3_000), st.integers(1, 3_000))
@example(33, 34)  # so near to 1 that the last rate below it is not rejected
def test_a_rate_lies_within_its_bounds(cases: int, rows: int) -> None:
    cases = min(cases, rows)
    low, high = rate_bounds(cases, rows)
    assert 0.0 <= low <= cases / rows <= high <= 1.0


def test_a_rate_is_never_called_zero_because_nothing_was_seen() -> None:
    low, high = rate_bounds(0, 1_000)
    assert low == 0.0
    assert 0.003 < high < 0.01
    assert rate_bounds(0, 0) == (0.0, 1.0)


def test_the_bounds_are_where_the_mixture_is_twenty_times_the_likelihood() -> None:
    """Beta(½, 49½) mixture of 7 cases in 500 rows, by numeric integration."""
    cases, rows = 7, 500
    grid = np.linspace(1e-7, 1.0 - 1e-7, 2_000_001)
    prior = math.exp(math.lgamma(50.0) - math.lgamma(0.5) - math.lgamma(49.5)) * grid**-0.5 * (1.0 - grid) ** 48.5
    mixture = float(np.trapezoid(prior * grid**cases * (1.0 - grid) ** (rows - cases), grid))
    for bound in rate_bounds(cases, rows):
        assert mixture / (bound**cases * (1.0 - bound) ** (rows - cases)) == pytest.approx(20.0, rel=1e-3)


@pytest.mark.parametrize(("rate", "prior"), [(0.004, RARE), (0.3, ANY_RATE)])
def test_bounds_watched_all_the_time_miss_the_rate_seldom(rate: float, prior: tuple[float, float]) -> None:
    """300 logs of 4,000 rows, looked at every 50: at a true rate of .05 more than 27 would miss in 0.1 % of tests."""
    rng, missed = np.random.default_rng(4), 0
    for _ in range(300):
        cases = np.cumsum(rng.random(4_000) < rate)
        looks = [rate_bounds(int(cases[n - 1]), n, prior=prior) for n in range(50, 4_001, 50)]
        missed += any(not low <= rate <= high for low, high in looks)
    assert missed <= 27


@pytest.mark.parametrize(("cases", "narrow", "wide"), [(300, ANY_RATE, RARE), (3, RARE, ANY_RATE)])
def test_bounds_are_narrow_where_the_prior_fits(
    cases: int, narrow: tuple[float, float], wide: tuple[float, float]
) -> None:
    (low, high), (lower, higher) = (rate_bounds(cases, 1_000, prior=prior) for prior in (narrow, wide))
    assert lower < low < high < higher


def test_a_difference_takes_the_far_ends() -> None:
    assert difference_bounds((0.01, 0.03), (0.02, 0.05)) == pytest.approx((-0.04, 0.01))


def test_groups_of_the_right_sizes_raise_no_alarm_however_often_they_are_looked_at() -> None:
    """200 logs of 20,000 recipients, looked at every 1,000: at a true rate of .01 more than 8 in 0.05 % of tests."""
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(200):
        drawn = np.cumsum(rng.multinomial(1_000, list(SHARES.values()), size=20), axis=0)
        alarms += any(mismatch([(dict(zip(SHARES, row.tolist(), strict=True)), SHARES)]) < 0.01 for row in drawn)
    assert alarms <= 8


def test_lost_recipients_are_found() -> None:
    fair = {"treated": 85_000, "random": 5_000, "holdout": 10_000}
    assert mismatch([(fair, SHARES)]) == 1.0
    assert mismatch([({**fair, "holdout": 9_000}, SHARES)]) < 1e-9, "a tenth of the holdout is missing"
    assert mismatch([({"baseline": 1}, SHARES)]) == 0.0, "nobody can fall into a group without a share"
    assert mismatch([]) == 1.0


def test_evidence_adds_up_over_stretches_with_other_shares() -> None:
    one = ({"treated": 900, "holdout": 100}, {"treated": 0.88, "holdout": 0.12})
    other = ({"treated": 790, "holdout": 210}, {"treated": 0.76, "holdout": 0.24})
    both = mismatch([one, other])
    assert both <= mismatch([one])
