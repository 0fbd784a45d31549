"""The network: exported as it was trained, and let in only when it earns it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from optimizer.model.embedding import Embedder
from optimizer.model.examples import Examples
from optimizer.model.features import fit_spec
from optimizer.model.inference import RewardModel
from optimizer.model.training import export
from optimizer.model.training.network import Network, train_network
from optimizer.model.training.train import refresh, train
from tests.model.conftest import Maker, made_up


def wavy(n: int, seed: int, *, shuffled: bool = False) -> Examples:
    """Clicks hang on the product of two features, which the additive model can't express."""
    examples = made_up(n, seed, no_send=0.1)
    rng = np.random.default_rng(seed + 1)
    a, b = rng.normal(size=n), rng.normal(size=n)
    clicked = (rng.random(n) < 1 / (1 + np.exp(-2.5 * np.sign(a * b)))).astype(np.float64)
    if shuffled:
        clicked = rng.permutation(clicked)
    rows = [{"a": float(x), "b": float(y)} for x, y in zip(a, b, strict=True)]
    outcome = {"clicked": np.where(examples.sent, clicked, np.nan)}
    return dataclasses.replace(examples, contexts=rows, outcome=outcome, value={}, cluster=np.arange(n))


def test_the_graph_equals_torch() -> None:
    spec = fit_spec(wavy(300, 1).contexts, [])
    network = Network(spec.width, torch.Generator().manual_seed(1))
    network.mean.fill_(0.1)
    network.scale.fill_(2.0)
    graph = export.export_graph(spec, network)
    encoded = spec.encode(wavy(50, 2).contexts)
    with torch.no_grad():
        expected = network.features(torch.from_numpy(encoded)).numpy()
    assert np.abs(Embedder(spec, graph).run(encoded) - expected).max() < 1e-5
    assert np.array_equal(expected[:, : spec.width], encoded)


def test_a_graph_that_differs_from_torch_is_never_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = fit_spec(wavy(300, 1).contexts, [])
    network = Network(spec.width, torch.Generator().manual_seed(1))
    honest = network.features
    monkeypatch.setattr(network, "features", lambda encoded: honest(encoded) + 0.01)
    with pytest.raises(ArithmeticError, match="differs from torch"):
        export.export_graph(spec, network)


def test_training_repeats_and_standardises() -> None:
    examples = wavy(600, 3)
    spec = fit_spec(examples.contexts, [])
    encoded = spec.encode(examples.contexts)
    zero = {"clicked": np.zeros(600)}
    torch.set_num_threads(1)
    one, two = (train_network(examples, encoded, zero, seed=5) for _ in range(2))
    assert all(torch.equal(one.state_dict()[name], two.state_dict()[name]) for name in one.state_dict())
    with torch.no_grad():
        columns = one.features(torch.from_numpy(encoded)).numpy()[:, spec.width :]
    assert np.abs(columns.mean(axis=0)).max() < 1e-3
    assert np.abs(columns.std(axis=0) - 1.0).max() < 1e-2


def test_columns_join_where_they_help_and_only_there() -> None:
    examples = wavy(6_000, 4)
    trained = train(examples, attributes=(), seed=1)
    assert trained.report["network"]["used"], trained.report["network"]
    assert trained.report["network"]["z"] > 3.0
    model = RewardModel.load(trained.blob)
    assert model.embed([{"a": 1.0, "b": 2.0}]).shape == (1, model.spec.width + 16)
    assert RewardModel.load(refresh(trained.blob, examples).blob).graph == model.graph
    # A margin of one standard error lets in one of six by chance.
    idle = [train(wavy(6_000, seed, shuffled=True), attributes=(), seed=1).report["network"] for seed in (4, 6, 7)]
    assert sum(report["used"] for report in idle) <= 1
    assert max(report["z"] for report in idle) < 3.0


def test_few_rows_train_no_network(make_examples: Maker) -> None:
    report = train(make_examples(500, 1), attributes=(), seed=1).report["network"]
    assert not report["used"]
    assert "fewer than" in report["reason"]
