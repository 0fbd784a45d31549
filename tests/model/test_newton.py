"""Fits end at their mode, however far it is from where they begin."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.layout import Action
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.newton import Likelihood, Point
from optimizer.model.training.posterior import base_offset, fit_posterior
from optimizer.model.training.rows import Design, RowSet, message_layout
from optimizer.model.training.train import train
from optimizer.model.variantbasis import fit_basis
from storage.records import Campaign, Channel, OutcomeWeight, Variant
from tests.model.conftest import MONDAY, NOW

Floats = NDArray[np.float64]
SHOP = Campaign(
    "w",
    "shop",
    (Variant("a"), Variant("b"), Variant("c")),
    (Channel("email"),),
    NOW,
    NOW,
    objective={"converted": OutcomeWeight(1.0)},
)


def few_who_buy(n: int, share: float, slope: float, seed: int) -> tuple[Examples, Floats]:
    """Of ``n`` rows a ``share`` has something in the cart, which raises the log odds of buying, 2 in 100 elsewhere, by
    ``slope``; a number and a category of 40 levels say nothing. With the log odds of each row."""
    rng = np.random.default_rng(seed)
    cart = rng.random(n) < share
    eta = np.log(0.02 / 0.98) + slope * cart
    context = [
        {"cart": int(one), "score": float(noise), "city": str(city)}
        for one, noise, city in zip(cart, rng.normal(size=n), rng.integers(0, 40, n), strict=True)
    ]
    variant = rng.integers(-1, 3, n)
    bought = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)
    examples = Examples(
        contexts=context,
        campaigns=(SHOP,),
        campaign=np.zeros(n, np.int64),
        variant=variant,
        channel=np.where(variant < 0, -1, 0).astype(np.int64),
        local=MONDAY + rng.integers(0, 168, n) * 3600,
        outcome={"converted": bought},
        value={},
        cluster=np.arange(n),
    )
    return examples, eta


def foretold(blob: bytes, held: tuple[Examples, Floats]) -> float:
    """The share of what can be foretold of held-out rows that a model foretells: 0 = the base rate, 1 = the truth."""
    examples, eta = held
    y = examples.outcome["converted"]
    rate = float(y.mean())
    nothing = rate * np.log(rate) + (1.0 - rate) * np.log(1.0 - rate)
    best = float((y * eta - np.logaddexp(0.0, eta)).mean())
    return float((np.mean(log_likelihood(blob, examples)["converted"]) - nothing) / (best - nothing))


@pytest.mark.parametrize(
    ("n", "share", "slope"), [(8_000, 0.02, 3.0), (8_000, 0.02, 5.0), (2_000, 0.1, 4.0), (4_000, 0.1, 5.0)]
)
def test_what_few_have_and_raises_a_rare_outcome_much_is_learned(n: int, share: float, slope: float) -> None:
    held = few_who_buy(20_000, share, slope, 99)
    for seed in range(2):
        examples, _ = few_who_buy(n, share, slope, seed)
        trained = train(examples, attributes=(), seed=1, network=False, calibrated=False)
        assert foretold(trained.blob, held) > 0.9  # whole steps got there in one of eight; the others below 0, to -52


def far_away(n: int = 3_000) -> tuple[Design, Floats, float]:
    """A design whose mode whole steps don't find from 0, its outcomes, and the log odds of their rate."""
    rng = np.random.default_rng(1)
    few = rng.random(n) < 0.02
    context = np.column_stack(((few - 0.02) / 0.14, rng.standard_normal((n, 2)))).astype(np.float32)
    outcome = (rng.random(n) < np.where(few, 0.8, 0.01)).astype(np.float64)
    actions = (Action("c", "a", "email"), Action("c", "b", "email"))
    rows = RowSet(np.arange(n), actions, rng.integers(0, 2, n), context, MONDAY + rng.integers(0, 168, n) * 3600)
    return (
        Design(message_layout(rows, fit_basis([]), (0, 1, 2), (0, 1, 2)), rows),
        outcome,
        base_offset(outcome, np.ones(n)),
    )


@pytest.mark.parametrize("empirical", [False, True])
@pytest.mark.parametrize("begin", [0.0, 3.0])
def test_a_fit_ends_at_its_mode(empirical: bool, begin: float) -> None:
    design, outcome, offset = far_away()
    mean = begin * np.random.default_rng(2).standard_normal(design.layout.size)
    fit = fit_posterior(design, outcome, offset, mean=mean, empirical=empirical)
    prior = fit.precision[design.layout.group[fit.live]]
    _, gradient, information = design.derivatives(fit.mean, outcome, np.full(design.count, offset), None, fit.live)
    slope = gradient - prior * fit.mean[fit.live]
    assert slope @ np.linalg.solve(information + np.diag(prior), slope) < 0.1, "nats that another step would gain"
    idle = np.setdiff1d(np.arange(design.layout.size), fit.live)
    assert not fit.mean[idle].any(), "what rests is 0: no draw and no later pass would see it"


def test_whole_steps_go_astray_there_and_what_came_of_them_tells() -> None:
    design, outcome, offset = far_away()
    everything, prior = np.arange(design.layout.size), np.full(design.layout.size, 5.0)
    likelihood = Likelihood(design, outcome, np.full(design.count, offset), None, None, np.zeros(len(everything)))
    start = likelihood.at(np.zeros(len(everything)), everything)

    def whole(point: Point) -> Floats:
        slope = point.gradient - prior * point.weights
        return point.weights + np.linalg.solve(point.information + np.diag(prior), slope)

    assert start.astray(whole(start), likelihood.value(whole(start), everything))
    near = likelihood.at(likelihood.approached(start.weights, everything, prior), everything)
    assert not near.astray(whole(near), likelihood.value(whole(near), everything))
    assert near.likelihood > start.likelihood + 100.0
    assert likelihood.value(near.weights, everything) == pytest.approx(near.likelihood, rel=1e-9)
    assert near.astray(whole(near), np.nan), "what can't be told didn't hold"
