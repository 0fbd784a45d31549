"""What rivals see of a decision: the very context that the service's model sees, as numbers.

``raw`` is what a practitioner passes at first: one-hot categories, numbers standardised as they come, a flag for what
is missing. ``encoded`` is the service's own feature spec (standardised, rank, bins) fitted to the first contexts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.model.features import FeatureSpec, fit_spec
from storage.records import Attribute

Floats = NDArray[np.float64]
Encoding = Literal["raw", "encoded"]

#: Room for a constant and the numbers of a context; a scenario with more is told so.
ROOM: Mapping[Encoding, int] = {"raw": 64, "encoded": 224}
#: Contexts that the ``encoded`` features are fitted to; before that there are none.
FITTED_TO = 200


@dataclass
class Running:
    """Mean and spread of a number as it comes (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def standardised(self, value: float) -> float:
        """Takes the value in and returns it standardised, within ±5."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self.squares += before * (value - self.mean)
        spread = math.sqrt(self.squares / self.count) if self.count > 1 else 0.0
        return max(-5.0, min(5.0, (value - self.mean) / spread)) if spread > 0 else 0.0


@dataclass
class RawFeatures:
    """Names and values of a context's features, sparse."""

    attributes: Sequence[Attribute]
    numbers: dict[str, Running] = field(default_factory=dict)

    def of(self, context: Mapping[str, Any]) -> dict[str, float]:
        """One feature a category, boolean or number; a number that is missing leaves a flag."""
        out: dict[str, float] = {}
        for attribute in self.attributes:
            name, value = attribute.name, context.get(attribute.name)
            if value is None:
                out[f"{name}_missing"] = 1.0
            elif attribute.type == "number":
                out[name] = self.numbers.setdefault(name, Running()).standardised(float(value))
            else:
                out[f"{name}={value}"] = 1.0
        return out


@dataclass
class EncodedFeatures:
    """The service's own encoding, fitted to the first contexts, fixed from then on."""

    attributes: Sequence[Attribute]
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    spec: FeatureSpec | None = None

    def of(self, context: Mapping[str, Any]) -> dict[str, float]:
        """The encoded numbers by name; none until the encoding is fitted."""
        if self.spec is None:
            self.seen.append(context)
            if len(self.seen) < FITTED_TO:
                return {}
            self.spec = fit_spec(self.seen, self.attributes)
        row = self.spec.encode_row(context).tolist()
        return dict(zip(self.spec.labels, row, strict=True))


def make_features(kind: Encoding, attributes: Sequence[Attribute]) -> RawFeatures | EncodedFeatures:
    """The features of that kind."""
    return RawFeatures(attributes) if kind == "raw" else EncodedFeatures(attributes)


class Columns:
    """Sparse features as dense vectors of a fixed width: a name gets the next free place when it first appears."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._place: dict[str, int] = {}

    def vector(self, named: Mapping[str, float]) -> Floats:
        """(width,) values; the first place is always 1.

        Raises:
            ValueError: more names than there is room for: left out, a rival would learn from less than it is shown.
        """
        out = np.zeros(self.width)
        out[0] = 1.0
        for name, value in named.items():
            place = self._place.setdefault(name, len(self._place) + 1)
            if place >= self.width:
                raise ValueError(f"{place} features, and room for {self.width - 1}: {name!r} would be left out")
            out[place] = value
        return out
