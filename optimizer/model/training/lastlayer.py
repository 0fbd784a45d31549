"""All heads of a model at once: which rows each one learns from, and what it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import needs_message
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.funnel import taught
from optimizer.model.heads import Heads
from optimizer.model.layout import Layout
from optimizer.model.training.actionparts import THROUGH
from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.model.training.posterior import IDLE, Posterior, base_offset, fit_posterior
from optimizer.model.training.rows import Design, RowSet, message_layout, no_send_layout, split_rows
from optimizer.model.training.settled import SettledHead, SettledKind
from optimizer.model.training.threads import side_by_side
from optimizer.model.variantbasis import VariantBasis

#: Draws in the frozen bank. M = 16 is as good for regret as 64; more give finer propensities and cost time a decision.
DRAWS = 32
#: Precisions are first learned on this many rows: they hardly depend on the rest, and passes over all rows are dear.
PILOT = 30_000
PILOT_FROM = 2 * PILOT
#: What not sending shares with sending a priori: whom the outcome happens to. Its own weights are differences from the
#: message heads', which matters where few are left without a message (Hillstrom at 2,000 rows: z 3.2 -> 3.4).
_SHARED = frozenset({"one*plain", "one*detail", "one*network"})


@dataclass(frozen=True)
class Table:
    """Examples with embedded contexts, split by kind and laid out.

    Attributes:
        examples: the n rows. basis: coordinates of variants.
        context: (n, F) embedded contexts.
        message, no_send: rows of each kind with their layout.
        asked: the groups of weights that the spec's products were found to be asked for.
    """

    examples: Examples
    basis: VariantBasis
    context: NDArray[np.float32]
    message: tuple[RowSet, Layout]
    no_send: tuple[RowSet, Layout]
    asked: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fits:
    """Posteriors by outcome, of one kind, over one layout; ``centres``: prior means of an anchored model's weights."""

    layout: Layout
    posteriors: Mapping[str, Posterior]
    centres: Mapping[str, NDArray[np.float64]] | None = None

    def heads(self, kind: str, seed: int) -> Heads:
        """The heads to serve; draws are keyed by (seed, kind, outcome)."""
        names = tuple(sorted(self.posteriors))
        parts = [self.posteriors[name] for name in names]
        draws = [part.draws(DRAWS, _key(seed, kind, name)) for name, part in zip(names, parts, strict=True)]
        size, groups = self.layout.size, len(self.layout.groups)
        return Heads(
            outcomes=names,
            layout=self.layout,
            mean=np.array([part.mean for part in parts]).reshape(len(names), size),
            bank=np.array(draws, dtype=np.float32).reshape(len(names), DRAWS, size),
            precision=np.array([part.precision for part in parts]).reshape(len(names), groups),
            offset=np.array([part.offset for part in parts]),
            seed=_key(seed, kind, "unseen"),
            centre=None if self.centres is None else np.array([self.centres[n] for n in names]).reshape(-1, size),
        )


def tabulate(examples: Examples, context: NDArray[np.float32], spec: FeatureSpec, basis: VariantBasis) -> Table:
    """Splits examples by kind and lays out the weights that they can teach; ``context`` (n, F) is f(x)."""
    parts = (spec.plain, spec.owner)
    message, no_send = split_rows(examples, context, basis)
    sent, stayed = message_layout(message, basis, *parts), no_send_layout(no_send, *parts)
    return Table(examples, basis, context, (message, sent), (no_send, stayed), _asked(spec))


def _asked(spec: FeatureSpec) -> frozenset[str]:
    """The groups through which each product was found to act."""
    first = spec.width - len(spec.products)
    return frozenset(
        f"{block}:{spec.owner[first + i]}"
        for i, product in enumerate(spec.products)
        for through, blocks in THROUGH.items()
        if product.through == through
        for block in blocks
    )


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
            quarter of the time, since what they found idle stays so.
        seed: of the pilot sample.
        options: the prior on the precisions, where they are learned.
    """
    starts, nears = start or (None, None), near or (None, None)
    message = _fit_kind(table, "message", {}, starts[0], anew, nears[0], seed, options)
    shared = _shared(table.no_send[1], message)
    return message, _fit_kind(table, "no_send", shared, starts[1], anew, nears[1], seed, options)


def may_differ(layout: Layout, centre: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(groups,) whether a group was in use, or can't be idle: what only a context adds may be."""
    used = np.bincount(layout.group, np.abs(centre), len(layout.groups)) > 0.0
    return np.asarray(used | np.array([":" not in name for name, _ in layout.groups]))


def continue_last_layer(table: Table, settled: tuple[SettledKind, SettledKind]) -> tuple[Fits, Fits]:
    """Posteriors of the message heads and of the no_send heads from settled rows and those of the table, which come
    after them. Layouts and precisions stay as they were."""
    message = _continued(table, "message", {}, settled[0])
    return message, _continued(table, "no_send", _shared(settled[1].layout, message), settled[1])


