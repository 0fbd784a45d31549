"""Numbers that can't be true: how far they lie from the others, and which are missing where they are few.

A slip of the keyboard, or a 1e9 that means "unknown", lies millions of robust standard deviations away. A few such are
read as missing, in training and in service, and the others tell what they tell. With more the feature can't be trusted
(``training.exploding``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Distance from the median, in robust standard deviations, from which on a number can't be true.
FAR = 1e6
#: Such numbers are few under this share.
FEW = 0.01


def farthest(known: NDArray[np.float64]) -> float:
    """Largest distance from the median in robust standard deviations; 0 where all are equal."""
    away = np.abs(known - np.median(known))
    spread = _spread(known, away)
    return float(away.max()) / spread if spread > 0.0 else 0.0


def extreme(known: NDArray[np.float64]) -> float:
    """The value that lies farthest from the median."""
    return float(known[int(np.argmax(np.abs(known - np.median(known))))])


def believed(known: NDArray[np.float64]) -> tuple[float, float] | None:
    """The least and the greatest number that are believed, where a few aren't; None where none or too many aren't."""
    median = float(np.median(known))
    away = np.abs(known - median)
    reach = FAR * _spread(known, away)
    share = float(np.mean(away > reach)) if reach > 0.0 else 0.0
    return (median - reach, median + reach) if 0.0 < share < FEW else None


def _spread(known: NDArray[np.float64], away: NDArray[np.float64]) -> float:
    """The robust standard deviation; ``away``: distances from the median. 0 where all are equal."""
    for low, high, width in ((0.25, 0.75, 1.349), (0.05, 0.95, 3.29)):
        spread = float(np.quantile(known, high) - np.quantile(known, low)) / width
        if spread > 0.0:
            return spread
    # Nearly always the same value: the scale is that of the values which differ.
    other = away[away > 0.0]
    return float(np.median(other)) if other.size else 0.0
