"""Training and refreshing the reward model: rows in, a blob out. Nothing here has a clock or a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optimizer.errors import Invalid
from optimizer.model.artifact import pack
from optimizer.model.embedding import Embedder
from optimizer.model.examples import Examples
from optimizer.model.featurebins import own_counts
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.model.funnel import Blind, hidden, told_apart, visible, without
from optimizer.model.history import Wanted
from optimizer.model.inference import FORMAT, RewardModel
from optimizer.model.rhythmterm import RhythmTerm
from optimizer.model.training.calibrate import fit_calibration
from optimizer.model.training.differences import fit_differences
from optimizer.model.training.evaluate import telling, training_basis
from optimizer.model.training.export import export_graph
from optimizer.model.training.fitreport import fit_report
from optimizer.model.training.fits import Fits
from optimizer.model.training.gate import EncoderVerdict, Judged, NetworkVerdict, judge_columns, unjudged
from optimizer.model.training.lastlayer import PILOT_FROM, continue_last_layer, fit_last_layer, settled_kinds
from optimizer.model.training.options import DEFAULTS, TrainOptions, learned_from
from optimizer.model.training.rhythm import fit_rhythm
from optimizer.model.training.settled import Settled, SettledKind
from optimizer.model.training.table import Table, tabulate
from optimizer.model.training.threads import set_threads
from optimizer.model.triedhours import Hours, hours_of, most
from optimizer.model.values import fit_values, joined
from optimizer.model.variantbasis import VariantBasis
from storage.records import Attribute, JsonObject

#: Posterior width factor v = WIDE / √(1 + n / HALVED), at least NARROW: exploration shrinks faster than the posterior.
WIDE, HALVED, NARROW = 0.5, 2_500.0, 0.05


@dataclass(frozen=True)
class Trained:
    """A model: its artifact, the hash of its feature spec, and what is worth knowing about the fit; after a refresh
    that was asked for it, what the settled rows say (``follow`` goes on from there)."""

    blob: bytes
    feature_hash: str
    report: dict[str, Any]
    settled: Settled | None = None


def train(
    examples: Examples,
    *,
    attributes: Sequence[Attribute],
    seed: int,
    network: bool = True,
    encoder: Wanted | None = None,
    calibrated: bool = True,
    options: TrainOptions = DEFAULTS,
    changed: Mapping[str, float] | None = None,
) -> Trained:
    """Trains a model from scratch: feature spec, learned columns (where they prove themselves), prior precisions,
    posterior.

    Args:
        examples: rows of one workspace; an outcome that is NaN doesn't teach that head.
        attributes: the registry: types, and which may be used.
        seed: the same seed and rows give the same blob on one machine.
        network: False skips the learned columns, the encoder's too; the summary of the history stays.
        encoder: which encoder of the history is tried (None = ``auto``).
        calibrated: False skips the maps that only scores need (see ``recalibration``), and their fits.
        options: the numbers that can be tuned.
        changed: campaign -> when its outcomes last changed, in epoch seconds, where the rows go by that; kept with it.

    Raises:
        Invalid: no rows or no outcomes.
    """
    _check(examples)
    examples, blind = told_apart(examples)
    set_threads(len(examples))
    spec = fit_spec(telling(examples.contexts, seed), attributes)
    basis = training_basis(examples)
    asked = encoder or Wanted()
    if network:
        judged = judge_columns(examples, spec, basis, encoder=asked.kind, seed=seed, options=options)
    else:
        judged = unjudged(spec, asked.kind, len(examples))
    spec = judged.spec
    graph = export_graph(spec, judged.network.network, judged.encoder.reader)
    context = Embedder(spec, graph).bulk(examples.contexts)
    table = tabulate(examples, context, spec, basis)
    # Of a long log the judges' fits do for the pilot. Of a short one, a quarter less rows take more weights for idle:
    # that saved a seventh of the time of 10,000 simulated decisions and added 2, 2 and 6 % to the regret of three runs.
    near = judged.fits if len(examples) > PILOT_FROM else None
    fits = fit_last_layer(table, near=near, seed=seed, options=options)
    rhythm = fit_rhythm(table, fits[0], seed=seed)
    maps: JsonObject = {}
    if calibrated:
        heads = fits[0].heads("message", seed), fits[1].heads("no_send", seed)
        maps = fit_calibration(examples, context, spec, basis, heads, seed=seed, options=options)
    kept = {
        "changed": dict(changed or {}),
        "anchored": None,
        "learned": len(examples),
        "seed": seed,
        **_judged(judged, asked),
        "calibration": maps,
        **_bins(own_counts(examples, spec)),
    }
    return _assemble(_sums(examples), spec, graph, basis, fits, blind, rhythm, kept)


def _judged(judged: Judged, asked: Wanted) -> dict[str, Any]:
    """What was found of columns, for the artifact's meta; a later training reads which encoder was tried."""
    network, encoder = judged.network, judged.encoder

    def evidence(verdict: NetworkVerdict | EncoderVerdict, *, used: bool) -> dict[str, Any]:
        return {"used": used, "gain": verdict.gain, "z": verdict.z, "reason": verdict.reason}

    tried = {"kind": encoder.kind, "since": asked.since, "tried": dict(encoder.tried)}
    return {
        "products": [one.to_json() for one in judged.products],
        "network": evidence(network, used=network.network is not None),
        "encoder": {**evidence(encoder, used=encoder.reader is not None), **tried},
    }


