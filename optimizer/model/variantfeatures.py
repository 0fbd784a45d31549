"""A variant's own features and text as numbers: hashed, the same for every model, nothing learned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from optimizer.model.columns import parse_category, parse_number
from optimizer.model.hashing import hash_tokens, text_vector
from storage.records import Variant

VARIANT_FEATURE_WIDTH = 16
VARIANT_TEXT_WIDTH = 16


def variant_features(variant: Variant) -> NDArray[np.float32]:
    """A variant's features and text as hashed numbers, float32 (32,): the same for every model, no fitting.

    Categories hash as ``name=value``, numbers as ``name`` weighted by their signed log; each half has unit length, so
    a variant with many features doesn't outweigh one with few.
    """
    described = hash_tokens(feature_tokens(variant), VARIANT_FEATURE_WIDTH)
    norm = float(np.linalg.norm(described))
    described = described / max(norm, 1.0)
    return np.concatenate((described, text_vector(variant.text, VARIANT_TEXT_WIDTH))).astype(np.float32)


def feature_tokens(variant: Variant) -> list[tuple[str, float]]:
    """What is hashed of a variant's features, each with its weight."""
    tokens: list[tuple[str, float]] = []
    for name, value in sorted(variant.features.items()):
        number = None if isinstance(value, (bool, str)) else parse_number(value)
        level = parse_category(value)
        if number is not None:
            tokens.append((name, float(np.sign(number) * np.log1p(abs(number)))))
        elif level is not None:
            tokens.append((f"{name}={level}", 1.0))
    return tokens
