"""One choice, computed from what was read: pure, so that the service, a batch and the replay run the same code.

``plan`` finds the eligible set of an action space, ``draw`` turns a plan into an action with its exact propensity.
The random number of a draw is keyed by (salt, decision id, attempt), so nothing here depends on which process runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace, build_baseline_space, build_space
from optimizer.bandit.eligibility import Eligibility, Question, eligible, risk_limits
from optimizer.bandit.localtime import Zone
from optimizer.model.moment import seen_at
from optimizer.model.policy import Asked, Choice, LivePolicy, distribution, distributions
from optimizer.service import displace
from optimizer.service.framing import ZoneSource
from storage.log import Decision, Group, Reason, ShadowChoice
from storage.records import Campaign, JsonObject, Mode
from storage.rules import RiskLimit, Rule
from storage.swift import swift
from storage.usage import Usage

Floats = NDArray[np.float64]


@swift
@dataclass(frozen=True, slots=True)
class Situation:
    """What the choice depends on, apart from rules and history: fixed before eligibility, stored with the decision.

    ``limits`` are what fatigue rules ask of the policy: they shape its distribution, not the eligible set. ``floored``:
    and ``watched`` as in ``Asked``.
    """

    decision_id: str
    campaign: Campaign
    variants: tuple[str, ...]
    channels: tuple[str, ...]
    window: tuple[datetime, datetime]
    zone: Zone
    zone_source: ZoneSource
    group: Group
    mode: Mode
    decided_at: datetime
    immediate: bool = False
    context: JsonObject = field(default_factory=dict)
    effects: JsonObject = field(default_factory=dict)
    limits: tuple[RiskLimit, ...] = ()
    floored: bool = True
    watched: tuple[RiskLimit, ...] = ()

    @property
    def on_baseline(self) -> bool:
        """Whether the campaign's baseline answers, not its policy."""
        return self.group != "holdout" and (self.group == "baseline" or self.mode in ("shadow", "baseline_only"))

    @property
    def silenced(self) -> str | None:
        """Why nothing is chosen, whatever is eligible; None = something is.

        ``paused``, or ``no_baseline``: the baseline is to answer and the campaign has none, as may be where the whole
        workspace was switched to baselines.
        """
        if self.mode == "paused":
            return "paused"
        return "no_baseline" if self.on_baseline and self.campaign.baseline is None else None

    @property
    def seen(self) -> JsonObject:
        """What a model sees; ``context`` is the part of it that is stored in the decision's snapshot."""
        return seen_at(self.context, self.decided_at)


@swift
@dataclass(frozen=True, slots=True)
class Plan:
    """An action space with its eligible set.

    ``displaceable``: the set is that without these reservations of the recipient; which of them go is settled once an
    action is drawn (``displaced_by``).
    """

    space: ActionSpace
    mask: NDArray[np.bool_]
    reasons: tuple[Reason, ...]
    overridden: tuple[str, ...] = ()
    displaceable: tuple[Decision, ...] = ()

    @property
    def sends(self) -> bool:
        """Whether some message is eligible."""
        return bool(np.count_nonzero(self.mask[: self.space.messages]))


