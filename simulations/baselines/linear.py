"""LinUCB (Li et al. 2010) and linear Thompson sampling (Agrawal & Goyal 2013) on the same features.

``disjoint`` has a ridge regression for each of the hundreds of arms, as mabwiser has; it is written in numpy since
mabwiser visits arms one by one (tests hold the two to the same expectations). ``crossed`` is one ridge regression over
context x variant, context x time, context x channel: what somebody would write who knows that actions have factors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.service.choose import Drawn
from simulations.baselines.features import ROOM, Columns, Encoding, make_features
from simulations.game import Game, Turn
from simulations.oracle import hour_of_week, keys
from simulations.play import Result

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NOISE = 31
#: Time as a rival's features: two daily waves, the weekend, and a constant.
_TIME = 6


@dataclass(frozen=True)
class LinearOptions:
    """What a grid varies: ``alpha`` widens the bounds or the draws, ``ridge`` is the prior precision."""

    rule: Literal["ucb", "ts"] = "ucb"
    shape: Literal["disjoint", "crossed"] = "disjoint"
    alpha: float = 0.3
    ridge: float = 1.0
    features: Encoding = "raw"


class Disjoint:
    """A ridge regression an arm: inverse Gram matrices (A, d, d) and coefficients (A, d)."""

    def __init__(self, width: int, ridge: float) -> None:
        self._width, self._ridge = width, ridge
        self._place: dict[Any, int] = {}
        self._inverse = np.zeros((0, width, width))
        self._seen = np.zeros((0, width))

    def places(self, names: list[Any]) -> Ints:
        """Positions of arms by name; new ones are added."""
        for name in names:
            self._place.setdefault(name, len(self._place))
        missing = len(self._place) - len(self._inverse)
        if missing > 0:
            fresh = np.broadcast_to(np.eye(self._width) / self._ridge, (missing, self._width, self._width))
            self._inverse = np.concatenate([self._inverse, fresh])
            self._seen = np.concatenate([self._seen, np.zeros((missing, self._width))])
        return np.array([self._place[name] for name in names], dtype=np.int64)

    def update(self, arm: int, x: Floats, reward: float) -> None:
        """Takes in one outcome (Sherman–Morrison)."""
        along = self._inverse[arm] @ x
        self._inverse[arm] -= np.outer(along, along) / (1.0 + x @ along)
        self._seen[arm] += reward * x

    def expected(self, arms: Ints, x: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (per unit of noise) of each arm's reward."""
        inverse = self._inverse[arms]
        along = inverse @ x
        mean = np.einsum("ad,ad->a", along, self._seen[arms])
        return mean, np.sqrt((along @ x).clip(0.0))

    def sampled(self, arms: Ints, x: Floats, alpha: float, rng: np.random.Generator) -> Floats:
        """A draw of each arm's reward: xᵀw is Gaussian with that mean and deviation, arms being independent."""
        mean, deviation = self.expected(arms, x)
        return np.asarray(mean + alpha * deviation * rng.standard_normal(len(arms)))


