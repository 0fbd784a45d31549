"""Scores of all actions for one context, through the structure of the heads instead of a row an action.

For each (variant, channel) a head is α(x) + κ(x)·τ(s) + r_s: so one product over contexts, one over time features, and
no (actions x weights) matrix. ``Prepared`` holds everything that depends on the campaign alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import HARMFUL
from optimizer.model.heads import Heads
from optimizer.model.layout import Action
from optimizer.model.timefeatures import SHORT, TIME_WIDTH, harmonics, hour_of_week
from optimizer.model.values import expected_value
from optimizer.model.variantbasis import VariantBasis
from storage.records import Campaign, JsonObject

if TYPE_CHECKING:
    from optimizer.bandit.actions import ActionSpace


#: Hour of the week of each slot, (S,).
Buckets = NDArray[np.int64]


@dataclass(frozen=True)
class Tower:
    """Coefficients of R rows (heads, or draws of one head) for P pairs, in one number type.

    Attributes:
        context: (R·P, F). time: (R, P, 14), the level and the 13 time columns. short: (R·5, F), shared by the pairs.
        bucket: (R, 168) residuals of the hour of the week.
    """

    context: NDArray[np.floating]
    time: NDArray[np.floating]
    short: NDArray[np.floating]
    bucket: NDArray[np.floating]

    def logits(self, x: NDArray[np.floating], basis: NDArray[np.floating], bucket: Buckets) -> NDArray[np.floating]:
        """η (R, P, S) at an embedded context (F,), a time basis (14, S) whose first row is 1, and hour buckets (S,)."""
        rows, pairs, _ = self.time.shape
        coefficients = self.time.copy()
        coefficients[..., 0] += (self.context @ x).reshape(rows, pairs)
        coefficients[..., 1 : SHORT + 1] += (self.short @ x).reshape(rows, 1, SHORT)
        eta: NDArray[Any] = (coefficients.reshape(rows * pairs, -1) @ basis).reshape(rows, pairs, basis.shape[1])
        eta += self.bucket[:, bucket][:, None, :]
        return eta


@dataclass(frozen=True)
class Prepared:
    """What scoring needs of one campaign over given variants and channels.

    Attributes:
        mean: R = H message heads, float64.
        draws: a weighted head each, R = M draws, float32, width factor included.
        weighted: (Hw,) message heads with a weight in the objective; worth: (H,) their reward when they happen.
        cost: (P,) of variant and channel.
        no_send_*: the same for the no_send heads: (H0, base), (Hw0, M, base), a base row being 1 and the context in the
            layout's order.
    """

    mean: Tower
    draws: tuple[Tower, ...]
    weighted: NDArray[np.int64]
    worth: NDArray[np.float64]
    cost: NDArray[np.float64]
    no_send_mean: NDArray[np.float64]
    no_send_draws: NDArray[np.float32]
    no_send_weighted: NDArray[np.int64]
    no_send_worth: NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of the K actions of a space.

    Attributes:
        reward: (K,) float64 expected reward minus cost; for no_send by its own heads.
        draws: (M, K) float32 posterior draws of the reward.
        risk: probability (K,) of each harmful outcome; 0 for no_send.
        outcome: probability (K,) of every outcome.
    """

    reward: NDArray[np.float64]
    draws: NDArray[np.float32]
    risk: dict[str, NDArray[np.float64]]
    outcome: dict[str, NDArray[np.float64]]


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
            np.dtype(np.float64),
        ),
        draws=tuple(
            _tower(
                message,
                width * np.stack([message.deviations(action, one)[0] for action in actions], axis=1),
                width * message.bucket_deviations(one)[0],
                np.dtype(np.float32),
            )
            for one in weighted[:, None]
        ),
        weighted=weighted,
        worth=worth,
        cost=cost,
        no_send_mean=no_send.coefficients(outside),
        no_send_draws=(width * no_send.deviations(outside, no_send_weighted)).astype(np.float32),
        no_send_weighted=no_send_weighted,
        no_send_worth=no_send_worth,
    )


