"""A variant's own features and text as numbers: hashed, and nothing is learned but the range of large numbers.

A price is as good in cents as in euros, and must drown nothing that stands beside it. So numbers beyond ``PLAIN`` are
taken by where they lie, on a log scale, between the least and the largest of the variants that a model has met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from optimizer.model.hashing import hash_tokens, text_vector
from optimizer.model.reading import parse_category, parse_number
from storage.records import Variant

VARIANT_FEATURE_WIDTH = 16
VARIANT_TEXT_WIDTH = 16
#: Signed logs up to this size weigh what they are, unless other variants have larger ones.
PLAIN = 1.0
#: By feature the middle and half of the range of its signed logs.
Scales = Mapping[str, tuple[float, float]]
UNSCALED: Scales = MappingProxyType({})


def variant_features(variant: Variant, scales: Scales = UNSCALED) -> NDArray[np.float32]:
    """A variant's features and text as hashed numbers, float32 (32,).

    Categories hash as ``name=value``, numbers as ``name`` weighted by their signed log, or by where that lies in
    ``scales``; each half has at most unit length, so a variant with many features doesn't outweigh one with few.
    """
    described = hash_tokens(feature_tokens(variant, scales), VARIANT_FEATURE_WIDTH)
    norm = float(np.linalg.norm(described))
    described = described / max(norm, 1.0)
    return np.concatenate((described, text_vector(variant.text, VARIANT_TEXT_WIDTH))).astype(np.float32)


def feature_tokens(variant: Variant, scales: Scales = UNSCALED) -> list[tuple[str, float]]:
    """What is hashed of a variant's features, each with its weight."""
    tokens: list[tuple[str, float]] = []
    for name, value in sorted(variant.features.items()):
        size, level = _signed_log(value), parse_category(value)
        if size is not None:
            middle, half = scales.get(name, (0.0, 1.0))
            place = (size - middle) / half if half > 0.0 else 0.0
            tokens.append((name, min(max(place, -1.0), 1.0) if name in scales else place))
        elif level is not None:
            tokens.append((f"{name}={level}", 1.0))
    return tokens


def fit_scales(variants: Sequence[Variant]) -> Scales:
    """The ranges of the features that have a number beyond ``PLAIN`` in some of these variants."""
    sizes: dict[str, list[float]] = {}
    for variant in variants:
        for name, value in variant.features.items():
            size = _signed_log(value)
            if size is not None:
                sizes.setdefault(name, []).append(size)
    return {
        name: ((max(found) + min(found)) / 2, (max(found) - min(found)) / 2)
        for name, found in sorted(sizes.items())
        if max(map(abs, found)) > PLAIN
    }


def number_of(value: object) -> float | None:
    """A feature's value as the number that it counts as; None for what is a category or nothing."""
    return None if isinstance(value, (bool, str)) else parse_number(value)


def _signed_log(value: object) -> float | None:
    """sign · log(1 + |value|) of a number; None for anything else."""
    number = number_of(value)
    return None if number is None else float(np.sign(number) * np.log1p(abs(number)))
