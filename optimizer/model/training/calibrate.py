"""Fits the maps that turn predicted chances into scores, on rows whose recipients the heads have not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.calibration import calibration
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.heads import Heads
from optimizer.model.recalibration import Recalibration
from optimizer.model.training.evaluate import predictions
from optimizer.model.training.lastlayer import tabulate
from optimizer.model.variantbasis import VariantBasis

FOLDS = 3
#: More rows would only narrow a map that is already sharp, and the fits are paid for by every retrain.
MOST_ROWS = 20_000
#: Fewer rows of a head than this correct nothing.
LEAST_ROWS = 100


def fit_calibration(
    examples: Examples,
    context: NDArray[np.float32],
    spec: FeatureSpec,
    basis: VariantBasis,
    fitted: tuple[Heads, Heads],
    *,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Maps by kind (``message``, ``no_send``) and outcome, as the artifact's meta holds them.

    Every row is predicted by heads that were fitted to other recipients. All folds together judge each head, not one
    part that is held out: heads match the rate of what they were fitted to, so a single part's luck would be taken for
    an error of the intercept (at 4,000 rows that made scores worse, expected calibration error .0252 against .0241).
    Columns of a network have seen all recipients; that flatters the slope a little where one is used.

    Args:
        examples: the n rows of the training.
        context: (n, F) f(x).
        spec: what it was encoded by.
        basis: of the variants.
        fitted: the heads of all rows; their prior precisions are kept.
        seed: of folds and rows.
    """
    generator = np.random.default_rng(seed)
    used = np.sort(generator.permutation(len(examples))[:MOST_ROWS])
    examples, context = examples.take(used), context[used]
    distinct, place = np.unique(examples.cluster, return_inverse=True)
    if len(distinct) < FOLDS:
        return {}
    fold = (generator.permutation(len(distinct)) % FOLDS)[place.reshape(-1)]
    table = tabulate(examples, context, spec, basis)
    held_out = {name: np.full(len(examples), np.nan) for name in examples.outcomes}
    for k in range(FOLDS):
        for name, eta in predictions(table, np.flatnonzero(fold != k), start=fitted).items():
            held_out[name][fold == k] = eta[fold == k]
    found: dict[str, dict[str, Any]] = {}
    for kind, rows in (("message", examples.sent), ("no_send", ~examples.sent)):
        for name, eta in held_out.items():
            known = rows & np.isfinite(eta) & np.isfinite(examples.outcome[name])
            if known.sum() >= LEAST_ROWS:
                chance = 0.5 * (1.0 + np.tanh(0.5 * eta[known]))
                one = calibration(chance, examples.outcome[name][known], examples.cluster[known])
                found.setdefault(kind, {})[name] = Recalibration.of(one).to_json()
    return found
