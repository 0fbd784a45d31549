"""Decisions: what is asked and what is answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

from marshmallow import ValidationError, fields, post_load

from optimizer.service.requests import DecisionRequest, RecipientPatch
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, PageQuery, Problem, Shown, moment, page_of, rows, state
from optimizer.web.schemas.containers import Attributes, Context, Many, Part
from optimizer.web.schemas.fields import Choice, Flag, Id, Number, Text, Time, Whole, ZoneName
from optimizer.web.schemas.recipients import consents
from storage.log import Group, Status
from storage.records import Mode

STATUSES = get_args(Status)
#: The longest window of a request; its slots are limited besides (4,096 actions).
_LONGEST = timedelta(hours=limits.YEAR_HOURS)


class WindowIn(Body):
    """When a message may go out: `start` included, `end` not. A start in the past is clipped to now."""

    start = Time(required=True)
    end = Time(required=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> tuple[Any, Any]:
        start, end = data["start"], data["end"]
        if end <= start:
            raise ValidationError(f"Must be after window.start ({start.isoformat()}).", "end")
        if end - start > _LONGEST:
            raise ValidationError(f"Must be at most {limits.YEAR_HOURS} hours after window.start.", "end")
        return start, end


class RecipientPatchIn(Body):
    """Updates the stored recipient; never loosens a recorded refusal. What is told now takes the room of stored
    attributes and consents where the record would hold more than a PUT of it may; refusals all stay."""

    timezone = ZoneName(load_default=None, allow_none=True)
    attributes = Attributes(load_default=dict)
    channels = consents()

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> RecipientPatch:
        return RecipientPatch(**data)


def _restriction(what: str) -> Many:
    about = f"Only these {what}; left out: all."
    return Many(Id(), about, shortest=1, longest=limits.VARIANTS, unique=True, load_default=None)


class RowIn(Body):
    """One recipient of a batch; the rest of the question is in the envelope."""

    recipient_id = Id(required=True)
    request_id = Id("Unique in the workspace: the same again answers the same.", load_default=None)
    context = Context("What is known of this moment; the model sees it over the attributes.", load_default=dict)
    metadata = Attributes("Yours; comes back with the decision.", load_default=dict)
    recipient = Part(RecipientPatchIn, load_default=None)


class _Question(Body):
    """What a single request and a batch's envelope have in common."""

    campaign_id = Id(required=True)
    window = Part(
        WindowIn, load_default=None, metadata={"description": "Left out: from now, as long as the campaign says."}
    )
    variants = _restriction("variants")
    channels = _restriction("channels")
    immediate = Flag(
        "Now or never: one slot. A window may not begin later than now; 5 minutes are forgiven, since clocks differ.",
        load_default=False,
    )
    preview = Flag("Reserves and logs nothing.", load_default=False)
    override_rules = Flag("Ignores rules, not consent; needs the scope `admin` and is logged.", load_default=False)


class DecisionIn(_Question, RowIn):
    """What to send to this recipient, on which channel, when, or nothing."""

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> DecisionRequest:
        return request_of(data)


class DecisionsIn(_Question):
    """One question for many recipients. Rows are checked one by one, see `RowIn`."""

    context = Context(
        "For every row; a row's own context goes over it, and both together hold as much as one may.", load_default=dict
    )
    recipients = rows(RowIn)


def request_of(data: dict[str, Any]) -> DecisionRequest:
    """The request of loaded fields."""
    for name in ("variants", "channels"):
        if data[name] is not None:
            data[name] = tuple(data[name])
    return DecisionRequest(**data)


