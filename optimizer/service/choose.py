"""One choice, computed from what was read: pure, so that the service, a batch and the replay run the same code.

``plan`` builds the action space and its eligible set, ``draw`` turns a plan into an action with its exact propensity.
The random number of a draw is keyed by (salt, decision id, attempt), so nothing here depends on which process runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace, build_baseline_space, build_space
from optimizer.bandit.eligibility import Eligibility, eligible
from optimizer.bandit.localtime import Zone, zone
from optimizer.errors import Invalid
from optimizer.model.policy import LivePolicy, distribution
from storage.log import Group, Message, Reason, ShadowChoice
from storage.records import Campaign, JsonObject, Mode, Recipient, Rule

ZoneSource = Literal["recipient", "campaign", "default"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Situation:
    """What the choice depends on, apart from rules and history: fixed before eligibility, stored with the decision."""

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

    @property
    def on_baseline(self) -> bool:
        """Whether the campaign's baseline answers, not its policy."""
        return self.group != "holdout" and (self.group == "baseline" or self.mode in ("shadow", "baseline_only"))

    @property
    def decided_local(self) -> int:
        """The recipient's wall clock at the decision, in seconds as if UTC."""
        epoch = int(self.decided_at.timestamp())
        return epoch + self.zone.offset(epoch)


@dataclass(frozen=True)
class Plan:
    """An action space with its eligible set."""

    space: ActionSpace
    mask: NDArray[np.bool_]
    reasons: tuple[Reason, ...]
    overridden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """A drawn action (None = withheld) and the probability it had."""

    action: int | None
    propensity: float
    policy_id: str
    shadow: ShadowChoice | None = None


def resolve_zone(recipient: Recipient, campaign: Campaign) -> tuple[Zone, ZoneSource]:
    """The recipient's zone, else the campaign's, else UTC, and which of them it is."""
    if recipient.timezone is not None:
        return zone(recipient.timezone), "recipient"
    if campaign.timezone is not None:
        return zone(campaign.timezone), "campaign"
    return zone("UTC"), "default"


def factors(
    campaign: Campaign, variants: Sequence[str] | None, channels: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The variants and channels of a request's action space, in the campaign's order."""
    active = [v.id for v in campaign.active_variants]
    all_channels = [c.id for c in campaign.channels]
    if not active:
        raise Invalid.field(
            "campaign_id", f"campaign {campaign.campaign_id!r} has no active variant", code="no_variant"
        )
    return _restricted("variants", active, variants), _restricted("channels", all_channels, channels)


def _restricted(name: str, own: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    if wanted is None:
        return tuple(own)
    for i, one in enumerate(wanted):
        if one not in own:
            raise Invalid.field(f"{name}.{i}", f"{one!r} is not one of the campaign's active {name}: {', '.join(own)}")
    chosen = set(wanted)
    return tuple(one for one in own if one in chosen)


def space_of(s: Situation) -> ActionSpace:
    """The action space that answers in this situation."""
    if s.on_baseline and s.campaign.baseline is not None:
        return build_baseline_space(
            baseline=s.campaign.baseline, window=s.window, immediate=s.immediate, decision_id=s.decision_id, zone=s.zone
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
    space: ActionSpace,
    recipient: Recipient,
    rules: Sequence[Rule],
    messages: Sequence[Message],
    *,
    override_rules: bool = False,
) -> Plan:
    """The eligible set of ``space`` for this recipient, and what masked the rest.

    Overriding leaves consent and suppression in force: they are the recipient's word, not the operator's rule.
    """
    if s.group == "holdout":
        mask = np.zeros(space.size, dtype=np.bool_)
        mask[space.size - 1] = True
        return Plan(space, mask, ())
    ruled = _eligible(s, space, recipient, rules, messages)
    if not override_rules:
        return Plan(space, ruled.mask, ruled.reasons)
    free = _eligible(s, space, recipient, (), messages)
    ids = {r.rule_id for r in rules}
    return Plan(space, free.mask, ruled.reasons, tuple(r.rule_id for r in ruled.reasons if r.rule_id in ids))


def _eligible(
    s: Situation, space: ActionSpace, recipient: Recipient, rules: Sequence[Rule], messages: Sequence[Message]
) -> Eligibility:
    return eligible(space, campaign=s.campaign, recipient=recipient, rules=rules, messages=messages, zone=s.zone)


def probabilities(s: Situation, p: Plan, live: LivePolicy) -> Floats:
    """The whole probability vector of the answering group over the plan's space.

    Holdout: all on ``no_send``. Baseline: all on the first eligible time. Random: uniform over what the policy's risk
    mask leaves open. Treated: the policy.
    """
    if s.group == "holdout" or s.on_baseline:
        first = np.zeros(p.space.size)
        first[int(np.argmax(p.mask))] = 1.0
        return first
    choice = distribution(
        live, s.campaign, p.space, p.mask, s.context, decided_local=s.decided_local, effects=s.effects
    )
    return exploration.uniform(choice.unmasked) if s.group == "random" else choice.probability


def draw(s: Situation, p: Plan, live: LivePolicy, salt: bytes, attempt: int) -> Drawn:
    """Samples an action from the exact vector; withheld when no message action is eligible."""
    sends = s.group == "holdout" or bool(p.mask[: p.space.messages].any())
    if s.mode == "paused" or not sends:
        return Drawn(action=None, propensity=1.0, policy_id=live.policy_id)
    vector = probabilities(s, p, live)
    action = exploration.sample(vector, exploration.draw_uniform(salt, s.decision_id, attempt))
    return Drawn(action=action, propensity=float(vector[action]), policy_id=live.policy_id)


def draw_shadow(s: Situation, p: Plan, live: LivePolicy, salt: bytes) -> ShadowChoice | None:
    """What the policy would have chosen over its own space; ``p`` is that space's plan. Reserves nothing."""
    if not p.mask[: p.space.messages].any():
        return None
    choice = distribution(
        live, s.campaign, p.space, p.mask, s.context, decided_local=s.decided_local, effects=s.effects
    )
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


def seen_context(recipient: Recipient, context: Mapping[str, Any], in_model: Mapping[str, bool]) -> dict[str, Any]:
    """What the model sees: the recipient's attributes overlaid with the request's context, less what it may not use."""
    merged = {**recipient.attributes, **context}
    return {name: value for name, value in merged.items() if in_model.get(name, True)}
