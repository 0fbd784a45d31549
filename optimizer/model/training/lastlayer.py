"""All heads of a model at once: which rows each one learns from, and what it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.model.heads import Heads, Links
from optimizer.model.layout import Layout
from optimizer.model.training.fits import Fits, carried, may_differ, precisions
from optimizer.model.training.links import later, links
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.posterior import IDLE, Posterior, fit_posterior, score
from optimizer.model.training.rows import Design, RowSet
from optimizer.model.training.settled import SettledHead, SettledKind
from optimizer.model.training.table import Table, Target, nothing, targets
from optimizer.model.training.threads import side_by_side

#: Precisions are first learned on this many rows: they hardly depend on the rest, and passes over all rows are dear.
PILOT = 30_000
PILOT_FROM = 2 * PILOT
#: Standard deviations of the score (``posterior.score``) from which on a group's precision is learned anew by all rows.
#: In made-up logs of 62,000 rows, one in 180 with the outcome, .754 (3), .855 (2) and .909 (1) was foretold of what
#: can be, by precisions from all rows .911; by those of the pilot .557.
WAKING = 1.0
#: What not sending shares with sending a priori: whom the outcome happens to. Its own weights are differences from the
#: message heads', which matters where few are left without a message (Hillstrom at 2,000 rows: z 3.2 -> 3.4).
_SHARED = frozenset({"one*plain", "one*detail", "one*network"})


def fit_last_layer(
    table: Table,
    *,
    start: tuple[Heads, Heads] | None = None,
    anew: bool = False,
    near: tuple[Fits, Fits] | None = None,
    seed: int = 0,
    options: TrainOptions = DEFAULTS,
) -> tuple[Fits, Fits]:
    """Posteriors of the message heads and of the no_send heads.

    Args:
        table: the rows.
        start: heads to start from, whose prior precisions are kept: a refresh. None learns the precisions.
        anew: the precisions of ``start`` are not kept but learned from the first, in one step from its weights: nearly
            what a whole fit finds, in half its time.
        near: posteriors of nearly the same rows and columns, from which precisions and weights are learned on: a
            quarter of the time, since most of what they found idle stays so.
        seed: of the pilot sample.
        options: the prior on the precisions, where they are learned.
    """
    starts, nears = start or (None, None), near or (None, None)
    message = _fit_kind(table, "message", {}, starts[0], anew, nears[0], seed, options)
    shared = _shared(table.no_send[1], message)
    return message, _fit_kind(table, "no_send", shared, starts[1], anew, nears[1], seed, options)


def continue_last_layer(table: Table, settled: tuple[SettledKind, SettledKind], linked: Links) -> tuple[Fits, Fits]:
    """Posteriors of the message heads and of the no_send heads from settled rows and those of the table, which come
    after them. Layouts, precisions and the ``linked`` outcomes of messages stay as they were."""
    message = _continued(table, "message", {}, settled[0], linked)
    return message, _continued(table, "no_send", _shared(settled[1].layout, message), settled[1], {})


def _continued(
    table: Table, kind: str, centres: Mapping[str, NDArray[np.float64]], before: SettledKind, linked: Links
) -> Fits:
    design = Design(before.layout, (table.message if kind == "message" else table.no_send)[0])
    known = targets(table, kind)
    # Filled head by head: a linked head begins at earlier ones.
    posteriors: dict[str, Posterior] = {}
    fits = Fits(before.layout, posteriors, links=linked)
    for name in sorted(before.heads, key=linked.__contains__):
        head, target = before.heads[name], known.get(name) or nothing(design.count)
        posteriors[name] = fit_posterior(
            design,
            target.outcome,
            head.offset,
            seen=target.seen,
            centre=fits.middle(name) if name in linked else centres.get(name),
            mean=head.mean,
            precision=head.precision,
            steps=6,
            empirical=False,
            settled=head,
        )
    return fits


def settled_kinds(
    table: Table, fits: tuple[Fits, Fits], count: int, before: tuple[SettledKind, SettledKind] | None = None
) -> tuple[SettledKind, SettledKind]:
    """What the first ``count`` rows of the examples say of every head, around the weights that were fitted to all.

    ``before``: what earlier rows say; the same weights are spoken of then.
    """
    message, no_send = before or (None, None)
    middles = {name: fits[0].middle(name) for name in fits[0].posteriors}
    shared = _shared(fits[1].layout, fits[0]) if fits[1].centres is None else fits[1].centres
    return (
        _settled_kind(table, "message", fits[0], middles, count, message),
        _settled_kind(table, "no_send", fits[1], shared, count, no_send),
    )


def _settled_kind(
    table: Table,
    kind: str,
    fitted: Fits,
    centres: Mapping[str, NDArray[np.float64]],
    count: int,
    before: SettledKind | None,
) -> SettledKind:
    rows = (table.message if kind == "message" else table.no_send)[0]
    layout, design, settled = fitted.layout, Design(fitted.layout, rows), rows.rows < count
    told = targets(table, kind)
    heads = {}
    for name, posterior in fitted.posteriors.items():
        target, centre = told.get(name) or nothing(design.count), centres.get(name, np.zeros(layout.size))
        outcome = np.where(settled, target.outcome, np.nan)
        # An idle weight is 0 unless its centre isn't, and then it moves with it.
        used = (posterior.precision < IDLE) | (fitted.centres is not None and may_differ(layout, centre))
        speaks = np.flatnonzero(used[layout.group] | (centre != 0.0))
        if before is not None:
            speaks = before.heads[name].known
        fixed = np.full(design.count, posterior.offset)
        _, gradient, information = design.derivatives(posterior.mean, outcome, fixed, target.seen, speaks)
        known = outcome[np.isfinite(outcome)]
        heads[name] = SettledHead(
            mean=posterior.mean,
            precision=posterior.precision,
            known=speaks,
            gradient=gradient,
            information=information,
            offset=posterior.offset,
            rows=len(known),
            positives=int(known.sum()),
        )
    return SettledKind(layout, heads)


def _shared(layout: Layout, message: Fits) -> dict[str, NDArray[np.float64]]:
    """Prior means of the no_send weights of ``layout``, by outcome: what sending and not sending share."""
    return {
        name: carried(layout, message.layout, posterior.mean, _SHARED) for name, posterior in message.posteriors.items()
    }


class _Start(NamedTuple):
    """Where the fit of a head starts, and how far it may go: arguments of ``fit_posterior``."""

    offset: float
    mean: NDArray[np.float64] | None = None
    precision: NDArray[np.float64] | None = None
    steps: int = 8
    empirical: bool = True

    @classmethod
    def of_heads(cls, layout: Layout, heads: Heads, name: str, anew: bool) -> _Start:
        """From heads that were fitted before; only ``anew`` learns precisions, in a single step."""
        head = heads.outcomes.index(name)
        offset, mean = float(heads.offset[head]), carried(layout, heads.layout, heads.mean[head])
        if anew:
            return cls(offset, mean, steps=1)
        return cls(offset, mean, precisions(layout, heads.layout, heads.precision[head]), steps=6, empirical=False)


def _fit_kind(
    table: Table,
    kind: str,
    centres: Mapping[str, NDArray[np.float64]],
    start: Heads | None,
    anew: bool,
    near: Fits | None,
    seed: int,
    options: TrainOptions,
) -> Fits:
    """Fits the heads of one kind; ``centres`` are prior means of the weights, by outcome (0 where there is none)."""
    rows, layout = table.message if kind == "message" else table.no_send
    design = Design(layout, rows)
    large = len(rows.rows) > PILOT_FROM
    pilot: NDArray[np.int64] | None = None
    if large and (start is None or anew):
        pilot = np.sort(np.random.default_rng(seed).choice(len(rows.rows), PILOT, replace=False))
    small = None if pilot is None else Design(layout, _subset(rows, pilot))

    def fitted(name: str, told: Target, centre: NDArray[np.float64] | None, linked: bool) -> Posterior:
        fit = partial(fit_posterior, centre=centre, asked=table.asked, options=options, linked=linked)
        begin = _Start(told.offset)
        if start is not None and name in start.outcomes:
            begin = _Start.of_heads(layout, start, name, anew)
        elif near is not None and name in near.posteriors:
            found = near.posteriors[name]
            mean, precision = carried(layout, near.layout, found.mean), precisions(layout, near.layout, found.precision)
            if large:
                precision = _woken(design, told, mean, precision)
            begin = _Start(told.offset, mean, precision, steps=3 if large else 8)
        elif small is not None and pilot is not None:
            found = fit(small.apart(), told.outcome[pilot], told.offset, seen=told.seen[pilot])
            begin = _Start(told.offset, found.mean, _woken(design, told, found.mean, found.precision), steps=3)
        return fit(design.apart(), told.outcome, seen=told.seen, **begin._asdict())

    told = targets(table, kind)
    after = later(tuple(told)) if kind == "message" else ()
    first = [(name, target, centres.get(name), False) for name, target in told.items() if name not in after]

    def all_of(parts: list[tuple[str, Target, NDArray[np.float64] | None, bool]]) -> dict[str, Posterior]:
        found = side_by_side(lambda part: fitted(*part), parts, len(rows.rows))
        return {part[0]: posterior for part, posterior in zip(parts, found, strict=True)}

    fits = Fits(layout, all_of(first))
    if not after:
        return fits
    shares: Links
    if start is None or anew:
        shares = links(small or design, told, fits, pilot)
    else:
        shares = {
            name: start.links[name] for name in after if name in start.links and start.links[name].keys() <= told.keys()
        }
    fits = replace(fits, links=shares)
    rest = [(name, told[name], fits.middle(name) if name in shares else None, name in shares) for name in after]
    return replace(fits, posteriors={**fits.posteriors, **all_of(rest)})


def _woken(
    design: Design, told: Target, mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Precisions (groups,) that fewer rows have learned, for a fit to all of them: where all rows pull at the weights
    that those came to, they begin anew. Of an outcome that happens once in two hundred times ``PILOT`` rows hardly tell
    a group from noise that the whole log shows plainly; it would rest however long the log grows."""
    layout = design.layout
    starts = np.array([start for _, start in layout.groups])
    slope, information = design.slopes(mean, told.outcome, np.full(design.count, told.offset), told.seen)
    tells = score(layout, slope, information, starts) > WAKING
    return np.where(tells & (precision > starts), starts, precision)


def _subset(rows: RowSet, index: NDArray[np.int64]) -> RowSet:
    return RowSet(rows.rows[index], rows.actions, rows.cell[index], rows.context, rows.local)
