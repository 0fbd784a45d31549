"""Which words and features of a campaign's variants go with a higher response, and how sure that is.

For each word or feature that some variants have and others lack: how much likelier each outcome is under those that
have it, for the average recipient and averaged over channels, by the posterior of the served model. Variants differ in
more than one thing, so this is what goes together and not what causes it; what the same variants share is told as one.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from optimizer.errors import Conflict, NotFound
from optimizer.model.copywords import Token, token_vectors
from optimizer.model.funnel import joined
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Action
from optimizer.service.wiring import Services
from storage.records import Campaign, Variant

Floats = NDArray[np.float64]
LEVEL: Final = 0.95
_NORMAL: Final = NormalDist()


def insights(services: Services, workspace_id: str, campaign_id: str) -> dict[str, Any]:
    """What the served model says of the campaign's active variants, the surest findings first.

    Raises:
        NotFound: no such campaign.
        Conflict: code ``no_model``, the campaign has learned nothing yet.
    """
    with services.store.read() as reader:
        campaign = reader.campaign(workspace_id, campaign_id)
    if campaign is None:
        raise NotFound(f"no campaign {campaign_id!r} in this workspace")
    live = services.policies.current(workspace_id, campaign_id)
    model = live.heaviest_model
    if model is None:
        raise Conflict(
            f"campaign {campaign_id!r} serves no learned policy yet; train one first "
            "(`sendtide retrain`, or POST /v1/training-runs)",
            code="no_model",
        )
    if not campaign.active_variants:
        return {"campaign_id": campaign_id, "policy_id": live.policy_id, "level": LEVEL, "insights": []}
    mean, draws = _levels(model, campaign)
    found = [
        _finding(outcome, tokens, campaign, has, mean[k], draws[k])
        for k, outcome in enumerate(model.message.outcomes)
        if outcome in model.outcomes
        for has, tokens in _shared(campaign).items()
    ]
    found.sort(key=lambda one: -abs(one["probability_higher"] - 0.5))
    return {"campaign_id": campaign_id, "policy_id": live.policy_id, "level": LEVEL, "insights": found}


def _levels(model: RewardModel, campaign: Campaign) -> tuple[Floats, Floats]:
    """Logits of each outcome under each active variant, averaged over channels: means (H, V), draws (H, M, V)."""
    heads = model.message
    every = np.arange(len(heads.outcomes), dtype=np.int64)
    means, draws = [], []
    for variant in campaign.active_variants:
        place = model.basis.coordinates(variant)
        actions = [Action(campaign.campaign_id, variant.id, channel.id, place) for channel in campaign.channels]
        levels = [heads.coefficients(action)[:, 0] for action in actions]
        drawn = [m[:, None] + heads.deviations(a, every)[:, :, 0] for m, a in zip(levels, actions, strict=True)]
        means.append(np.mean([joined(level, heads.outcomes) for level in levels], axis=0))
        draws.append(np.mean([joined(one, heads.outcomes) for one in drawn], axis=0))
    return np.stack(means, axis=1), np.stack(draws, axis=2)


def _shared(campaign: Campaign) -> dict[tuple[bool, ...], list[Token]]:
    """Words and features by which of the active variants have them; what all have tells nothing."""
    variants = campaign.active_variants
    owned = [token_vectors(variant).keys() for variant in variants]
    found: dict[tuple[bool, ...], list[Token]] = {}
    for token in dict.fromkeys(token for one in owned for token in one):
        has = tuple(token in one for one in owned)
        if not all(has):
            found.setdefault(has, []).append(token)
    return found


def _finding(
    outcome: str, tokens: list[Token], campaign: Campaign, has: tuple[bool, ...], mean: Floats, draws: Floats
) -> dict[str, Any]:
    """Variants that have something against those that lack it: (V,) mean logits and (M, V) draws of them."""
    mask = np.array(has)
    gap = float(mean[mask].mean() - mean[~mask].mean())
    spread = float(np.std(draws[:, mask].mean(axis=1) - draws[:, ~mask].mean(axis=1)))
    z = _NORMAL.inv_cdf((1.0 + LEVEL) / 2.0)
    chances = [float(np.mean(1.0 / (1.0 + np.exp(-mean[part])))) for part in (mask, ~mask)]
    higher = _NORMAL.cdf(gap / spread) if spread > 0.0 else 0.5
    return {
        "outcome": outcome,
        "words": [token.text for token in tokens if token.kind == "word"],
        "features": [token.text for token in tokens if token.kind == "feature"],
        "variants": _ids(campaign.active_variants, mask),
        "others": _ids(campaign.active_variants, ~mask),
        "chance_with": chances[0],
        "chance_without": chances[1],
        "odds_ratio": math.exp(gap),
        "low": math.exp(gap - z * spread),
        "high": math.exp(gap + z * spread),
        "probability_higher": higher,
    }


def _ids(variants: tuple[Variant, ...], mask: NDArray[np.bool_]) -> list[str]:
    return [variant.id for variant, own in zip(variants, mask.tolist(), strict=True) if own]
