"""A cell: the map from a head's weights to the coefficients of one action's base row; see ``layout``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pairs:
    """For each pair of a cell's weights, the later one first: its places in the flat matrices of (weight, weight) and
    of (base coefficient, base coefficient), and the product of both scales."""

    weights: NDArray[np.int64]
    bases: NDArray[np.int64]
    scale: NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """Map of one action: base coefficient ``target[i]`` gets ``scale[i]`` x weight ``source[i]``.

    ``runs`` are the same map as (first weight, first base coefficient, width, scale): rows of blocks lie in one piece.
    None where some weights are left out, and the pieces are short; ``pairs`` may stand for them then.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    scale: NDArray[np.float64]
    runs: tuple[tuple[int, int, int, float], ...] | None
    pairs: Pairs | None = None

    def among(self, weights: NDArray[np.int64]) -> Cell:
        """The map of some weights alone (sorted), which are numbered by their place among them."""
        place = np.searchsorted(weights, self.source)
        kept = np.flatnonzero(np.append(weights, -1)[place] == self.source)
        return Cell(place[kept], self.target[kept], self.scale[kept], None)

    def onto(self, columns: NDArray[np.int64]) -> Cell:
        """The same map onto base rows that have lost all but some columns (sorted, every target among them)."""
        return Cell(self.source, np.searchsorted(columns, self.target), self.scale, None)

    def paired(self, size: int, base: int) -> Cell:
        """The same map with its pairs, for matrices of ``size`` weights and of ``base`` coefficients."""
        later, one = np.tril_indices(len(self.source))
        pairs = Pairs(
            self.source[later] * size + self.source[one],
            self.target[later] * base + self.target[one],
            self.scale[later] * self.scale[one],
        )
        return replace(self, pairs=pairs)

    def coefficients(self, weights: NDArray[np.float64], base: int) -> NDArray[np.float64]:
        """Base coefficients (…, base) of weights (…, d)."""
        flat = weights.reshape(-1, weights.shape[-1])
        out = np.zeros((base, len(flat)))
        np.add.at(out, self.target, (flat[:, self.source] * self.scale).T)
        return np.ascontiguousarray(out.T).reshape(*weights.shape[:-1], base)

    def accumulate(
        self,
        gradient: NDArray[np.float64],
        hessian: NDArray[np.float64],
        slope: NDArray[np.float64],
        inner: NDArray[np.float64],
    ) -> None:
        """Adds slope (base,) and inner products (base, base) of the cell's base rows to those of the weights, (d,) and
        the lower half of (d, d); what lies above it is left undefined.

        Piece by piece where there are pieces: one addition by index took ten times as long for thousands of weights. By
        pairs, where there are some, it takes a fifth of it.
        """
        if self.pairs is not None:
            gradient[self.source] += self.scale * slope[self.target]
            flat = hessian.reshape(-1)
            flat[self.pairs.weights] += inner.reshape(-1)[self.pairs.bases] * self.pairs.scale
            return
        if self.runs is None:
            gradient[self.source] += self.scale * slope[self.target]
            part = inner[np.ix_(self.target, self.target)] * (self.scale[:, None] * self.scale)
            hessian[np.ix_(self.source, self.source)] += part
            return
        for source, target, width, scale in self.runs:
            rows = slice(source, source + width)
            gradient[rows] += scale * slope[target : target + width]
            for other, place, size, factor in self.runs:
                if other <= source:
                    part = inner[target : target + width, place : place + size]
                    hessian[rows, other : other + size] += part * (scale * factor)
