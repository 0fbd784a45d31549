"""Rows whose outcomes can still come teach their seen share of it: no bias, and all parts of the training agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from optimizer.bandit.hazards import Delays, fit_hazard
from optimizer.errors import Invalid
from optimizer.model.examples import Examples
from optimizer.model.layout import Action
from optimizer.model.training.evaluate import likelihood, log_likelihood
from optimizer.model.training.network import train_network
from optimizer.model.training.posterior import base_offset, fit_posterior
from optimizer.model.training.rows import Design, RowSet, message_layout
from optimizer.model.training.train import refresh, train, width_factor
from optimizer.model.variantbasis import fit_basis
from tests.model.conftest import MONDAY, Maker

Floats = NDArray[np.float64]
CHANCE = np.array([0.2, 0.5])


def _young(n: int, seed: int) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Variant, age in hours (even up to 36), outcome so far and how long what has happened took: medians of 6 h."""
    rng = np.random.default_rng(seed)
    variant, age = rng.integers(0, 2, n), 36.0 * rng.random(n)
    took = np.minimum(6.0 * np.exp(1.2 * rng.standard_normal(n)), 72.0)
    happened = (rng.random(n) < CHANCE[variant]) & (took <= age)
    return variant.astype(np.int64), age, happened.astype(np.float64), took


def _design(variant: NDArray[np.int64]) -> Design:
    n = len(variant)
    actions = tuple(Action("c", name, "email") for name in ("a", "b"))
    rows = RowSet(np.arange(n), actions, variant, np.zeros((n, 0), np.float32), np.full(n, MONDAY))
    return Design(message_layout(rows, fit_basis([]), (), ()), rows)


def test_derivatives_with_seen_shares_equal_those_of_dense_rows() -> None:
    variant, _, outcome, _ = _young(200, 2)
    design = _design(variant)
    rng = np.random.default_rng(3)
    seen, offset = rng.uniform(0.05, 1.0, 200), np.full(200, -0.7)
    outcome[::9] = np.nan
    size = design.layout.size
    weights = 0.3 * rng.standard_normal(size)
    dense = np.stack([design.logits(np.eye(size)[i]) for i in range(size)], axis=1)
    eta = dense @ weights - 0.7
    p = 1.0 / (1.0 + np.exp(-eta))
    known = np.isfinite(outcome)
    value, gradient, information = design.derivatives(weights, outcome, offset, seen)
    row = np.where(outcome == 1.0, np.log(p), np.log(1.0 - p * seen))
    slope = np.where(outcome == 1.0, 1.0 - p, -seen * p * (1.0 - p) / (1.0 - p * seen))
    fisher = seen * p * (1.0 - p) ** 2 / (1.0 - p * seen)
    assert value == pytest.approx(float(row[known].sum()), rel=1e-5)
    assert np.allclose(gradient, dense[known].T @ slope[known], atol=1e-3)
    assert np.allclose(information, (dense[known].T * fisher[known]) @ dense[known], atol=1e-3)


def test_young_rows_alone_give_back_the_chances_where_plain_noes_do_not() -> None:
    """No row has matured. The curve comes from the same log; past a day, where no row is old enough, it is what it
    starts from, which puts chances 5 % too high. Standard errors are 3 %; naive chances are a fifth too low."""
    variant, age, outcome, took = _young(16_000, 1)
    happened = outcome == 1.0
    hazard = fit_hazard(Delays(took[happened], age[happened], ["email"] * int(happened.sum())), 72.0)
    seen = hazard.seen(age, "email")
    design = _design(variant)
    chances = {}
    for name, share in (("hazard", seen), ("naive", np.ones(len(age)))):
        offset = base_offset(outcome, share)
        fit = fit_posterior(design, outcome, offset, seen=share)
        eta = design.logits(fit.mean) + offset
        chances[name] = np.array([1.0 / (1.0 + np.exp(-eta[variant == v][0])) for v in (0, 1)])
    assert np.abs(chances["hazard"] / CHANCE - 1.0).max() < 0.1
    assert (chances["naive"] / CHANCE < 0.8).all()


