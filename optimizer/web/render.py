"""Records as the JSON objects that the API answers. Times are left to orjson, which writes aware ones as RFC 3339."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from optimizer.bandit.localtime import at_zone
from optimizer.service.rulecheck import Breach
from optimizer.web.schemas.rules import KINDS
from storage.log import Change, Decision, Reason, ShadowChoice
from storage.policies import Policy, TrainingRun
from storage.records import (
    EXPLORATION_PARAMETERS,
    ApiKey,
    Attribute,
    Campaign,
    Consent,
    OutcomeWeight,
    Recipient,
    Suppression,
    Variant,
    Workspace,
)
from storage.rules import MICROS, RiskLimit, Rule, Selector

Json = dict[str, Any]


def decision(d: Decision) -> Json:
    """A decision as it is answered to who asked for it."""
    return {
        "decision_id": d.decision_id,
        "request_id": d.request_id,
        "campaign_id": d.campaign_id,
        "recipient_id": d.recipient_id,
        "status": d.status,
        "group": d.group,
        "mode": d.mode,
        "action": _action(d),
        "propensity": d.propensity,
        "policy_id": d.policy_id,
        "eligible_actions": d.eligible_actions,
        "window": {"start": d.snapshot.window_start, "end": d.snapshot.window_end},
        "timezone": d.snapshot.timezone,
        "timezone_source": d.snapshot.timezone_source,
        "decided_at": d.decided_at,
        "reasons": [_reason(r) for r in d.reasons],
        "metadata": d.metadata,
    }


def _action(d: Decision) -> Json | None:
    if d.send_at is None:
        return None
    return {
        "variant_id": d.variant_id,
        "channel": d.channel,
        "send_at": d.send_at,
        "send_at_local": at_zone(d.send_at, d.snapshot.timezone),
    }


def _reason(r: Reason) -> Json:
    return {
        "rule_id": r.rule_id,
        "kind": r.kind,
        "masked": r.masked,
        "next_eligible_at": r.next_eligible_at,
        "dry_run": r.dry_run,
        "note": r.note,
    }


def decision_record(d: Decision) -> Json:
    """A decision with everything that is stored of it."""
    s = d.snapshot
    return {
        **decision(d),
        "campaign_version": d.campaign_version,
        "category": d.category,
        "action_index": d.action,
        "actions": d.actions,
        "eligible": b64encode(d.eligible).decode("ascii"),
        "snapshot": {
            "variants": s.variants,
            "channels": s.channels,
            "context": s.context,
            "effects": dict(s.effects),
            "attempt": s.attempt,
            "immediate": s.immediate,
            "shadow": _shadow(s.shadow) if s.shadow is not None else None,
            "overridden_rules": s.overridden_rules,
            "cost": s.cost / MICROS,
            "unanswered": s.unanswered,
            "limits": [_risk_limit(one) for one in s.limits],
            "risks": s.risks,
            "displaced": s.displaced,
            "erased": s.erased,
        },
        "claimed_at": d.claimed_at,
        "sent_at": d.sent_at,
        "provider": d.provider,
        "message_id": d.message_id,
        "closed_at": d.closed_at,
        "close_reason": d.close_reason,
        "imported": d.imported,
    }


def _risk_limit(one: RiskLimit) -> Json:
    return {"rule_id": one.rule_id, "outcome": one.outcome, "max_risk": one.max_risk, "channels": one.channels}


def _shadow(c: ShadowChoice) -> Json:
    return {
        "variant_id": c.variant_id,
        "channel": c.channel,
        "send_at": c.send_at,
        "propensity": c.propensity,
        "policy_id": c.policy_id,
    }


def campaign(c: Campaign) -> Json:
    """A campaign in the form that a PUT of it has, and what the service knows of it."""
    return {
        "campaign_id": c.campaign_id,
        "version": c.version,
        "created_at": c.created_at,
        "updated_at": c.updated_at,
        "name": c.name,
        "category": c.category,
        "priority": c.priority,
        "status": c.status,
        "mode": c.mode,
        "variants": [_variant(v) for v in c.variants],
        "channels": [{"id": one.id, "cost": one.cost} for one in c.channels],
        "slot_minutes": c.slot_minutes,
        "default_window_hours": c.default_window_hours,
        "spread_within_slot": c.spread_within_slot,
        "allow_no_send": c.allow_no_send,
        "currency": c.currency,
        "timezone": c.timezone,
        "objective": {name: _weight(w) for name, w in c.objective.items()},
        "attribution_hours": dict(c.attribution_hours),
        "groups": {"holdout": c.groups.holdout, "random": c.groups.random, "baseline": c.groups.baseline},
        "baseline": None
        if c.baseline is None
        else {
            "variant_id": c.baseline.variant_id,
            "channel": c.baseline.channel,
            "local_time": c.baseline.local_time,
        },
        "displaceable": c.displaceable,
        "exploration": _exploration(c),
        "guardrails": {
            name: {"max_rate": g.max_rate, "max_increase": g.max_increase} for name, g in c.guardrails.items()
        },
        "cold_start": c.cold_start,
        "unconfirmed": c.unconfirmed,
        "event_mapping": {name: {"outcome": m.outcome, "value": m.value} for name, m in c.event_mapping.items()},
    }


def _exploration(c: Campaign) -> Json:
    name, number = EXPLORATION_PARAMETERS.get(c.exploration_method), c.exploration_parameter
    own = {} if name is None or number is None else {name: number}
    return {"rate": c.exploration_rate, "method": c.exploration_method, **own}


def _variant(v: Variant) -> Json:
    return {
        "id": v.id,
        "status": v.status,
        "features": v.features,
        "text": v.text,
        "cost": v.cost,
        "requires": [
            {
                "campaign_id": r.campaign_id,
                "variant_id": r.variant_id,
                "outcome": r.outcome,
                "happened": r.happened,
                "within_hours": r.within_hours,
            }
            for r in v.requires
        ],
    }


def _weight(w: OutcomeWeight) -> Json | float:
    if w.per_value == 0 and w.max_value is None:
        return w.fixed
    return {"fixed": w.fixed, "per_value": w.per_value, "max_value": w.max_value}


def rule(r: Rule) -> Json:
    """A rule in the form that a PUT of it has, and what the service knows of it."""
    return {
        "rule_id": r.rule_id,
        "version": r.version,
        "updated_at": r.updated_at,
        "kind": r.kind,
        **KINDS[r.kind].show(r.parameters),
        "applies_to": _selector(r.applies_to),
        "counts": _selector(r.counts),
        "enabled": r.enabled,
        "dry_run": r.dry_run,
        "archived": r.archived,
    }


def breach(b: Breach) -> Json:
    """A message that breaks a rule."""
    return asdict(b)


def _selector(s: Selector) -> Json:
    return {
        name: list(ids)
        for name in (
            "channels",
            "except_channels",
            "categories",
            "except_categories",
            "campaigns",
            "except_campaigns",
        )
        if (ids := getattr(s, name)) is not None
    }


def recipient(r: Recipient) -> Json:
    """A recipient in the form that a PUT of it has, and what the service knows of it."""
    return {
        "recipient_id": r.recipient_id,
        "version": r.version,
        "updated_at": r.updated_at,
        "timezone": r.timezone,
        "attributes": r.attributes,
        "channels": {name: _consent(c) for name, c in r.channels.items()},
        "suppressed": [_suppression(s) for s in r.suppressed],
    }


def _consent(c: Consent) -> Json:
    return {"state": c.state, "source": c.source, "at": c.at}


def _suppression(s: Suppression) -> Json:
    return {"channel": s.channel, "category": s.category, "source": s.source, "at": s.at}


def attribute(a: Attribute) -> Json:
    """An entry of the attribute registry."""
    return {
        "name": a.name,
        "type": a.type,
        "use_in_model": a.use_in_model,
        "sensitive": a.sensitive,
        "retention_days": a.retention_days,
        "declared": a.declared,
    }


def workspace(w: Workspace) -> Json:
    """A workspace."""
    return {
        "workspace_id": w.workspace_id,
        "name": w.name,
        "mode": w.mode,
        "version": w.version,
        "created_at": w.created_at,
    }


def key(k: ApiKey) -> Json:
    """A key; never its hash."""
    return {
        "key_id": k.key_id,
        "name": k.name,
        "scopes": k.scopes,
        "created_at": k.created_at,
        "revoked_at": k.revoked_at,
    }


def policy(p: Policy) -> Json:
    """A policy, without the models that it mixes."""
    return {
        "policy_id": p.policy_id,
        "campaign_id": p.campaign_id,
        "status": p.status,
        "created_at": p.created_at,
        "mixture": [{"weight": c.weight, "artifact_id": c.artifact_id} for c in p.mixture],
        "parent_id": p.parent_id,
        "run_id": p.run_id,
        "revision": p.revision,
        "exploration": p.exploration,
        "verdict": p.verdict,
    }


def training_run(r: TrainingRun) -> Json:
    """A training run."""
    return {
        "run_id": r.run_id,
        "kind": r.kind,
        "status": r.status,
        "campaign_id": r.campaign_id,
        "trigger": r.trigger,
        "created_at": r.created_at,
        "started_at": r.started_at,
        "finished_at": r.finished_at,
        "verdict": r.verdict,
        "error": r.error,
    }


def change(c: Change) -> Json:
    """An entry of the change feed."""
    return {
        "position": c.position,
        "kind": c.kind,
        "at": c.at,
        "decision_id": c.decision_id,
        "campaign_id": c.campaign_id,
        "policy_id": c.policy_id,
        "replaced_id": c.replaced_id,
        "detail": c.detail,
    }


def page(plural: str, items: list[Json], cursor: str | None) -> Mapping[str, Any]:
    """A page of a list."""
    return {plural: items, "cursor": cursor}
