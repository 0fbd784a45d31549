"""A short coordinate system for variants: what their features and texts differ in, so that a new one starts warm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from optimizer.model.variantfeatures import (
    VARIANT_FEATURE_WIDTH,
    VARIANT_TEXT_WIDTH,
    Scales,
    fit_scales,
    variant_features,
)
from storage.records import Variant

#: Directions kept; with at most nine variants nothing is lost.
MAX_DIRECTIONS = 8
_RELATIVE = 1e-3


@dataclass(frozen=True)
class VariantBasis:
    """Principal directions of the training variants' hashed features.

    Attributes:
        mean: (p,) float64, the average variant.
        directions: (p, r) float64, scaled so that a training variant's coordinates are of size 1.
        scales: how large numbers are read. Models of before there were any have none.
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    scales: Scales = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Number of coordinates r."""
        return int(self.directions.shape[1])

    def coordinates(self, variant: Variant) -> tuple[float, ...]:
        """Where a variant lies, r numbers; what no training variant varied in counts for nothing."""
        point = (variant_features(variant, self.scales).astype(np.float64) - self.mean) @ self.directions
        return tuple(float(value) for value in point)


def fit_basis(variants: Sequence[Variant]) -> VariantBasis:
    """The basis of some variants; variants without features or texts, or a single one, have no directions."""
    width = VARIANT_FEATURE_WIDTH + VARIANT_TEXT_WIDTH
    if not variants:
        return VariantBasis(np.zeros(width), np.zeros((width, 0)))
    scales = fit_scales(variants)
    points = np.array([variant_features(variant, scales) for variant in variants], dtype=np.float64)
    mean = points.mean(axis=0)
    _, sizes, rows = np.linalg.svd(points - mean, full_matrices=False)
    keep = [i for i, size in enumerate(sizes[:MAX_DIRECTIONS]) if size > max(_RELATIVE * sizes[0], 1e-6)]
    scale = np.sqrt(len(variants)) / sizes[0] if keep else 1.0
    return VariantBasis(mean, rows[keep].T * scale, scales)