def refresh(blob: bytes, examples: Examples, settled: int | None = None) -> Trained:
    """Refits the last layer to newer rows; spec, network, variant directions, prior precisions, calibration, rhythm
    stay. (Of an anchored model the precisions of differences are learned anew each time.)

    Newton starts from the old weights. The draws use the old seed, so that the new bank differs from the old one by
    what was learned and not by luck. What is new (a variant, an hour) gets weights with the starting precision.

    Args:
        blob: the model. examples: all rows.
        settled: the first so many rows are final: what they say is told for ``follow`` (None = it isn't).

    Raises:
        BadArtifact: the blob can't be read. Invalid: no rows or no outcomes.
    """
    model, table = _opened(blob, examples)
    heads = model.message, model.no_send
    fits = fit_differences(table, heads) if model.message.centre is not None else fit_last_layer(table, start=heads)
    trained = _again(model, _sums(table.examples), fits)
    return trained if settled is None else replace(trained, settled=_settled(table, fits, settled))


def anchor(blob: bytes, examples: Examples, campaign_id: str, changed: float, settled: int | None = None) -> Trained:
    """The model after outcomes have changed: what it was, and what has become different since.

    A change seldom takes everything: where a message's appeal has changed, people's hours have not. So the weights from
    before become prior means, and the rows since tell which groups of them have moved and how far
    (``differences.fit_differences``). ``refresh`` and ``follow`` go on from there; a training begins anew.

    Args:
        blob: the model as it was. examples: the rows since the change.
        campaign_id: whose outcomes changed. changed: when, in epoch seconds; both are kept with the model.
        settled: see ``refresh``.

    Raises:
        BadArtifact: the blob can't be read. Invalid: no rows or no outcomes.
    """
    model, table = _opened(blob, examples)
    before = replace(model.message, centre=None), replace(model.no_send, centre=None)
    meta = model.artifact_meta
    unsent = {name: model.unsent(name) for name in model.no_send.outcomes}
    since = {"since": changed, "rows": int(meta["rows"]), "values": dict(meta["values"]), "unsent": unsent}
    known = {**(meta.get("changed") or {}), campaign_id: changed}
    fits = fit_differences(table, before)
    trained = _again(model, _sums(table.examples), fits, {"changed": known, "anchored": since})
    return trained if settled is None else replace(trained, settled=_settled(table, fits, settled))


def follow(blob: bytes, before: Settled, examples: Examples, settled: int | None = None) -> Trained:
    """The refresh of a long log: what its settled rows say stands for them, and only the rows since are read.

    Args:
        blob: the model. before: of this model's lineage, from ``refresh`` or ``follow``.
        examples: the rows that came after the settled ones. An action or an hour that the rows of that refresh didn't
            show gets no weights of its own.
        settled: the first so many of them are final by now: they are added to what settled rows say.

    Raises:
        BadArtifact: the blob can't be read. Invalid: no rows or no outcomes.
    """
    model, table = _opened(blob, examples)
    examples = table.examples
    kinds = before.message, before.no_send
    anchored = model.message.centre is not None
    fits = (
        fit_differences(table, (model.message, model.no_send), kinds)
        if anchored
        else continue_last_layer(table, kinds, model.message.links)
    )
    names = before.told.keys() | set(examples.outcomes)
    told = max((before.told.get(name, 0.0) + _told(examples, name) for name in names), default=0.0)
    values = joined(before.values, fit_values(examples))
    sums = _Sums(before.rows + len(examples), told, values, hours_of(examples))
    trained = _again(model, sums, fits)
    return trained if settled is None else replace(trained, settled=before + _settled(table, fits, settled, kinds))


def _opened(blob: bytes, examples: Examples) -> tuple[RewardModel, Table]:
    """A model, and examples laid out for it: with looks apart, or not, as it learned them."""
    _check(examples)
    set_threads(len(examples))
    model = RewardModel.load(blob)
    looks = visible(model.message.outcomes) != model.message.outcomes
    examples = hidden(examples, model.message.blind) if looks else without(examples)
    return model, tabulate(examples, model.embedder.bulk(examples.contexts), model.spec, model.basis)


