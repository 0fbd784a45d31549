"""A plain neural bandit: one network over context and action, all columns alike, and inverse-gap weighting.

What somebody writes who takes "neural contextual bandit" at its word: variant, channel and time enter beside the
context as one-hot columns and waves, and the layers have to find out by themselves what belongs together. It is trained
on batches from everything seen so far after every outcome, and explores by inverse-gap weighting over the eligible
actions (Foster & Rakhlin 2020), γ growing with the root of time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.service.choose import Drawn
from simulations.baselines.features import ROOM, Columns, Encoding, make_features
from simulations.game import Game, Turn
from simulations.oracle import drawn, hour_of_week
from simulations.play import Result

Floats = NDArray[np.float32]

#: Harmonics of the day, cosine and sine, and the days of the week.
_WAVES, _DAYS = 4, 7
_BATCH = 64
#: Rows before the first step.
_LEAST = 32


@dataclass(frozen=True)
class NetworkOptions:
    """What a grid varies.

    Attributes:
        width, layers: of the hidden layers. rate: Adam's. decay: decoupled weight decay.
        steps: batches of ``_BATCH`` rows after each outcome.
        scale: γ = scale · √t.
    """

    width: int = 64
    layers: int = 2
    rate: float = 1e-3
    decay: float = 1e-2
    steps: int = 1
    scale: float = 10.0
    features: Encoding = "raw"


class Columned:
    """Rows of a decision: context, variant, channel and time side by side; not sending is a column of its own."""

    def __init__(self, context: int, variants: tuple[str, ...], channels: tuple[str, ...]) -> None:
        self._variants, self._channels = variants, channels
        self._start = np.cumsum([0, context, len(variants), len(channels), 2 * _WAVES, _DAYS, 1]).tolist()

    @property
    def width(self) -> int:
        """Columns of a row."""
        return int(self._start[-1])

    def rows(self, x: NDArray[np.float64], space: ActionSpace) -> Floats:
        """(K, width) float32."""
        at = self._start
        out = np.zeros((space.size, self.width), dtype=np.float32)
        out[:, : at[1]] = x
        cube = out[: space.messages].reshape(*space.shape, -1)
        for i, name in enumerate(space.variants):
            cube[i, :, :, at[1] + self._variants.index(name)] = 1.0
        for i, name in enumerate(space.channels):
            cube[:, :, i, at[2] + self._channels.index(name)] = 1.0
        hour = hour_of_week(space.local)
        angle = 2 * np.pi * np.outer(hour % 24, np.arange(1, _WAVES + 1)) / 24
        time = np.concatenate([np.cos(angle), np.sin(angle), np.eye(_DAYS)[hour // 24]], axis=1)
        cube[..., at[3] : at[5]] = time[None, :, None, :]
        if space.no_send:
            out[-1, -1] = 1.0
        return out


@dataclass
class Network:
    """The neural bandit as a player."""

    game: Game
    options: NetworkOptions = field(default_factory=NetworkOptions)
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(self.game.seed)
        channels = tuple(c.id for c in self.game.campaigns[-1].channels)
        self._context = Columns(ROOM[self.options.features])
        self._columned = Columned(self._context.width, self.game.scenario.world.names, channels)
        self._features = make_features(self.options.features, self.game.attributes)
        sizes = [self._columned.width, *[self.options.width] * self.options.layers]
        parts: list[torch.nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            parts += [torch.nn.Linear(before, after), torch.nn.ReLU()]
        self._net = torch.nn.Sequential(*parts, torch.nn.Linear(sizes[-1], 1))
        self._adamw = torch.optim.AdamW(self._net.parameters(), lr=self.options.rate, weight_decay=self.options.decay)
        self._rng = np.random.default_rng([41, self.game.seed])
        self._asked: dict[str, Floats] = {}
        self._rows = torch.zeros((self.game.decisions, self._columned.width))
        self._rewards = torch.zeros(self.game.decisions)
        self._count = 0

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``."""
        x = self._context.vector(self._features.of(turn.seen_by_rivals))
        rows = self._columned.rows(x, turn.space)
        places = np.flatnonzero(turn.plan.mask)
        with _one_thread(), torch.inference_mode():
            score = self._net(torch.from_numpy(rows[places]))[:, 0].double().numpy()
        vector = np.zeros(turn.space.size)
        vector[places] = gap_weights(score, self.options.scale * np.sqrt(self._count))
        made = drawn(turn, vector, self.game.salt, "network")
        self._asked[turn.situation.decision_id] = rows[made.action]
        return made

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        self._rows[self._count] = torch.from_numpy(self._asked.pop(result.decision.decision_id))
        self._rewards[self._count] = result.reward
        self._count += 1
        if self._count < _LEAST:
            return
        with _one_thread():
            for _ in range(self.options.steps):
                batch = torch.from_numpy(self._rng.integers(self._count, size=_BATCH))
                loss = torch.nn.functional.mse_loss(self._net(self._rows[batch])[:, 0], self._rewards[batch])
                self._adamw.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._adamw.step()


def gap_weights(score: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    """(K,) probabilities 1 / (K + γ · gap), the rest on the best (Foster & Rakhlin 2020)."""
    best = int(score.argmax())
    weights = 1.0 / (len(score) + gamma * (score[best] - score))
    weights[best] = 0.0
    weights[best] = 1.0 - weights.sum()
    return np.asarray(weights)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two threads of torch mostly wait for each other over matrices as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
