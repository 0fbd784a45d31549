"""Chances of the outcomes from the two stages' log odds, with or without each person's own part.

With it, the chance is simply the link. Without it — what the features tell at best — it is the mean over the personal
part, which is Gaussian with mean 0 and the same variance for every action: so a one-dimensional integral that depends
on the log odds alone, and is tabulated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Nodes of the Gauss–Hermite rule, and the grid of log odds on which the mean is tabulated.
NODES = 64
REACH, STEP = 24.0, 0.002


@dataclass(frozen=True)
class Link:
    """floor + (ceiling − floor) · logistic(η), and its mean over η + N(0, ``deviation``²)."""

    floor: float
    ceiling: float
    deviation: float

    def chance(self, eta: Floats) -> Floats:
        """The chance at log odds η."""
        return np.asarray(self.floor + (self.ceiling - self.floor) * 0.5 * (1.0 + np.tanh(0.5 * eta)))

    def mean(self, eta: Floats) -> Floats:
        """The mean chance when η is known but for the personal part; within 1e-6."""
        if self.deviation == 0:
            return self.chance(eta)
        grid, table = self._table
        return np.interp(eta, grid, table)

    @cached_property
    def _table(self) -> tuple[Floats, Floats]:
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        grid = np.arange(-REACH, REACH + STEP, STEP)
        chance = self.chance(grid[:, None] + self.deviation * nodes[None, :])
        return grid, np.asarray(chance @ (weights / weights.sum()))


@dataclass(frozen=True)
class Chances:
    """Chances of each outcome for every message action, (V, S, C), and of a purchase without any message.

    ``opened`` is the chance of a look, ``clicked`` of a look and a like, ``bought`` of a purchase (for either reason).
    """

    opened: Floats
    clicked: Floats
    bought: Floats
    unsubscribed: Floats
    organic: float

    def of(self, outcome: str) -> tuple[Floats, float]:
        """Chance of an outcome by its name for messages, (V, S, C), and without a message."""
        if outcome == "converted":
            return self.bought, self.organic
        table = {"opened": self.opened, "clicked": self.clicked, "unsubscribed": self.unsubscribed}
        return table[outcome], 0.0