class Crossed:
    """One ridge regression over crossed features of a decision's actions.

    What was never anything but 0 has no part in the products: its covariance is still the prior's.
    """

    def __init__(self, ridge: float) -> None:
        self._ridge = ridge
        self._inverse = np.zeros((0, 0))
        self._seen = np.zeros(0)
        self._live = np.zeros(0, dtype=np.int64)

    def update(self, row: Floats, reward: float) -> None:
        """Takes in one outcome."""
        row = self._alive(row[None])[0]
        along = self._inverse @ row
        self._inverse -= np.outer(along, along) / (1.0 + row @ along)
        self._seen += reward * row

    def expected(self, rows: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation (per unit of noise) of each row's (K, d) reward."""
        rows = self._alive(rows)
        along = rows @ self._inverse
        return along @ self._seen, np.sqrt(np.einsum("kd,kd->k", along, rows).clip(0.0))

    def sampled(self, rows: Floats, alpha: float, rng: np.random.Generator) -> Floats:
        """Each row's reward under one draw of the coefficients."""
        rows = self._alive(rows)
        factor = np.linalg.cholesky(self._inverse + 1e-12 * np.eye(len(self._inverse)))
        drawn = self._inverse @ self._seen + alpha * factor @ rng.standard_normal(len(self._seen))
        return np.asarray(rows @ drawn)

    def _alive(self, rows: Floats) -> Floats:
        """The columns of rows that have ever been anything but 0, new ones last."""
        new = np.setdiff1d(np.flatnonzero(rows.any(axis=0)), self._live)
        if new.size:
            before, after = len(self._live), len(self._live) + new.size
            inverse = np.eye(after) / self._ridge
            inverse[:before, :before] = self._inverse
            self._inverse, self._seen = inverse, np.append(self._seen, np.zeros(new.size))
            self._live = np.append(self._live, new)
        return rows[:, self._live]


@dataclass
class Linear:
    """LinUCB or LinTS as a player."""

    game: Game
    options: LinearOptions = field(default_factory=LinearOptions)
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._columns = Columns(ROOM[self.options.features])
        self._features = make_features(self.options.features, self.game.attributes)
        self._disjoint = Disjoint(self._columns.width, self.options.ridge)
        self._crossed = Crossed(self.options.ridge)
        self._rng = np.random.default_rng([_NOISE, self.game.seed])
        self._asked: dict[str, tuple[int, Floats]] = {}
        self._variants = self.game.scenario.world.names

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``; the probability is not known in closed form (NaN), and not needed."""
        x = self._columns.vector(self._features.of(turn.seen_by_rivals))
        places = np.flatnonzero(turn.plan.mask)
        if self.options.shape == "disjoint":
            arms = self._disjoint.places(keys(turn))[places]
            score = self._score(self._disjoint, arms, x)
            best = int(score.argmax())
            asked = (int(arms[best]), x)
        else:
            rows = self._rows(x, turn.space)[places]
            score = self._score(self._crossed, rows)
            best = int(score.argmax())
            asked = (-1, rows[best])
        self._asked[turn.situation.decision_id] = asked
        return Drawn(int(places[best]), float("nan"), self.options.rule)

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        arm, row = self._asked.pop(result.decision.decision_id)
        if arm >= 0:
            self._disjoint.update(arm, row, result.reward)
        else:
            self._crossed.update(row, result.reward)

    def _score(self, model: Any, *what: Any) -> Floats:
        if self.options.rule == "ts":
            return np.asarray(model.sampled(*what, self.options.alpha, self._rng))
        mean, deviation = model.expected(*what)
        return np.asarray(mean + self.options.alpha * deviation)

    def _rows(self, x: Floats, space: ActionSpace) -> Floats:
        """(K, d): context x (variant, time, channel), then variant x channel; not sending has a block of its own."""
        variants, channels = len(self._variants), len(space.channels)
        times = _waves(space)
        width = len(x)
        sizes = np.cumsum([0, variants * width, _TIME * width, channels * width, variants * channels, width])
        rows = np.zeros((space.size, int(sizes[-1])))
        cube = rows[: space.messages].reshape(*space.shape, -1)
        timed = (times[:, :, None] * x[None, None, :]).reshape(len(times), -1)
        cube[..., sizes[1] : sizes[2]] = timed[None, :, None, :]
        for i, name in enumerate(space.variants):
            v = self._variants.index(name)
            cube[i, :, :, v * width : (v + 1) * width] = x
            for c in range(channels):
                cube[i, :, c, sizes[3] + v * channels + c] = 1.0
        for c in range(channels):
            cube[:, :, c, sizes[2] + c * width : sizes[2] + (c + 1) * width] = x
        if space.no_send:
            rows[-1, sizes[4] :] = x
        return rows


def _waves(space: ActionSpace) -> Floats:
    hour = hour_of_week(space.local)
    angle = 2 * np.pi * (hour % 24) / 24
    waves = (np.ones(len(hour)), np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle), hour >= 120)
    return np.stack(waves, axis=1).astype(np.float64)
