"""The term θ_uᵀτ_u(s) of the message heads: a recipient's own rhythm, times a learned scale for each outcome.

θ_u is computed from the tallies that a decision is told and stores (``effects``), under the prior that the model was
trained with. So every policy makes of the same tallies what it makes of them, and a decision replays from its record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import BadArtifact
from optimizer.model.rhythm import EFFECT, Floats, RhythmPrior, posterior, rhythm_features, tallies_of
from storage.records import JsonObject

#: Where the term lies in an artifact; one without it has no such term.
_META, _CURVES, _COVARIANCE = "rhythm", "rhythm.curves", "rhythm.covariance"


@dataclass(frozen=True)
class RhythmTerm:
    """Scales by outcome, above 0; an outcome without one doesn't follow recipients' rhythms."""

    prior: RhythmPrior
    scales: Mapping[str, float]

    def shift(
        self, outcomes: Sequence[str], effects: JsonObject, local: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """What a recipient's rhythm adds to η, (H, S), at local seconds (S,); None = nothing at all."""
        told = effects.get(EFFECT)
        if not told:
            return None
        theta = posterior(self.prior, tallies_of([told])).mode[0]
        scales = np.array([self.scales.get(name, 0.0) for name in outcomes])
        return np.outer(scales, rhythm_features(local) @ theta)

    def save(self) -> tuple[dict[str, Floats], dict[str, Any]]:
        """Arrays and JSON for an artifact."""
        return {_CURVES: self.prior.curves, _COVARIANCE: self.prior.covariance}, {_META: dict(self.scales)}

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], meta: JsonObject) -> RhythmTerm | None:
        """The term that ``save`` put into an artifact; None where there is none.

        Raises:
            BadArtifact: a part is missing or the shapes don't fit.
        """
        if _META not in meta:
            return None
        try:
            scales = {str(name): float(value) for name, value in meta[_META].items()}
            return cls(RhythmPrior(arrays[_CURVES], arrays[_COVARIANCE]), scales)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadArtifact(f"rhythm can't be read: {error!r}") from error


def deviations(prior: RhythmPrior, effects: Sequence[JsonObject], local: NDArray[np.int64]) -> Floats:
    """θ_uᵀτ_u(s) of n rows, (n,): each at its own local second; 0 where nothing is told of a recipient."""
    out = np.zeros(len(effects))
    told = np.array([row for row, one in enumerate(effects) if one], dtype=np.int64)
    for start in range(0, len(told), _CHUNK):
        rows = told[start : start + _CHUNK]
        theta = posterior(prior, tallies_of([effects[row].get(EFFECT, {}) for row in rows.tolist()])).mode
        out[rows] = (rhythm_features(local[rows]) * theta).sum(axis=1)
    return out


#: Rows whose tallies are laid out at a time: 504 numbers each.
_CHUNK = 4_096
