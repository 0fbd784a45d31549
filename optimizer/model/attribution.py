"""Why one action scores higher than another: the difference of two scores as a sum over named features.

A score is Σ_k worth_k · chance_k, less cost and toll; a chance is σ(η_k), of a click after a look the product of two
(see ``funnel``). Logits are sums of named terms (see ``terms``). Shares are Aumann–Shapley values (Aumann & Shapley
1974): Δη_j times the mean slope along the straight line between two logits. Of a single σ that mean is
(σ(η₁) − σ(η₀)) / Δη; of a product it is an integral over a smooth curve, by Gauss–Legendre quadrature. Either way the
shares add up to the difference.

Where an outcome is worth more after one of two messages, its worth is taken at the mean of both for that, and what the
worths differ by, times the mean chance, is a share of its own: the same two shares, of a product of two.

Not sending has heads of its own. What both can bring (a purchase) is compared term by term; what only a message can
bring (a click) is there with "sending at all", at the usual level, and everything else moves it from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from optimizer.model.funnel import chances, sigmoid, slopes, steps
from optimizer.model.inference import RewardModel
from optimizer.model.prepared import worth_of
from optimizer.model.terms import LEVEL, Floats, Name, Terms
from storage.records import Campaign

#: Logits that differ by less are taken as equal: there the quotient is the slope.
_EQUAL = 1e-9
#: Points and weights of the mean over [0, 1]: log odds that move by 40 are integrated to 1e-9.
_POINTS, _WEIGHTS = (0.5 * (np.polynomial.legendre.leggauss(64)[0] + 1.0), 0.5 * np.polynomial.legendre.leggauss(64)[1])


def between_messages(
    model: RewardModel, campaign: Campaign, variants: tuple[str, str], one: Terms, other: Terms
) -> dict[Name, float]:
    """What each name adds to the first message's expected outcomes over the second's; ``variants``: what they say."""
    worth = worth_of(model.message, campaign, model.artifact_meta["values"], variants)
    return _shares(worth, one, other, model.message.outcomes)


def over_no_send(
    model: RewardModel, campaign: Campaign, variant: str, message: Terms, silence: Terms
) -> dict[Name, float]:
    """What each name adds to the expected outcomes of a message of ``variant`` over those of not sending."""
    values = model.artifact_meta["values"]
    worth = worth_of(model.message, campaign, values, (variant,))
    outside = worth_of(model.no_send, campaign, values, (None,))
    names = model.message.outcomes
    both = [k for k, name in enumerate(names) if name in model.no_send.outcomes]
    only = [k for k, name in enumerate(names) if name not in model.no_send.outcomes]
    place = [model.no_send.outcomes.index(names[k]) for k in both]
    each = np.concatenate([worth[both], outside[place]], axis=1)
    found = _shares(each, _of(message, both), _of(silence, place), [names[k] for k in both])
    level, alone = {LEVEL: message[LEVEL][only]}, [names[k] for k in only]
    for name, share in _shares(worth[only].repeat(2, axis=1), _of(message, only), level, alone).items():
        found[name] = found.get(name, 0.0) + share
    found[LEVEL] = found.get(LEVEL, 0.0) + float(worth[only, 0] @ chances(level[LEVEL], steps(alone)))
    return found


def _of(terms: Terms, heads: Sequence[int]) -> dict[Name, Floats]:
    return {name: term[list(heads)] for name, term in terms.items()}


def _shares(
    worth: Floats, one: Mapping[Name, Floats], other: Mapping[Name, Floats], outcomes: Sequence[str]
) -> dict[Name, float]:
    """Δη of each name times the mean slope of every head on the way, summed over heads; worth (H, 2) of both."""
    if not worth.size:
        return {}
    order, nothing = steps(outcomes), np.zeros(len(worth))
    first, second = sum(one.values(), nothing), sum(other.values(), nothing)
    mean = worth.mean(axis=1)
    if order:
        way = second[:, None] + (first - second)[:, None] * _POINTS
        slope = slopes(way, mean, order) @ _WEIGHTS
    else:
        slope = mean * _mean_slope(first, second)
    names = dict.fromkeys([*one, *other])
    found = {name: float(slope @ (one.get(name, nothing) - other.get(name, nothing))) for name in names}
    chance = 0.5 * (chances(first, order) + chances(second, order))
    for outcome, more in zip(outcomes, (worth[:, 0] - worth[:, 1]) * chance, strict=True):
        if more:
            found[Name("value", outcome)] = float(more)
    return found


def _mean_slope(first: Floats, second: Floats) -> Floats:
    """(σ(η₁) − σ(η₀)) / (η₁ − η₀), in closed form."""
    chance, gap = (sigmoid(first), sigmoid(second)), first - second
    equal = np.abs(gap) < _EQUAL
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(equal, chance[0] * (1.0 - chance[0]), (chance[0] - chance[1]) / gap)
