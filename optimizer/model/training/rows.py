"""Training rows sorted into cells, with one pass that returns likelihood, gradient and Hessian of a logistic head."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.model.cell import Cell
from optimizer.model.examples import Examples
from optimizer.model.layingout import build_layout
from optimizer.model.layout import (
    MESSAGE_BLOCKS,
    NO_SEND_BLOCKS,
    Action,
    Layout,
    Unit,
)
from optimizer.model.matvec import matvec
from optimizer.model.timefeatures import (
    HOURS_OF_DAY,
    TIME_PRESENT,
    WEEKDAYS,
    WEEKEND,
    WEEKEND_DAYS,
    harmonics,
    hour_of_week,
)
from optimizer.model.training.rowterms import row_terms
from optimizer.model.training.symmetric import mirror
from optimizer.model.variantbasis import VariantBasis

#: Rows of one matrix product.
CHUNK = 16_384
#: Base rows that are built at once: so many stay in a processor's cache until they are done.
_AT_ONCE = 1_024
#: Base rows are kept between passes up to this many numbers (4 bytes each); some columns of a log's that is too long
#: for it up to half as many, since all else of a long log is in memory beside them.
KEEP = 60_000_000
#: Pairs of weights are kept between passes up to this many (12 bytes each).
PAIRS = 5_000_000
#: Inner products are taken in so many strips, of so many columns at least: narrow ones are slow.
_STRIPS, _STRIP = 4, 96
#: Rows from the second number to the third, in the order of cells, all of the cell of the first; and what is told of
#: rows: target, seen share, offset.
_Chunk = tuple[int, int, int]
_Told = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
#: A time column whose spread over the rows is below this is as good as constant.
_LIVE = 0.02


@dataclass(frozen=True)
class RowSet:
    """The rows of one kind, message or no_send.

    Attributes:
        rows: (m,) positions in the examples.
        actions: the distinct actions; cell: (m,) index into them.
        context: (n, F) float32 embedded contexts, and local: (n,) seconds, of all n examples: a long log has room for
            one copy of them.
    """

    rows: NDArray[np.int64]
    actions: tuple[Action, ...]
    cell: NDArray[np.int64]
    context: NDArray[np.float32]
    local: NDArray[np.int64]


def split_rows(examples: Examples, context: NDArray[np.float32], basis: VariantBasis) -> tuple[RowSet, RowSet]:
    """The message rows and the no_send rows of some examples with their embedded contexts (n, F)."""
    sent = examples.sent
    sets = []
    for rows in (np.flatnonzero(sent), np.flatnonzero(~sent)):
        codes = np.stack((examples.campaign[rows], examples.variant[rows], examples.channel[rows]), axis=1)
        distinct, cell = np.unique(codes, axis=0, return_inverse=True)
        actions = tuple(_action(examples, basis, *(int(i) for i in code)) for code in distinct)
        sets.append(RowSet(rows, actions, cell.reshape(-1).astype(np.int64), context, examples.local))
    return sets[0], sets[1]


def message_layout(rows: RowSet, basis: VariantBasis, plain: Sequence[int], owner: Sequence[int]) -> Layout:
    """The layout for what occurs in the message rows: their keys, live time columns and buckets.

    Args:
        rows: the message rows. basis: coordinates of variants.
        plain: positions of the plain numbers among the skip columns of f(x).
        owner: the feature of each skip column; what comes after them are network columns.
    """
    keys = _keys(rows)
    keys["feature"] = tuple(str(i) for i in range(basis.width))
    time: tuple[int, ...] = ()
    weekday: tuple[int, ...] = ()
    hour: tuple[int, ...] = ()
    week: tuple[int, ...] = ()
    if len(rows.rows):
        local = rows.local[rows.rows]
        live = _live_times(local)
        time, weekday = tuple(i for i in live if i not in WEEKDAYS), tuple(i for i in live if i in WEEKDAYS)
        buckets = np.unique(hour_of_week(local))
        hours = np.unique(buckets % HOURS_OF_DAY)
        hour = tuple(hours.tolist())
        week = tuple(buckets.tolist())
    parts = _parts(rows, plain, owner)
    return build_layout(MESSAGE_BLOCKS, keys, **parts, time=time, weekday=weekday, hour=hour, week=week)


def _live_times(local: NDArray[np.int64]) -> tuple[int, ...]:
    """The time columns that varied; on weekdays alone (or weekends) the weekend's days are the days once more."""
    varied = harmonics(local)[:, :TIME_PRESENT].std(axis=0) > _LIVE
    if not varied[WEEKEND]:
        varied[list(WEEKEND_DAYS)] = False
    return tuple(np.flatnonzero(varied).tolist())


def no_send_layout(rows: RowSet, plain: Sequence[int], owner: Sequence[int]) -> Layout:
    """The layout of the no_send heads; see ``message_layout``."""
    return build_layout(NO_SEND_BLOCKS, _keys(rows), **_parts(rows, plain, owner))


