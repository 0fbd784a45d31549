"""What predicted chances are corrected by before they are told as scores: one logistic map a head (Platt 1999).

The map is fitted on recipients that the heads had not seen (``training.calibrate``) and stored with the artifact. It is
for scores alone: policies use the heads as they are. It is monotone, so it changes no order within a head.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optimizer.bandit.calibration import Calibration
from storage.records import JsonObject

#: Chances are kept this far from 0 and 1, where a logit is infinite.
_MARGIN = 1e-9
#: Prior standard deviations of slope − 1 and intercept. The heads are posterior means under precisions learned from
#: the data, so they are nearly right before anything is corrected; few held-out outcomes must not undo that.
_PRIOR = 0.1
#: A map stays increasing whatever a sample says.
_LEAST_SLOPE = 0.1


@dataclass(frozen=True, slots=True)
class Recalibration:
    """logit p' = logit p + intercept + (slope − 1)(logit p − mean_logit); the default changes nothing.

    ``rows`` and ``events`` are what it was fitted on. ``design`` is how many of the head's rows tell as much as one
    recipient's would (Kish's design effect): 1 where recipients have a row each, or rows that tell different things.
    """

    slope: float = 1.0
    intercept: float = 0.0
    mean_logit: float = 0.0
    rows: int = 0
    events: int = 0
    design: float = 1.0

    @classmethod
    def of(cls, found: Calibration, design: float = 1.0) -> Recalibration:
        """The map of an estimate, drawn to the identity by its errors: w = τ² / (τ² + se²), τ = .1."""
        return cls(
            slope=max(_LEAST_SLOPE, 1.0 + _drawn(found.slope - 1.0, found.slope_se)),
            intercept=_drawn(found.intercept, found.intercept_se),
            mean_logit=found.mean_logit,
            rows=found.n,
            events=found.events,
            design=design,
        )

    @classmethod
    def stored(cls, maps: JsonObject, kind: str, outcome: str) -> Recalibration:
        """The map of a head from an artifact's ``calibration``; models of before there were any have the identity."""
        told = maps.get(kind, {}).get(outcome)
        return cls() if told is None else cls(**told)

    def to_json(self) -> dict[str, Any]:
        """What ``stored`` reads."""
        return asdict(self)

    def __call__(self, chance: ArrayLike) -> NDArray[np.float64]:
        """Corrected chances, of any shape."""
        p = np.clip(np.asarray(chance, np.float64), _MARGIN, 1.0 - _MARGIN)
        logit = np.log(p) - np.log1p(-p)
        logit = logit + self.intercept + (self.slope - 1.0) * (logit - self.mean_logit)
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logit)), np.float64)


def _drawn(value: float, error: float) -> float:
    if not np.isfinite(value) or not np.isfinite(error):
        return 0.0
    return float(value * _PRIOR**2 / (_PRIOR**2 + error**2))
