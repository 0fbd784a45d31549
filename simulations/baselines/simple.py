"""What is done in practice without a learner of contexts: histograms of send times, segments, an A/B test.

All of them count sends and successes by factor (variant, time of the week, channel) instead of by the hundreds of
combinations, shrink rates towards the general one, and keep exploring a little.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.service.choose import Drawn
from simulations.game import Game, Turn
from simulations.oracle import drawn, hour_of_week
from simulations.play import Result

Floats = NDArray[np.float64]

#: Hours of a bin of a send-time histogram.
BIN_HOURS = 2


@dataclass(frozen=True)
class SimpleOptions:
    """What a grid varies.

    Attributes:
        kind: ``histogram`` (each recipient's own rates by time of day), ``shrunk`` (drawn towards everybody's),
            ``segment`` (the best of each factor in each segment), ``ab`` (test for a while, then the winner for all).
        epsilon: the share of decisions that explore. prior: pseudo-rows by which a rate is drawn to the wider one.
        test: decisions of the test phase of ``ab``.
    """

    kind: Literal["histogram", "shrunk", "segment", "ab"] = "shrunk"
    epsilon: float = 0.1
    prior: float = 20.0
    test: int = 1_000


@dataclass
class Rates:
    """Sums of rewards and counts by key."""

    total: dict[Hashable, float] = field(default_factory=dict)
    count: dict[Hashable, int] = field(default_factory=dict)

    def add(self, key: Hashable, reward: float) -> None:
        """Takes in one outcome."""
        self.total[key] = self.total.get(key, 0.0) + reward
        self.count[key] = self.count.get(key, 0) + 1

    def rate(self, key: Hashable, towards: float, prior: float) -> float:
        """Mean reward of a key, drawn towards another rate by ``prior`` pseudo-rows."""
        return (self.total.get(key, 0.0) + prior * towards) / (self.count.get(key, 0) + prior)


@dataclass
class Simple:
    """One of the simple ways as a player."""

    game: Game
    options: SimpleOptions = field(default_factory=SimpleOptions)
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._all, self._own = Rates(), Rates()
        self._seen = 0
        self._testing: set[str] = set()

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        mask = turn.plan.mask
        uniform = mask / mask.sum()
        epsilon = self.options.epsilon
        if self.options.kind == "ab":
            # Where outcomes come late, the test goes on until the first is known.
            epsilon = 1.0 if self._seen < self.options.test or not self._all.count else 0.0
            if epsilon:
                self._testing.add(turn.situation.decision_id)
        self._seen += 1
        if epsilon >= 1.0:
            return drawn(turn, uniform, self.game.salt, self.options.kind)
        score = np.where(mask, self._scores(turn), -np.inf)
        vector = epsilon * uniform
        vector[int(score.argmax())] += 1.0 - epsilon
        return drawn(turn, vector, self.game.salt, self.options.kind)

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        turn, action = result.turn, result.decision.action
        if self.options.kind == "ab" and turn.situation.decision_id not in self._testing:
            return
        who = self._who(turn)
        self._all.add("any", result.reward)
        for key in self._keys(turn, -1 if action is None else action):
            self._all.add(key, result.reward)
            if who is not None:
                self._own.add((who, key), result.reward)

    def _who(self, turn: Turn) -> Hashable:
        """Whose rates are kept beside everybody's: the recipient's, the segment's, or nobody's."""
        if self.options.kind == "ab":
            return None
        if self.options.kind == "segment":
            return turn.situation.context["work"], turn.situation.context["device"]
        return turn.recipient.recipient_id

    def _keys(self, turn: Turn, action: int) -> list[tuple[str, Hashable]]:
        at = turn.space.factors(action) if action >= 0 else None
        if at is None:
            return [("stay", 0)]
        time = int(_bins(turn)[at[1]])
        return [("variant", turn.space.variants[at[0]]), ("time", time), ("channel", turn.space.channels[at[2]])]

    def _scores(self, turn: Turn) -> Floats:
        """(K,) sum over factors of how much each is above the general rate."""
        space, who = turn.space, self._who(turn)
        general = self._all.rate("any", 0.0, 1.0)
        variant = np.array([self._gain(who, ("variant", v), general) for v in space.variants])
        channel = np.array([self._gain(who, ("channel", c), general) for c in space.channels])
        bins = _bins(turn)
        by_bin = {b: self._gain(who, ("time", b), general) for b in set(bins.tolist())}
        time = np.array([by_bin[b] for b in bins.tolist()])
        cube = variant[:, None, None] + time[None, :, None] + channel[None, None, :]
        flat = cube.reshape(-1)
        return np.append(flat, self._gain(who, ("stay", 0), general)) if space.no_send else flat

    def _gain(self, who: Hashable, key: tuple[str, Hashable], general: float) -> float:
        """How much better a factor's value is than the general rate, as this way of counting sees it."""
        prior = self.options.prior
        wide = self._all.rate(key, general, prior)
        if who is None:
            return wide - general
        if self.options.kind == "segment":
            return self._own.rate((who, key), wide, prior) - general
        if key[0] != "time":
            return wide - general
        towards = wide if self.options.kind == "shrunk" else general
        return self._own.rate((who, key), towards, prior if self.options.kind == "shrunk" else 1.0) - general


def _bins(turn: Turn) -> NDArray[np.int64]:
    """(S,) time of day in bins, or of the week when a slot is that long: slots of one bin are the same time."""
    return np.asarray(hour_of_week(turn.space.local) % 24 // BIN_HOURS)