def score(
    ready: Prepared,
    message: Heads,
    no_send: Heads,
    x: NDArray[np.float32],
    space: ActionSpace,
    *,
    own: NDArray[np.float64] | None = None,
) -> Scores:
    """Scores of every action of a space at one embedded context (F,); ``own`` (H, S) is added to the message heads."""
    basis = np.empty((TIME_WIDTH + 1, len(space.local)))
    basis[0] = 1.0
    basis[1:] = harmonics(space.local).T
    bucket = hour_of_week(space.local)
    eta = ready.mean.logits(x.astype(np.float64), basis, bucket)
    if own is not None:
        eta += own[:, None, :]
    chance = sigmoid(eta)
    reward = (ready.worth @ chance.reshape(len(chance), -1)).reshape(chance.shape[1:]) - ready.cost[:, None]
    draws = _message_draws(ready, chance, x, basis.astype(np.float32), bucket)
    draws += reward.astype(np.float32)
    stay = dict.fromkeys(message.outcomes, 0.0)
    stay_reward, stay_draws = 0.0, np.zeros(len(draws), dtype=np.float32)
    if space.no_send:
        one_x = np.concatenate((np.ones(1, dtype=np.float32), x[list(no_send.layout.context)]))
        stay_chance = sigmoid(ready.no_send_mean @ one_x.astype(np.float64))
        stay.update(zip(no_send.outcomes, stay_chance.tolist(), strict=True))
        stay_reward = float(ready.no_send_worth @ stay_chance)
        slope = (ready.no_send_worth * stay_chance * (1.0 - stay_chance))[ready.no_send_weighted]
        stay_draws = np.tensordot(slope.astype(np.float32), ready.no_send_draws @ one_x, axes=1)
        stay_draws = (stay_draws + np.float32(stay_reward)).astype(np.float32)
    outcome = {name: _flat(space, chance[i], stay[name]) for i, name in enumerate(message.outcomes)}
    return Scores(
        reward=_flat(space, reward, stay_reward),
        draws=_flat(space, draws, stay_draws),
        risk={name: outcome[name] for name in message.outcomes if name in HARMFUL},
        outcome=outcome,
    )


def _message_draws(
    ready: Prepared, chance: NDArray[np.float64], x: NDArray[np.float32], basis: NDArray[np.float32], bucket: Buckets
) -> NDArray[np.float32]:
    """Deviations of the reward (M, P, S), linearised at the mean: Σ worth · p(1−p) · Δη, each action at its own p.

    Σ worth · σ(η + Δη) would need a sigmoid a draw, head and action (design notes: 6 times the time at M = 64). Head by
    head, since arrays of one head (55 kB at 432 actions) stay in the cache and all together do not.
    """
    slope = (ready.worth[:, None, None] * chance * (1.0 - chance))[ready.weighted].astype(np.float32)
    out = np.zeros((ready.no_send_draws.shape[1], *chance.shape[1:]), dtype=np.float32)
    for tower, factor in zip(ready.draws, slope, strict=True):
        deviation = tower.logits(x, basis, bucket)
        deviation *= factor
        out += deviation
    return out


def _flat(space: ActionSpace, grid: NDArray[Any], stay: float | NDArray[Any]) -> NDArray[Any]:
    """Values over (…, pair, slot) as (…, K) in the space's order: variant, slot, channel; no_send last."""
    lead, slots = grid.shape[:-2], grid.shape[-1]
    variants, channels = len(space.variants), len(space.channels)
    out = np.empty((*lead, space.size), dtype=grid.dtype)
    cube = grid.reshape(*lead, variants, channels, slots)
    out[..., : variants * channels * slots] = np.swapaxes(cube, -1, -2).reshape(*lead, -1)
    if space.no_send:
        out[..., -1] = stay
    return out


def _tower(heads: Heads, base: NDArray[np.float64], bucket: NDArray[np.float64], dtype: np.dtype[Any]) -> Tower:
    """A tower of base coefficients (R, P, base) and bucket residuals (R, 168)."""
    layout, at = heads.layout, heads.layout.offsets
    rows, pairs = base.shape[:2]
    time = np.zeros((rows, pairs, TIME_WIDTH + 1))
    time[..., 0] = base[..., 0]
    time[..., [column + 1 for column in layout.time]] = base[..., at["time"]]
    width = len(layout.context)
    context = np.zeros((rows, pairs, width))
    context[..., list(layout.context)] = base[..., at["plain"].start : at["network"].stop]
    short = np.zeros((rows, SHORT, width))
    short[np.ix_(range(rows), layout.short, layout.plain)] = base[:, 0, at["plain_time"]].reshape(
        rows, len(layout.short), len(layout.plain)
    )
    parts = (context.reshape(rows * pairs, width), time, short.reshape(rows * SHORT, -1))
    return Tower(*(np.ascontiguousarray(part, dtype=dtype) for part in (*parts, bucket)))


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
