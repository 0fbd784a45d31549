"""Scores of all actions for one context or many, through the structure of the heads instead of a row an action.

``Prepared`` holds everything that depends on the campaign alone.

Many contexts are scored at once, and each gets the very bits that it would get alone: beside operations on single
elements there are only stacked products, of which every row is one product of the same shape. A product over all rows
together would round differently with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import kernel
from optimizer.bandit.actions import Spaces
from optimizer.bandit.rewards import HARMFUL
from optimizer.model.drawing import Drawing, Floats, by_action, products
from optimizer.model.funnel import sigmoid, visible
from optimizer.model.prepared import Prepared
from optimizer.model.timefeatures import SHORT, TIME_COLUMNS, fill_harmonics, hour_of_week


@dataclass(frozen=True)
class Chances:
    """Probabilities of the outcomes of n rows, as they come out of the heads: pair by slot.

    Attributes:
        outcomes: (H,) names. message: (n, H, P, S). stay: (n, H) without a message; 0 for what needs one.
        spaces: the rows' actions.
    """

    outcomes: tuple[str, ...]
    message: NDArray[np.float64]
    stay: NDArray[np.float64]
    spaces: Spaces

    def of(self, outcome: str) -> NDArray[np.float64] | None:
        """The probability (n, K) of an outcome; None without a head for it."""
        if outcome not in self.outcomes:
            return None
        head = self.outcomes.index(outcome)
        return by_action(self.spaces, self.message[:, head], self.stay[:, head])


@dataclass(frozen=True)
class ScoredRows:
    """Scores of n rows whose spaces have one shape.

    Attributes:
        reward: (n, K) float64 expected reward minus cost; for no_send by its own heads.
        drawing: what posterior draws make of it.
        chances: of the outcomes.
    """

    reward: NDArray[np.float64]
    drawing: Drawing
    chances: Chances

    @property
    def spaces(self) -> Spaces:
        """The rows' actions."""
        return self.chances.spaces


@dataclass(frozen=True)
class Scores:
    """Scores of the K actions of one space: the only row of ``rows``."""

    rows: ScoredRows

    @property
    def reward(self) -> NDArray[np.float64]:
        """(K,), see ``ScoredRows``."""
        return np.asarray(self.rows.reward[0])

    @property
    def draws(self) -> Floats:
        """(M, K) posterior draws of the reward."""
        return np.asarray(self.rows.drawing.actions[0])

    @property
    def chances(self) -> Chances:
        """Of the outcomes, as risk masks take them."""
        return self.rows.chances

    @cached_property
    def outcome(self) -> dict[str, NDArray[np.float64]]:
        """Probability (K,) of every outcome."""
        told = {name: self.chances.of(name) for name in visible(self.chances.outcomes)}
        return {name: chance[0] for name, chance in told.items() if chance is not None}

    @property
    def risk(self) -> dict[str, NDArray[np.float64]]:
        """Probability (K,) of each harmful outcome; 0 for no_send."""
        return {name: chance for name, chance in self.outcome.items() if name in HARMFUL}


def score_rows(
    ready: Prepared,
    outcomes: tuple[str, ...],
    x: NDArray[np.float32],
    spaces: Spaces,
    own: Sequence[NDArray[np.float64] | None],
) -> ScoredRows:
    """Scores of every action of n spaces of one shape, each at its embedded context.

    Args:
        ready: the campaign's part.
        outcomes: of the message heads.
        x: (n, F).
        spaces: the actions.
        own: n arrays (H, S) that are added to the message heads; None = nothing.
    """
    means, staying = (_means_compiled, _staying_compiled) if kernel.available else (_means, _staying)
    message = means(ready, x, spaces.local, own)
    stay, stay_reward, stay_draws = staying(ready, len(outcomes), x)
    drawing = Drawing(
        bank=ready.draws,
        spaces=spaces,
        x=x,
        basis=message.basis,
        hours=message.hours,
        slope=message.slope,
        reward=message.reward.astype(np.float32),
        stay=stay_draws,
    )
    return ScoredRows(
        reward=by_action(spaces, message.reward, stay_reward),
        drawing=drawing,
        chances=Chances(outcomes, message.chance, stay, spaces),
    )


@dataclass(frozen=True)
class _Means:
    """What the heads say of messages.

    Attributes:
        basis: (n, 24, S) time bases. hours: (n, S) hours of the week.
        chance: (n, H, P, S). reward: (n, P, S). slope: (n, Hw, P, S) d reward / dη of the weighted heads.
    """

    basis: Floats
    hours: NDArray[np.int64]
    chance: NDArray[np.float64]
    reward: NDArray[np.float64]
    slope: Floats


