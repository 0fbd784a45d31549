"""Scores of all actions for one context or many, through the structure of the heads instead of a row an action.

For each (variant, channel) a head is α(x) + κ(x)·τ(s) + r_s: so one product over contexts, one over time features, and
no (actions x weights) matrix. ``Prepared`` holds everything that depends on the campaign alone.

Many contexts are scored at once, and each gets the very bits that it would get alone: beside operations on single
elements there are only stacked products, of which every row is one product of the same shape. A product over all rows
together would round differently with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import Spaces
from optimizer.bandit.rewards import HARMFUL
from optimizer.model.heads import Heads
from optimizer.model.layout import Action
from optimizer.model.timefeatures import SHORT, TIME_WIDTH, harmonics, hour_of_week
from optimizer.model.values import expected_value
from optimizer.model.variantbasis import VariantBasis
from storage.records import Campaign, JsonObject

#: The level and the time columns.
_TIME = TIME_WIDTH + 1


@dataclass(frozen=True)
class Tower:
    """Coefficients of H heads for P pairs, float64.

    Attributes:
        context: (H·P, F). time: (H, P, 14), the level and the 13 time columns. short: (H·5, F), shared by the pairs.
        bucket: (H, 168) residuals of the hour of the week.
    """

    context: NDArray[np.float64]
    time: NDArray[np.float64]
    short: NDArray[np.float64]
    bucket: NDArray[np.float64]

    def logits(
        self, x: NDArray[np.float64], basis: NDArray[np.float64], bucket: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """η (n, H, P, S) at embedded contexts (n, F), time bases (n, 14, S) and hour buckets (n, S)."""
        heads, pairs, _ = self.time.shape
        n, slots = bucket.shape
        coefficients = np.empty((n, heads, pairs, _TIME))
        coefficients[...] = self.time
        coefficients[..., 0] += _products(self.context, x).reshape(n, heads, pairs)
        coefficients[..., 1 : SHORT + 1] += _products(self.short, x).reshape(n, heads, 1, SHORT)
        eta = (coefficients.reshape(n, heads * pairs, _TIME) @ basis).reshape(n, heads, pairs, slots)
        eta += self.bucket[:, bucket].swapaxes(0, 1)[:, :, None, :]
        return eta


@dataclass(frozen=True)
class Bank:
    """Deviations of M posterior draws, of the Hw heads with a weight in the objective, for P pairs; float32.

    Attributes:
        context: (P·M·Hw, F). time: (P, M, Hw, 14). short: (M·Hw·5, F). bucket: (168, M, Hw).
    """

    context: NDArray[np.float32]
    time: NDArray[np.float32]
    short: NDArray[np.float32]
    bucket: NDArray[np.float32]

    def rewards(
        self,
        x: NDArray[np.float32],
        basis: NDArray[np.float32],
        bucket: NDArray[np.int64],
        slope: NDArray[np.float32],
        reward: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Drawn rewards in two parts to be added: (n, P, M, S) and, of the hours, (n, S, M, P).

        Linearised at the mean: reward + Σ slope · Δη, each action at its own slope (n, Hw, P, S). Σ worth · σ(η + Δη)
        would need a sigmoid a draw, head and action (design notes: 6 times the time at M = 64). Slopes and time
        features meet first, so that heads and time columns are one inner dimension of a single product for each pair;
        the mean ``reward`` (n, P, S) is one column more of it.
        """
        pairs, draws, heads, _ = self.time.shape
        n, slots = bucket.shape
        inner = heads * _TIME
        left = np.empty((n, pairs, draws, inner + 1), np.float32)
        grid = left[..., :inner].reshape(n, pairs, draws, heads, _TIME)
        grid[...] = self.time
        grid[..., 0] += _products(self.context, x).reshape(n, pairs, draws, heads)
        grid[..., 1 : SHORT + 1] += _products(self.short, x).reshape(n, 1, draws, heads, SHORT)
        left[..., inner] = 1.0
        right = np.empty((n, pairs, inner + 1, slots), np.float32)
        np.multiply(
            slope.swapaxes(1, 2)[:, :, :, None, :],
            basis[:, None, None],
            out=right[:, :, :inner].reshape(n, pairs, heads, _TIME, slots),
        )
        right[:, :, inner] = reward
        return left @ right, self.bucket[bucket] @ np.ascontiguousarray(slope.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Prepared:
    """What scoring needs of one campaign over given variants and channels.

    Attributes:
        mean: message heads. draws: their draws, width factor included.
        weighted: (Hw,) message heads with a weight in the objective; worth: (H,) their reward when they happen.
        cost: (P,) of variant and channel.
        no_send_*: the same for the no_send heads: (H0, base), (Hw0, M, base), a base row being 1 and the context in the
            layout's order.
    """

    mean: Tower
    draws: Bank
    weighted: NDArray[np.int64]
    worth: NDArray[np.float64]
    cost: NDArray[np.float64]
    no_send_mean: NDArray[np.float64]
    no_send_draws: NDArray[np.float32]
    no_send_weighted: NDArray[np.int64]
    no_send_worth: NDArray[np.float64]


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
        return flat(self.spaces, self.message[:, head], self.stay[:, head])


@dataclass(frozen=True)
class Scores:
    """Scores of the K actions of a space.

    Attributes:
        reward: (K,) float64 expected reward minus cost; for no_send by its own heads.
        draws: (M, K) float32 posterior draws of the reward.
        chances: of its one row.
    """

    reward: NDArray[np.float64]
    draws: NDArray[np.float32]
    chances: Chances

    @cached_property
    def outcome(self) -> dict[str, NDArray[np.float64]]:
        """Probability (K,) of every outcome."""
        told = {name: self.chances.of(name) for name in self.chances.outcomes}
        return {name: chance[0] for name, chance in told.items() if chance is not None}

    @property
    def risk(self) -> dict[str, NDArray[np.float64]]:
        """Probability (K,) of each harmful outcome; 0 for no_send."""
        return {name: self.outcome[name] for name in self.chances.outcomes if name in HARMFUL}


@dataclass(frozen=True)
class ScoredRows:
    """Scores of n rows whose spaces have one shape.

    Attributes:
        reward: (n, K) float64. draws: (n, M, K) float32. See ``Scores``.
        chances: of all rows.
    """

    reward: NDArray[np.float64]
    draws: NDArray[np.float32]
    chances: Chances


def prepare(
    message: Heads,
    no_send: Heads,
    basis: VariantBasis,
    values: JsonObject,
    width: float,
    *,
    campaign: Campaign,
    variants: tuple[str, ...],
    channels: tuple[str, ...],
) -> Prepared:
    """Works out everything about a campaign that no context or time changes."""
    by_id = {variant.id: variant for variant in campaign.variants}
    costs = {channel.id: channel.cost for channel in campaign.channels}
    actions = [
        Action(campaign.campaign_id, variant, channel, basis.coordinates(by_id[variant]))
        for variant in variants
        for channel in channels
    ]
    cost = np.array([by_id[variant].cost + costs[channel] for variant in variants for channel in channels])
    worth = worth_of(message, campaign, values)
    weighted = np.flatnonzero(worth)
    outside = Action(campaign.campaign_id)
    no_send_worth = worth_of(no_send, campaign, values)
    no_send_weighted = np.flatnonzero(no_send_worth)
    return Prepared(
        mean=_tower(
            message,
            np.stack([message.coefficients(action) for action in actions], axis=1),
            message.bucket_means(),
        ),
        draws=_bank(message, actions, weighted, width),
        weighted=weighted,
        worth=worth,
        cost=cost,
        no_send_mean=no_send.coefficients(outside),
        no_send_draws=(width * no_send.deviations(outside, no_send_weighted)).astype(np.float32),
        no_send_weighted=no_send_weighted,
        no_send_worth=no_send_worth,
    )


def score_rows(
    ready: Prepared,
    message: Heads,
    no_send: Heads,
    x: NDArray[np.float32],
    spaces: Spaces,
    own: Sequence[NDArray[np.float64] | None],
) -> ScoredRows:
    """Scores of every action of n spaces of one shape, each at its embedded context.

    Args:
        ready: the campaign's part.
        message: heads of messages. no_send: of not sending.
        x: (n, F).
        spaces: the actions.
        own: n arrays (H, S) that are added to the message heads; None = nothing.
    """
    n, slots = spaces.local.shape
    basis = np.empty((n, _TIME, slots))
    basis[:, 0] = 1.0
    basis[:, 1:] = harmonics(spaces.local.reshape(-1)).reshape(n, slots, TIME_WIDTH).swapaxes(1, 2)
    bucket = hour_of_week(spaces.local)
    eta = ready.mean.logits(x.astype(np.float64), basis, bucket)
    for i, added in enumerate(own):
        if added is not None:
            eta[i] += added[:, None, :]
    chance = sigmoid(eta)
    heads, pairs = chance.shape[1:3]
    reward = (ready.worth @ chance.reshape(n, heads, pairs * slots)).reshape(n, pairs, slots) - ready.cost[:, None]
    slope = (ready.worth[:, None, None] * chance * (1.0 - chance))[:, ready.weighted].astype(np.float32)
    drawn, hours = ready.draws.rewards(x, basis.astype(np.float32), bucket, slope, reward.astype(np.float32))
    many = drawn.shape[2]
    stay, stay_reward, stay_draws = _staying(ready, message, no_send, x, many)
    draws = np.empty((n, many, spaces.size), np.float32)
    variants, channels = len(spaces.variants), len(spaces.channels)
    np.add(
        drawn.reshape(n, variants, channels, many, slots).transpose(0, 3, 1, 4, 2),
        hours.reshape(n, slots, many, variants, channels).transpose(0, 2, 3, 1, 4),
        out=draws[..., : spaces.messages].reshape(n, many, variants, slots, channels),
    )
    if spaces.no_send:
        draws[..., -1] = stay_draws
    return ScoredRows(
        reward=flat(spaces, reward, stay_reward),
        draws=draws,
        chances=Chances(message.outcomes, chance, stay, spaces),
    )


def _staying(
    ready: Prepared, message: Heads, no_send: Heads, x: NDArray[np.float32], draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Not sending: chances (n, H) in the order of the message heads, rewards (n,), drawn rewards (n, M)."""
    n = len(x)
    context = np.empty((n, 1 + len(no_send.layout.context)), np.float32)
    context[:, 0] = 1.0
    context[:, 1:] = x[:, list(no_send.layout.context)]
    chance = sigmoid(_products(ready.no_send_mean, context.astype(np.float64)))
    stay = np.zeros((n, len(message.outcomes)))
    for i, name in enumerate(no_send.outcomes):
        stay[:, message.outcomes.index(name)] = chance[:, i]
    reward = (chance * ready.no_send_worth).sum(axis=1)
    slope = (ready.no_send_worth * chance * (1.0 - chance))[:, ready.no_send_weighted].astype(np.float32)
    heads, _, base = ready.no_send_draws.shape
    deviation = _products(ready.no_send_draws.reshape(heads * draws, base), context).reshape(n, heads, draws)
    drawn = (slope[:, :, None] * deviation).sum(axis=1) + reward.astype(np.float32)[:, None]
    return stay, reward, drawn


def _products(matrix: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """matrix (R, F) times each of n vectors (n, F): (n, R), one product a vector."""
    products: NDArray[Any] = (matrix @ x[:, :, None])[..., 0]
    return products


def flat(spaces: Spaces, grid: NDArray[np.float64], stay: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values over (n, pair, slot) as (n, K) in the spaces' order: variant, slot, channel; no_send last."""
    n, _, slots = grid.shape
    out = np.empty((n, spaces.size))
    cube = grid.reshape(n, len(spaces.variants), len(spaces.channels), slots)
    out[:, : spaces.messages] = cube.swapaxes(2, 3).reshape(n, spaces.messages)
    if spaces.no_send:
        out[:, -1] = stay
    return out


def _tower(heads: Heads, base: NDArray[np.float64], bucket: NDArray[np.float64]) -> Tower:
    """A tower of base coefficients (R, P, base) and bucket residuals (R, 168)."""
    layout, at = heads.layout, heads.layout.offsets
    rows, pairs = base.shape[:2]
    time = np.zeros((rows, pairs, _TIME))
    time[..., 0] = base[..., 0]
    time[..., [column + 1 for column in layout.time]] = base[..., at["time"]]
    width = len(layout.context)
    context = np.zeros((rows, pairs, width))
    context[..., list(layout.context)] = base[..., at["plain"].start : at["network"].stop]
    short = np.zeros((rows, SHORT, width))
    short[np.ix_(range(rows), layout.short, layout.plain)] = base[:, 0, at["plain_time"]].reshape(
        rows, len(layout.short), len(layout.plain)
    )
    return Tower(context.reshape(rows * pairs, width), time, short.reshape(rows * SHORT, width), bucket)


def _bank(message: Heads, actions: Sequence[Action], weighted: NDArray[np.int64], width: float) -> Bank:
    """The draws of the weighted heads, laid out as ``Bank.rewards`` multiplies them."""
    base = width * np.stack([message.deviations(action, weighted) for action in actions], axis=2)
    heads, draws, pairs, columns = base.shape
    hours = width * message.bucket_deviations(weighted)
    rows = _tower(message, base.reshape(heads * draws, pairs, columns), hours.reshape(heads * draws, hours.shape[-1]))
    features = rows.context.shape[1]
    parts = (
        rows.context.reshape(heads, draws, pairs, features)
        .transpose(2, 1, 0, 3)
        .reshape(heads * draws * pairs, features),
        rows.time.reshape(heads, draws, pairs, _TIME).transpose(2, 1, 0, 3),
        rows.short.reshape(heads, draws, SHORT, features).swapaxes(0, 1).reshape(rows.short.shape),
        hours.transpose(2, 1, 0),
    )
    return Bank(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))


def worth_of(heads: Heads, campaign: Campaign, values: JsonObject) -> NDArray[np.float64]:
    """Reward (H,) of each head's outcome when it happens: fixed + per_value · E[min(value, max_value)]."""
    out = np.zeros(len(heads.outcomes))
    for i, name in enumerate(heads.outcomes):
        weight = campaign.objective.get(name)
        if weight is not None:
            out[i] = weight.fixed
            if weight.per_value:
                out[i] += weight.per_value * expected_value(values, name, campaign, weight.max_value)
    return out


def sigmoid(eta: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logistic function without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * eta)), dtype=np.float64)