@swift
@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn action (None = withheld), the probability it had, the risks that the policy saw in it, and what fatigue
    rules masked by such risks."""

    action: int | None
    propensity: float
    policy_id: str
    shadow: ShadowChoice | None = None
    risks: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()


def space_of(s: Situation, *, moves: bool = True) -> ActionSpace:
    """The action space that answers in this situation; ``moves``: as in ``build_baseline_space``."""
    if s.on_baseline and s.campaign.baseline is not None:
        return build_baseline_space(
            baseline=s.campaign.baseline,
            window=s.window,
            immediate=s.immediate,
            decision_id=s.decision_id,
            zone=s.zone,
            moves=moves,
        )
    return policy_space(s)


def policy_space(s: Situation) -> ActionSpace:
    """The space of variant x slot x channel (+ no_send) that a policy chooses from."""
    return build_space(
        variants=s.variants,
        channels=s.channels,
        window=s.window,
        slot_minutes=s.campaign.slot_minutes,
        spread=s.campaign.spread_within_slot,
        immediate=s.immediate,
        no_send=s.campaign.allow_no_send or s.group == "holdout",
        decision_id=s.decision_id,
        zone=s.zone,
    )


def plan(
    s: Situation,
    question: Question,
    rules: Sequence[Rule],
    usage: Usage,
    *,
    override_rules: bool = False,
    ruled: Eligibility | None = None,
    rivals: Callable[[], tuple[Decision, ...]] = tuple,
) -> Plan:
    """The eligible set of a question, and what masked the rest. Where nothing is chosen whatever the rules say
    (``Situation.silenced``), nothing is eligible.

    Overriding leaves consent, suppression and what variants require in force: they are the recipient's word and the
    campaign's own sense, not the operator's rule. What the request leaves out stays closed, too.

    Args:
        s: the situation.
        question: over the space that answers.
        rules: of the workspace, in use.
        usage: what is used of shared limits.
        override_rules: whether the rules are ignored (and those that would have masked are named).
        ruled: what ``eligible`` says of the question, if it was asked already.
        rivals: gives the recipient's decisions that may be displaced; called only where it matters.
    """
    made = _plan(s, question, rules, usage, override_rules, ruled, rivals)
    return made if s.silenced is None else replace(made, mask=np.zeros_like(made.mask))


def _plan(
    s: Situation,
    question: Question,
    rules: Sequence[Rule],
    usage: Usage,
    override_rules: bool,
    ruled: Eligibility | None,
    rivals: Callable[[], tuple[Decision, ...]],
) -> Plan:
    space = question.space
    if s.group == "holdout":
        mask = np.zeros(space.size, dtype=np.bool_)
        mask[space.size - 1] = True
        return Plan(space, mask, ())
    if ruled is None:
        ruled = eligible(question, rules, usage)
    if s.on_baseline and not (set(space.variants) <= set(s.variants) and set(space.channels) <= set(s.channels)):
        return _unrequested(space, ruled)
    if s.on_baseline and not space.messages:
        return _outside(s, space)
    if override_rules:
        return _overriding(s, question, rules, ruled)
    if s.silenced is None and displace.wanted(question, ruled) and (decisions := rivals()):
        freed = replace(question, messages=displace.without(question.messages, decisions))
        emptied = eligible(freed, rules, usage)
        if emptied.mask[: space.messages].any():
            return Plan(space, emptied.mask, emptied.reasons, displaceable=decisions)
    return Plan(space, ruled.mask, ruled.reasons)


def _unrequested(space: ActionSpace, ruled: Eligibility) -> Plan:
    """A baseline that the request leaves out, so that its caller couldn't send it: nothing is eligible."""
    note = f"{space.variants[0]} by {space.channels[0]} is not among the variants and channels of the request"
    reason = Reason("baseline", "not_requested", space.messages, note=note)
    return Plan(space, np.zeros(space.size, dtype=np.bool_), (reason, *ruled.reasons))


def _outside(s: Situation, space: ActionSpace) -> Plan:
    """A baseline whose time doesn't come in the window: there is no action at all, which no rule would tell."""
    start, end = (datetime.isoformat(at.astimezone(UTC), timespec="minutes") for at in s.window)
    at = "" if s.campaign.baseline is None else s.campaign.baseline.local_time
    reason = Reason("baseline", "outside_window", 0, note=f"no {at} ({s.zone.name}) from {start} to {end}")
    return Plan(space, np.zeros(space.size, dtype=np.bool_), (reason,))


def _overriding(s: Situation, question: Question, rules: Sequence[Rule], ruled: Eligibility) -> Plan:
    """Without rules; all that masked something are named, and fatigue rules whatever they would have masked."""
    free = eligible(question, ())
    ignored = {r.rule_id for r in ruled.reasons if not r.dry_run} | {
        limit.rule_id for limit in risk_limits(rules, s.campaign)
    }
    named = tuple(rule.rule_id for rule in rules if rule.rule_id in ignored)
    return Plan(question.space, free.mask, ruled.reasons, overridden=named)


def displaced_by(
    made: Plan, action: int | None, question: Question, rules: Sequence[Rule], usage: Usage
) -> tuple[Decision, ...]:
    """The decisions that a drawn action takes the place of: as few as it needs."""
    if not made.displaceable:
        return ()
    return displace.displaced(question, rules, usage, action, made.displaceable)


