"""From a vector to an action: mixtures, draws with the stated frequencies, randomness that never changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace
from tests.bandit.test_exploration import SEED, masked_spaces, settled, some_policy, space_of

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]


def test_a_mixture_is_the_weighted_sum_and_leaves_its_parts_alone() -> None:
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert exploration.mix([a, b], [0.7, 0.3]).tolist() == [0.7, 0.3]
    assert (a.tolist(), b.tolist()) == ([1.0, 0.0], [0.0, 1.0])
    assert exploration.mix([a], [1.0]).tolist() == a.tolist()


@pytest.mark.parametrize("weights", [[0.5, 0.4], [1.5, -0.5], [1.0], [float("nan"), 1.0]])
def test_wrong_weights_raise(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        exploration.mix([np.array([1.0]), np.array([1.0])], weights)
    with pytest.raises(ValueError, match="weights"):
        exploration.mix([], [])


@given(masked_spaces(), st.floats(0, 1, exclude_max=True))
@settled
def test_a_draw_has_a_probability_above_zero(case: tuple[ActionSpace, Mask, np.random.Generator], u: float) -> None:
    _, mask, rng = case
    p = some_policy(mask, rng)
    for point in (u, 0.0, float(np.nextafter(1, 0)), *p.cumsum()[p.cumsum() < 1].tolist()):
        assert p[exploration.sample(p, point)] > 0


def test_a_draw_inverts_the_distribution_function() -> None:
    p = np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    for u, action in ((0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (0.9999999, 4)):
        assert exploration.sample(p, u) == action
    # Rounding: the sum is a hair below 1 and u above the sum.
    assert exploration.sample(np.array([0.5, 0.5 - 1e-10, 0.0]), 1 - 1e-12) == 1


@pytest.mark.parametrize("p", [[0.5, 0.5 + 1e-8], [0.5, 0.4], [], [1.5, -0.5], [float("nan"), 1.0]])
def test_what_is_no_distribution_is_not_drawn_from(p: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilit"):
        exploration.sample(np.array(p, np.float64), 0.5)


@pytest.mark.parametrize("u", [-1e-9, 1.0, float("nan")])
def test_a_u_outside_its_range_raises(u: float) -> None:
    with pytest.raises(ValueError, match="not in"):
        exploration.sample(np.array([1.0]), u)


def test_actions_are_drawn_as_often_as_their_propensities_say() -> None:
    """60,000 keyed draws from a floored policy of 25 actions: chi-squared below 75 but for 6e-7 (at most 24 degrees).

    Cells that expect fewer than 10 draws are counted together.
    """
    space = space_of(2, 6, 2, slot_hours=4)
    mask = np.ones(space.size, np.bool_)
    mask[3:8] = False
    start = exploration.softmax(np.linspace(0, 1, space.size), mask, 0.3)
    p = exploration.with_floor(start, space, mask, rate=0.1, young={"v0": 0.2})
    n = 60_000
    draws = [exploration.sample(p, exploration.draw_uniform(SEED, f"dec_{i}", i % 3)) for i in range(n)]
    counts = np.bincount(draws, minlength=space.size)
    assert (counts[~mask] == 0).all()
    large = n * p >= 10
    observed = np.append(counts[large], counts[~large].sum())
    expected = np.append(n * p[large], n * p[~large].sum())
    keep = expected > 0
    assert ((observed[keep] - expected[keep]) ** 2 / expected[keep]).sum() < 75


def test_draws_hang_on_seed_decision_and_attempt_and_never_change() -> None:
    draw = exploration.draw_uniform
    assert draw(SEED, "dec_1", 0) == draw(SEED, "dec_1", 0) == 0.004136242953352798
    others = [draw(b"other", "dec_1", 0), draw(SEED, "dec_2", 0), draw(SEED, "dec_1", 1), draw(SEED, "dec_1", 0)]
    assert len(set(others)) == 4


def test_draws_are_uniform_over_decisions_and_over_attempts() -> None:
    """Chi-squared over 100 cells of 50,000 draws each; above 175 with probability below 4e-6 (99 degrees)."""
    for keys in ([(f"dec_{i}", 0) for i in range(50_000)], [("dec_1", i) for i in range(50_000)]):
        u = np.array([exploration.draw_uniform(SEED, name, attempt) for name, attempt in keys])
        assert 0 <= u.min() <= u.max() < 1
        counts = np.bincount((u * 100).astype(int), minlength=100)
        assert ((counts - 500) ** 2 / 500).sum() < 175
