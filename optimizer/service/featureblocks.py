"""Blocks of newly decided contexts against the rows that a model was trained on.

What the training rows looked like is in the model's feature spec: a number's quantiles, a category's shares, how often
a value is missing. So where a workspace has one campaign nothing else has to be kept, and the comparison is with
exactly what the model knows. Of several campaigns that share a model each is compared with its own training rows, whose
counts the model keeps (``model.featurebins.own_counts``): they differ in what they send, and that is no change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optimizer.bandit.drift import compare
from optimizer.model.columns import Column
from optimizer.model.featurebins import Floats, counts, expected_shares
from optimizer.model.features import FeatureSpec
from storage.records import JsonObject

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
    block: Block,
    spec: FeatureSpec,
    trained: int,
    contexts: Sequence[JsonObject],
    own: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Block, dict[str, tuple[float, float]]]:
    """Fills blocks with contexts and compares those that become full.

    Args:
        block: the one that is being filled; one of another spec is thrown away.
        spec: the served model's features.
        trained: rows that it was trained on.
        contexts: newly decided ones with their moments (``model.moment``), in order.
        own: of each column how many training rows of this campaign are in each bin; none = nothing to compare with
            (None = as the spec says of all rows).

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
        filled = {c.name: _sum(block.counts.get(c.name), counts(c, part)) for c in spec.columns}
        block = replace(block, rows=block.rows + len(part), counts=filled)
        if block.rows >= BLOCK_ROWS:
            error = BLOCK_ERROR / max(1, len(spec.columns))
            older = {c.name: _older(c, trained, own) for c in spec.columns}
            shifts = {c.name: _shift(older[c.name], block.counts[c.name], error) for c in spec.columns}
            block = empty_block(spec.hash)
    return block, shifts


def _older(column: Column, trained: int, own: Mapping[str, Sequence[float]] | None) -> Floats:
    expected = expected_shares(column)
    if own is None:
        return trained * expected
    return np.asarray(own.get(column.name, np.zeros(len(expected))), dtype=np.float64)


def _shift(older: Floats, newer: Sequence[float], error: float) -> tuple[float, float]:
    found = compare(older, np.asarray(newer, dtype=np.float64), error)
    return found.stability, found.limit


def _sum(before: Sequence[float] | None, more: Floats) -> list[float]:
    return [float(x) for x in (more if before is None else np.asarray(before) + more)]
