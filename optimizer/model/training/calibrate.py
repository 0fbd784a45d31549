"""Fits the maps that turn predicted chances into scores, on rows whose recipients the heads have not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.calibration import calibration
from optimizer.bandit.clusters import clusters, correlation, mates
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.heads import Heads
from optimizer.model.recalibration import Recalibration
from optimizer.model.training.evaluate import predictions
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.table import tabulate
from optimizer.model.variantbasis import VariantBasis

FOLDS = 3
#: More rows would only narrow a map that is already sharp, and the fits are paid for by every retrain.
MOST_ROWS = 20_000
#: Of fewer rows than this each fold learns prior precisions of its own (see ``fit_calibration``), for two seconds more.
FEW_ROWS = 4_000
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
    options: TrainOptions = DEFAULTS,
) -> dict[str, dict[str, Any]]:
    """Maps by kind (``message``, ``no_send``) and outcome, as the artifact's meta holds them.

    Every row is predicted by heads that were fitted to other recipients. All folds together judge each head, not one
    part that is held out: heads match the rate of what they were fitted to, so a single part's luck would be taken for
    an error of the intercept (at 4,000 rows that made scores worse, expected calibration error .0252 against .0241).
    Columns of a network have seen all recipients; that flatters the slope a little where one is used.

    The heads' own prior precisions have seen all recipients too. Of few rows they let in much that is chance, and it
    seems to hold for the very rows that it came from: slopes seemed to be above 1 where they were .8. So of few rows
    each fold learns its own. In worlds of 504 actions in which a fifth of the messages is clicked, the likeliest
    message of each recipient was told a chance 15 % too high after 1,500 rows, and is told 1 % too low (means of twelve
    worlds, a world's deviation being 9 %); 17 % and 3 % too high after 2,900 (three). Of many rows it is the other way
    round, since a fold with precisions of its own also suffers from its third less of rows: 8 % too low after 6,000
    (four worlds), and 1 % too high with the heads' own. A map of few outcomes stays near the identity: where 7 of 100
    messages are clicked it was 64 % too high after 1,500 rows, and is 39 % (three worlds).

    Args:
        examples: the n rows of the training.
        context: (n, F) f(x).
        spec: what it was encoded by.
        basis: of the variants.
        fitted: the heads of all rows.
        seed: of folds and rows.
        options: the prior on the precisions.
    """
    anew = len(examples) < FEW_ROWS
    generator = np.random.default_rng(seed)
    used = np.sort(generator.permutation(len(examples))[:MOST_ROWS])
    every, examples, context = examples, examples.take(used), context[used]
    distinct, place = np.unique(examples.cluster, return_inverse=True)
    if len(distinct) < FOLDS:
        return {}
    fold = (generator.permutation(len(distinct)) % FOLDS)[place.reshape(-1)]
    table = tabulate(examples, context, spec, basis)
    held_out = {name: np.full(len(examples), np.nan) for name in examples.outcomes}
    for k in range(FOLDS):
        learn = np.flatnonzero(fold != k)
        for name, eta in predictions(table, learn, start=fitted, anew=anew, options=options).items():
            held_out[name][fold == k] = eta[fold == k]
    found: dict[str, dict[str, Any]] = {}
    for kind, rows in (("message", examples.sent), ("no_send", ~examples.sent)):
        theirs = every.cluster[every.sent if kind == "message" else ~every.sent]
        beyond = mates(clusters(theirs, theirs.size)) - 1.0 if theirs.size else 0.0
        for name, eta in held_out.items():
            # Final rows only: a chance is compared with what came of it in the end.
            known = rows & np.isfinite(eta) & np.isfinite(examples.outcome[name]) & (examples.share(name) == 1.0)
            if known.sum() >= LEAST_ROWS:
                chance = 0.5 * (1.0 + np.tanh(0.5 * eta[known]))
                happened, cluster = examples.outcome[name][known], examples.cluster[known]
                alike = correlation(happened - chance, clusters(cluster, cluster.size))
                map_ = Recalibration.of(calibration(chance, happened, cluster), 1.0 + alike * beyond)
                found.setdefault(kind, {})[name] = map_.to_json()
    return found