def _continued(table: Table, kind: str, centres: Mapping[str, NDArray[np.float64]], before: SettledKind) -> Fits:
    design = Design(before.layout, (table.message if kind == "message" else table.no_send)[0])
    known = targets(table, kind)
    posteriors = {}
    for name, head in before.heads.items():
        target = known.get(name) or nothing(design.count)
        posteriors[name] = fit_posterior(
            design,
            target.outcome,
            head.offset,
            seen=target.seen,
            centre=centres.get(name),
            mean=head.mean,
            precision=head.precision,
            steps=6,
            empirical=False,
            settled=head,
        )
    return Fits(before.layout, posteriors)


def settled_kinds(
    table: Table, fits: tuple[Fits, Fits], count: int, before: tuple[SettledKind, SettledKind] | None = None
) -> tuple[SettledKind, SettledKind]:
    """What the first ``count`` rows of the examples say of every head, around the weights that were fitted to all.

    ``before``: what earlier rows say; the same weights are spoken of then.
    """
    message, no_send = before or (None, None)
    shared = _shared(fits[1].layout, fits[0]) if fits[1].centres is None else fits[1].centres
    return (
        _settled_kind(table, "message", fits[0], fits[0].centres or {}, count, message),
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


def nothing(count: int) -> Target:
    """The target of a head of which no row knows anything."""
    return Target(np.full(count, np.nan), np.ones(count), 0.0)


def _shared(layout: Layout, message: Fits) -> dict[str, NDArray[np.float64]]:
    """Prior means of the no_send weights of ``layout``, by outcome: what sending and not sending share."""
    return {
        name: carried(layout, message.layout, posterior.mean, _SHARED) for name, posterior in message.posteriors.items()
    }


@dataclass(frozen=True)
class Target:
    """What one head learns from m rows: outcomes (m,), their seen shares (m,), the offset of its intercept."""

    outcome: NDArray[np.float64]
    seen: NDArray[np.float64]
    offset: float


def targets(table: Table, kind: str) -> dict[str, Target]:
    """The target of every outcome with a head of that kind.

    A kind without known rows takes the other kind's base rate: without evidence, sending makes no difference.
    """
    rows = (table.message if kind == "message" else table.no_send)[0].rows
    out = {}
    for name in table.examples.outcomes:
        column, share = taught(table.examples, name)
        sent_only = needs_message(name)
        if kind == "no_send" and sent_only:
            continue
        known = bool(np.isfinite(column[rows]).any())
        base = rows if known else np.flatnonzero(table.examples.sent | (not sent_only))
        out[name] = Target(column[rows], share[rows], base_offset(column[base], share[base]))
    return out


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
        return cls(offset, mean, _precisions(layout, heads.layout, heads.precision[head]), steps=6, empirical=False)


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
    if start is None and near is None and large:
        pilot = np.sort(np.random.default_rng(seed).choice(len(rows.rows), PILOT, replace=False))
    small = None if pilot is None else Design(layout, _subset(rows, pilot))

    def fitted(told: tuple[str, Target]) -> Posterior:
        name, target = told
        fit = partial(fit_posterior, centre=centres.get(name), asked=table.asked, options=options)
        begin = _Start(target.offset)
        if start is not None and name in start.outcomes:
            begin = _Start.of_heads(layout, start, name, anew)
        elif near is not None and name in near.posteriors:
            found = near.posteriors[name]
            mean, precision = (
                carried(layout, near.layout, found.mean),
                _precisions(layout, near.layout, found.precision),
            )
            begin = _Start(target.offset, mean, precision, steps=3 if large else 8)
        elif small is not None and pilot is not None:
            found = fit(small.apart(), target.outcome[pilot], target.offset, seen=target.seen[pilot])
            begin = _Start(target.offset, found.mean, found.precision, steps=3)
        return fit(design.apart(), target.outcome, seen=target.seen, **begin._asdict())

    told = targets(table, kind)
    return Fits(layout, dict(zip(told, side_by_side(fitted, [*told.items()], len(rows.rows)), strict=True)))


def carried(
    layout: Layout, old: Layout, weights: NDArray[np.float64], only: frozenset[str] | None = None
) -> NDArray[np.float64]:
    """Weights (d,) of an old layout moved into a new one by block, key and column; what is new is 0."""
    out = np.zeros(layout.size)
    blocks = {block.name: block for block in old.blocks if only is None or block.name in only}
    for block in layout.blocks:
        before = blocks.get(block.name)
        if before is None:
            continue
        place = {column: i for i, column in enumerate(old.columns(block.segment))}
        columns = layout.columns(block.segment)
        shared = [(i, place[column]) for i, column in enumerate(columns) if column in place]
        for row, key in enumerate(block.keys):
            then = before.position.get(key)
            if then is not None:
                for to, source in shared:
                    out[block.start + row * block.width + to] = weights[before.start + then * before.width + source]
    return out


def _precisions(layout: Layout, old: Layout, precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The prior precisions (groups,) of an old layout moved into a new one; a new group has its starting one."""
    before = {name: float(value) for (name, _), value in zip(old.groups, precision, strict=True)}
    return np.array([before.get(name, first) for name, first in layout.groups])


def _subset(rows: RowSet, index: NDArray[np.int64]) -> RowSet:
    return RowSet(rows.rows[index], rows.actions, rows.cell[index], rows.context, rows.local)


def _key(seed: int, kind: str, name: str) -> int:
    """A 63-bit seed of its own for every (seed, kind, name)."""
    digest = blake2b(f"{seed}|{kind}|{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
