"""A policy at work: context + eligible set -> the whole probability vector.

π is defined once, over the eligible set: risk mask → exploration → floor → mixture, each component with its own risk
mask. An approximation inside it changes the policy, never the propensity, since the vector that is sampled from is the
vector that is logged. No clock, no randomness, no store: the service, the gate, the replay and the simulator all call
this.

Where something scarce has a price (``bandit.tolls``), a component chooses by reward less toll. That steers the choice
alone: every reward that is reported elsewhere (feedback, off-policy values, lift) is without prices.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration, exploration_rows
from optimizer.bandit.actions import ActionSpace, Spaces
from optimizer.bandit.explorers import Valued, explore
from optimizer.bandit.rewards import HARMFUL
from optimizer.bandit.tolls import Price, prices_of, tolls
from optimizer.model.inference import RewardModel
from optimizer.model.scoring import Chances, ScoredRows
from storage.policies import Component, Policy
from storage.records import Campaign, JsonObject
from storage.rules import RiskLimit
from storage.swift import swift

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: (n, K).
Masks = NDArray[np.bool_]

#: Actions that are worked out together: enough that a step over arrays costs a row little.
BLOCK = 32_768

#: Rewards that differ by less than this and this share of the largest are equal, and the first action is the greedy
#: one: the last bits are another machine's choice.
EQUAL = 1e-9

#: A variant with fewer matured rows than this is young, and keeps at least ``YOUNG_MASS``: it came later than others
#: (or is hardly ever chosen), with fewer than ``YOUNG_PART`` of what variants have on average. Where all have few,
#: draws explore by themselves: to hold up those that none wants cost 9 % of the regret of eight simulated campaigns.
YOUNG_ROWS, YOUNG_PART = 500, 0.25
YOUNG_MASS = 0.03
#: Young variants together never take more than this share from what is known to work.
YOUNG_TOTAL = 0.5

#: A variant that came after so many rows of its campaign is late: a model's draws have narrowed by then with all rows,
#: also those of what nobody has seen yet. What a late one has of its own is drawn as wide as the posterior at first,
#: and 1/√(1 + n / ``LATE_HALVED``) of that after n rows of its own.
LATE_FROM, LATE_HALVED = 500, 100.0


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

    def prepare(self, campaign: Campaign, variants: tuple[str, ...], channels: tuple[str, ...]) -> None:
        """See ``RewardModel.prepare``; for every component."""
        for model in self.models:
            if model is not None:
                model.prepare(campaign, variants, channels, own_widths(self.exploration, variants))

    @property
    def heaviest(self) -> tuple[Component, RewardModel] | None:
        """The heaviest component that has a model, and the model; None where nothing is learned."""
        learned = [(c, model) for c, model in zip(self.mixture, self.models, strict=True) if model is not None]
        return max(learned, key=lambda pair: pair[0].weight, default=None)

    @property
    def heaviest_model(self) -> RewardModel | None:
        """The model of the heaviest component that has one."""
        return None if self.heaviest is None else self.heaviest[1]

    @cached_property
    def prices(self) -> tuple[Price, ...]:
        """What scarce things cost under this policy; empty where nothing binds."""
        return prices_of(self.exploration)


@swift
@dataclass(frozen=True, slots=True)
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


@swift
@dataclass(frozen=True, slots=True)
class Asked:
    """One row that a policy is asked about.

    Attributes:
        space: the action space, K actions.
        mask: (K,) bool, at least one True: the rule mask.
        context: what the model may see, not encoded, the moment of the decision included (``model.moment``).
        effects: recipient effects.
        limits: fatigue rules that bind the campaign; a component without a head for a limit's outcome is not bound.
        floored: whether a cold start around the baseline keeps the floor; False = as decisions of before were drawn.
        watched: what fatigue rules on a dry run would ask: ``Choice.risks`` tells of it, and nothing is masked.
    """

    space: ActionSpace
    mask: Mask
    context: JsonObject
    effects: JsonObject = field(default_factory=dict)
    limits: tuple[RiskLimit, ...] = ()
    floored: bool = True
    watched: tuple[RiskLimit, ...] = ()


def distribution(live: LivePolicy, campaign: Campaign, asked: Asked) -> Choice:
    """The policy's distribution over the eligible actions of one row: ``distributions`` of one."""
    return distributions(live, campaign, [asked])[0]