def _means(ready: Prepared, x: Floats, local: NDArray[np.int64], own: Sequence[NDArray[np.float64] | None]) -> _Means:
    """Of rows with local seconds (n, S)."""
    basis = np.empty((len(local), TIME_COLUMNS, local.shape[1]))
    basis[:, 0] = 1.0
    fill_harmonics(local, basis.swapaxes(0, 1)[1:])
    hours = hour_of_week(local)
    eta = ready.mean.logits(x.astype(np.float64), basis, hours)
    for i, added in enumerate(own):
        if added is not None:
            eta[i] += added[:, None, :]
    chance = sigmoid(eta)
    rest = 1.0 - chance
    for head, before in ready.steps:
        chance[:, head] *= chance[:, before]
    slope = ready.worth[:, :, None] * chance
    reward = slope.sum(axis=1) - ready.cost[:, None]
    through = [slope[:, head] * rest[:, before] for head, before in ready.steps]
    slope *= rest
    for (_, before), more in zip(ready.steps, through, strict=True):
        slope[:, before] += more
    weighted = slope if len(ready.weighted) == chance.shape[1] else slope[:, ready.weighted]
    return _Means(basis.astype(np.float32), hours, chance, reward, weighted.astype(np.float32))


def _means_compiled(
    ready: Prepared, x: Floats, local: NDArray[np.int64], own: Sequence[NDArray[np.float64] | None]
) -> _Means:
    """The same."""
    tower, weighted = ready.mean, len(ready.weighted)
    (n, slots), (heads, pairs, _) = local.shape, tower.time.shape
    added: NDArray[np.float64] | None = None
    if any(one is not None for one in own):
        added = np.stack([np.zeros((heads, slots)) if one is None else one for one in own]).astype(np.float64)
    found = _Means(
        basis=np.empty((n, TIME_COLUMNS, slots), np.float32),
        hours=np.empty((n, slots), np.int64),
        chance=np.empty((n, heads, pairs, slots)),
        reward=np.empty((n, pairs, slots)),
        slope=np.empty((n, weighted, pairs, slots), np.float32),
    )
    kernel.score(
        (n, heads, pairs, slots, x.shape[1], SHORT, len(ready.steps), weighted),
        np.ascontiguousarray(x, np.float32),
        np.ascontiguousarray(local, np.int64),
        added,
        tower.context,
        tower.time,
        tower.short,
        tower.bucket,
        ready.worth,
        ready.cost,
        np.array(ready.steps, np.int64),
        ready.weighted,
        found.basis,
        found.hours,
        found.chance,
        found.reward,
        found.slope,
    )
    return found


def _staying(
    ready: Prepared, outcomes: int, x: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Not sending: chances (n, H) in the order of the H message heads, rewards (n,), drawn rewards (n, M)."""
    n = len(x)
    context = np.empty((n, 1 + len(ready.no_send_context)), np.float32)
    context[:, 0] = 1.0
    context[:, 1:] = x[:, ready.no_send_context]
    chance = sigmoid(products(ready.no_send_mean, context.astype(np.float64)))
    stay = np.zeros((n, outcomes))
    stay[:, ready.no_send_places] = chance
    reward = (chance * ready.no_send_worth).sum(axis=1)
    slope = (ready.no_send_worth * chance * (1.0 - chance))[:, ready.no_send_weighted].astype(np.float32)
    heads, draws, base = ready.no_send_draws.shape
    deviation = products(ready.no_send_draws.reshape(heads * draws, base), context).reshape(n, heads, draws)
    drawn = (slope[:, :, None] * deviation).sum(axis=1) + reward.astype(np.float32)[:, None]
    return stay, reward, drawn


def _staying_compiled(
    ready: Prepared, outcomes: int, x: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """The same as ``_staying``."""
    n, features = x.shape
    weighted, draws, base = ready.no_send_draws.shape
    stay, reward, drawn = np.zeros((n, outcomes)), np.empty(n), np.empty((n, draws), np.float32)
    kernel.stay(
        (n, features, len(ready.no_send_mean), base, weighted, draws, outcomes),
        np.ascontiguousarray(x, np.float32),
        ready.no_send_context,
        ready.no_send_mean,
        ready.no_send_draws,
        ready.no_send_worth,
        ready.no_send_weighted,
        ready.no_send_places,
        stay,
        reward,
        drawn,
    )
    return stay, reward, drawn
