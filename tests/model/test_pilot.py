"""Precisions of a long log are learned on some of its rows first: what all of them tell is heard all the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.training import lastlayer
from optimizer.model.training import train as training
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.train import train
from storage.records import Campaign, Channel, OutcomeWeight, Variant
from tests.model.conftest import MONDAY, NOW

Floats = NDArray[np.float64]
FEATURES = 8
LIST = Campaign(
    "w",
    "list",
    tuple(Variant(f"v{i}") for i in range(4)),
    (Channel("email"),),
    NOW,
    NOW,
    objective={"clicked": OutcomeWeight(1.0)},
)


def rare_clicks(n: int, seed: int) -> tuple[Examples, Floats]:
    """One of some 50 rows is clicked; each of eight booleans raises or lowers the log odds, by variant. With them."""
    tastes = np.random.default_rng(77)
    own, main = tastes.normal(0.0, 0.3, (4, FEATURES)), tastes.normal(0.0, 0.3, FEATURES)
    rng = np.random.default_rng(seed)
    has, variant = rng.random((n, FEATURES)) < 0.5, rng.integers(0, 4, n)
    eta = np.log(0.012) + ((2.0 * has - 1.0) * (main + own[variant])).sum(axis=1)
    clicked = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)
    examples = Examples(
        contexts=[{f"f{i}": bool(one) for i, one in enumerate(row)} for row in has],
        campaigns=(LIST,),
        campaign=np.zeros(n, np.int64),
        variant=variant,
        channel=np.zeros(n, np.int64),
        local=np.full(n, MONDAY + 9 * 3600),
        outcome={"clicked": clicked},
        value={},
        cluster=np.arange(n),
    )
    return examples, eta


@pytest.mark.parametrize("network", [False, True])
def test_what_the_pilot_had_too_few_rows_to_tell_is_learned_from_all(
    monkeypatch: pytest.MonkeyPatch, network: bool
) -> None:
    """By its pilot of 4,000 of 20,000 rows alone the fit foretold .3 less of what can be foretold."""
    log, (held, eta) = rare_clicks(20_000, 1), rare_clicks(40_000, 2)
    y = held.outcome["clicked"]
    rate, best = float(y.mean()), float((y * eta - np.logaddexp(0.0, eta)).mean())
    nothing = rate * np.log(rate) + (1.0 - rate) * np.log(1.0 - rate)
    found = []
    for pilot in (4_000, 40_000):
        monkeypatch.setattr(lastlayer, "PILOT", pilot)
        monkeypatch.setattr(lastlayer, "PILOT_FROM", 2 * pilot)
        monkeypatch.setattr(training, "PILOT_FROM", 2 * pilot)
        monkeypatch.setattr("optimizer.model.training.gate.MOST_ROWS", min(pilot, 20_000))
        blob = train(log[0], attributes=(), seed=1, network=network, calibrated=False).blob
        found.append(float((np.mean(log_likelihood(blob, held)["clicked"]) - nothing) / (best - nothing)))
    assert found[0] > found[1] - 0.05, found
