"""Everything about a campaign's scores that no context and no time changes, worked out once a policy.

For each (variant, channel) a head is α(x) + κ(x)·τ(s) + r_s: so one product over contexts, one over time features, and
no (actions x weights) matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.model.drawing import Bank, products
from optimizer.model.funnel import steps
from optimizer.model.heads import Heads
from optimizer.model.layout import Action
from optimizer.model.timefeatures import SHORT, TIME_COLUMNS
from optimizer.model.values import expected_values
from optimizer.model.variantbasis import VariantBasis
from storage.records import Campaign, JsonObject

#: Draws get narrower the more rows a model has seen, but what precisions in doubt add to them (see ``training.doubt``)
#: is never narrower than by this factor: half of the one that all begin with.
DOUBT = 0.25


@dataclass(frozen=True)
class Tower:
    """Coefficients of H heads for P pairs, float64.

    Attributes:
        context: (H·P, F). time: (H, P, 24), the level and the time columns. short: (H·9, F), shared by the pairs.
        bucket: (H, 168) residuals of the hour of the week.
    """

    context: NDArray[np.float64]
    time: NDArray[np.float64]
    short: NDArray[np.float64]
    bucket: NDArray[np.float64]

    def logits(
        self, x: NDArray[np.float64], basis: NDArray[np.float64], bucket: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """η (n, H, P, S) at embedded contexts (n, F), time bases (n, 24, S) and hour buckets (n, S)."""
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
    """What scoring needs of one campaign over given variants and channels; every array lies in one piece.

    Attributes:
        mean: message heads. draws: their draws, width factor included.
        weighted: (Hw,) message heads that the objective hangs on; worth: (H, P) the reward of each head's outcome.
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


def prepare(
    message: Heads,
    no_send: Heads,
    basis: VariantBasis,
    values: JsonObject,
    width: float,
    own: Mapping[str, float],
    *,
    campaign: Campaign,
    variants: tuple[str, ...],
    channels: tuple[str, ...],
) -> Prepared:
    """Works out everything about a campaign that no context or time changes.

    ``width`` multiplies the posterior's standard deviations in every draw, or ``DOUBT`` does so, where that is more and
    precisions are in doubt; ``own`` for what a variant has of its own, where that is more.
    """
    by_id = {variant.id: variant for variant in campaign.variants}
    costs = {channel.id: channel.cost for channel in campaign.channels}
    actions = [
        Action(campaign.campaign_id, variant, channel, basis.coordinates(by_id[variant]))
        for variant in variants
        for channel in channels
    ]
    cost = np.array([by_id[variant].cost + costs[channel] for variant in variants for channel in channels], np.float64)
    worth = np.repeat(worth_of(message, campaign, values, variants), len(channels), axis=1)
    order = steps(message.outcomes)
    counts = np.count_nonzero(worth, axis=1)
    weighted = np.unique([*np.flatnonzero(counts), *(before for head, before in order if counts[head])])
    outside = Action(campaign.campaign_id)
    no_send_worth = worth_of(no_send, campaign, values, (None,))[:, 0]
    no_send_weighted = np.flatnonzero(no_send_worth)
    return Prepared(
        mean=_tower(
            message,
            np.stack([message.coefficients(action) for action in actions], axis=1),
            message.bucket_means(),
        ),
        draws=_bank(message, actions, weighted.astype(np.int64), width, own),
        weighted=weighted.astype(np.int64),
        worth=worth,
        steps=order,
        cost=cost,
        no_send_mean=np.ascontiguousarray(no_send.coefficients(outside), np.float64),
        no_send_draws=np.ascontiguousarray(
            width * no_send.deviations(outside, no_send_weighted, doubt=doubt_factor(width)), np.float32
        ),
        no_send_weighted=no_send_weighted,
        no_send_worth=no_send_worth,
        no_send_context=np.array(no_send.layout.context, np.int64),
        no_send_places=np.array([message.outcomes.index(name) for name in no_send.outcomes], np.int64),
    )


def _tower(heads: Heads, base: NDArray[np.float64], bucket: NDArray[np.float64]) -> Tower:
    """A tower of base coefficients (R, P, base) and bucket residuals (R, 168)."""
    layout, at = heads.layout, heads.layout.offsets
    rows, pairs = base.shape[:2]
    time = np.zeros((rows, pairs, TIME_COLUMNS))
    time[..., 0] = base[..., 0]
    time[..., [column + 1 for column in layout.time]] = base[..., at["time"]]
    time[..., [column + 1 for column in layout.weekday]] = base[..., at["weekday"]]
    width = len(layout.context)
    context = np.zeros((rows, pairs, width))
    context[..., list(layout.context)] = base[..., at["plain"].start : at["network"].stop]
    short = np.zeros((rows, SHORT, width))
    short[np.ix_(range(rows), layout.short, layout.plain)] = base[:, 0, at["plain_time"]].reshape(
        rows, len(layout.short), len(layout.plain)
    )
    return Tower(
        context.reshape(rows * pairs, width),
        time,
        short.reshape(rows * SHORT, width),
        np.ascontiguousarray(bucket, np.float64),
    )


def _bank(
    message: Heads, actions: Sequence[Action], weighted: NDArray[np.int64], width: float, own: Mapping[str, float]
) -> Bank:
    """The draws of the weighted heads."""
    # Of no width is a model that doesn't explore.
    wider = [max(1.0, own.get(action.variant_id or "", 0.0) / width) if width else 1.0 for action in actions]
    each = zip(actions, wider, strict=True)
    base = width * np.stack(
        [message.deviations(action, weighted, factor, doubt_factor(width)) for action, factor in each], axis=2
    )
    heads, draws, pairs, columns = base.shape
    hours = width * message.bucket_deviations(weighted, doubt_factor(width))
    rows = _tower(message, base.reshape(heads * draws, pairs, columns), hours.reshape(heads * draws, hours.shape[-1]))
    features = rows.context.shape[1]
    return Bank.laid_out(
        context=rows.context.reshape(heads, draws, pairs, features),
        time=rows.time.reshape(heads, draws, pairs, TIME_COLUMNS),
        short=rows.short.reshape(heads, draws, SHORT, features),
        bucket=hours,
    )


def doubt_factor(width: float) -> float:
    """The factor on what is due to precisions in doubt, beside ``width``."""
    return max(1.0, DOUBT / width) if width else 1.0


def worth_of(
    heads: Heads, campaign: Campaign, values: JsonObject, variants: Sequence[str | None]
) -> NDArray[np.float64]:
    """Reward (H, V) of each head's outcome when it happens after a variant (None = nothing sent): fixed + per_value ·
    E[value], clipped to ± ``max_value``."""
    out = np.zeros((len(heads.outcomes), len(variants)))
    for i, name in enumerate(heads.outcomes):
        weight = campaign.objective.get(name)
        if weight is not None:
            out[i] = weight.fixed
            if weight.per_value:
                out[i] += weight.per_value * expected_values(values, name, campaign, variants, weight.max_value)
    return out
