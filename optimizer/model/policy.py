"""A policy at work: context + eligible set -> the whole probability vector.

π is defined once, over the eligible set: risk mask → exploration → floor → mixture, each component with its own risk
mask. An approximation inside it changes the policy, never the propensity, since the vector that is sampled from is the
vector that is logged. No clock, no randomness, no store: the service, the gate, the replay and the simulator all call
this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace
from optimizer.model.inference import RewardModel, Scores
from storage.log import Component, Policy
from storage.records import Campaign, JsonObject

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: A variant with fewer matured rows than this is young, and keeps at least ``YOUNG_MASS``.
YOUNG_ROWS = 500
YOUNG_MASS = 0.03
#: Young variants together never take more than this share from what is known to work.
YOUNG_TOTAL = 0.5


@dataclass(frozen=True)
class LivePolicy:
    """A stored policy with its models loaded; ``models[i]`` belongs to ``policy.mixture[i]`` (None = cold start)."""

    policy_id: str
    mixture: tuple[Component, ...]
    models: tuple[RewardModel | None, ...]
    exploration: JsonObject = field(default_factory=dict)

    @classmethod
    def cold(cls, policy_id: str) -> LivePolicy:
        """The policy of a campaign that has learned nothing yet."""
        return cls(policy_id=policy_id, mixture=(Component(weight=1.0, artifact_id=None),), models=(None,))

    @classmethod
    def of(cls, policy: Policy, models: Mapping[str, RewardModel]) -> LivePolicy:
        """``policy`` with the models of its artifacts."""
        return cls(
            policy_id=policy.policy_id,
            mixture=policy.mixture,
            models=tuple(None if c.artifact_id is None else models[c.artifact_id] for c in policy.mixture),
            exploration=policy.exploration,
        )


@dataclass(frozen=True)
class Choice:
    """π over one eligible set, and what it was made of.

    Attributes:
        probability: (K,) float64, sums to 1, 0 where not eligible.
        unmasked: (K,) bool, the eligible actions that the heaviest component's risk mask leaves open.
        greedy: the most valued action of the heaviest component (None when cold).
    """

    probability: Floats
    unmasked: Mask
    greedy: int | None


def distribution(
    live: LivePolicy,
    campaign: Campaign,
    space: ActionSpace,
    mask: Mask,
    context: Mapping[str, Any],
    *,
    decided_local: int,
    effects: JsonObject,
) -> Choice:
    """The policy's distribution over the eligible actions.

    Args:
        live: the policy.
        campaign: the campaign in the version that the decision was made under.
        space: the action space, K actions.
        mask: (K,) bool, at least one True: the rule mask.
        context: what the model may see, not encoded.
        decided_local: local wall clock of the decision, in seconds as if UTC.
        effects: recipient effects.
    """
    vectors, weights = [], []
    heaviest, unmasked, greedy = -1.0, mask, None
    for component, model in zip(live.mixture, live.models, strict=True):
        if model is None:
            vector, open_, best = cold_start(campaign, space, mask), mask, None
        else:
            scores = model.score(model.embed([context])[0], space, campaign, decided_local, effects)
            vector, open_, best = learned(scores, live, campaign, space, mask)
        vectors.append(vector)
        weights.append(component.weight)
        if component.weight > heaviest:
            heaviest, unmasked, greedy = component.weight, open_, best
    probability = vectors[0] if len(vectors) == 1 else exploration.mix(vectors, weights)
    return Choice(probability=probability, unmasked=unmasked, greedy=greedy)


def cold_start(campaign: Campaign, space: ActionSpace, mask: Mask) -> Floats:
    """Uniform over the eligible, or the baseline with one-factor moves, as the campaign says."""
    if campaign.cold_start == "around_baseline" and campaign.baseline is not None:
        index = nearest_to_baseline(campaign, space, mask)
        if index is not None:
            return exploration.around_baseline(space, mask, index, campaign.exploration_rate)
    return exploration.uniform(mask)


def nearest_to_baseline(campaign: Campaign, space: ActionSpace, mask: Mask) -> int | None:
    """The eligible action of the baseline's variant and channel nearest to the baseline's local time of day."""
    baseline = campaign.baseline
    if baseline is None or baseline.variant_id not in space.variants or baseline.channel not in space.channels:
        return None
    v, c = space.variants.index(baseline.variant_id), space.channels.index(baseline.channel)
    slots = np.arange(space.send_at.size)
    indices = np.array([space.index(v, int(s), c) for s in slots], dtype=np.int64)
    eligible = mask[indices]
    if not eligible.any():
        return None
    hours, minutes = baseline.local_time.split(":")
    wanted = int(hours) * 3600 + int(minutes) * 60
    away = np.abs(space.local % 86_400 - wanted)
    away = np.minimum(away, 86_400 - away)
    return int(indices[np.argmin(np.where(eligible, away, np.iinfo(np.int64).max))])


def learned(
    scores: Scores, live: LivePolicy, campaign: Campaign, space: ActionSpace, mask: Mask
) -> tuple[Floats, Mask, int]:
    """One learned component: risk mask, posterior bank, floor. Gives vector, unmasked set, greedy action."""
    unmasked = risk_mask(scores, campaign, space, mask)
    greedy = int(np.argmax(np.where(unmasked, scores.reward, -np.inf)))
    explored = exploration.bank(scores.draws, unmasked)
    rate = campaign.exploration_rate * float(live.exploration.get("anneal", 1.0))
    floored = exploration.with_floor(
        explored, space, unmasked, greedy=greedy, rate=rate, young=young_variants(live.exploration, space)
    )
    return floored, unmasked, greedy


def risk_mask(scores: Scores, campaign: Campaign, space: ActionSpace, mask: Mask) -> Mask:
    """The eligible actions whose predicted risk keeps within the campaign's guardrails.

    Where no action does and not sending is not allowed, the eligible action of least risk stays open: the rule mask
    says what may be sent, this mask only what is wise.
    """
    allowed = mask.copy()
    excess = np.zeros(space.size)
    for outcome, guardrail in campaign.guardrails.items():
        risk = scores.risk.get(outcome)
        if risk is None or guardrail.max_rate is None:
            continue
        over = risk[: space.messages] - guardrail.max_rate
        excess[: space.messages] = np.maximum(excess[: space.messages], over)
        allowed[: space.messages] &= over <= 0
    if not allowed.any():
        allowed[int(np.argmin(np.where(mask, excess, np.inf)))] = True
    return allowed


def young_variants(numbers: JsonObject, space: ActionSpace) -> dict[str, float]:
    """The least mass of each variant that has few matured rows yet."""
    rows = numbers.get("matured_rows", {})
    young = [v for v in space.variants if rows.get(v, 0) < YOUNG_ROWS]
    if not young:
        return {}
    mass = min(YOUNG_MASS, YOUNG_TOTAL / len(young))
    return dict.fromkeys(young, mass)
