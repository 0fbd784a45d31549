"""Training and refreshing the reward model: rows in, a blob out. Nothing here has a clock or a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.errors import Invalid
from optimizer.model.artifact import pack
from optimizer.model.embedding import Embedder
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.model.inference import FORMAT, RewardModel
from optimizer.model.training.evaluate import training_basis
from optimizer.model.training.export import export_graph
from optimizer.model.training.gate import NetworkVerdict, judge_network
from optimizer.model.training.lastlayer import Fits, fit_last_layer, tabulate
from optimizer.model.training.threads import set_threads
from optimizer.model.values import fit_values
from optimizer.model.variantbasis import VariantBasis
from storage.records import Attribute, JsonObject

#: Posterior width factor v = WIDE / √(1 + n / HALVED), at least NARROW: exploration shrinks faster than the posterior.
WIDE, HALVED, NARROW = 0.5, 2_500.0, 0.05


@dataclass(frozen=True)
class Trained:
    """A model: its artifact, the hash of its feature spec, and what is worth knowing about the fit."""

    blob: bytes
    feature_hash: str
    report: dict[str, Any]


def train(examples: Examples, *, attributes: Sequence[Attribute], seed: int, network: bool = True) -> Trained:
    """Trains a model from scratch: feature spec, network (if it proves itself), prior precisions, posterior.

    Args:
        examples: rows of one workspace; an outcome that is NaN doesn't teach that head.
        attributes: the registry: types, and which may be used.
        seed: the same seed and rows give the same blob on one machine.
        network: False skips the network.

    Raises:
        Invalid: no rows or no outcomes.
    """
    _check(examples)
    set_threads(len(examples))
    spec = fit_spec(examples.contexts, attributes)
    basis = training_basis(examples)
    verdict = NetworkVerdict(None, 0.0, 0.0, len(examples), "not asked for")
    if network:
        verdict = judge_network(examples, spec, basis, seed=seed)
    graph = export_graph(spec, verdict.network)
    context = Embedder(spec, graph).run(spec.encode(examples.contexts))
    fits = fit_last_layer(tabulate(examples, context, spec, basis), seed=seed)
    judged = {"used": verdict.network is not None, "gain": verdict.gain, "z": verdict.z, "reason": verdict.reason}
    return _assemble(examples, spec, graph, basis, fits, seed, judged)


def refresh(blob: bytes, examples: Examples) -> Trained:
    """Refits the last layer to newer rows: the same spec, network, variant directions and prior precisions.

    Newton starts from the old weights. The draws use the old seed, so that the new bank differs from the old one by
    what was learned and not by luck. What is new (a variant, an hour) gets weights with the starting precision.

    Raises:
        BadArtifact: the blob can't be read. Invalid: no rows or no outcomes.
    """
    _check(examples)
    set_threads(len(examples))
    model = RewardModel.load(blob)
    context = model.embedder.run(model.spec.encode(examples.contexts))
    table = tabulate(examples, context, model.spec, model.basis)
    fits = fit_last_layer(table, start=(model.message, model.no_send))
    meta = model.artifact_meta
    return _assemble(examples, model.spec, model.graph, model.basis, fits, int(meta["seed"]), meta["network"])


def width_factor(rows: float) -> float:
    """Factor on the posterior's standard deviations after n rows (see ``Examples.told``)."""
    return max(NARROW, WIDE / float(np.sqrt(1.0 + rows / HALVED)))


def _check(examples: Examples) -> None:
    if len(examples) == 0:
        raise Invalid.field("examples", "has 0 rows, expected at least 1")
    if not examples.outcome:
        raise Invalid.field("examples.outcome", "is empty, expected at least one outcome")


def _assemble(
    examples: Examples,
    spec: FeatureSpec,
    graph: bytes,
    basis: VariantBasis,
    fits: tuple[Fits, Fits],
    seed: int,
    network: JsonObject,
) -> Trained:
    arrays: dict[str, Any] = {"basis.mean": basis.mean, "basis.directions": basis.directions}
    meta: dict[str, Any] = {
        "format": FORMAT,
        "spec": spec.to_json(),
        "values": fit_values(examples),
        "width": width_factor(examples.told),
        "rows": len(examples),
        "seed": seed,
        "network": dict(network),
    }
    for kind, fitted in zip(("message", "no_send"), fits, strict=True):
        saved, described = fitted.heads(kind, seed).save(kind)
        arrays |= saved
        meta[kind] = described
    return Trained(pack(graph, arrays, meta), spec.hash, _report(examples, spec, fits, meta))


def _report(examples: Examples, spec: FeatureSpec, fits: tuple[Fits, Fits], meta: JsonObject) -> dict[str, Any]:
    """What a person would ask about the fit, as JSON."""
    heads = [
        {
            "kind": kind,
            "outcome": name,
            "rows": posterior.rows,
            "positives": posterior.positives,
            "weights": fitted.layout.size,
            "precision": {
                block.name: round(float(value), 3)
                for block, value in zip(fitted.layout.blocks, posterior.precision, strict=True)
            },
        }
        for kind, fitted in zip(("message", "no_send"), fits, strict=True)
        for name, posterior in sorted(fitted.posteriors.items())
    ]
    return {
        "rows": len(examples),
        "features": spec.describe(),
        "encoded_width": spec.width,
        "width": meta["width"],
        "network": dict(meta["network"]),
        "heads": heads,
    }
