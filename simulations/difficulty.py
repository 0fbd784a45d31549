"""How difficult a scenario is: where the variance of expected rewards lies, and what each kind of knowledge is worth.

The variance of the expected reward over decisions and actions is split by main effects (variant, time, channel: the
same for everybody), by what features and the moment tell beyond them, and by what is personal. The worths are rewards
of choosing best by each kind of knowledge. All of it is computed from the truth; nothing is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.game import Game
from simulations.world.memory import Memory

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difficulty:
    """Shares of the variance (they sum to 1), and mean rewards of choosing by each kind of knowledge."""

    level: float
    main: float
    told: float
    personal: float
    chance: float
    static: float
    informed: float
    full: float

    @property
    def random_regret(self) -> float:
        """Regret of chance against the informed oracle, a decision."""
        return self.informed - self.chance


def difficulty(game: Game, sample: int = 1_000) -> Difficulty:
    """Measures a scenario's seed on some of its decisions, nobody having been written to before.

    ``level`` is the variance between decisions (readiness whatever is sent: nothing to choose), ``main`` between
    actions on average, ``told`` of what features add to both, ``personal`` the rest.
    """
    truths, tolds = [], []
    places = np.linspace(0, game.decisions - 1, min(sample, game.decisions)).astype(int)
    for place in places.tolist():
        turn = game.turn(game.arrivals[place], Memory(), [])
        truths.append(game.values(game.chances(turn), turn.space))
        tolds.append(game.values(game.chances(turn, personal=False), turn.space))
    size = max(len(one) for one in truths)
    whole = [i for i, one in enumerate(truths) if len(one) == size]
    truth, told = np.array([truths[i] for i in whole]), np.array([tolds[i] for i in whole])
    everybody = truth.mean(axis=0)
    by_decision = truth.mean(axis=1)
    additive = everybody[None, :] + by_decision[:, None] - truth.mean()
    total = float(truth.var())
    spread = told - told.mean(axis=1, keepdims=True) - (told.mean(axis=0) - told.mean())[None, :]
    beyond = float(((truth - additive) ** 2).mean())
    left = float(((truth - additive - spread) ** 2).mean())
    static = float(truth[:, int(everybody.argmax())].mean())
    best_by = truth[np.arange(len(truth)), told.argmax(axis=1)]
    return Difficulty(
        level=float(by_decision.var()) / total,
        main=float(everybody.var()) / total,
        told=(beyond - left) / total,
        personal=left / total,
        chance=float(truth.mean()),
        static=static,
        informed=float(best_by.mean()),
        full=float(truth.max(axis=1).mean()),
    )
