"""How numbers of undeclared features are read: standardised, and cut into bins where they take many values.

A number becomes one token with its standardised value, cut off at 3 standard deviations, and, where its quantiles
differ, one token that says in which of up to eight bins it lies. So a linear model can follow an hour of the day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.model.tokens import Keys, Tokens, Values, mixed

_CUT = 3.0
#: Inner edges of the bins.
EDGES = 7
#: With fewer different values than this a number is a scale only.
_FEWEST = 3
_BIN = np.uint64(0xC2B2AE3D27D4EB4F)
#: Added to a number's name where it stands for its bin.
AS_CATEGORY = np.uint64(0x165667B19E3779F9)


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """What is known of each number.

    Attributes:
        name: (k,) uint64, ascending. mean, deviation: (k,) float64. edges: (k, EDGES) float64, ascending, inf = none.
    """

    name: Keys
    mean: Values
    deviation: Values
    edges: Values

    @classmethod
    def none(cls) -> Scales:
        """Nothing known: a number keeps its sign and loses its size."""
        empty = np.zeros(0)
        return cls(np.zeros(0, np.uint64), empty, empty, np.zeros((0, EDGES)))

    @classmethod
    def fit(cls, seen: Mapping[int, Sequence[float]]) -> Scales:
        """From values seen of each number, by the hash of its name."""
        names = sorted(seen)
        mean, deviation = np.zeros(len(names)), np.ones(len(names))
        edges = np.full((len(names), EDGES), np.inf)
        for place, name in enumerate(names):
            values = np.asarray(seen[name], np.float64)
            mean[place] = values.mean()
            spread = float(values.std())
            deviation[place] = spread if spread > 1e-9 * (1.0 + abs(mean[place])) else max(abs(mean[place]), 1.0)
            if spread <= 1e-9 * (1.0 + abs(mean[place])):
                mean[place] = 0.0  # a constant says that it is there, and nothing more
            elif len(np.unique(values)) >= _FEWEST:
                inner = np.unique(np.quantile(values, np.linspace(0, 1, EDGES + 2)[1:-1]))
                edges[place, : len(inner)] = inner
        return cls(np.array(names, np.uint64), mean, deviation, edges)

    def joined(self, more: Scales) -> Scales:
        """These and those of other numbers."""
        name = np.concatenate((self.name, more.name))
        order = np.argsort(name)
        mean, deviation = np.concatenate((self.mean, more.mean)), np.concatenate((self.deviation, more.deviation))
        return Scales(name[order], mean[order], deviation[order], np.concatenate((self.edges, more.edges))[order])

    def apply(self, told: Tokens) -> tuple[Keys, Values, Keys]:
        """Keys, values and names of what the model sees of these tokens."""
        if not told.number.any():
            return told.key, told.value, told.name
        at = np.flatnonzero(told.number)
        place = np.searchsorted(self.name, told.name[at])
        found = place < len(self.name)
        place[~found] = 0
        found &= (self.name[place] == told.name[at]) if len(self.name) else False
        value = told.value.copy()
        value[at] = np.sign(value[at])
        known, where = at[found], place[found]
        raw = told.value[known]
        value[known] = np.clip((raw - self.mean[where]) / self.deviation[where], -_CUT, _CUT)
        binned = np.isfinite(self.edges[where, 0])
        known, where, raw = known[binned], where[binned], raw[binned]
        bins = (raw[:, None] > self.edges[where]).sum(axis=1).astype(np.uint64)
        category = told.name[known] + AS_CATEGORY
        return (
            np.concatenate([told.key, mixed(category + bins * _BIN)]),
            np.concatenate([value, np.ones(len(known))]),
            np.concatenate([told.name, category]),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parts as they are stored."""
        return {"scale_name": self.name, "scale_mean": self.mean, "scale_sd": self.deviation, "scale_edges": self.edges}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Scales:
        """The scales of ``arrays``; ``KeyError`` or ``ValueError`` where they don't fit together."""
        name, mean = arrays["scale_name"], arrays["scale_mean"]
        deviation, edges = arrays["scale_sd"], arrays["scale_edges"]
        if name.ndim != 1 or name.dtype != np.uint64 or mean.shape != name.shape or deviation.shape != name.shape:
            raise ValueError("scales don't fit together")
        if edges.shape != (len(name), EDGES) or any(a.dtype != np.float64 for a in (mean, deviation, edges)):
            raise ValueError("edges of scales don't fit their names")
        if not np.isfinite(mean).all() or not (deviation > 0).all() or not np.isfinite(deviation).all():
            raise ValueError("scales must be finite, deviations above 0")
        if np.isnan(edges).any() or (name[1:] <= name[:-1]).any():
            raise ValueError("names of scales must ascend, edges be numbers")
        return cls(name, mean, deviation, edges)