def probabilities(rows: Sequence[tuple[Situation, Plan]], live: LivePolicy) -> list[Floats]:
    """For each row the whole probability vector of the answering group over the plan's space; one campaign's rows.

    Holdout: all on ``no_send``. Baseline: all on the first eligible time. Random: uniform over what the policy's risk
    mask leaves open. Treated: the policy.
    """
    put = [i for i, (s, _) in enumerate(rows) if not (s.group == "holdout" or s.on_baseline)]
    if not put:
        return [_vector(s, p, None) for s, p in rows]
    choices = dict(zip(put, distributions(live, rows[0][0].campaign, [asked(*rows[i]) for i in put]), strict=True))
    return [_vector(s, p, choices.get(i)) for i, (s, p) in enumerate(rows)]


def asks_policy(s: Situation, p: Plan) -> bool:
    """Whether the policy has a say in what is drawn from a plan."""
    return not (s.group == "holdout" or s.on_baseline or s.mode == "paused") and p.sends


def asked(s: Situation, p: Plan) -> Asked:
    """What the policy is asked."""
    return Asked(p.space, p.mask, s.seen, s.effects, s.limits, s.floored, s.watched)


def _choice(s: Situation, p: Plan, live: LivePolicy) -> Choice | None:
    """What the policy makes of the plan; None where it is not asked."""
    if s.group == "holdout" or s.on_baseline:
        return None
    return distribution(live, s.campaign, asked(s, p))


def _vector(s: Situation, p: Plan, choice: Choice | None) -> Floats:
    if choice is None:
        first = np.zeros(p.space.size)
        first[int(np.argmax(p.mask))] = 1.0
        return first
    return exploration.uniform(choice.unmasked) if s.group == "random" else choice.probability


def draw(s: Situation, p: Plan, live: LivePolicy, salt: bytes, attempt: int, known: Choice | None = None) -> Drawn:
    """Samples an action from the exact vector; withheld when nothing is chosen or no message action is eligible.

    ``known`` is what ``live`` makes of the plan, where that was worked out already together with other rows'.
    """
    if s.silenced is not None or not (s.group == "holdout" or p.sends):
        return Drawn(action=None, propensity=1.0, policy_id=live.policy_id)
    choice = _choice(s, p, live) if known is None else known
    vector = _vector(s, p, choice)
    action = exploration.sample(vector, exploration.draw_uniform(salt, s.decision_id, attempt))
    return Drawn(
        action=action,
        propensity=float(vector[action]),
        policy_id=live.policy_id,
        risks={} if choice is None else choice.risks_of(action),
        reasons=() if choice is None else _fatigue(s, p, live, choice),
    )


def _fatigue(s: Situation, p: Plan, live: LivePolicy, choice: Choice) -> tuple[Reason, ...]:
    """How many eligible messages each fatigue rule masks by the predictions of the heaviest component, or would."""
    if not s.limits and not s.watched:
        return ()
    heaviest = max(range(len(live.mixture)), key=lambda place: live.mixture[place].weight)
    reasons = []
    for limit, dry_run in (*((one, False) for one in s.limits), *((one, True) for one in s.watched)):
        chance = choice.risks[limit.outcome][heaviest]
        if chance is None:
            continue
        # Where not sending is not allowed, the least risky message stays open all the same.
        closed = p.mask if dry_run else p.mask & ~choice.unmasked
        over = ((chance > limit.max_risk) & closed)[: p.space.messages].reshape(p.space.shape)
        bound = [limit.channels is None or channel in limit.channels for channel in p.space.channels]
        if masked := int(np.count_nonzero(over & np.array(bound))):
            reasons.append(Reason(limit.rule_id, "fatigue", masked, dry_run=dry_run))
    return tuple(reasons)


def draw_shadow(s: Situation, p: Plan, live: LivePolicy, salt: bytes) -> ShadowChoice | None:
    """What the policy would have chosen over its own space; ``p`` is that space's plan. Reserves nothing."""
    if not p.sends:
        return None
    choice = distribution(live, s.campaign, asked(s, p))
    action = exploration.sample(choice.probability, exploration.draw_uniform(salt, s.decision_id + "/shadow", 0))
    variant, channel, send_at = named(p.space, action)
    return ShadowChoice(
        variant_id=variant,
        channel=channel,
        send_at=send_at,
        propensity=float(choice.probability[action]),
        policy_id=live.policy_id,
    )


def named(space: ActionSpace, action: int) -> tuple[str | None, str | None, datetime | None]:
    """The variant, channel and planned send time of an action; three None for ``no_send``."""
    at = space.factors(action)
    if at is None:
        return None, None, None
    v, slot, c = at
    return space.variants[v], space.channels[c], datetime.fromtimestamp(int(space.send_at[slot]), UTC)
