"""Policy cards, and what the words of variants go with."""

from __future__ import annotations

from typing import get_args

from marshmallow import fields

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Shown, moment, state
from optimizer.web.schemas.fields import Flag, Id, Number, Text, Whole
from optimizer.web.schemas.learning import REPLACED, SERVES, ComponentOut
from storage.log import ChangeKind
from storage.policies import PolicyStatus

_LARGEST = 1e300


def _chance(about: str = "") -> Number:
    return Number(about, minimum=0, maximum=1 + 1e-9, required=True)


def _count(about: str = "") -> Whole:
    return Whole(about, maximum=limits.POSITION, required=True)


class ImportanceOut(Shown):
    """How much a feature moves the expected reward from message to message."""

    kind = Text(required=True)
    feature = Text(longest=10_000, required=True)
    size = Number("Standard deviation, in units of reward.", minimum=0, maximum=_LARGEST, required=True)
    share = _chance("Of all sizes.")


class FeatureOut(Shown):
    """A feature that the model reads; type `product`: two that it multiplies; `dropped`: one that it leaves out."""

    name = Text(longest=10_000, required=True)
    type = Text(required=True)
    numbers = fields.List(Text(longest=10_000), required=True)


class FollowsOut(Shown):
    """An outcome that may follow from an earlier one, such as a purchase from a click."""

    outcome = Text(required=True)
    earlier = Text("`opened or clicked` where opens tell who has looked.", required=True)
    share = Number(
        "Times this, what moves the earlier outcome's chance is where the later one's begins; rows tell the rest.",
        minimum=-_LARGEST,
        maximum=_LARGEST,
        required=True,
    )


class ModelCardOut(Shown):
    """The model of the policy's heaviest component."""

    rows = _count("That it was trained on, of all campaigns of the workspace.")
    outcomes = fields.List(Text(), required=True)
    follows = fields.List(fields.Nested(FollowsOut), required=True)
    network = fields.Dict(required=True)
    encoder = fields.Dict(required=True)
    features = fields.List(fields.Nested(FeatureOut), required=True)
    importance = fields.List(fields.Nested(ImportanceOut), required=True)


class RunOut(Shown):
    """The run that made it."""

    run_id = Id(required=True)
    kind = state(("retrain", "refresh"))
    trigger = Text(required=True)
    finished_at = moment(known=False)


class MoveOut(Shown):
    """When it was put into service, came back by a rollback, was replaced or taken back, and by whom: what serves
    from then on is the policy itself, or another one."""

    kind = state(get_args(ChangeKind))
    at = moment()
    by = Text("The gate, a key, or the reason of an automatic rollback.", longest=10_000, required=True)
    policy_id = Id(SERVES, required=True)
    replaced_id = Id(REPLACED, required=True, allow_none=True)


class EvaluatedOnOut(Shown):
    """The decisions that importance and calibration were measured on."""

    decisions = _count()
    first = moment()
    last = moment()
    unseen = Flag("All were made after the policy, so it wasn't trained on them.", required=True)


class CalibrationBinOut(Shown):
    """Decisions with like predictions."""

    rows = _count()
    predicted = _chance("Mean predicted chance.")
    observed = _chance("Share in which it happened.")
    low = _chance("95 % interval of the observed rate.")
    high = _chance()


class CalibrationOut(Shown):
    """What was predicted of an outcome and what came of it."""

    outcome = Text(required=True)
    rows = _count()
    bins = fields.List(fields.Nested(CalibrationBinOut), required=True)


class PolicyCardOut(Shown):
    """What a policy was made of and from, what it looks at, how well it predicts, who put it there."""

    policy_id = Id(required=True)
    campaign_id = Id(required=True)
    status = state(get_args(PolicyStatus))
    created_at = moment()
    parent_id = Id(required=True, allow_none=True)
    revision = Flag(required=True)
    mixture = fields.List(fields.Nested(ComponentOut), required=True)
    verdict = fields.Dict(required=True, metadata={"description": "Of the gate; `period`: from when to when the log."})
    run = fields.Nested(RunOut, required=True, allow_none=True)
    moves = fields.List(fields.Nested(MoveOut), required=True)
    model = fields.Nested(ModelCardOut, required=True, allow_none=True, metadata={"description": "null: none is kept."})
    evaluated_on = fields.Nested(EvaluatedOnOut, required=True, allow_none=True)
    calibration = fields.List(fields.Nested(CalibrationOut), required=True)


class ObservedOut(Shown):
    """What came of messages of some variants. Who got which is chance's doing in the random group alone."""

    messages = _count("Sent from here, attribution windows passed by the newest midnight UTC.")
    count = _count("Those that brought the outcome.")
    estimate = Number("Their share; null: no messages.", minimum=0, maximum=1, required=True, allow_none=True)
    low = Number(
        "95 % bounds of the rate, which hold however often one looks.",
        minimum=0,
        maximum=1,
        required=True,
        allow_none=True,
    )
    high = Number(minimum=0, maximum=1, required=True, allow_none=True)


class InsightOut(Shown):
    """Variants that share some words or features against those that lack them, or have less of a number."""

    outcome = Text(required=True)
    words = fields.List(Text(longest=10_000), required=True, metadata={"description": "Told as one: same variants."})
    features = fields.List(
        Text(longest=10_000),
        required=True,
        metadata={"description": "`tone=warm`; of numbers the upper half against the lower one: `price ≥ 20`."},
    )
    variants = fields.List(Id(), required=True, metadata={"description": "That have them."})
    others = fields.List(Id(), required=True, metadata={"description": "That don't."})
    observed_with = fields.Nested(ObservedOut, required=True)
    observed_without = fields.Nested(ObservedOut, required=True)
    chance_with = _chance("By the model, averaged over recipients and channels.")
    chance_without = _chance()
    odds_ratio = Number("Of these two chances; above 1: likelier with.", minimum=0, maximum=_LARGEST, required=True)
    low = Number(
        "What the model holds possible, see `level`: not bounds of the true ratio, which for rare outcomes often lies "
        "outside. State `observed_with` and `observed_without`.",
        minimum=0,
        maximum=_LARGEST,
        required=True,
    )
    high = Number(minimum=0, maximum=_LARGEST, required=True)
    probability_higher = _chance("Posterior probability that it is likelier with.")


class InsightsOut(Shown):
    """Which words and features of variants go with a higher response; not what causes it."""

    campaign_id = Id(required=True)
    policy_id = Id("Whose model says so.", required=True)
    level = _chance("Of the observed rates' bounds, and the share of the model's posterior within `low` to `high`.")
    averaged_over = _count("The newest messages, over whose recipients chances are averaged; 0: the average recipient.")
    insights = fields.List(fields.Nested(InsightOut), required=True, metadata={"description": "The surest first."})
