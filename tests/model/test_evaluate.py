"""Row-wise likelihood and the cross-fitted gain."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.conditions import CROSS_FITTED
from optimizer.errors import Invalid
from optimizer.model.inference import RewardModel
from optimizer.model.training.evaluate import clustered_z, cross_fit_gain, log_likelihood
from optimizer.model.training.train import train
from tests.model.conftest import Maker
from tests.model.test_training import planted


def test_log_likelihood_is_that_of_the_served_probability(make_examples: Maker) -> None:
    examples = make_examples(400, 21)
    blob = train(examples, attributes=(), seed=1, network=False).blob
    model = RewardModel.load(blob)
    got = log_likelihood(blob, examples)
    assert got.keys() == {"clicked", "converted", "unsubscribed"}
    for i in range(0, 400, 9):
        owner = examples.campaigns[examples.campaign[i]]
        local = examples.local[i : i + 1]
        space = ActionSpace(("a", "b"), ("email", "sms"), local, local, True)
        sent = bool(examples.sent[i])
        a = space.index(int(examples.variant[i]), 0, int(examples.channel[i])) if sent else space.size - 1
        chances = model.score(model.embed([examples.contexts[i]])[0], space, owner, {}).outcome
        for name, column in examples.outcome.items():
            if np.isnan(column[i]):
                assert np.isnan(got[name][i])
            else:
                p = chances[name][a]
                assert got[name][i] == pytest.approx(np.log(p if column[i] else 1.0 - p), abs=1e-5)


def test_gain_is_clear_where_context_matters() -> None:
    _, examples = planted(1_500, 31)
    gain = cross_fit_gain(examples, seed=2)["clicked"]
    assert np.isfinite(gain).all()
    assert clustered_z(gain, examples.cluster)[1] > 4.0


def test_gain_is_not_positive_where_nothing_matters() -> None:
    """20 shuffles: under the null the mean gain is not above 0, so z beyond 1.64 of the errors that the gate reckons
    with has a chance of at most .05 each; three or more of 20 happen by chance in fewer than 8 of 100 worlds even at
    exactly .05, and the seeds are fixed."""
    _, examples = planted(600, 32)
    rng = np.random.default_rng(5)
    zs, means = [], []
    for seed in range(20):
        shuffled = dataclasses.replace(examples, outcome={"clicked": rng.permutation(examples.outcome["clicked"])})
        mean, z = clustered_z(cross_fit_gain(shuffled, seed=seed)["clicked"], examples.cluster)
        means.append(mean)
        zs.append(z)
    assert sum(z > 1.64 * CROSS_FITTED for z in zs) <= 2
    assert np.mean(means) < 2.0 * np.std(means) / np.sqrt(20)


def test_gain_never_sees_the_judged_recipient() -> None:
    """Outcomes are a coin per recipient with 20 rows each and an id as feature: a leak would predict them perfectly."""
    _, examples = planted(600, 33)
    cluster = np.arange(600) // 20
    coin = np.random.default_rng(1).integers(0, 2, 30).astype(np.float64)[cluster]
    leaky = dataclasses.replace(
        examples, contexts=[{"id": f"id{c}"} for c in cluster], outcome={"clicked": coin}, cluster=cluster
    )
    assert clustered_z(cross_fit_gain(leaky, seed=3)["clicked"], cluster)[0] < 0.05


def test_unknown_outcomes_gain_nothing(make_examples: Maker) -> None:
    examples = make_examples(300, 22)
    gain = cross_fit_gain(examples, folds=3, seed=1)
    for name, column in examples.outcome.items():
        assert np.array_equal(np.isfinite(gain[name]), np.isfinite(column))


def test_folds_must_fit_the_recipients(make_examples: Maker) -> None:
    with pytest.raises(Invalid, match="folds"):
        cross_fit_gain(make_examples(3, 1), folds=5)


def test_clustered_z_counts_recipients_and_not_rows() -> None:
    gains = np.random.default_rng(2).normal(0.5, 1.0, 100)
    _, alone = clustered_z(gains, np.arange(100))
    _, repeated = clustered_z(np.repeat(gains, 4), np.repeat(np.arange(100), 4))
    assert repeated == pytest.approx(alone)
    assert clustered_z(np.zeros(0), np.zeros(0, dtype=np.int64)) == (0.0, 0.0)
