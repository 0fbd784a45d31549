"""Laying out the weights of a head: which units get weights of their own, and which go without when space is short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optimizer.model.layout import CONTEXTUAL, PARTS, SEGMENTS, Block, Layout, Segment, Unit

#: The order in which keys with few rows lose weights of their own: those that can't rest, and those of context.
_RESTLESS: tuple[tuple[Unit, Segment], ...] = (
    ("pair", "time"),
    ("variant", "time"),
    ("variant", "weekday"),
    ("pair", "one"),
    ("variant", "one"),
    ("campaign", "one"),
)
_CONTEXTUAL: tuple[tuple[Unit, Segment], ...] = (("variant", "detail"), ("variant", "network"), ("variant", "plain"))
#: Limits on the weights of a head. All that can't rest are in every fit (a Cholesky factor of this size takes about
#: .3 s); of those of context a fit takes what tells most (``posterior.AT_ONCE``), and what is limited is the artifact.
#: Where a variant has no weights for what people bought, it isn't offered to those who want it, has fewer rows than
#: others for that, and so goes without: with 3,500 weights for everything, cross-selling cost 1,466 and 1,403 in place
#: of 1,045 and 1,073 of regret.
MAX_RESTLESS = 3_500
MAX_WEIGHTS = 12_000


def build_layout(
    shape: Sequence[tuple[Unit, Segment, float]],
    keys: Mapping[Unit, Sequence[str]],
    **columns: Sequence[int],
) -> Layout:
    """Lays out the weights of a head.

    Args:
        shape: unit, segment and starting precision of every block.
        keys: keys of each unit kind, those with the most rows first (they keep their weights when space is short).
        columns: ``plain, detail, network, time, weekday, hour, week`` of the layout; one left out is empty.

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
    restless = [i for i, (_, segment, _) in enumerate(shape) if segment not in CONTEXTUAL]
    for most, among, order in ((MAX_RESTLESS, restless, _RESTLESS), (MAX_WEIGHTS, range(len(shape)), _CONTEXTUAL)):
        spare = most - sum(counts[i] * widths[shape[i][1]] for i in among)
        for dispensable in order:
            for i, (unit, segment, _) in enumerate(shape):
                if (unit, segment) == dispensable and spare < 0 and counts[i]:
                    cut = min(counts[i], -(spare // widths[segment]))
                    counts[i] -= cut
                    spare += cut * widths[segment]
    blocks = []
    start = 0
    for i, (unit, segment, precision) in enumerate(shape):
        if counts[i]:
            kept = _in_order(unit, keys[unit][: counts[i]])
            blocks.append(Block(unit, segment, kept, start, widths[segment], precision))
            start += blocks[-1].size
    return replace(empty, blocks=tuple(blocks))


def _in_order(unit: Unit, keys: Sequence[str]) -> tuple[str, ...]:
    """Keys in an order that their rows don't change: the noise of draws goes by the weights' places, and two variants
    that changed places would swap theirs. Coordinates of variants' features have places of their own."""
    return tuple(keys) if unit == "feature" else tuple(sorted(keys))
