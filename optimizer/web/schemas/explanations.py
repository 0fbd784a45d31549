"""Explanations: why a decision is what it is."""

from __future__ import annotations

from typing import get_args

from marshmallow import fields

from optimizer.service.explain import Kind, Rival
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Shown, moment, state
from optimizer.web.schemas.fields import Flag, Id, Number, Text, Whole
from storage.log import Group, Status
from storage.records import Mode

_LARGEST = 1e300


def _score(about: str = "", *, known: bool = True) -> Number:
    return Number(about, minimum=-_LARGEST, maximum=_LARGEST, required=True, allow_none=not known)


def _chance(about: str = "", *, known: bool = True) -> Number:
    return Number(about, minimum=0, maximum=1 + 1e-9, required=True, allow_none=not known)


class ExplainedActionOut(Shown):
    """An action as the policy saw it; `variant_id` null: not sending."""

    variant_id = Id(required=True, allow_none=True)
    channel = Id(required=True, allow_none=True)
    send_at = moment(known=False)
    send_at_local = moment("The same on the recipient's wall clock.", known=False)
    score = _score("Expected reward less cost and prices; null: no model.", known=False)
    probability = _chance("Under the answering group.", known=False)
    outcomes = fields.Dict(keys=fields.String(), values=_chance(), required=True)


class ContributionOut(Shown):
    """What one feature adds to the difference of two scores."""

    kind = Text(
        "level, campaign, channel, variant, pair, copy (a feature or word of the variant), attribute, product (of two "
        "attributes), history, hour, weekday, rhythm, value (what an outcome is worth after this variant), cost or "
        "price.",
        required=True,
    )
    feature = Text(longest=10_000, required=True)
    through = Text("What it acts through: variant, channel, pair, campaign, time.", required=True, allow_none=True)
    value = fields.Raw(required=True, allow_none=True, metadata={"description": "Of an attribute, as used."})
    contribution = _score()


class DifferenceOut(Shown):
    """Why the chosen action scores above (or below) another one."""

    to = state(get_args(Rival), "The best other action; the best of another variant; on another channel; not sending.")
    action = fields.Nested(ExplainedActionOut, required=True)
    difference = _score("Score of the chosen action less this one's.")
    contributions = fields.List(
        fields.Nested(ContributionOut),
        required=True,
        metadata={"description": "The largest first; with `residual` they add up to `difference`."},
    )
    residual = _score("What no feature is given: rounding and `path_residual`.")
    path_residual = _score("What integrating over a network's inputs leaves; 0 where the model is linear.")


class ExplorationOut(Shown):
    """What exploration did."""

    method = Text(required=True)
    component_weight = _chance("Weight of the explained model in the policy's mixture.")
    probability_of_greedy = _chance("Of the most valued action.")
    probability_of_chosen = _chance()
    greedy_was_chosen = Flag(required=True)


class MaskOut(Shown):
    """What a rule (or consent, suppression) masked."""

    rule_id = Id(required=True)
    kind = Text(required=True)
    masked = Whole("Actions.", maximum=limits.POSITION, required=True)
    dry_run = Flag(required=True)
    note = Text(longest=10_000, required=True)


class LimitOut(Shown):
    """A limit of predicted risk that a fatigue rule set."""

    rule_id = Id(required=True)
    outcome = Text(required=True)
    max_risk = _chance()


class RiskMaskOut(Shown):
    """What the policy left out because of its predicted risk."""

    actions = Whole(maximum=limits.POSITION, required=True)
    limits = fields.List(fields.Nested(LimitOut), required=True)


class ExplanationOut(Shown):
    """Why a decision is what it is."""

    decision_id = Id(required=True)
    campaign_id = Id(required=True)
    recipient_id = Id(required=True)
    policy_id = Id(required=True)
    group = state(get_args(Group))
    mode = state(get_args(Mode))
    status = state(get_args(Status))
    kind = state(get_args(Kind), "What decided.")
    sentence = Text("For people.", longest=100_000, required=True)
    propensity = _chance(known=False)
    actions = Whole(maximum=limits.POSITION, required=True)
    eligible_actions = Whole(maximum=limits.POSITION, required=True)
    masked = fields.List(fields.Nested(MaskOut), required=True)
    masked_by_risk = fields.Nested(RiskMaskOut, required=True, allow_none=True)
    overridden_rules = fields.List(Id(), required=True)
    displaced = fields.List(Id("A decision whose place this one took."), required=True)
    chosen = fields.Nested(
        ExplainedActionOut, required=True, allow_none=True, metadata={"description": "null: no policy was asked."}
    )
    greedy = fields.Nested(
        ExplainedActionOut, required=True, allow_none=True, metadata={"description": "The most valued action."}
    )
    exploration = fields.Nested(ExplorationOut, required=True, allow_none=True)
    comparisons = fields.List(fields.Nested(DifferenceOut), required=True)