class ConfirmIn(Body):
    """The message went out."""

    sent_at = Time("Left out: now. Not before the decision, but for what clocks may differ by.", load_default=None)
    provider = Id("Who sent it.", load_default=None, allow_none=True)
    message_id = Id("Its id at the provider; events may name it.", load_default=None, allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data["message_id"] is not None and data["provider"] is None:
            raise ValidationError("Missing; message_id needs it.", "provider")
        return data


class ReleaseIn(Body):
    """The message won't go out."""

    reason = Text("Why.", load_default="")


class DecisionsQuery(PageQuery):
    """Which decisions."""

    campaign_id = Id(load_default=None)
    recipient_id = Id(load_default=None)
    status = Choice(STATUSES, load_default=None)


class ActionOut(Shown):
    """A message: which variant, on which channel, when."""

    variant_id = Id(required=True)
    channel = Id(required=True)
    send_at = moment("UTC.")
    send_at_local = moment("The same in the recipient's zone.")


class ReasonOut(Shown):
    """What masked actions: a rule, `consent`, `suppression`, a variant's own conditions (`requires`), the mode
    (`paused`; `no_baseline` where the baseline was to answer and the campaign has none), or the request, whose variants
    and channels leave the baseline out (`not_requested`), or whose window lacks its time (`outside_window`)."""

    rule_id = Id(required=True)
    kind = Text(required=True)
    masked = Whole(
        "How many actions it masked, or would have if it weren't a dry run.", maximum=limits.ROWS, required=True
    )
    next_eligible_at = moment("When this alone would stop masking; null: unknown or never.", known=False)
    dry_run = Flag("The rule only reports: nothing was masked.", required=True)
    note = Text("For people, what the numbers don't say; may be empty.", longest=1024, required=True)


class WindowOut(Shown):
    """The window that was decided over, its start clipped to the time of the decision."""

    start = moment()
    end = moment()


class DecisionOut(Shown):
    """A decision: an action or the reason why there is none."""

    decision_id = Id(required=True)
    request_id = Text(longest=1024, required=True)
    campaign_id = Id(required=True)
    recipient_id = Id(required=True)
    status = state(STATUSES)
    group = state(get_args(Group))
    mode = state(get_args(Mode))
    action = fields.Nested(ActionOut, required=True, allow_none=True)
    propensity = Number(
        "Probability of this action under this policy, eligible set and group; null: imported without one.",
        minimum=0,
        maximum=1,
        required=True,
        allow_none=True,
    )
    policy_id = Id(required=True)
    eligible_actions = Whole(maximum=limits.ROWS, required=True)
    window = fields.Nested(WindowOut, required=True)
    timezone = Text("The zone that rules and times used.", required=True)
    timezone_source = state(("recipient", "campaign", "default"), "`default`: no zone was known, UTC was used.")
    decided_at = moment()
    reasons = fields.List(fields.Nested(ReasonOut), required=True)
    metadata = fields.Dict(required=True)


class ShadowOut(Shown):
    """What the policy would have chosen in shadow mode."""

    variant_id = Id(required=True, allow_none=True)
    channel = Id(required=True, allow_none=True)
    send_at = moment(known=False)
    propensity = Number(minimum=0, maximum=1, required=True)
    policy_id = Id(required=True)


class RiskLimitOut(Shown):
    """A fatigue rule as the policy was bound by it."""

    rule_id = Id(required=True)
    outcome = Id(required=True)
    max_risk = Number(minimum=0, maximum=1, required=True)
    channels = fields.List(Id(), required=True, allow_none=True, metadata={"description": "null: all."})


class SnapshotOut(Shown):
    """All that the decision was computed from, beside campaign version and policy."""

    variants = fields.List(Id(), required=True)
    channels = fields.List(Id(), required=True)
    context = fields.Dict(
        required=True,
        metadata={
            "description": "What was known of the recipient. `@history` holds their last events, oldest first: how "
            "many `minutes` before the decision each happened, and which of the `events` it is `of`: [kind, what it "
            "was about, channel, campaign/variant], without what is unknown at the end; the kinds 0 to 6 are sent, "
            "opened, clicked, converted, unsubscribed, complained, viewed. Older decisions have a list of "
            "[minutes, kind, …] an event instead."
        },
    )
    effects = fields.Dict(required=True)
    attempt = Whole("Draws thrown away because the eligible set changed.", maximum=limits.ROWS, required=True)
    immediate = Flag(required=True)
    shadow = fields.Nested(ShadowOut, required=True, allow_none=True)
    overridden_rules = fields.List(Id(), required=True)
    cost = Number(
        "What the chosen message costs, in the campaign's currency.",
        minimum=0,
        maximum=limits.AMOUNT * 2,
        required=True,
    )
    unanswered = Whole(
        "Messages sent since the recipient last engaged, as adaptive caps used it; null: there was no such cap.",
        maximum=limits.POSITION,
        required=True,
        allow_none=True,
    )
    risks = fields.Dict(
        keys=fields.String(),
        values=fields.List(Number(minimum=0, maximum=1, allow_none=True)),
        required=True,
        metadata={
            "description": "Predicted chance of each limited outcome for the chosen action, by component of the "
            "policy's mixture; null: a component without a model."
        },
    )
    displaced = fields.List(Id("A decision."), required=True, metadata={"description": "Whose place this one took."})
    erased = Flag("true: the person was erased, so context and effects are gone.", required=True)
    # The last one: in this class's body the name hides the module.
    limits = fields.List(
        fields.Nested(RiskLimitOut), required=True, metadata={"description": "The fatigue rules that bound the policy."}
    )


class DecisionRecordOut(DecisionOut):
    """A decision with everything that is stored: enough to replay it."""

    campaign_version = Whole(maximum=2**31, required=True)
    category = Id(required=True)
    action_index = Whole(
        "Index in the action space (variant x slot x channel, then no_send).",
        maximum=limits.ROWS,
        required=True,
        allow_none=True,
    )
    actions = Whole("Size of the action space.", maximum=limits.ROWS, required=True)
    eligible = Text("The eligible set: numpy.packbits of the mask, base64.", longest=4096, required=True)
    snapshot = fields.Nested(SnapshotOut, required=True)
    claimed_at = moment(known=False)
    sent_at = moment(known=False)
    provider = Id(required=True, allow_none=True)
    message_id = Id(required=True, allow_none=True)
    closed_at = moment(known=False)
    close_reason = Text(longest=1024, required=True, allow_none=True)
    imported = Flag(required=True)


class DecisionsOut(Shown):
    """Decisions in the order of the rows; a row that was refused has a problem in its place."""

    #: Documented as a list of either; apispec has no field for that.
    decisions = fields.List(fields.Raw(metadata={"anyOf": [DecisionOut, Problem]}), required=True)


DecisionsPage = page_of(DecisionOut, "decisions")
