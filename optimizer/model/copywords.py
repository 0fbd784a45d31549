"""What a variant's features and words each add to its coordinates (see ``variantbasis``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.model.hashing import hash_tokens, text_tokens
from optimizer.model.variantbasis import VariantBasis
from optimizer.model.variantfeatures import (
    UNSCALED,
    VARIANT_FEATURE_WIDTH,
    VARIANT_TEXT_WIDTH,
    Scales,
    feature_tokens,
)
from storage.records import Variant

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Token:
    """A feature ("discount", "tone=warm") or a word or word pair of a variant."""

    kind: Literal["feature", "word"]
    text: str


def token_vectors(variant: Variant, scales: Scales = UNSCALED) -> dict[Token, Floats]:
    """What each token adds to the variant's hashed numbers, (p,) each; together they are all of them."""
    described = feature_tokens(variant, scales)
    worded = text_tokens(variant.text)
    features, words = (
        _scaled(tokens, width, longest)
        for tokens, width, longest in (
            (described, VARIANT_FEATURE_WIDTH, True),
            (worded, VARIANT_TEXT_WIDTH, False),
        )
    )
    found: dict[Token, Floats] = {}
    for name, vector in features.items():
        found[Token("feature", name)] = np.concatenate((vector, np.zeros(VARIANT_TEXT_WIDTH)))
    for name, vector in words.items():
        found[Token("word", name)] = np.concatenate((np.zeros(VARIANT_FEATURE_WIDTH), vector))
    return found


def token_coordinates(variant: Variant, basis: VariantBasis) -> tuple[dict[Token, Floats], Floats]:
    """What each token adds to the variant's coordinates, (r,) each, and what is left: minus the average variant."""
    parts = {token: vector @ basis.directions for token, vector in token_vectors(variant, basis.scales).items()}
    coordinates = np.array(basis.coordinates(variant), dtype=np.float64)
    return parts, coordinates - sum(parts.values(), np.zeros(basis.width))


def _scaled(tokens: Sequence[tuple[str, float]], width: int, only_down: bool) -> dict[str, Floats]:
    """The hashed vector of each distinct token, scaled as all of them together are."""
    norm = float(np.linalg.norm(hash_tokens(list(tokens), width)))
    divisor = max(norm, 1.0) if only_down else norm
    found: dict[str, Floats] = {}
    for token, weight in tokens:
        if divisor > 0.0:
            found[token] = found.get(token, np.zeros(width)) + hash_tokens([(token, weight)], width) / divisor
    return found