def test_a_base_rate_counts_seen_rows() -> None:
    """2 yeses, seen shares that sum to 4: (2 + ½) / 5; never above the rate of its rows but one half."""
    outcome, seen = np.array([1.0, 1.0, 0.0, 0.0, np.nan]), np.array([1.0, 0.5, 1.0, 1.5 - 1e-9, 1.0])
    assert base_offset(outcome, seen) == pytest.approx(0.0, abs=1e-6)
    assert base_offset(np.array([1.0]), np.array([0.01])) == pytest.approx(np.log(3.0))
    assert base_offset(np.array([np.nan]), np.ones(1)) == 0.0


def _waiting(examples: Examples, seed: int) -> Examples:
    """The same rows with shares of .3 … 1 of every outcome, whose later happenings are not known yet."""
    rng = np.random.default_rng(seed)
    seen = {name: rng.uniform(0.3, 1.0, len(examples)) for name in examples.outcomes}
    hidden = {
        name: np.where((column == 1.0) & (rng.random(len(column)) > seen[name]), 0.0, column)
        for name, column in examples.outcome.items()
    }
    return dataclasses.replace(examples, outcome=hidden, seen=seen)


def test_a_trained_model_is_not_biased_by_what_waits_and_says_how_much_it_was_told(make_examples: Maker) -> None:
    final = make_examples(3_000, 31)
    waiting = _waiting(final, 32)
    rates = []
    for examples in (final, waiting, dataclasses.replace(waiting, seen={})):
        trained = train(examples, attributes=(), seed=1, network=False)
        assert trained.report["width"] == width_factor(examples.told)
        head = next(h for h in trained.report["heads"] if (h["kind"], h["outcome"]) == ("message", "clicked"))
        assert head["rows"] == int(np.isfinite(final.outcome["clicked"]).sum())
        rates.append(_mean_chance(trained.blob, final))
    assert rates[1] == pytest.approx(rates[0], abs=0.03)  # standard error of the difference: .008
    assert rates[2] < rates[0] - 0.07
    assert waiting.told < final.told


def _mean_chance(blob: bytes, examples: Examples) -> float:
    """Mean predicted chance of a click over the messages: from the likelihood of a yes everywhere."""
    yes = dataclasses.replace(examples, outcome={"clicked": np.ones(len(examples))}, seen={})
    return float(np.exp(log_likelihood(blob, yes)["clicked"][examples.sent]).mean())


def test_a_refresh_and_the_network_learn_from_rows_that_wait(make_examples: Maker) -> None:
    final = make_examples(800, 33)
    waiting = _waiting(final, 34)
    refreshed = refresh(train(final, attributes=(), seed=1, network=False).blob, waiting)
    assert _mean_chance(refreshed.blob, final) == pytest.approx(float(np.nanmean(final.outcome["clicked"])), abs=0.05)
    encoded = np.zeros((len(waiting), 1), np.float32)
    logits = {name: np.zeros(len(waiting)) for name in waiting.outcomes}
    network = train_network(waiting, encoded, logits, seed=1)
    assert all(bool(torch.isfinite(weights).all()) for weights in network.state_dict().values())


def test_held_out_rows_are_scored_by_what_they_show_so_far() -> None:
    scored = likelihood(np.zeros(4), np.array([1.0, 0.0, 0.0, np.nan]), np.array([0.4, 0.4, 1.0, 1.0]))
    np.testing.assert_allclose(scored, [np.log(0.5), np.log(0.8), np.log(0.5), np.nan], rtol=1e-6)


def test_shares_travel_with_their_rows_and_must_lie_above_nothing(make_examples: Maker) -> None:
    waiting = _waiting(make_examples(20, 35), 36)
    index = np.array([7, 3], dtype=np.int64)
    np.testing.assert_array_equal(waiting.take(index).share("clicked"), waiting.share("clicked")[index])
    np.testing.assert_array_equal(make_examples(20, 35).share("clicked"), np.ones(20))
    for bad in (0.0, 1.1, np.nan):
        with pytest.raises(Invalid, match=r"seen\.clicked"):
            dataclasses.replace(waiting, seen={"clicked": np.full(20, bad)})
    with pytest.raises(Invalid, match=r"seen\.clicked"):
        dataclasses.replace(waiting, seen={"clicked": np.ones(19)})
