"""The rivals of the replay: each choice accepted where the record agrees, nothing learned before its time."""

from __future__ import annotations

import numpy as np
import pytest

from simulations import rivals

ARMS = 3


def stream(n: int, chances: tuple[float, ...], seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    assigned = rng.integers(ARMS, size=n)
    return assigned, (rng.random(n) < np.array(chances)[assigned]).astype(np.float64)


def test_thompson_finds_the_best_arm() -> None:
    # One seed, fixed: the last thousand earn about .5, and .4 lies more than six standard errors (.016) below.
    assigned, reward = stream(12_000, (0.5, 0.1, 0.1))
    earned = rivals.thompson(assigned, reward, arms=ARMS, wanted=3000, every=50, rng=np.random.default_rng(2))
    assert earned.size == 3000
    assert earned[-1000:].mean() > 0.4


def test_thompson_is_uniform_before_its_first_update() -> None:
    # Arms pay 1, 0 and 0, so the mean is the share of the first arm: 1/3 within 5 standard errors (.0086 each).
    rng = np.random.default_rng(3)
    assigned = rng.integers(ARMS, size=30_000)
    reward = (assigned == 0).astype(np.float64)
    earned = rivals.thompson(assigned, reward, arms=ARMS, wanted=3000, every=3000, rng=rng)
    assert earned.mean() == pytest.approx(1 / 3, abs=0.043)


def test_thompson_learns_only_from_accepted_customers() -> None:
    # The record never holds arm 1 or 2, so only arm 0 can be accepted, and every reward is one of arm 0's.
    assigned = np.zeros(2000, dtype=np.int64)
    reward = np.ones(2000)
    earned = rivals.thompson(assigned, reward, arms=ARMS, wanted=500, every=10, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(earned, np.ones(500))


def test_thompson_ends_with_the_stream() -> None:
    assigned, reward = stream(60, (0.5, 0.5, 0.5))
    earned = rivals.thompson(assigned, reward, arms=ARMS, wanted=1000, every=10, rng=np.random.default_rng(5))
    assert 0 < earned.size < 60


def test_thompson_does_not_update_between_its_batches() -> None:
    """With one update interval more than the stream, every posterior is the prior: the draws must be the prior's."""
    assigned, reward = stream(500, (0.9, 0.1, 0.1), seed=6)
    earned = rivals.thompson(assigned, reward, arms=ARMS, wanted=500, every=500, rng=np.random.default_rng(8))
    drawn = np.random.default_rng(8).beta(1.0, 1.0, size=(500, ARMS))
    np.testing.assert_array_equal(earned, reward[np.argmax(drawn, axis=1) == assigned])


def test_static_takes_the_customers_of_its_arm_in_order() -> None:
    assigned = np.array([0, 1, 0, 2, 0])
    reward = np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(rivals.static(assigned, reward, arm=0, wanted=2), [1.0, 0.0])


def test_best_static_is_the_arm_of_highest_mean_even_when_one_never_occurs() -> None:
    assigned = np.array([0, 0, 1, 1])
    assert rivals.best_static(assigned, np.array([0.0, 1.0, 1.0, 1.0]), arms=3) == 1


def test_uniform_accepts_about_a_third() -> None:
    # Binomial(9000, 1/3): standard deviation 45, five of them.
    assigned, reward = stream(9000, (0.5, 0.5, 0.5))
    accepted = rivals.uniform(assigned, reward, arms=ARMS, wanted=9000, rng=np.random.default_rng(9))
    assert abs(accepted.size - 3000) < 225
