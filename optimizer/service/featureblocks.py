"""Blocks of newly decided contexts against the rows that a model was trained on.

What the training rows looked like is in the model's feature spec: a number's quantiles, a category's shares, how often
a value is missing. So nothing else has to be kept, and the comparison is with exactly what the model knows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.drift import compare
from optimizer.model.columns import CategoryColumn, Column, NumberColumn
from optimizer.model.features import FeatureSpec
from storage.records import JsonObject

Floats = NDArray[np.float64]

#: Decisions of a block. Rows of one recipient are not independent, so far fewer would cry wolf.
BLOCK_ROWS = 1_000
#: Chance that a block of unchanged features raises an alarm, over all features together.
BLOCK_ERROR = 0.001


@dataclass(frozen=True)
class Block:
    """A block that is being filled: the spec that it is read by, its rows, and counts of each feature's bins."""

    spec: str
    rows: int
    counts: Mapping[str, Sequence[float]]


def empty_block(spec: str) -> Block:
    """A block before its first row."""
    return Block(spec, 0, {})


def compared(
    block: Block, spec: FeatureSpec, trained: int, contexts: Sequence[JsonObject]
) -> tuple[Block, dict[str, tuple[float, float]]]:
    """Fills blocks with contexts and compares those that become full.

    Args:
        block: the one that is being filled; one of another spec is thrown away.
        spec: the served model's features.
        trained: rows that it was trained on.
        contexts: newly decided ones with their moments (``model.moment``), in order.

    Returns:
        The block that is being filled, and of each feature in the last full block (stability index, limit): it has
        shifted where the index is above its limit; empty when no block became full.
    """
    if block.spec != spec.hash:
        block = empty_block(spec.hash)
    shifts: dict[str, tuple[float, float]] = {}
    start = 0
    while start < len(contexts):
        part = contexts[start : start + BLOCK_ROWS - block.rows]
        start += len(part)
        counts = {c.name: _sum(block.counts.get(c.name), _counts(c, part)) for c in spec.columns}
        block = replace(block, rows=block.rows + len(part), counts=counts)
        if block.rows >= BLOCK_ROWS:
            error = BLOCK_ERROR / max(1, len(spec.columns))
            shifts = {c.name: _shift(c, trained, block.counts[c.name], error) for c in spec.columns}
            block = empty_block(spec.hash)
    return block, shifts


def _shift(column: Column, trained: int, counts: Sequence[float], error: float) -> tuple[float, float]:
    found = compare(trained * expected_shares(column), np.asarray(counts, dtype=np.float64), error)
    return found.stability, found.limit


def expected_shares(column: Column) -> Floats:
    """Shares of a column's bins among the training rows, the missing ones first; sums to 1.

    Bins are the quantile bins of a number, the two values of a flag (0 and 1), the levels and the rest of a category,
    "present" of anything else. Half of the rows that equal a quantile belong to each side, as the mid-ranks have it.
    """
    missing = column.missing or 0.0 if isinstance(column, NumberColumn | CategoryColumn) else 0.0
    parts = np.ones(1)
    if isinstance(column, NumberColumn) and column.knots:
        parts = np.diff(np.concatenate(([0.0], column.ranks[1:-1], [1.0])))
    elif isinstance(column, NumberColumn) and _is_flag(column):
        parts = np.array([1.0 - column.mean, column.mean])
    elif isinstance(column, CategoryColumn):
        levels = np.array(column.centre[: len(column.levels)])
        parts = np.concatenate((levels, [max(0.0, 1.0 - float(levels.sum()))]))
    return np.concatenate(([missing], (1.0 - missing) * parts / parts.sum()))


def _is_flag(column: NumberColumn) -> bool:
    spread = column.mean * (1.0 - column.mean)
    return spread > 0.0 and abs(column.scale**2 - spread) < 1e-9


def _counts(column: Column, contexts: Sequence[JsonObject]) -> Floats:
    """Counts of the bins of ``expected_shares``."""
    counts = np.zeros(len(expected_shares(column)))
    for context in contexts:
        for place in _places(column, context):
            counts[place] += 0.5
    return counts


def _places(column: Column, context: JsonObject) -> tuple[int, int]:
    """The two bins that a row counts in by a half; both are one but where a number equals a quantile."""
    if isinstance(column, NumberColumn):
        x = column.parse(context)
        if x is None:
            return 0, 0
        if column.knots:
            inner = column.knots[1:-1]
            return 1 + bisect_left(inner, x), 1 + bisect_right(inner, x)
        place = 2 if _is_flag(column) and x > 0.5 else 1
        return place, place
    if isinstance(column, CategoryColumn):
        level = column.parse(context)
        known = level is not None and level in column.levels
        place = 0 if level is None else 1 + (column.levels.index(level) if known else len(column.levels))
        return place, place
    place = 1 if isinstance(context.get(column.name), str) else 0
    return place, place


def _sum(before: Sequence[float] | None, more: Floats) -> list[float]:
    return [float(x) for x in (more if before is None else np.asarray(before) + more)]
