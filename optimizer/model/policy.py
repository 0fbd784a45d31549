"""A policy at work: context + eligible set -> the whole probability vector.

π is defined once, over the eligible set: risk mask → exploration → floor → mixture, each component with its own risk
mask. An approximation inside it changes the policy, never the propensity, since the vector that is sampled from is the
vector that is logged. No clock, no randomness, no store: the service, the gate, the replay and the simulator all call
this.

Where something scarce has a price (``bandit.tolls``), a component chooses by reward less toll. That steers the choice
alone: every reward that is reported elsewhere (feedback, off-policy values, lift) is without prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.explorers import Valued, explore
from optimizer.bandit.tolls import Price, prices_of, tolls
from optimizer.model.inference import RewardModel, Scores
from storage.log import Component, Policy
from storage.records import Campaign, JsonObject
from storage.rules import RiskLimit

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

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        """What scarce things cost under this policy; empty where nothing binds."""
        return prices_of(self.exploration)


@dataclass(frozen=True)
class Choice:
    """π over one eligible set, and what it was made of.

    Attributes:
        probability: (K,) float64, sums to 1, 0 where not eligible.
        unmasked: (K,) bool, the eligible actions that the heaviest component's risk mask leaves open.
        greedy: the most valued action of the heaviest component, tolls considered (None when cold).
        risks: for each outcome that a limit or a guardrail bounds, the predicted chance (K,) of each component of the
            mixture; None = a component without a model, or without a head for the outcome.
    """

    probability: Floats
    unmasked: Mask
    greedy: int | None
    risks: Mapping[str, tuple[Floats | None, ...]] = field(default_factory=dict)

    def risks_of(self, action: int) -> dict[str, tuple[float | None, ...]]:
        """The predicted chance of each bounded outcome for one action, by component of the mixture."""
        return {
            outcome: tuple(None if chance is None else float(chance[action]) for chance in chances)
            for outcome, chances in self.risks.items()
        }


def distribution(
    live: LivePolicy,
    campaign: Campaign,
    space: ActionSpace,
    mask: Mask,
    context: Mapping[str, Any],
    *,
    decided_local: int,
    effects: JsonObject,
    limits: Sequence[RiskLimit] = (),
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
        limits: fatigue rules that bind the campaign; a component without a head for a limit's outcome is not bound.
    """
    vectors, weights = [], []
    outcomes: list[Mapping[str, Floats] | None] = []
    heaviest, unmasked, greedy = -1.0, mask, None
    toll = tolls(live.prices, campaign, space)
    for component, model in zip(live.mixture, live.models, strict=True):
        if model is None:
            vector, open_, best = cold_start(campaign, space, mask), mask, None
            outcomes.append(None)
        else:
            scores = model.score(model.embed([context])[0], space, campaign, decided_local, effects)
            vector, open_, best = learned(scores, live, campaign, space, mask, limits, toll)
            outcomes.append(scores.outcome)
        vectors.append(vector)
        weights.append(component.weight)
        if component.weight > heaviest:
            heaviest, unmasked, greedy = component.weight, open_, best
    probability = vectors[0] if len(vectors) == 1 else exploration.mix(vectors, weights)
    bounded = dict.fromkeys([*campaign.guardrails, *(limit.outcome for limit in limits)])
    risks = {name: tuple(None if o is None else o.get(name) for o in outcomes) for name in bounded}
    return Choice(probability=probability, unmasked=unmasked, greedy=greedy, risks=risks)


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
    scores: Scores,
    live: LivePolicy,
    campaign: Campaign,
    space: ActionSpace,
    mask: Mask,
    limits: Sequence[RiskLimit] = (),
    toll: Floats | None = None,
) -> tuple[Floats, Mask, int]:
    """One learned component: risk mask, exploration, floor. Gives vector, unmasked set, greedy action.

    The campaign's ``uniform`` method stays exactly uniform: it has all the support that a floor would add.
    ``toll`` (K,) is what each action is charged for the scarce things that it takes (None = nothing).
    """
    unmasked = risk_mask(scores, campaign, space, mask, limits)
    reward, draws = scores.reward, scores.draws
    if toll is not None:
        reward, draws = reward - toll, draws - toll.astype(np.float32)
    greedy = int(np.argmax(np.where(unmasked, reward, -np.inf)))
    anneal = float(live.exploration.get("anneal", 1.0))
    method, number = campaign.exploration_method, campaign.exploration_parameter
    explored = explore(method, number, Valued(reward, draws), space, unmasked, anneal=anneal)
    if method == "uniform":
        return explored, unmasked, greedy
    rate = campaign.exploration_rate * anneal
    floored = exploration.with_floor(
        explored, space, unmasked, greedy=greedy, rate=rate, young=young_variants(live.exploration, space)
    )
    return floored, unmasked, greedy


def risk_mask(
    scores: Scores, campaign: Campaign, space: ActionSpace, mask: Mask, limits: Sequence[RiskLimit] = ()
) -> Mask:
    """The eligible actions whose predicted risk keeps within the campaign's guardrails and the fatigue rules' limits.

    Where no action does and not sending is not allowed, the eligible action that exceeds its bounds by least stays
    open: the rule mask says what may be sent, this mask only what is wise.
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
    for limit in limits:
        chance = scores.outcome.get(limit.outcome)
        if chance is None:
            continue
        over = chance[: space.messages] - limit.max_risk
        if limit.channels is not None:
            bound = np.array([channel in limit.channels for channel in space.channels])
            over = np.where(bound, over.reshape(space.shape), 0.0).reshape(-1)
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
