"""Numbers whose values can't be: not finite, too far from the others, or in another unit than before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optimizer.model.columns import Column, NumberColumn
from optimizer.model.extremes import extreme, farthest
from optimizer.model.reading import parse_number
from optimizer.model.training.findings import SHIFT_ROWS, Finding, QualityLimits
from storage.records import JsonObject


def exploding(
    column: Column, number: NDArray[np.float64] | None, contexts: Sequence[JsonObject], limits: QualityLimits
) -> Finding | None:
    """What is wrong with a number's values; None for other columns.

    Args:
        column: how the model reads the feature.
        number: (n,) what it reads, NaN = missing.
        contexts: the rows (n), in order of time.
        limits: what is too much.
    """
    if number is None or not isinstance(column, NumberColumn) or column.timestamp:
        return None
    raw = [context.get(column.name) for context in contexts]
    endless = sum(isinstance(v, float) and not math.isfinite(v) for v in raw) / max(1, sum(v is not None for v in raw))
    if endless > limits.endless:
        detail = f"{100 * endless:.1f} % of its values are not finite"
        return Finding(column.name, "exploding", endless, limits.endless, left_out=True, detail=detail)
    known = number[~np.isnan(number)]
    far = farthest(known)
    if far > limits.far:
        detail = f"farthest value {extreme(known):g} lies {far:.3g} robust standard deviations from the median"
        return Finding(column.name, "exploding", far, limits.far, left_out=True, detail=detail)
    return _out_of_range(column.name, number, limits) or _strays(column, raw, limits)


def _strays(column: NumberColumn, raw: Sequence[object], limits: QualityLimits) -> Finding | None:
    """A few values so far away that the column reads them as missing."""
    if column.within is None:
        return None
    every = np.array([number for value in raw if (number := parse_number(value)) is not None])
    low, high = column.within
    strays, far = int(((every < low) | (every > high)).sum()), farthest(every)
    detail = (
        f"{strays} of {every.size} values can't be true and count as missing, here and in decisions: the farthest, "
        f"{extreme(every):g}, lies {far:.3g} robust standard deviations from the median"
    )
    return Finding(column.name, "exploding", far, limits.far, left_out=False, detail=detail)


def _out_of_range(name: str, number: NDArray[np.float64], limits: QualityLimits) -> Finding | None:
    """A change of unit or a broken source: newer values far outside all that was seen before."""
    half = number.size // 2
    older, newer = (part[~np.isnan(part)] for part in (number[:half], number[half:]))
    if min(older.size, newer.size) < SHIFT_ROWS:
        return None
    low, high = (float(q) for q in np.quantile(older, (0.005, 0.995)))
    margin = limits.ranges * (high - low)
    if margin == 0.0:
        return None
    outside = float(np.mean((newer < low - margin) | (newer > high + margin)))
    if outside <= limits.outside:
        return None
    detail = f"{100 * outside:.1f} % of the newer rows lie {limits.ranges:g} ranges outside {low:g} … {high:g}"
    return Finding(name, "exploding", outside, limits.outside, left_out=True, detail=detail)
