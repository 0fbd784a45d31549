"""Doubly robust values: right in the mean whatever the reward model, and honest about what can't be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.evaluation import HeldOut, cross_fitted, doubly_robust_rows, encode, evaluate
from simulations.hillstrom import Customers, load
from simulations.replay_report import sentence
from tests.simulations.made_up import CHANCES, write_experiment


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Customers:
    return load(write_experiment(tmp_path_factory.mktemp("data") / "hillstrom.csv", 6000))


def always(arm: int, n: int) -> np.ndarray:
    policy = np.zeros((n, 3))
    policy[:, arm] = 1.0
    return policy


def test_a_hand_computed_row() -> None:
    customers = Customers([{}, {}], np.array([0, 1]), np.array([1.0, 1.0]))
    predicted = np.array([[0.4, 0.2, 0.1], [0.4, 0.2, 0.1]])
    policy = np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    # first: .2 + .05 + .025 + .5 x 3 x (1 − .4) = 1.175; second: .1 and a weight of 0
    np.testing.assert_allclose(doubly_robust_rows(customers, predicted, policy), [1.175, 0.1])


def test_a_wrong_reward_model_does_not_bias_the_value(customers: Customers) -> None:
    rows = doubly_robust_rows(customers, np.full((len(customers), 3), 0.9), always(1, len(customers)))
    error = rows.std() / np.sqrt(rows.size)
    # True value .3; five standard errors.
    assert abs(rows.mean() - CHANCES[1]) < 5 * error


def test_a_fitted_reward_model_takes_variance_away(customers: Customers) -> None:
    policy = always(0, len(customers))
    fitted = doubly_robust_rows(customers, cross_fitted(customers, 1), policy)
    plain = doubly_robust_rows(customers, np.zeros((len(customers), 3)), policy)
    assert fitted.std() < 0.8 * plain.std()


def test_a_policy_is_told_from_the_best_static_one(customers: Customers) -> None:
    value = evaluate(customers, always(2, len(customers)), always(1, len(customers)), best_arm=0, seed=1)
    assert value.difference == pytest.approx(CHANCES[2] - CHANCES[0], abs=5 * value.difference_error)
    assert value.greedy_difference == pytest.approx(CHANCES[1] - CHANCES[0], abs=5 * value.greedy_error)
    assert value.is_clear
    assert "clearly less" in sentence(value, 0)


def test_the_best_static_policy_has_no_difference_to_itself(customers: Customers) -> None:
    value = evaluate(customers, always(0, len(customers)), always(0, len(customers)), best_arm=0, seed=1)
    assert value.difference == 0.0
    assert not value.is_clear


def test_what_cannot_be_told_apart_is_said_so() -> None:
    value = HeldOut(1000, 0.181, 0.002, 0.183, 0.002, -0.002, 0.0015, -0.001, 0.001)
    assert "little to personalise here" in sentence(value, 0)
    assert "clearly more" in sentence(HeldOut(1000, 0.2, 0.002, 0.183, 0.002, 0.017, 0.0015, 0.017, 0.001), 0)


def test_cross_fitting_never_predicts_a_customer_from_itself(customers: Customers) -> None:
    """Turning one customer's outcome around must leave that customer's own predictions as they were."""
    few = customers.take(np.arange(300))
    turned = Customers(few.contexts, few.assigned, np.where(np.arange(300) == 17, 1 - few.visit, few.visit))
    before, after = cross_fitted(few, 3), cross_fitted(turned, 3)
    np.testing.assert_array_equal(before[17], after[17])
    assert not np.array_equal(before, after)


def test_inputs_are_centred_and_constant_columns_do_no_harm() -> None:
    inputs = encode([{"a": 1.0, "b": True, "c": "x"}, {"a": 3.0, "b": True, "c": "y"}])
    np.testing.assert_allclose(inputs.mean(axis=0), 0.0, atol=1e-12)
    assert np.isfinite(inputs).all()
