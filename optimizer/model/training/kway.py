"""Online learner of a plain K-way bandit: everything seen is kept, and every new row pays for gradient steps over it.

The encoding (standardised number, rank, piecewise-linear bins; levels of categories) is fitted anew whenever the rows
have doubled, and the network moves over to it: what was learned is never thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.schedules import inverse_gap_gamma
from optimizer.errors import ConfigError
from optimizer.model.artifact import pack
from optimizer.model.features import FeatureSpec, Widths, fit_spec
from optimizer.model.kway import FORMAT, KIND, hope
from optimizer.model.training.kwaynet import AdamW, KwayNetwork, export_rewards
from storage.records import Attribute, JsonObject

#: The encoding is fitted anew when so many times the rows of the last fit are there.
GROWTH = 2.0


@dataclass(frozen=True)
class KwayOptions:
    """What the learner is made of; the defaults are one setting for all problems.

    Attributes:
        width: units of the hidden layer.
        rate: Adam's learning rate at first; after n rows it is rate / sqrt(1 + n / ``half_rows``).
        half_rows: see ``rate``.
        decay: decoupled weight decay (Loshchilov & Hutter 2019), times the rate a step.
        batch: rows of a step, drawn from everything seen.
        steps: gradient steps; after n rows there have been steps * n ** ``steps_power``, many a row at first.
        steps_power: see ``steps``.
        bins: bins of a number.
        most: columns of the encoding at most.
        gamma_scale: of ``inverse_gap_gamma``.
        optimism: of ``hope``.
    """

    width: int = 256
    rate: float = 1e-2
    half_rows: float = 125.0
    decay: float = 1.2
    batch: int = 256
    steps: float = 100.0
    steps_power: float = 0.5
    bins: int = 16
    most: int = 512
    gamma_scale: float = 10_000.0
    optimism: float = 2.0

    @property
    def widths(self) -> Widths:
        """Of the encoding: all bins from the first row on, cut down only where the hard limit asks for it."""
        return Widths(target=self.most, most=self.most, bins=self.bins, few_rows=0)

    def __post_init__(self) -> None:
        for name in ("width", "rate", "half_rows", "batch", "steps", "steps_power", "bins", "most", "gamma_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} {getattr(self, name)} must be above 0 and finite")
        for name in ("decay", "optimism"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} {getattr(self, name)} must be at least 0 and finite")


class KwayLearner:
    """Learns expected rewards of K actions from what was chosen. The same rows in the same blocks give the same model.

    Args:
        actions: K, at least 2.
        seed: of the first weights and of the rows that steps draw.
        options: see ``KwayOptions``.
        attributes: types of features; what is not registered is typed by its values.
    """

    def __init__(
        self,
        actions: int,
        *,
        seed: int,
        options: KwayOptions | None = None,
        attributes: Sequence[Attribute] = (),
    ) -> None:
        if actions < 2:
            raise ConfigError(f"actions {actions} must be at least 2")
        self.actions = actions
        self.options = options or KwayOptions()
        self._attributes = attributes
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._contexts: list[JsonObject] = []
        self._inputs = np.zeros((0, 0), np.float32)
        self._action = np.zeros(0, np.int64)
        self._reward = np.zeros(0, np.float32)
        self._made = 0
        self._fitted = 0
        self._spec = FeatureSpec(())
        self._tried = np.zeros(actions)
        self._earned = np.zeros(actions)
        self._network = self._fresh()
        self._adam = AdamW(self._network.weights, self.options.decay)

    @property
    def rows(self) -> int:
        """Rows learned from."""
        return len(self._contexts)

    @property
    def gamma(self) -> float:
        """Gamma of inverse-gap weighting after these rows."""
        return inverse_gap_gamma(self.rows, self.options.gamma_scale)

    @property
    def hope(self) -> NDArray[np.float64]:
        """How far each action's estimate is to be mistrusted after these rows, (K,)."""
        return hope(self._tried, self._earned, self.options.optimism)

    def admit(self, more: int) -> None:
        """Makes room for so many actions more, numbered behind the others."""
        self.actions += more
        self._tried = np.concatenate([self._tried, np.zeros(more)])
        self._earned = np.concatenate([self._earned, np.zeros(more)])
        self._network.admit(more)
        self._adam = AdamW(self._network.weights, self.options.decay)

    def scores(self, contexts: Sequence[JsonObject]) -> NDArray[np.float64]:
        """Expected reward of every action, (n, K) in [0, 1]; the same for all actions before the first row."""
        return self._network.rewards(self._spec.encode(contexts)).astype(np.float64)

    def learn(self, contexts: Sequence[JsonObject], action: NDArray[np.int64], reward: NDArray[np.float64]) -> None:
        """Takes in n rows and makes the steps that they pay for.

        Args:
            contexts: (n) of the decisions.
            action: (n,) int64 in [0, K), what was chosen.
            reward: (n,) float64 in [0, 1], what it earned.

        Raises:
            ValueError: lengths differ, or an action or a reward is out of its range.
        """
        _check(len(contexts), action, reward, self.actions)
        if not contexts:
            return
        self._tried += np.bincount(action, minlength=self.actions)
        self._earned += np.bincount(action, weights=reward, minlength=self.actions)
        self._contexts.extend(contexts)
        self._action = np.concatenate([self._action, action.astype(np.int64)])
        self._reward = np.concatenate([self._reward, reward.astype(np.float32)])
        if self.rows >= GROWTH * self._fitted:
            self._encode_anew()
        else:
            self._inputs = np.concatenate([self._inputs, self._spec.encode(contexts)])
        due = int(self.options.steps * self.rows**self.options.steps_power)
        for _ in range(due - self._made):
            self._step()
        self._made = due

    def export(self) -> bytes:
        """The artifact that ``KwayModel`` serves.

        Raises:
            ArithmeticError: ONNX Runtime and the network disagree.
        """
        meta = {
            "kind": KIND,
            "format": FORMAT,
            "spec": self._spec.to_json(),
            "actions": self.actions,
            "rows": self.rows,
            "gamma_scale": self.options.gamma_scale,
            "optimism": self.options.optimism,
            "tried": self._tried.tolist(),
            "earned": self._earned.tolist(),
            "seed": self._seed,
        }
        return pack(export_rewards(self._spec, self._network), {}, meta)

    def _step(self) -> None:
        count, batch = self.rows, self.options.batch
        rows = self._rng.integers(count, size=batch) if count > batch else np.arange(count)
        gradient = self._network.gradient(self._inputs[rows], self._action[rows], self._reward[rows])
        rate = self.options.rate / math.sqrt(1.0 + count / self.options.half_rows)
        self._adam.step(self._network.weights, gradient, rate)

    def _encode_anew(self) -> None:
        """Fits the encoding to everything seen and moves the network over to it."""
        options = self.options
        self._spec = fit_spec(self._contexts, self._attributes, options.widths)
        inputs = self._spec.encode(self._contexts)
        if self._fitted:
            self._network.carry(self._inputs, inputs[: len(self._inputs)])
        else:
            self._network = self._fresh()
        self._adam = AdamW(self._network.weights, options.decay)
        self._inputs = inputs
        self._fitted = self.rows

    def _fresh(self) -> KwayNetwork:
        return KwayNetwork(self._spec.width, self.options.width, self.actions, self._rng)


def _check(count: int, action: NDArray[np.int64], reward: NDArray[np.float64], actions: int) -> None:
    if not len(action) == len(reward) == count:
        raise ValueError(f"{count} contexts, {len(action)} actions, {len(reward)} rewards: expected as many of each")
    if count and not (action.min() >= 0 and action.max() < actions):
        raise ValueError(f"actions {action.min()} to {action.max()} must be in [0, {actions})")
    if not ((reward >= 0) & (reward <= 1)).all():  # False for NaN too
        raise ValueError("rewards must be in [0, 1]")