def _settled(
    table: Table, fits: tuple[Fits, Fits], count: int, before: tuple[SettledKind, SettledKind] | None = None
) -> Settled:
    """What the first ``count`` examples say."""
    examples = table.examples
    told = {name: _told(examples, name, count) for name in examples.outcomes}
    values = fit_values(examples.take(np.arange(count)))
    return Settled(*settled_kinds(table, fits, count, before), count, told, values)


def _told(examples: Examples, name: str, first: int | None = None) -> float:
    """How many final rows the first rows (all) are worth for an outcome; see ``Examples.told``."""
    known = np.isfinite(examples.outcome[name][:first]) if name in examples.outcome else np.zeros(0, np.bool_)
    return float(examples.share(name)[:first][known].sum()) if known.size else 0.0


def _again(model: RewardModel, sums: _Sums, fits: tuple[Fits, Fits], more: JsonObject | None = None) -> Trained:
    """The artifact of a refreshed model; ``more``: what else it says of itself from now on.

    What an anchored model had seen before its anchor counts with what it has seen since: how many rows its features
    were fitted to, what outcomes were worth. Rows between the change and its alarm, which it had learned before, count
    twice: a model doesn't know which rows it has seen.
    """
    meta = {**model.artifact_meta, **(more or {})}
    anchored = meta.get("anchored")
    if anchored:
        sums = replace(sums, rows=anchored["rows"] + sums.rows, values=joined(anchored["values"], sums.values))
    # A model from before hours were kept doesn't know those of all its rows.
    known = meta.get("hours")
    sums = replace(sums, hours=None if known is None else most(known, sums.hours or {}))
    kept = {
        **({"changed": meta["changed"], "anchored": anchored} if "changed" in meta else {}),
        "learned": learned_from(meta),
        "seed": int(meta["seed"]),
        "products": list(meta.get("products", [])),
        "network": dict(meta["network"]),
        "encoder": dict(meta.get("encoder", {})),
        "calibration": meta.get("calibration", {}),
        **_bins(meta.get("bins")),
    }
    return _assemble(sums, model.spec, model.graph, model.basis, fits, model.message.blind, model.rhythm, kept)


def _bins(counts: JsonObject | None) -> JsonObject:
    """The artifact's entry of ``own_counts``; none where the spec says it all."""
    return {} if counts is None else {"bins": counts}


def width_factor(rows: float) -> float:
    """Factor on the posterior's standard deviations after n rows (see ``Examples.told``)."""
    return max(NARROW, WIDE / float(np.sqrt(1.0 + rows / HALVED)))


def _check(examples: Examples) -> None:
    if len(examples) == 0:
        raise Invalid.field("examples", "has 0 rows, expected at least 1")
    if not examples.outcome:
        raise Invalid.field("examples.outcome", "is empty, expected at least one outcome")


@dataclass(frozen=True)
class _Sums:
    """Of all rows: how many, what they are worth as final ones, sketches of their values, hours of their messages (None
    = not known)."""

    rows: int
    told: float
    values: JsonObject
    hours: Hours | None


def _sums(examples: Examples) -> _Sums:
    return _Sums(len(examples), examples.told, fit_values(examples), hours_of(examples))


def _assemble(
    sums: _Sums,
    spec: FeatureSpec,
    graph: bytes,
    basis: VariantBasis,
    fits: tuple[Fits, Fits],
    blind: Blind,
    rhythm: RhythmTerm | None,
    kept: JsonObject,
) -> Trained:
    """The artifact; ``kept`` is what a refresh leaves of its meta: seed, verdicts on columns, calibration."""
    arrays: dict[str, Any] = {"basis.mean": basis.mean, "basis.directions": basis.directions}
    meta: dict[str, Any] = {
        "format": FORMAT,
        "spec": spec.to_json(),
        "variant_numbers": {name: list(scale) for name, scale in basis.scales.items()},
        "values": dict(sums.values),
        "width": width_factor(sums.told),
        "rows": sums.rows,
        "unsent": _unsent(fits[1], kept.get("anchored") or {}),
        **({} if sums.hours is None else {"hours": dict(sums.hours)}),
        **kept,
    }
    for kind, fitted in zip(("message", "no_send"), fits, strict=True):
        saved, described = replace(fitted.heads(kind, kept["seed"]), blind=blind).save(kind)
        arrays |= saved
        meta[kind] = described
    if rhythm is not None:
        saved_rhythm, described_rhythm = rhythm.save()
        arrays |= saved_rhythm
        meta |= described_rhythm
    return Trained(pack(graph, arrays, meta), spec.hash, fit_report(spec, fits, meta))


def _unsent(no_send: Fits, anchored: JsonObject) -> dict[str, int]:
    """By outcome, how many rows without a message have told of it; those from before an anchor count."""
    before = anchored.get("unsent", {})
    return {name: head.rows + (before.get(name) or 0) for name, head in sorted(no_send.posteriors.items())}
