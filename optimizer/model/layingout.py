"""Laying out the weights of a head: which units get weights of their own, and which go without when space is short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optimizer.model.layout import PARTS, SEGMENTS, Block, Layout, Segment, Unit

#: The order in which keys with few rows lose weights of their own.
_DISPENSABLE: tuple[tuple[Unit, Segment], ...] = (
    ("variant", "detail"),
    ("pair", "time"),
    ("variant", "network"),
    ("variant", "time"),
    ("variant", "plain"),
    ("pair", "one"),
    ("variant", "one"),
    ("campaign", "one"),
)
#: Limit on the weights of a head: a Cholesky factor of this size takes about .3 s. Beyond it the keys with the fewest
#: rows lose their own weights, those for context and time first.
MAX_WEIGHTS = 3_500


def build_layout(
    shape: Sequence[tuple[Unit, Segment, float]],
    keys: Mapping[Unit, Sequence[str]],
    **columns: Sequence[int],
) -> Layout:
    """Lays out the weights of a head.

    Args:
        shape: unit, segment and starting precision of every block.
        keys: keys of each unit kind, those with the most rows first (they keep their weights when space is short).
        columns: ``plain, detail, network, time, hour, week`` of the layout; one left out is empty.

    A unit kind with a single key gets no block beside its intercept: it would copy the shared one.
    """
    empty = Layout((), *(tuple(columns.get(part, ())) for part in PARTS))
    widths = {segment: len(empty.columns(segment)) for segment in SEGMENTS}
    counts: dict[int, int] = {}
    for i, (unit, segment, _) in enumerate(shape):
        number = len(keys.get(unit, ()))
        copies = unit in ("campaign", "channel", "variant") and number == 1
        copies = copies or (unit == "pair" and number == len(keys.get("variant", ())))
        counts[i] = 0 if widths[segment] == 0 or (copies and segment != "one") else number
    spare = MAX_WEIGHTS - sum(counts[i] * widths[segment] for i, (_, segment, _) in enumerate(shape))
    for unit, segment in _DISPENSABLE:
        for i, (u, s, _) in enumerate(shape):
            if (u, s) == (unit, segment) and spare < 0 and counts[i]:
                cut = min(counts[i], -(spare // widths[s]))
                counts[i] -= cut
                spare += cut * widths[s]
    blocks = []
    start = 0
    for i, (unit, segment, precision) in enumerate(shape):
        if counts[i]:
            blocks.append(Block(unit, segment, tuple(keys[unit][: counts[i]]), start, widths[segment], precision))
            start += blocks[-1].size
    return replace(empty, blocks=tuple(blocks))
