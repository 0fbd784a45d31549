"""The fit after a change of outcomes: what rows since say is how the weights differ from those before it."""

from __future__ import annotations

from functools import partial

import numpy as np

from optimizer.model.heads import Heads
from optimizer.model.training.lastlayer import Fits, Table, may_differ, nothing, targets
from optimizer.model.training.posterior import IDLE, fit_posterior
from optimizer.model.training.rows import Design
from optimizer.model.training.settled import SettledKind

#: Most passes over the rows until the weights from before the change have come to those after it, roughly.
ROUGH = 16


def fit_differences(
    table: Table, before: tuple[Heads, Heads], settled: tuple[SettledKind, SettledKind] | None = None
) -> tuple[Fits, Fits]:
    """Posteriors whose prior means are the weights from before a change: what rows since say is the difference.

    How much may differ is learned from the rows, a group of weights at a time: one in which nothing has changed comes
    to rest where it was. What was idle before stays so.

    Args:
        table: the rows since the change, or those of them that are not settled.
        before: the model's heads; where they have no centres yet, what they are becomes the centre.
        settled: what settled rows since the change say.
    """
    message, no_send = settled or (None, None)
    return _differences(table, "message", before[0], message), _differences(table, "no_send", before[1], no_send)


def _differences(table: Table, kind: str, before: Heads, settled: SettledKind | None) -> Fits:
    layout = before.layout
    design = Design(layout, (table.message if kind == "message" else table.no_send)[0])
    known = targets(table, kind)
    centres = before.mean if before.centre is None else before.centre
    starts = np.array([start for _, start in layout.groups])
    posteriors = {}
    for i, name in enumerate(before.outcomes):
        target = known.get(name) or nothing(design.count)
        fit = partial(
            fit_posterior,
            design,
            target.outcome,
            float(before.offset[i]),
            seen=target.seen,
            centre=centres[i],
            precision=np.where(may_differ(layout, centres[i]), starts, IDLE),
            asked=table.asked,
            settled=None if settled is None else settled.heads[name],
        )
        # Where much has changed the old weights are sure and wrong: Newton's first steps from there go much too far,
        # and precisions that were learned on the way would go with them.
        mean = before.mean[i] if before.centre is not None else fit(empirical=False, steps=ROUGH).mean
        posteriors[name] = fit(mean=mean)
    return Fits(layout, posteriors, dict(zip(before.outcomes, centres, strict=True)))
