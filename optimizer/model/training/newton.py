"""Newton's steps for a head's weights, and how to tell that one led astray.

A step goes to the mode of a quadratic that agrees with the likelihood where it is taken. Where an outcome is rare and
raised much by what few rows have, the likelihood bends so soon that the step goes many times too far: from clicks of 2
in 100 to 3 in 4, a first step promised 1,130 nats, brought 39, and the next cost 26,000. What is learned of precisions
from such a quadratic is as wild. Whether one held is seen for nothing: what it promised is compared with what came of
it (the ratio of trust regions: Conn, Gould & Toint 2000). Then the mode is approached by steps that are cut short.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizer.model.training.cholesky import posterior_factor, solved
from optimizer.model.training.rows import Design
from optimizer.model.training.settled import SettledHead

#: A quadratic held if the likelihood fell short of what it promised by no more than this share of it, or so many nats.
#: In ordinary fits it falls short by a tenth at most.
_SHORT, _NATS = 0.5, 1.0
#: Most steps of an approach, and most halvings of each; it has arrived where a whole step would gain this (nats).
_STEPS, _HALVINGS, _ARRIVED = 60, 40, 0.5
#: Share of what a step's slope promises that has to come of it (Armijo 1966).
_GAIN = 1e-4


class Point(NamedTuple):
    """The likelihood around some weights: its logarithm, gradient (k,) and information (k, k) of the weights ``quick``
    (k,)."""

    weights: NDArray[np.float64]
    quick: NDArray[np.int64]
    likelihood: float
    gradient: NDArray[np.float64]
    information: NDArray[np.float64]

    def promised(self, weights: NDArray[np.float64]) -> float:
        """By how much the likelihood rises to other ``weights`` (d,), if it is the quadratic that agrees with it here:
        those that aren't ``quick`` are the same."""
        change = (weights - self.weights)[self.quick]
        return float(self.gradient @ change - 0.5 * change @ self.information @ change)

    def astray(self, weights: NDArray[np.float64], likelihood: float) -> bool:
        """Whether what came of a step to ``weights`` shows that the quadratic here didn't hold as far as that."""
        promised = self.promised(weights)
        return not likelihood - self.likelihood >= promised - max(_NATS, _SHORT * abs(promised))


class Likelihood:
    """The likelihood of a head's weights by the rows of a design, and by what is settled of earlier rows."""

    def __init__(
        self,
        design: Design,
        outcome: NDArray[np.float64],
        offset: NDArray[np.float64],
        seen: NDArray[np.float64] | None,
        settled: SettledHead | None,
        centre: NDArray[np.float64],
    ) -> None:
        """``offset`` (m,) of each row, with ``centre`` (d,) in it: weights are differences from that."""
        self._design, self._told = design, (outcome, offset, seen)
        self._settled, self._centre = settled, centre

    def at(self, weights: NDArray[np.float64], quick: NDArray[np.int64]) -> Point:
        """Around ``weights`` (d,), which are 0 but for the ``quick`` ones."""
        likelihood, gradient, information = self._design.derivatives(weights, *self._told, quick)
        if self._settled is not None:
            more = self._settled.around(weights + self._centre, quick)
            likelihood, gradient, information = likelihood + more[0], gradient + more[1], information + more[2]
        return Point(weights, quick, likelihood, gradient, information)

    def value(self, weights: NDArray[np.float64], quick: NDArray[np.int64]) -> float:
        """The log-likelihood alone; see ``at``."""
        likelihood = self._design.likelihood(weights, *self._told, quick)
        return likelihood + (0.0 if self._settled is None else self._settled.around(weights + self._centre, quick)[0])

    def approached(
        self, weights: NDArray[np.float64], quick: NDArray[np.int64], prior: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Weights near the mode for given precisions ``prior`` (d,), by steps from ``weights`` each of which gains."""
        here = self.at(weights, quick)
        for _ in range(_STEPS):
            slope = here.gradient - (prior * here.weights)[quick]
            change = solved(posterior_factor(here.information, prior[quick]), slope)
            gain = float(slope @ change)
            if gain < 2.0 * _ARRIVED:  # a quadratic rises by half of what its slope promises
                break
            there = self._uphill(here, change, gain, prior)
            if there is None:
                break
            here = there
        return here.weights

    def _uphill(
        self, here: Point, change: NDArray[np.float64], gain: float, prior: NDArray[np.float64]
    ) -> Point | None:
        """The first point on the way that has gained enough, from the whole step down; None = there is none that a
        likelihood in single precision could tell."""
        before, part = _posterior(here, prior), 1.0
        for _ in range(_HALVINGS):
            weights = here.weights.copy()
            weights[here.quick] += part * change
            there = self.at(weights, here.quick)
            if _posterior(there, prior) >= before + _GAIN * part * gain:
                return there
            part *= 0.5
        return None


def _posterior(point: Point, prior: NDArray[np.float64]) -> float:
    return point.likelihood - 0.5 * float(prior @ point.weights**2)
