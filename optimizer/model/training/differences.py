"""The fit after a change of outcomes: what rows since say is how the weights differ from those before it."""

from __future__ import annotations

from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from optimizer.model.heads import Heads
from optimizer.model.layingout import build_layout
from optimizer.model.layout import MESSAGE_BLOCKS, NO_SEND_BLOCKS, Layout, Unit
from optimizer.model.training.fits import Fits, carried, may_differ
from optimizer.model.training.posterior import IDLE, Posterior, fit_posterior
from optimizer.model.training.rows import Design
from optimizer.model.training.settled import SettledKind
from optimizer.model.training.table import Table, nothing, targets

#: Most passes over the rows until the weights from before the change have come to those after it, roughly.
ROUGH = 16


def fit_differences(
    table: Table, before: tuple[Heads, Heads], settled: tuple[SettledKind, SettledKind] | None = None
) -> tuple[Fits, Fits]:
    """Posteriors whose prior means are the weights from before a change: what rows since say is the difference.

    How much may differ is learned from the rows, a group of weights at a time: one in which nothing has changed comes
    to rest where it was. What was idle before stays so; what is new (a variant, an hour, an outcome) was 0.

    Args:
        table: the rows since the change, or those of them that are not settled.
        before: the model's heads; where they have no centres yet, what they are becomes the centre.
        settled: what settled rows since the change say.
    """
    message, no_send = settled or (None, None)
    return _differences(table, "message", before[0], message), _differences(table, "no_send", before[1], no_send)


def _differences(table: Table, kind: str, before: Heads, settled: SettledKind | None) -> Fits:
    rows, shown = table.message if kind == "message" else table.no_send
    layout = joined(before.layout, shown, kind) if settled is None else settled.layout
    design = Design(layout, rows)
    known = targets(table, kind)
    centres, means = (
        [carried(layout, before.layout, weights) for weights in of]
        for of in (before.mean if before.centre is None else before.centre, before.mean)
    )
    # Filled head by head: a linked head begins at what has become different in earlier ones.
    posteriors: dict[str, Posterior] = {}
    centres_of = dict(zip(before.outcomes, centres, strict=True))
    fits = Fits(layout, posteriors, centres_of, before.links)
    for i, name in sorted(enumerate(before.outcomes), key=lambda one: one[1] in before.links):
        centre = fits.middle(name)
        target = known.get(name) or nothing(design.count)
        fit = partial(
            fit_posterior,
            design,
            target.outcome,
            float(before.offset[i]),
            seen=target.seen,
            centre=centre,
            precision=_starts(layout, centre, before, i),
            asked=table.asked,
            differences=True,
            linked=name in before.links,
            settled=None if settled is None else settled.heads[name],
            # The base rate's difference is a difference as any: where no rows tell of it there should be none.
            fixed_groups=frozenset(),
        )
        # Where much has changed the old weights are sure and wrong: Newton's first steps from there go much too far,
        # and precisions that were learned on the way would go with them.
        mean = means[i] if before.centre is not None else fit(empirical=False, steps=ROUGH).mean
        posteriors[name] = fit(mean=mean)
    for name in known.keys() - posteriors.keys() if settled is None else ():
        target, centres_of[name] = known[name], np.zeros(layout.size)
        posteriors[name] = fit_posterior(design, target.outcome, target.offset, seen=target.seen, asked=table.asked)
    return fits


#: Parts of a layout that go by the time of the rows.
_TIMES = ("time", "weekday", "hour", "week")


def _starts(layout: Layout, centre: NDArray[np.float64], before: Heads, head: int) -> NDArray[np.float64]:
    """(groups,) the precisions to start with: those of idle groups stay so, but for ones that there were not before."""
    starts = np.array([start for _, start in layout.groups])
    old = {name: float(value) for (name, _), value in zip(before.layout.groups, before.precision[head], strict=True)}
    live = np.array([old.get(name, 0.0) < IDLE for name, _ in layout.groups])
    return np.where(may_differ(layout, centre) | live, starts, IDLE)


def joined(old: Layout, new: Layout, kind: str) -> Layout:
    """The old layout with the keys, hours and time columns that only the new one has; the old one where it has all."""
    keys = {
        unit: _keys(old, unit, _keys(new, unit, ()))
        for unit in dict.fromkeys(b.unit for b in (*old.blocks, *new.blocks))
    }
    times = {part: tuple(sorted({*getattr(old, part), *getattr(new, part)})) for part in _TIMES}
    kept = all(keys[unit] == _keys(old, unit, ()) for unit in keys)
    if kept and all(times[part] == getattr(old, part) for part in times):
        return old
    parts = {part: getattr(old, part) for part in ("plain", "detail", "network", "owner")}
    return build_layout(MESSAGE_BLOCKS if kind == "message" else NO_SEND_BLOCKS, keys, **parts, **times)


def _keys(layout: Layout, unit: Unit, more: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of a unit in a layout, and ``more``, each once; first those that kept most weights of their own."""
    mine = sorted((b.keys for b in layout.blocks if b.unit == unit), key=len)
    return tuple(dict.fromkeys((*chain.from_iterable(mine), *more)))
