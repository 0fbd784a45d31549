"""How far a number lies from the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def farthest(known: NDArray[np.float64]) -> float:
    """Largest distance from the median in robust standard deviations; 0 where half of the values, or all, are equal."""
    median = float(np.median(known))
    away = np.abs(known - median)
    for low, high, width in ((0.25, 0.75, 1.349), (0.05, 0.95, 3.29)):
        spread = float(np.quantile(known, high) - np.quantile(known, low)) / width
        if spread > 0.0:
            return float(away.max()) / spread
    # Nearly always the same value: the scale is that of the values which differ.
    other = away[away > 0.0]
    return float(away.max()) / float(np.median(other)) if other.size else 0.0


def extreme(known: NDArray[np.float64]) -> float:
    """The value that lies farthest from the median."""
    return float(known[int(np.argmax(np.abs(known - np.median(known))))])