@dataclass(frozen=True)
class _Part:
    """Some of the weights: their cells, the columns of base rows that these look at (None = all), and the base rows
    with these columns alone (None where they don't fit in memory)."""

    live: NDArray[np.int64]
    cells: tuple[Cell, ...]
    columns: NDArray[np.int64] | None
    kept: NDArray[np.float32] | None


class Design:
    """Rows of one kind laid out for passes; sorted by cell inside, in and out in the rows' own order."""

    def __init__(self, layout: Layout, rows: RowSet) -> None:
        self.layout = layout
        self.count = len(rows.rows)
        self._cells: list[Cell] = [layout.cell(action) for action in rows.actions]
        self._order = np.argsort(rows.cell, kind="stable")
        self._bounds = np.concatenate(([0], np.cumsum(np.bincount(rows.cell, minlength=len(rows.actions)))))
        self._place, self._context, self._local = rows.rows[self._order], rows.context, rows.local
        self._kept = self._built(0, self.count) if self.count * layout.base <= KEEP else None
        self._whole = _Part(np.arange(layout.size), tuple(self._cells), None, self._kept)
        self._part = self._whole

    def apart(self) -> Design:
        """The same rows for the passes of one fit: what these keep for the next is their own, so that several fits can
        go on at once."""
        other = copy(self)
        other._part = other._whole
        return other

    def logits(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """η without offset, (m,), of weights (d,)."""
        out = np.empty(self.count)
        for cell, start, stop in self._chunks():
            coefficients = self._cells[cell].coefficients(weights, self.layout.base).astype(np.float32)
            out[self._order[start:stop]] = matvec(self._base(start, stop), coefficients)
        return out

    def derivatives(
        self,
        weights: NDArray[np.float64],
        outcome: NDArray[np.float64],
        offset: NDArray[np.float64],
        seen: NDArray[np.float64] | None = None,
        live: NDArray[np.int64] | None = None,
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Log-likelihood, gradient (k,) and information (k, k) of a logistic head with offsets (m,).

        Products run in float32, sums over chunks in float64. Rows whose outcome (m,) is NaN count for nothing. ``seen``
        (m,) is the share of an outcome's happenings that would have been seen by now (default 1); see ``rowterms``.
        ``live``: the weights that the derivatives are wanted for, sorted (default all); all others must be 0.
        """
        told, part = self._told(outcome, offset, seen), self._only(live)
        size, base = len(part.live), self.layout.base if part.columns is None else len(part.columns)
        wanted = weights[part.live]
        total, gradient, hessian = 0.0, np.zeros(size), np.zeros((size, size))
        slope, inner = np.zeros(base), np.zeros((base, base))
        for chunk in self._chunks():
            at = part.cells[chunk[0]]
            rows, likelihood, gain, curvature = self._terms(chunk, part, wanted, told)
            total += float(likelihood.sum(dtype=torch.float64))
            slope += matvec(gain.numpy(), rows)
            _add_inner(rows * torch.sqrt(curvature).numpy()[:, None], inner)
            if chunk[2] == self._bounds[chunk[0] + 1]:
                at.accumulate(gradient, hessian, slope, mirror(inner))
                slope[:] = 0.0
                inner[:] = 0.0
        return total, gradient, mirror(hessian)

    def likelihood(
        self,
        weights: NDArray[np.float64],
        outcome: NDArray[np.float64],
        offset: NDArray[np.float64],
        seen: NDArray[np.float64] | None = None,
        live: NDArray[np.int64] | None = None,
    ) -> float:
        """The log-likelihood alone, for much less work; see ``derivatives``."""
        told, part = self._told(outcome, offset, seen), self._only(live)
        terms = (self._terms(chunk, part, weights[part.live], told) for chunk in self._chunks())
        return sum(float(likelihood.sum(dtype=torch.float64)) for _, likelihood, _, _ in terms)

    def slopes(
        self,
        weights: NDArray[np.float64],
        outcome: NDArray[np.float64],
        offset: NDArray[np.float64],
        seen: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gradient (d,) and the diagonal (d,) of the information, of all weights; see ``derivatives``."""
        told = self._told(outcome, offset, seen)
        gradient, information = np.zeros(self.layout.size), np.zeros(self.layout.size)
        for chunk in self._chunks():
            at = self._cells[chunk[0]]
            rows, _, gain, curvature = self._terms(chunk, self._whole, weights, told)
            gradient[at.source] += at.scale * matvec(gain.numpy(), rows)[at.target]
            information[at.source] += at.scale**2 * matvec(curvature.numpy(), rows**2)[at.target]
        return gradient, information

    def _terms(
        self, chunk: _Chunk, part: _Part, weights: NDArray[np.float64], told: _Told
    ) -> tuple[NDArray[np.float32], torch.Tensor, torch.Tensor, torch.Tensor]:
        """Base rows of a chunk, and what each adds to likelihood, slope and curvature; ``weights`` are the part's."""
        cell, start, stop = chunk
        rows = self._base(start, stop, part)
        coefficients = part.cells[cell].coefficients(weights, rows.shape[1]).astype(np.float32)
        eta = torch.from_numpy(matvec(rows, coefficients))
        target, share, fixed = (column[start:stop] for column in told)
        return rows, *row_terms(eta + fixed, target, share)

    def _told(
        self, outcome: NDArray[np.float64], offset: NDArray[np.float64], seen: NDArray[np.float64] | None
    ) -> _Told:
        """Target, seen share (0 of what is unknown) and offset of each row, in the order of cells."""
        known = np.isfinite(outcome)
        share = known.astype(np.float64) if seen is None else np.where(known, seen, 0.0)
        return self._sorted(np.where(known, outcome, 0.0)), self._sorted(share), self._sorted(offset)

    def _only(self, live: NDArray[np.int64] | None) -> _Part:
        """What a pass over some of the weights needs; kept for the next pass, which mostly wants the same."""
        if live is None or len(live) == self.layout.size:
            return self._whole
        if not np.array_equal(self._part.live, live):
            cells = [cell.among(live) for cell in self._cells]
            columns = np.unique(np.concatenate([np.zeros(0, np.int64), *(cell.target for cell in cells)]))
            self._part = self._whole  # what was kept of another part goes before this one's is built
            kept = self._kept_of(columns)
            cells = [cell.onto(columns) for cell in cells]
            if sum(len(cell.source) ** 2 for cell in cells) <= PAIRS:
                cells = [cell.paired(len(live), len(columns)) for cell in cells]
            self._part = _Part(live, tuple(cells), columns, kept)
        return self._part

    def _kept_of(self, columns: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Some columns of all base rows, where they fit in memory."""
        if self._kept is not None:
            return self._kept[:, columns]
        return self._built(0, self.count, columns) if 2 * self.count * len(columns) <= KEEP else None

    def _sorted(self, column: NDArray[np.float64]) -> torch.Tensor:
        return torch.from_numpy(column[self._order].astype(np.float32))

    def _chunks(self) -> list[_Chunk]:
        return [
            (cell, start, min(start + CHUNK, int(self._bounds[cell + 1])))
            for cell in range(len(self._cells))
            for start in range(int(self._bounds[cell]), int(self._bounds[cell + 1]), CHUNK)
        ]

    def _base(self, start: int, stop: int, part: _Part | None = None) -> NDArray[np.float32]:
        part = part or self._whole
        return self._built(start, stop, part.columns) if part.kept is None else part.kept[start:stop]

    def _built(self, start: int, stop: int, columns: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Base rows in the order of cells; some columns of them."""
        if stop - start > _AT_ONCE:
            out = np.empty((stop - start, self.layout.base if columns is None else len(columns)), np.float32)
            for first in range(start, stop, _AT_ONCE):
                last = min(first + _AT_ONCE, stop)
                out[first - start : last - start] = self._built(first, last, columns)
            return out
        place = self._place[start:stop]
        return self.layout.base_rows(self._context[place], self._local[place], columns)


def _add_inner(rows: NDArray[np.float32], inner: NDArray[np.float64]) -> None:
    """Adds the inner products of columns (n, b), strip by strip, to the lower half of ``inner`` (b, b), float64: four
    strips take five eighths of the work of the whole product."""
    for start, stop in _strips(len(inner)):
        inner[start:stop, :stop] += rows[:, start:stop].T @ rows[:, :stop]


def _strips(size: int) -> list[tuple[int, int]]:
    width = max(_STRIP, -(-size // _STRIPS))
    return [(start, min(start + width, size)) for start in range(0, size, width)]


def _action(examples: Examples, basis: VariantBasis, campaign: int, variant: int, channel: int) -> Action:
    owner = examples.campaigns[campaign]
    if variant < 0:
        return Action(owner.campaign_id)
    chosen = owner.variants[variant]
    return Action(owner.campaign_id, chosen.id, owner.channels[channel].id, basis.coordinates(chosen))


def _parts(rows: RowSet, plain: Sequence[int], owner: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """The parts of f(x): plain numbers, details, network columns (each a feature of its own); and their owners."""
    encoded, features = len(owner), len(set(owner))
    network = range(encoded, rows.context.shape[1])
    return {
        "owner": (*owner, *(features + i for i, _ in enumerate(network))),
        "plain": tuple(plain),
        "detail": tuple(sorted(set(range(encoded)) - set(plain))),
        "network": tuple(network),
    }


def _keys(rows: RowSet) -> dict[Unit, tuple[str, ...]]:
    """Keys of every one-hot unit, those with the most rows first (ties by name)."""
    sizes = np.bincount(rows.cell, minlength=len(rows.actions))
    out: dict[Unit, tuple[str, ...]] = {"one": ("",)}
    units: Sequence[Unit] = ("campaign", "channel", "variant", "pair")
    for unit in units:
        counts: dict[str, int] = {}
        for action, size in zip(rows.actions, sizes.tolist(), strict=True):
            key = action.key(unit)
            if key is not None:
                counts[key] = counts.get(key, 0) + size
        out[unit] = tuple(sorted(counts, key=lambda key: (-counts[key], key)))
    return out
