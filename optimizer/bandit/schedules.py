"""How much exploration is left after so many rows: pure functions of a count, so that a replay computes them anew."""

from __future__ import annotations

import math


def inverse_gap_gamma(rows: int, scale: float) -> float:
    """The gamma of inverse-gap weighting after ``rows`` learned rows: scale * sqrt(rows).

    Foster & Rakhlin 2020 ("Beyond UCB", theorem 1) let gamma grow with the square root of the horizon; here it grows
    with what was learned, so that nobody has to know the horizon. Without a row it is 0, which is uniform.

    Raises:
        ValueError: rows negative, or scale not above 0.
    """
    if rows < 0:
        raise ValueError(f"rows {rows} must not be negative")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale {scale} must be above 0 and finite")
    return scale * math.sqrt(rows)
