"""The encoders: served as they were trained, blind to other rows, and let in only where the order of events matters."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from optimizer.errors import BadArtifact
from optimizer.model.embedding import Embedder
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.model.history import HISTORY, Encoder, History, Past, Wanted, read
from optimizer.model.inference import RewardModel
from optimizer.model.training import choosing
from optimizer.model.training.choosing import train_encoder
from optimizer.model.training.encoders import COLUMNS, COST_US, ENCODERS, Reader
from optimizer.model.training.evaluate import log_likelihood, training_basis
from optimizer.model.training.export import export_graph
from optimizer.model.training.gate import judge_columns
from optimizer.model.training.network import Network
from optimizer.model.training.train import refresh, train
from tests.model.conftest import made_up

KINDS: tuple[Encoder, ...] = ("gru", "cnn", "transformer")
#: Fewer than a network would be tried on, which takes time.
ROWS = 1_800


def story(rng: np.random.Generator, length: int) -> dict[str, Any]:
    """A context with so many events of the past."""
    ages = np.sort(rng.integers(1, 20_000, length))[::-1].tolist()
    events = [
        Past(age, "viewed", str(rng.choice(["a", "b", "c"])))
        if rng.random() < 0.7
        else Past(age, "sent", "", str(rng.choice(["email", "sms"])), "spring/a")
        for age in ages
    ]
    return {HISTORY: History(tuple(events)).to_json()}


def ordered(n: int, seed: int, *, shuffled: bool = False) -> Examples:
    """Whether a variant is clicked hangs on which way round three things the last step went: neither counts nor the
    last thing tell."""
    examples = made_up(n, seed, no_send=0.0)
    rng = np.random.default_rng(seed + 1)
    stories = [story(rng, int(length)) for length in rng.integers(2, 12, n)]
    before, wanted = rng.integers(0, 3, n), rng.integers(0, 2, n)
    for one, at, step in zip(stories, before, 1 + wanted, strict=True):
        views = [Past(0, "viewed", "abc"[at]), Past(0, "viewed", "abc"[(at + step) % 3])]
        one[HISTORY] = History((*read(one), *views)).to_json()
    clicked = (rng.random(n) < np.where(examples.variant == wanted, 0.75, 0.25)).astype(np.float64)
    if shuffled:
        clicked = rng.permutation(clicked)
    return dataclasses.replace(examples, contexts=stories, outcome={"clicked": clicked}, value={}, cluster=np.arange(n))


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    rng = np.random.default_rng(0)
    return fit_spec([story(rng, i % 33) for i in range(300)], [])


def made(kind: Encoder, spec: FeatureSpec) -> Reader:
    """An encoder with weights that all do something."""
    assert spec.history is not None
    generator = torch.Generator().manual_seed(7)
    reader = ENCODERS[kind](spec.history.size, generator)
    with torch.no_grad():
        reader.out.weight.normal_(std=0.5, generator=generator)
        reader.mean.normal_(std=0.1, generator=generator)
        reader.scale.uniform_(0.5, 2.0, generator=generator)
    reader.train(mode=False)
    return reader


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("networked", [False, True])
def test_the_graph_equals_torch(kind: Encoder, networked: bool, spec: FeatureSpec) -> None:
    reader = made(kind, spec)
    network = Network(spec.width, torch.Generator().manual_seed(1)) if networked else None
    rng = np.random.default_rng(3)
    contexts = [story(rng, i % 33) for i in range(66)]
    served = Embedder(spec, export_graph(spec, network, reader)).bulk(contexts)
    assert spec.history is not None
    with torch.no_grad():
        expected = reader.columns(torch.from_numpy(spec.history.ids(contexts))).numpy()
    assert served.shape[1] == spec.width + (16 if networked else 0) + COLUMNS
    assert np.abs(served[:, -COLUMNS:] - expected).max() < 1e-5
    assert np.array_equal(served[:, : spec.width], spec.encode(contexts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_alone_and_among_others(kind: Encoder, spec: FeatureSpec) -> None:
    embedder = Embedder(spec, export_graph(spec, None, made(kind, spec)))
    rng = np.random.default_rng(4)
    contexts = [story(rng, i % 33) for i in range(40)]
    together = embedder.embed(contexts)
    assert np.array_equal(together[7], embedder.embed(contexts[7:8])[0])
    assert np.abs(embedder.bulk(contexts) - together).max() < 1e-5
    other = [*contexts[:7], {}, *contexts[8:]]
    assert np.array_equal(np.delete(embedder.bulk(other), 7, axis=0), np.delete(embedder.bulk(contexts), 7, axis=0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_can_matter_and_their_order_too(kind: Encoder, spec: FeatureSpec) -> None:
    assert spec.history is not None
    reader = made(kind, spec)
    ids = spec.history.ids([story(np.random.default_rng(5), 20)])
    swapped = ids.copy()
    swapped[0, [-5, -9]] = swapped[0, [-9, -5]]
    assert not np.array_equal(ids, swapped)
    with torch.no_grad():
        one, other = (reader.columns(torch.from_numpy(one)) for one in (ids, swapped))
    assert float((one - other).abs().max()) > 1e-4


def test_an_encoder_that_differs_from_torch_is_never_exported(
    spec: FeatureSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = made("gru", spec)
    honest = reader.columns
    monkeypatch.setattr(reader, "columns", lambda ids: honest(ids) + 0.01)
    with pytest.raises(ArithmeticError, match="differs from torch"):
        export_graph(spec, None, reader)


@pytest.fixture(scope="module")
def plain() -> RewardModel:
    """The summary alone."""
    return RewardModel.load(train(ordered(ROWS, 1), attributes=(), seed=1, encoder=Wanted("none")).blob)


@pytest.mark.parametrize("kind", KINDS)
def test_each_encoder_joins_where_order_matters(kind: Encoder, plain: RewardModel) -> None:
    examples = ordered(ROWS, 1)
    trained = train(examples, attributes=(), seed=1, encoder=Wanted(kind, 5.0))
    told = trained.report["encoder"]
    assert told["used"], told
    assert told["z"] > 3.0
    assert (told["kind"], told["since"]) == (kind, 5.0)
    model = RewardModel.load(trained.blob)
    assert model.embed([{}]).shape == (1, model.spec.width + COLUMNS)
    fresh = ordered(1_000, 9)
    gain = log_likelihood(model, fresh)["clicked"] - log_likelihood(plain, fresh)["clicked"]
    assert float(gain.mean()) > 0.02
    newer = RewardModel.load(refresh(trained.blob, examples).blob)
    assert newer.graph == model.graph
    assert newer.artifact_meta["encoder"] == model.artifact_meta["encoder"]


def test_encoders_seldom_join_where_order_says_nothing() -> None:
    """One standard error is asked for: by chance a sixth of them join, and does little harm."""
    joined = []
    for seed in (1, 2, 3):
        examples = ordered(1_200, seed, shuffled=True)
        spec, basis = fit_spec(examples.contexts, []), training_basis(examples)
        judged = [judge_columns(examples, spec, basis, encoder=kind, seed=seed).encoder for kind in KINDS]
        joined += [one for one in judged if one.reader is not None]
    assert len(joined) <= 3, joined


def test_auto_takes_the_one_that_predicts_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "COMPARED", 500)
    monkeypatch.setattr(choosing, "EPOCHS", 3)
    examples = ordered(700, 2)
    spec = fit_spec(examples.contexts, [])
    assert spec.history is not None
    ids = spec.history.ids(examples.contexts)
    offset = {"clicked": np.zeros(len(examples))}
    chosen = train_encoder("auto", spec.history.size, ids, examples, offset, seed=3)
    assert set(chosen.gains) == set(KINDS)
    best = max(KINDS, key=lambda kind: chosen.gains[kind] - choosing.NATS_PER_US * COST_US[kind])
    assert chosen.kind == chosen.reader.kind == best
    again = train_encoder("auto", spec.history.size, ids, examples, offset, seed=3)
    assert all(
        torch.equal(weight, again.reader.state_dict()[name]) for name, weight in chosen.reader.state_dict().items()
    )


def test_too_few_rows_and_no_history_try_none() -> None:
    few = train(ordered(600, 1), attributes=(), seed=1).report["encoder"]
    assert (few["used"], few["kind"]) == (False, "auto")
    examples = dataclasses.replace(ordered(1_200, 1), contexts=[{"x": i % 5} for i in range(1_200)])
    assert not train(examples, attributes=(), seed=1, encoder=Wanted("gru")).report["encoder"]["used"]


def test_a_graph_of_another_spec_is_refused(spec: FeatureSpec) -> None:
    with pytest.raises(BadArtifact):
        Embedder(fit_spec([{"x": i} for i in range(20)], []), export_graph(spec, None, made("gru", spec)))
