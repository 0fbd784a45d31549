"""How well a model predicts, row by row: of a stored model, and cross-fitted against base rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.errors import Invalid
from optimizer.model.examples import Examples
from optimizer.model.features import fit_spec
from optimizer.model.funnel import SURE, deemed, joined, steps
from optimizer.model.heads import Heads
from optimizer.model.inference import RewardModel
from optimizer.model.rhythmterm import deviations
from optimizer.model.training.fits import Fits
from optimizer.model.training.lastlayer import fit_last_layer
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.rows import Design, RowSet, split_rows
from optimizer.model.training.rowterms import row_likelihood
from optimizer.model.training.table import Table, tabulate
from optimizer.model.training.threads import set_threads
from optimizer.model.variantbasis import VariantBasis, fit_basis
from storage.records import Attribute, JsonObject, Variant

#: Contexts of which the encoding is learned at most.
SPEC_ROWS = 25_000
#: The part of the way from the base rate to the prediction that ``cross_fit_gain`` scores. Of predictions that are as
#: good as they say, the whole way gains half of what it shows: their own spread is taken off. So z is half of what it
#: could be, and four times the rows are needed; of a tenth of the way z is .95 of it.
DRAWN = 0.1

_CHUNK = 16_384


def log_likelihood(model: RewardModel | bytes, examples: Examples) -> dict[str, NDArray[np.float64]]:
    """Log-likelihood in nats of every observed outcome under a stored model, by outcome (n,).

    NaN where the outcome is unknown or the model has no head for that row's kind of action.
    """
    loaded = RewardModel.load(model) if isinstance(model, bytes) else model
    context = loaded.embedder.bulk(examples.contexts)
    out = {name: np.full(len(examples), np.nan) for name in loaded.outcomes if name in examples.outcome}
    for heads, rows in zip((loaded.message, loaded.no_send), split_rows(examples, context, loaded.basis), strict=True):
        eta = _logits(heads, rows)
        if heads is loaded.message and loaded.rhythm is not None and examples.effects:
            told = [examples.effects[i] for i in rows.rows.tolist()]
            scales = np.array([loaded.rhythm.scales.get(name, 0.0) for name in heads.outcomes])
            eta += np.outer(scales, deviations(loaded.rhythm.prior, told, rows.local[rows.rows]))
        eta = joined(eta, heads.outcomes)
        for i, name in enumerate(heads.outcomes):
            if name in out:
                at = rows.rows
                out[name][at] = likelihood(eta[i], examples.outcome[name][at], examples.share(name)[at])
    return out


def cross_fit_gain(
    examples: Examples, folds: int = 5, seed: int = 0, *, attributes: tuple[Attribute, ...] = ()
) -> dict[str, NDArray[np.float64]]:
    """Cross-fitted log-likelihood gain in nats over base rates, by outcome (n,).

    Every row is predicted by heads (without the network) that were fitted to other recipients, and so is its base rate:
    that of the outcome among the training folds' rows of the same campaign and kind (message or no_send). The gain is
    that of going ``DRAWN`` of the way (in log odds) from the one to the other: whether context and action features
    tell anything; under the null its mean is not above 0. Contexts are encoded by one spec over all rows: that reads no
    outcome. NaN where the outcome is unknown.

    The rows' gains are not independent: each row has taught what the others are predicted by. Where nothing can be
    learned, the variance of their sum is twice the sum of their variances: to first order the gain is a quadratic form
    of the residuals, in which every pair of rows stands twice (cf. Hoeffding 1948 on degenerate U-statistics).

    Raises:
        Invalid: fewer recipients than folds.
    """
    distinct, place = np.unique(examples.cluster, return_inverse=True)
    if not 2 <= folds <= len(distinct):
        raise Invalid.field("folds", f"{folds} is not allowed: expected 2 … {len(distinct)} (the number of recipients)")
    set_threads(len(examples))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = (order % folds)[place.reshape(-1)]
    spec = fit_spec(telling(examples.contexts, seed), attributes)
    table = tabulate(examples, spec.encode(examples.contexts), spec, training_basis(examples))
    out = {name: np.full(len(examples), np.nan) for name in examples.outcomes}
    for k in range(folds):
        learn, judge = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        for name, eta in predictions(table, learn).items():
            outcome = examples.outcome[name]
            share = examples.share(name)
            base = _base_logits(examples, outcome, share, learn)
            drawn = base + DRAWN * (eta - base)
            gain = likelihood(drawn, outcome, share) - likelihood(base, outcome, share)
            out[name][judge] = gain[judge]
    return out


def telling(contexts: Sequence[JsonObject], seed: int) -> Sequence[JsonObject]:
    """The contexts that say how all are to be encoded: means, bins and words settle long before a long log ends."""
    if len(contexts) <= SPEC_ROWS:
        return contexts
    places = np.random.default_rng(seed).choice(len(contexts), SPEC_ROWS, replace=False)
    return [contexts[i] for i in np.sort(places).tolist()]


def predictions(
    table: Table,
    learn: NDArray[np.int64],
    *,
    start: tuple[Heads, Heads] | None = None,
    anew: bool = False,
    options: TrainOptions = DEFAULTS,
) -> dict[str, NDArray[np.float64]]:
    """η of every row, by outcome (n,), from heads fitted to the rows ``learn`` alone; NaN where there is no head.

    ``start``: heads whose prior precisions are kept and from whose weights Newton starts: a quarter of the time.
    ``anew``, ``options``: see ``fit_last_layer``.
    """
    return logits(table, fit_last_layer(only(table, learn), start=start, anew=anew, options=options))


def only(table: Table, learn: NDArray[np.int64]) -> Table:
    """The table with the outcomes of the rows ``learn`` alone."""
    mask = np.zeros(len(table.examples), dtype=bool)
    mask[learn] = True
    hidden = {name: np.where(mask, column, np.nan) for name, column in table.examples.outcome.items()}
    return replace(table, examples=replace(table.examples, outcome=hidden))


def logits(table: Table, fits: tuple[Fits, Fits]) -> dict[str, NDArray[np.float64]]:
    """η of every row under posterior means, by outcome (n,); NaN where there is no head."""
    out = {name: np.full(len(table.examples), np.nan) for name in table.examples.outcomes}
    for (rows, layout), fitted in zip((table.message, table.no_send), fits, strict=True):
        design = Design(layout, rows)
        parts = [design.logits(posterior.mean) + posterior.offset for posterior in fitted.posteriors.values()]
        names = list(fitted.posteriors)
        for head, before in steps(names):
            parts[before][deemed(table.examples, names[head])[rows.rows]] = SURE
        if parts:
            for name, eta in zip(names, joined(np.array(parts), names), strict=True):
                out[name][rows.rows] = eta
    return out


def training_basis(examples: Examples) -> VariantBasis:
    """The basis of the variants that occur in some examples."""
    sent = examples.sent
    pairs = np.unique(np.stack((examples.campaign[sent], examples.variant[sent]), axis=1), axis=0)
    variants: list[Variant] = [examples.campaigns[int(i)].variants[int(j)] for i, j in pairs]
    return fit_basis(variants)


def likelihood(
    eta: NDArray[np.float64], outcome: NDArray[np.float64], seen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log-likelihood of outcomes at log odds η; NaN where either is NaN.

    Rows that have not matured are scored by what they show so far (``rowterms``), and not left out: which are young
    hangs on the clock alone, and the score is proper for every seen share.
    """
    column = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (eta, outcome, seen))
    scored: NDArray[np.float64] = row_likelihood(*column).numpy()
    return scored


