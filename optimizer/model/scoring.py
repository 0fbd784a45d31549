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

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import Spaces
from optimizer.bandit.rewards import HARMFUL
from optimizer.model.drawing import Bank, Drawing, Floats, by_action, products
from optimizer.model.funnel import sigmoid, steps, visible
from optimizer.model.heads import Heads
from optimizer.model.layout import Action
from optimizer.model.timefeatures import SHORT, TIME_COLUMNS, fill_harmonics, hour_of_week
from optimizer.model.values import expected_value
from optimizer.model.variantbasis import VariantBasis
from storage.records import Campaign, JsonObject


@dataclass(frozen=True)
class Tower:
    """Coefficients of H heads for P pairs, float64.

    Attributes:
        context: (H·P, F). time: (H, P, 18), the level and the time columns. short: (H·9, F), shared by the pairs.
        bucket: (H, 168) residuals of the hour of the week.
    """

    context: NDArray[np.float64]
    time: NDArray[np.float64]
    short: NDArray[np.float64]
    bucket: NDArray[np.float64]

    def logits(
        self, x: NDArray[np.float64], basis: NDArray[np.float64], bucket: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """η (n, H, P, S) at embedded contexts (n, F), time bases (n, 18, S) and hour buckets (n, S)."""
        heads, pairs, _ = self.time.shape
        n, slots = bucket.shape
        short, rest = slice(1, SHORT + 1), slice(SHORT + 1, TIME_COLUMNS)
        coefficients = np.empty((n, heads, pairs, TIME_COLUMNS))
        np.add(self.time[..., 0], products(self.context, x).reshape(n, heads, pairs), out=coefficients[..., 0])
        of_short = products(self.short, x).reshape(n, heads, 1, SHORT)
        np.add(self.time[..., short], of_short, out=coefficients[..., short])
        coefficients[..., rest] = self.time[..., rest]
        eta = (coefficients.reshape(n, heads * pairs, TIME_COLUMNS) @ basis).reshape(n, heads, pairs, slots)
        eta += self.bucket[:, bucket].swapaxes(0, 1)[:, :, None, :]
        return eta


@dataclass(frozen=True)
class Prepared:
    """What scoring needs of one campaign over given variants and channels.

    Attributes:
        mean: message heads. draws: their draws, width factor included.
        weighted: (Hw,) message heads that the objective hangs on; worth: (H,) the reward of each head's outcome.
        steps: (head, head before it), see ``funnel``.
        cost: (P,) of variant and channel.
        no_send_*: the same for the no_send heads: (H0, base), (Hw0, M, base), a base row being 1 and the context in the
            layout's order (no_send_context, positions in it). no_send_places: (H0,) which message head each is beside.
    """

    mean: Tower
    draws: Bank
    weighted: NDArray[np.int64]
    worth: NDArray[np.float64]
    steps: tuple[tuple[int, int], ...]
    cost: NDArray[np.float64]
    no_send_mean: NDArray[np.float64]
    no_send_draws: NDArray[np.float32]
    no_send_weighted: NDArray[np.int64]
    no_send_worth: NDArray[np.float64]
    no_send_context: NDArray[np.int64]
    no_send_places: NDArray[np.int64]


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
    order = steps(message.outcomes)
    weighted = np.unique([*np.flatnonzero(worth), *(before for head, before in order if worth[head])]).astype(np.int64)
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
        steps=order,
        cost=cost,
        no_send_mean=no_send.coefficients(outside),
        no_send_draws=(width * no_send.deviations(outside, no_send_weighted)).astype(np.float32),
        no_send_weighted=no_send_weighted,
        no_send_worth=no_send_worth,
        no_send_context=np.array(no_send.layout.context, np.int64),
        no_send_places=np.array([message.outcomes.index(name) for name in no_send.outcomes], np.int64),
    )


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
    n, slots = spaces.local.shape
    basis = np.empty((n, TIME_COLUMNS, slots))
    basis[:, 0] = 1.0
    fill_harmonics(spaces.local, basis.swapaxes(0, 1)[1:])
    bucket = hour_of_week(spaces.local)
    eta = ready.mean.logits(x.astype(np.float64), basis, bucket)
    for i, added in enumerate(own):
        if added is not None:
            eta[i] += added[:, None, :]
    chance = sigmoid(eta)
    rest = 1.0 - chance
    for head, before in ready.steps:
        chance[:, head] *= chance[:, before]
    heads, pairs = chance.shape[1:3]
    reward = (ready.worth @ chance.reshape(n, heads, pairs * slots)).reshape(n, pairs, slots) - ready.cost[:, None]
    slope = ready.worth[:, None, None] * chance
    through = [slope[:, head] * rest[:, before] for head, before in ready.steps]
    slope *= rest
    for (_, before), more in zip(ready.steps, through, strict=True):
        slope[:, before] += more
    stay, stay_reward, stay_draws = _staying(ready, len(outcomes), x)
    drawing = Drawing(
        bank=ready.draws,
        spaces=spaces,
        x=x,
        basis=basis.astype(np.float32),
        hours=bucket,
        slope=(slope if len(ready.weighted) == heads else slope[:, ready.weighted]).astype(np.float32),
        reward=reward.astype(np.float32),
        stay=stay_draws,
    )
    return ScoredRows(
        reward=by_action(spaces, reward, stay_reward),
        drawing=drawing,
        chances=Chances(outcomes, chance, stay, spaces),
    )


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


def _tower(heads: Heads, base: NDArray[np.float64], bucket: NDArray[np.float64]) -> Tower:
    """A tower of base coefficients (R, P, base) and bucket residuals (R, 168)."""
    layout, at = heads.layout, heads.layout.offsets
    rows, pairs = base.shape[:2]
    time = np.zeros((rows, pairs, TIME_COLUMNS))
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
    """The draws of the weighted heads."""
    base = width * np.stack([message.deviations(action, weighted) for action in actions], axis=2)
    heads, draws, pairs, columns = base.shape
    hours = width * message.bucket_deviations(weighted)
    rows = _tower(message, base.reshape(heads * draws, pairs, columns), hours.reshape(heads * draws, hours.shape[-1]))
    features = rows.context.shape[1]
    return Bank.laid_out(
        context=rows.context.reshape(heads, draws, pairs, features),
        time=rows.time.reshape(heads, draws, pairs, TIME_COLUMNS),
        short=rows.short.reshape(heads, draws, SHORT, features),
        bucket=hours,
    )


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