def distributions(live: LivePolicy, campaign: Campaign, asked: Sequence[Asked]) -> list[Choice]:
    """The policy's distribution over the eligible actions of each row; no row's depends on the others.

    Args:
        live: the policy.
        campaign: the campaign in the version that the decisions were made under.
        asked: n rows.
    """
    alike: dict[Hashable, list[int]] = {}
    for i, row in enumerate(asked):
        alike.setdefault((row.space.kind, row.limits, row.watched), []).append(i)
    choices: dict[int, Choice] = {}
    for places in alike.values():
        height = max(1, BLOCK // asked[places[0]].space.size)
        for start in range(0, len(places), height):
            block = places[start : start + height]
            choices.update(zip(block, _block(live, campaign, [asked[i] for i in block]), strict=True))
    return [choices[i] for i in range(len(asked))]


def _block(live: LivePolicy, campaign: Campaign, rows: Sequence[Asked]) -> list[Choice]:
    """Rows of one kind of space under the same limits."""
    spaces = Spaces.stacked([row.space for row in rows])
    mask = np.stack([row.mask for row in rows])
    toll = tolls(live.prices, campaign, spaces)
    own = own_widths(live.exploration, spaces.variants)
    vectors: list[Floats] = []
    heaviest, unmasked, greedy = -1.0, mask, None
    chances: list[Chances | None] = []
    for component, model in zip(live.mixture, live.models, strict=True):
        if model is None:
            vector, open_, best = np.stack([_cold_start(campaign, row) for row in rows]), mask, None
            chances.append(None)
        else:
            x = model.embed([row.context for row in rows])
            scored = model.score_rows(x, spaces, campaign, [row.effects for row in rows], own)
            vector, open_, best = _learned(scored, live, campaign, rows, mask, toll)
            chances.append(scored.chances)
        vectors.append(vector)
        if component.weight > heaviest:
            heaviest, unmasked, greedy = component.weight, open_, best
    weights = [component.weight for component in live.mixture]
    probability = vectors[0] if len(vectors) == 1 else exploration.mix(vectors, weights)
    told = (*rows[0].limits, *rows[0].watched)
    bounded = dict.fromkeys([*campaign.guardrails, *(limit.outcome for limit in told)])
    risks = {name: tuple(None if c is None else c.of(name) for c in chances) for name in bounded}
    return [
        Choice(
            probability=probability[i],
            unmasked=unmasked[i],
            greedy=None if greedy is None else int(greedy[i]),
            risks={name: tuple(None if c is None else c[i] for c in all_) for name, all_ in risks.items()},
        )
        for i in range(len(rows))
    ]


def _cold_start(campaign: Campaign, row: Asked) -> Floats:
    """Uniform over the eligible, or the baseline with one-factor moves and the floor, as the campaign says: what no
    single move leads to (another channel, closed at the baseline's hour) would never be tried, and nothing learned."""
    space, mask, rate = row.space, row.mask, campaign.exploration_rate
    if campaign.begins_with_baseline:
        index = nearest_to_baseline(campaign, space, mask)
        if index is not None and row.floored:
            alone = np.zeros(space.size)
            alone[index] = 1.0
            return exploration.with_floor(alone, space, mask, rate=rate, young={}, greedy=index)
        if index is not None:
            return exploration.around_baseline(space, mask, index, rate)
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


def _learned(
    scored: ScoredRows,
    live: LivePolicy,
    campaign: Campaign,
    rows: Sequence[Asked],
    mask: Masks,
    toll: Floats | None,
) -> tuple[Floats, Masks, NDArray[np.int64]]:
    """One learned component: risk mask, exploration, floor. Gives vectors, unmasked sets, greedy actions.

    The campaign's ``uniform`` method stays exactly uniform: it has all the support that a floor would add.
    ``toll`` (n, K) is what each action is charged for the scarce things that it takes (None = nothing).
    """
    spaces = scored.spaces
    unmasked = risk_mask(scored.chances, campaign, mask, rows[0].limits)
    reward = scored.reward if toll is None else scored.reward - toll
    value = np.where(unmasked, reward, -np.inf)
    top = value.max(axis=1, keepdims=True)
    greedy = (value >= top - EQUAL * (1.0 + np.abs(top))).argmax(axis=1)
    anneal = float(live.exploration.get("anneal", 1.0))
    method, number = campaign.exploration_method, campaign.exploration_parameter
    if method == "posterior_bank":
        explored = exploration_rows.shares(scored.drawing.best(unmasked, toll), spaces.size)
    else:
        draws = scored.drawing.actions
        if toll is not None:
            draws = draws - toll.astype(np.float32)[:, None, :]
        each = zip(reward, draws, rows, unmasked, strict=True)
        explored = np.stack([explore(method, number, Valued(r, d), a.space, u, anneal=anneal) for r, d, a, u in each])
    if method == "uniform":
        return explored, unmasked, greedy
    rate = campaign.exploration_rate * anneal
    young = young_variants(live.exploration, spaces.variants)
    return (
        exploration_rows.with_floor(explored, spaces, unmasked, greedy=greedy, rate=rate, young=young),
        unmasked,
        greedy,
    )


def risk_mask(chances: Chances, campaign: Campaign, mask: Masks, limits: Sequence[RiskLimit] = ()) -> Masks:
    """The eligible actions (n, K) whose predicted risk keeps within the campaign's guardrails and the fatigue limits.

    Where no action of a row does and not sending is not allowed, the eligible action that exceeds its bounds by least
    stays open: the rule mask says what may be sent, this mask only what is wise.
    """
    spaces = chances.spaces
    allowed = mask.copy()
    bounds: list[tuple[str, float, tuple[str, ...] | None]] = [
        (outcome, guardrail.max_rate, None)
        for outcome, guardrail in campaign.guardrails.items()
        if guardrail.max_rate is not None and outcome in HARMFUL
    ]
    bounds += [(limit.outcome, limit.max_risk, limit.channels) for limit in limits]
    if not bounds:
        return allowed
    excess = np.zeros(mask.shape)
    for outcome, most, channels in bounds:
        chance = chances.of(outcome)
        if chance is None:
            continue
        over = chance[:, : spaces.messages] - most
        if channels is not None:
            bound = np.array([channel in channels for channel in spaces.channels])
            over = np.where(bound, over.reshape(len(over), *spaces.shape), 0.0).reshape(over.shape)
        excess[:, : spaces.messages] = np.maximum(excess[:, : spaces.messages], over)
        allowed[:, : spaces.messages] &= over <= 0
    for row in np.flatnonzero(~allowed.any(axis=1)).tolist():
        allowed[row, int(np.argmin(np.where(mask[row], excess[row], np.inf)))] = True
    return allowed


def young_below(matured: Mapping[str, int]) -> float:
    """The matured rows with fewer of which a variant is young, by what each variant has that has any; at least 1."""
    usual = sum(matured.values()) / max(len(matured), 1)
    return max(1.0, min(float(YOUNG_ROWS), YOUNG_PART * usual))


def young_variants(numbers: JsonObject, variants: Sequence[str]) -> dict[str, float]:
    """The least mass of each variant that is young by a policy's numbers; older policies tell no limit of their own."""
    rows, below = numbers.get("matured_rows", {}), numbers.get("young_below", YOUNG_ROWS)
    young = [v for v in variants if rows.get(v, 0) < below]
    if not young:
        return {}
    mass = min(YOUNG_MASS, YOUNG_TOTAL / len(young))
    return dict.fromkeys(young, mass)


def own_widths(numbers: JsonObject, variants: Sequence[str]) -> dict[str, float]:
    """The factor on the posterior's standard deviations of what each late variant has of its own; an older policy's
    numbers name none.

    ``late_rows`` tells for each variant the matured rows that it has, or None where it didn't come late; one that it
    doesn't name has just come.
    """
    late = numbers.get("late_rows")
    if late is None:
        return {}
    rows = {v: late.get(v, 0) for v in variants}
    return {v: float((1.0 + n / LATE_HALVED) ** -0.5) for v, n in rows.items() if n is not None}
