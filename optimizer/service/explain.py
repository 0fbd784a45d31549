"""Why a decision is what it is: what its features add to the score of the chosen action over others, what was masked
and by which rule, and what exploration did.

Everything is recomputed from the record, by the code that decided (see ``replay``). A policy that is a mixture is
explained by its heaviest component that has a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import Spaces
from optimizer.bandit.localtime import at_zone
from optimizer.bandit.tolls import tolls
from optimizer.errors import NotFound
from optimizer.model.attribution import between_messages, over_no_send
from optimizer.model.inference import RewardModel, Scores
from optimizer.model.learnedparts import learned_parts
from optimizer.model.policy import LivePolicy, risk_mask
from optimizer.model.terms import Floats, Name, Seen, message_terms, no_send_terms
from optimizer.service.choose import Plan, Situation, named, probabilities
from optimizer.service.explainwords import sentence
from optimizer.service.ids import IMPORTED_POLICY
from optimizer.service.replay import Replayer, plan_of, situation_of
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Campaign, Mode, Variant

Kind = Literal["imported", "withheld", "holdout", "baseline", "random", "cold_start", "learned"]
#: Which other action the chosen one is compared with.
Rival = Literal["runner_up", "other_variant", "other_channel", "no_send"]
_RESIDUAL: Final = "residual"


def explain(services: Services, workspace_id: str, decision_id: str) -> dict[str, Any]:
    """The explanation of a stored decision, see ``explained``, with a sentence for people."""
    facts, mode = explained(services, workspace_id, decision_id)
    return {**facts, "sentence": sentence(facts, mode)}


def explained(services: Services, workspace_id: str, decision_id: str) -> tuple[dict[str, Any], Mode]:
    """What explains a stored decision, and the mode that its campaign had then.

    Raises:
        NotFound: no such decision, or its policy or campaign version is no longer kept, or its person was erased, or
            this host doesn't know the zone that it was made in.
    """
    with services.store.read() as reader:
        decision = reader.decision(workspace_id, decision_id)
        if decision is None:
            raise NotFound(f"no decision {decision_id!r} in this workspace")
        if decision.snapshot.erased:
            raise NotFound(f"decision {decision_id!r} is of a person who was erased: what it was made from is gone")
        replayer = Replayer(reader, services.salt)
        campaign = replayer.campaign(decision)
        kind = _kind(decision)
        live = replayer.policy(workspace_id, decision.policy_id) if kind in ("random", "learned") else None
    facts = {**_facts(decision), "kind": kind, **_nothing()}
    if live is not None:
        facts |= _choice(decision, campaign, live)
    return facts, campaign.mode


def _kind(decision: Decision) -> Kind:
    """What decided: the group, the mode, or the policy (whose model is looked at later)."""
    if decision.imported or decision.policy_id == IMPORTED_POLICY:
        return "imported"
    if decision.action is None:
        return "withheld"
    if decision.group == "holdout":
        return "holdout"
    if decision.group == "baseline" or decision.mode in ("shadow", "baseline_only"):
        return "baseline"
    return "random" if decision.group == "random" else "learned"


def _facts(decision: Decision) -> dict[str, Any]:
    return {
        "decision_id": decision.decision_id,
        "campaign_id": decision.campaign_id,
        "recipient_id": decision.recipient_id,
        "policy_id": decision.policy_id,
        "group": decision.group,
        "mode": decision.mode,
        "status": decision.status,
        "actions": decision.actions,
        "eligible_actions": decision.eligible_actions,
        "masked": [
            {"rule_id": r.rule_id, "kind": r.kind, "masked": r.masked, "dry_run": r.dry_run, "note": r.note}
            for r in decision.reasons
        ],
        "overridden_rules": list(decision.snapshot.overridden_rules),
        "displaced": list(decision.snapshot.displaced),
        "propensity": decision.propensity,
    }


def _nothing() -> dict[str, Any]:
    """What is only there where a policy chose."""
    return {"chosen": None, "greedy": None, "comparisons": [], "exploration": None, "masked_by_risk": None}


def _choice(decision: Decision, campaign: Campaign, live: LivePolicy) -> dict[str, Any]:
    """What the policy made of the situation."""
    situation, plan = situation_of(decision, campaign), plan_of(decision, campaign)
    vector = probabilities([(situation, plan)], live)[0]
    action = int(decision.action or 0)
    if live.heaviest is None:
        return {
            "kind": "random" if decision.group == "random" else "cold_start",
            "chosen": _told(plan, situation, action),
        }
    component, model = live.heaviest
    scene = _Scene(model, live, situation, plan, vector)
    exploration = {
        "method": campaign.exploration_method,
        "component_weight": component.weight,
        "probability_of_greedy": float(vector[scene.greedy]),
        "probability_of_chosen": float(vector[action]),
        "greedy_was_chosen": action == scene.greedy,
    }
    return {
        "chosen": scene.told(action),
        "greedy": scene.told(scene.greedy),
        "exploration": exploration,
        "masked_by_risk": {
            "actions": int(plan.mask.sum() - scene.unmasked.sum()),
            "limits": [
                {"rule_id": one.rule_id, "outcome": one.outcome, "max_risk": one.max_risk} for one in situation.limits
            ],
        },
        "comparisons": [scene.comparison(action, kind, rival) for kind, rival in scene.rivals(action).items()],
    }


def _told(plan: Plan, situation: Situation, action: int) -> dict[str, Any]:
    """An action in words, without scores."""
    variant, channel, send_at = named(plan.space, action)
    local = None if send_at is None else at_zone(send_at, situation.zone.name)
    told = {"variant_id": variant, "channel": channel, "send_at": send_at, "send_at_local": local}
    return {**told, "score": None, "probability": None, "outcomes": {}}


@dataclass(frozen=True)
class _Scene:
    """A situation as one component of its policy saw it."""

    model: RewardModel
    live: LivePolicy
    situation: Situation
    plan: Plan
    vector: Floats

    @cached_property
    def scores(self) -> Scores:
        """Of every action, without tolls."""
        s = self.situation
        return self.model.score(self._embedded, self.plan.space, s.campaign, s.effects)

    @cached_property
    def net(self) -> Floats:
        """(K,) what the policy ranks by: expected reward less toll."""
        toll = tolls(self.live.prices, self.situation.campaign, Spaces.stacked([self.plan.space]))
        return self.scores.reward if toll is None else self.scores.reward - toll[0]

    @cached_property
    def unmasked(self) -> NDArray[np.bool_]:
        """(K,) what the rules and the risk mask leave open."""
        s = self.situation
        open_: NDArray[np.bool_] = risk_mask(self.scores.chances, s.campaign, self.plan.mask[None], s.limits)[0]
        return open_

    @cached_property
    def greedy(self) -> int:
        """The most valued action."""
        return self._best(self.unmasked)

    @cached_property
    def _embedded(self) -> NDArray[np.float32]:
        row: NDArray[np.float32] = self.model.embed([self.situation.seen])[0]
        return row

    @cached_property
    def _seen(self) -> Seen:
        parts = learned_parts(self.model.embedder, self.situation.seen, self._embedded)
        return Seen(self._embedded.astype(np.float64), parts, self.situation.effects)

    def _best(self, among: NDArray[np.bool_]) -> int:
        return int(np.argmax(np.where(among, self.net, -np.inf)))

    def told(self, action: int) -> dict[str, Any]:
        """An action with its score, its probability and its outcomes' chances."""
        chances = {name: float(chance[action]) for name, chance in self.scores.outcome.items()}
        figures = {"score": float(self.net[action]), "probability": float(self.vector[action]), "outcomes": chances}
        return {**_told(self.plan, self.situation, action), **figures}

    def rivals(self, action: int) -> dict[Rival, int]:
        """The best other action; the best of another variant, on another channel; not sending."""
        space = self.plan.space
        others = self.unmasked.copy()
        others[action] = False
        found: dict[Rival, int] = {}
        if others.any():
            found["runner_up"] = self._best(others)
        at = space.factors(action)
        if at is not None:
            cube = np.zeros(space.shape, dtype=np.int64) + np.arange(len(space.variants))[:, None, None]
            channel = np.zeros(space.shape, dtype=np.int64) + np.arange(len(space.channels))
            for name, place, mine in (("other_variant", cube, at[0]), ("other_channel", channel, at[2])):
                differs = np.zeros(space.size, dtype=np.bool_)
                differs[: space.messages] = place.reshape(-1) != mine
                if (differs & others).any():
                    found[name] = self._best(differs & others)  # type: ignore[index]  # both are rivals
            if space.no_send_index is not None and others[space.no_send_index]:
                found["no_send"] = space.no_send_index
        return found

    def comparison(self, action: int, kind: Rival, rival: int) -> dict[str, Any]:
        """Why the action scores higher (or lower) than a rival."""
        shares = self.shares(action, rival)
        path = sum((share for name, share in shares.items() if name.kind == _RESIDUAL), 0.0)
        shown = {name: share for name, share in shares.items() if name.kind != _RESIDUAL and share != 0.0}
        difference = float(self.net[action] - self.net[rival])
        ordered = sorted(shown.items(), key=lambda one: (-abs(one[1]), one[0]))
        return {
            "to": kind,
            "action": self.told(rival),
            "difference": difference,
            "contributions": [
                {
                    "kind": name.kind,
                    "feature": name.feature,
                    "through": name.through or None,
                    "value": self.situation.context.get(name.feature) if name.kind == "attribute" else None,
                    "contribution": share,
                }
                for name, share in ordered
            ],
            "residual": difference - sum(shown.values()),
            "path_residual": path,
        }

    def shares(self, action: int, rival: int) -> dict[Name, float]:
        """What each name adds to the score of ``action`` over ``rival``; sums to the difference but for rounding."""
        s, space = self.situation, self.plan.space
        silent = space.no_send_index
        if action == silent:
            return {name: -share for name, share in self.shares(rival, action).items()}
        mine = self._terms(action)
        if rival == silent:
            silence = no_send_terms(self.model, self._seen, s.campaign.campaign_id)
            found = over_no_send(self.model, s.campaign, self._variant_id(action), mine, silence)
        else:
            each = (self._variant_id(action), self._variant_id(rival))
            found = between_messages(self.model, s.campaign, each, mine, self._terms(rival))
        for sign, one in ((-1.0, action), (1.0, rival)):
            for name, charge in self._charges(one).items():
                found[name] = found.get(name, 0.0) + sign * charge
        return found

    def _terms(self, action: int) -> dict[Name, Floats]:
        s, space = self.situation, self.plan.space
        v, slot, c = space.factors(action) or (0, 0, 0)
        variant = self._variant(space.variants[v])
        local = int(space.local[slot])
        return message_terms(self.model, self._seen, s.campaign.campaign_id, variant, space.channels[c], local)

    def _variant_id(self, action: int) -> str:
        at = self.plan.space.factors(action)
        return self.plan.space.variants[at[0] if at else 0]

    def _variant(self, variant_id: str) -> Variant:
        return next(v for v in self.situation.campaign.variants if v.id == variant_id)

    def _charges(self, action: int) -> dict[Name, float]:
        """What a message costs, and what is charged for scarce things."""
        at = self.plan.space.factors(action)
        if at is None:
            return {}
        campaign, space = self.situation.campaign, self.plan.space
        variant, channel = self._variant(space.variants[at[0]]), space.channels[at[2]]
        cost = variant.cost + sum(one.cost for one in campaign.channels if one.id == channel)
        found = {Name("cost", "cost of the message"): cost}
        for price in self.live.prices:
            toll = tolls((price,), campaign, Spaces.stacked([space]))
            if toll is not None:
                name = Name("price", price.rule_id)
                found[name] = found.get(name, 0.0) + float(toll[0, action])
        return found