def clustered_z(gains: NDArray[np.float64], cluster: NDArray[np.int64]) -> tuple[float, float]:
    """Mean gain a row and its z, with errors clustered by recipient; z = 0 where nothing varies."""
    if len(gains) == 0:
        return 0.0, 0.0
    mean = float(gains.mean())
    _, place = np.unique(cluster, return_inverse=True)
    sums = np.bincount(place.reshape(-1), weights=gains - mean)
    error = float(np.sqrt(sums @ sums)) / len(gains)
    return mean, mean / error if error > 0 else 0.0


def _logits(heads: Heads, rows: RowSet) -> NDArray[np.float64]:
    """η (H, m) of the rows of one kind."""
    out = np.empty((len(heads.outcomes), len(rows.rows)))
    coefficients = np.array([heads.coefficients(action) for action in rows.actions])
    for start in range(0, len(rows.rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        place = rows.rows[part]
        base = heads.layout.base_rows(rows.context[place], rows.local[place])
        for cell in np.unique(rows.cell[part]).tolist():
            here = np.flatnonzero(rows.cell[part] == cell)
            out[:, start + here] = coefficients[cell] @ base[here].T
    return out


def _base_logits(
    examples: Examples, outcome: NDArray[np.float64], seen: NDArray[np.float64], learn: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log odds of the base rate of each row's (campaign, kind) among the rows ``learn``: (k + rate) / (n + 1), where
    rate is the kind's overall (k + ½) / (n + 1), so that a campaign without training rows has one too; n as in
    ``posterior.base_offset``."""
    sent = examples.sent.astype(np.int64)
    group = examples.campaign * 2 + sent
    known = learn[np.isfinite(outcome[learn])]

    def rates(label: NDArray[np.int64], size: int, prior: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = np.bincount(label[known], minlength=size)
        positive = np.bincount(label[known], outcome[known], minlength=size)
        shares = np.bincount(label[known], seen[known], minlength=size)
        return np.minimum((positive + prior) / (shares + 1.0), (rows + 0.5) / (rows + 1.0))

    overall = rates(sent, 2, np.full(2, 0.5))
    rate = rates(group, 2 * len(examples.campaigns), np.tile(overall, len(examples.campaigns)))[group]
    logits: NDArray[np.float64] = np.log(rate) - np.log1p(-rate)
    return logits
