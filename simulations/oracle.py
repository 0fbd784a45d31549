"""Policies that know the world, and those that know nothing: the two ends of every scale.

The *full* oracle takes the best action; it knows what no feature tells. The *informed* one takes the action with the
highest expected reward given all that features, events and the past tell: what a perfect learner ends at before it
knows anybody personally.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.service.choose import Drawn
from simulations.game import Game, Turn
from simulations.play import Result
from simulations.world.memory import Memory

Floats = NDArray[np.float64]

#: Arrivals over which the best static action is looked for.
STATIC_SAMPLE = 1_500


@dataclass
class Oracle:
    """Takes the best action by what it knows; learns nothing."""

    game: Game
    personal: bool

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        value = self.game.values(self.game.chances(turn, personal=self.personal), turn)
        return Drawn(int(np.where(turn.plan.mask, value, -np.inf).argmax()), 1.0, "oracle")

    def learn(self, result: Result) -> None:
        """Nothing to learn."""


@dataclass
class Chance:
    """Every eligible action with the same probability, by the service's own randomness."""

    game: Game

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        return drawn(turn, exploration.uniform(turn.plan.mask), self.game.salt, "random")

    def learn(self, result: Result) -> None:
        """Nothing to learn."""


@dataclass
class BestStatic:
    """One (variant, time of the week, channel) for everybody: the best there is in hindsight.

    Where it is masked, the nearest time of the week that isn't; where none is, a random eligible action.
    """

    game: Game
    key: tuple[str, int, str] | None = None

    def __post_init__(self) -> None:
        self.key = best_static(self.game)

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        action = nearest(turn, self.key) if self.key is not None else None
        if action is None:
            return drawn(turn, exploration.uniform(turn.plan.mask), self.game.salt, "static")
        return Drawn(action, 1.0, "static")

    def learn(self, result: Result) -> None:
        """Nothing to learn."""


def drawn(turn: Turn, vector: Floats, salt: bytes, policy_id: str) -> Drawn:
    """Draws from a whole vector with the decision's own random number, as the service does."""
    action = exploration.sample(vector, exploration.draw_uniform(salt, turn.situation.decision_id, 0))
    return Drawn(action, float(vector[action]), policy_id)


def best_static(game: Game) -> tuple[str, int, str] | None:
    """Variant, hour of the week and channel with the highest mean expected reward; None = not to send."""
    total: dict[tuple[str, int, str] | None, float] = {}
    count: dict[tuple[str, int, str] | None, int] = {}
    for place in np.linspace(0, game.decisions - 1, min(STATIC_SAMPLE, game.decisions)).astype(int).tolist():
        turn = game.turn(game.arrivals[place], Memory(), [])
        value = game.values(game.chances(turn), turn)
        for action, key in enumerate(keys(turn)):
            total[key] = total.get(key, 0.0) + float(value[action])
            count[key] = count.get(key, 0) + 1
    often = max(count.values())
    # An action that could be taken in a few of the decisions only (a variant launched late) is no static choice.
    return max((k for k in total if 2 * count[k] >= often or often < 20), key=lambda k: total[k] / count[k])


def keys(turn: Turn) -> list[tuple[str, int, str] | None]:
    """Of each action what it is in every window: variant, hour of the week in steps of a slot, channel."""
    space = turn.space
    step = max(1, turn.situation.campaign.slot_minutes // 60)
    week = [hour // step for hour in hour_of_week(space.local).tolist()]
    out: list[tuple[str, int, str] | None] = [(v, w, c) for v in space.variants for w in week for c in space.channels]
    return [*out, None] if space.no_send else out


def hour_of_week(local: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 = Monday 00:00 … 167, of local seconds."""
    return np.asarray((local // 3600 + 3 * 24) % 168)


def nearest(turn: Turn, key: tuple[str, int, str]) -> int | None:
    """The eligible action of that variant and channel nearest to that time of the week (around it)."""
    variant, week, channel = key
    space = turn.space
    if variant not in space.variants or channel not in space.channels:
        return None
    step = max(1, turn.situation.campaign.slot_minutes // 60)
    around = 168 // step
    v, c = space.variants.index(variant), space.channels.index(channel)
    indices = np.array([space.index(v, s, c) for s in range(space.slots)], dtype=np.int64)
    away = np.abs(hour_of_week(space.local) // step - week)
    away = np.where(turn.plan.mask[indices], np.minimum(away, around - away), around)
    best = int(away.argmin())
    return int(indices[best]) if away[best] < around else None
