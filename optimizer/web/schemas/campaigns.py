"""Campaigns: variants, channels, objective, groups, baseline."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, ClassVar, get_args

from marshmallow import ValidationError, post_load, validates_schema

from optimizer.service.setup import VARIANTS_EVER
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Stored, page_of, shown
from optimizer.web.schemas.containers import Attributes, Either, Many, Part, Table
from optimizer.web.schemas.exploration import EXPLORATION, ExplorationIn
from optimizer.web.schemas.factors import faults_of_factors
from optimizer.web.schemas.fields import Choice, ClockTime, Currency, Flag, Id, Number, Text, Time, Whole, ZoneName
from storage.records import (
    Baseline,
    Campaign,
    CampaignStatus,
    Channel,
    ColdStart,
    EventMapping,
    GroupShares,
    Guardrail,
    Mode,
    OutcomeWeight,
    Requirement,
    Unconfirmed,
    Variant,
    VariantStatus,
)

#: What a campaign aims at when it doesn't say.
DEFAULT_OBJECTIVE = {"clicked": OutcomeWeight(fixed=1.0)}
#: Shares of the control groups when a campaign doesn't say; transactional messages have none.
DEFAULT_SHARES = {"holdout": 0.05, "random": 0.05, "baseline": 0.0}
#: Priority, whether others may take the place of its messages, and whether not sending is a choice, when a campaign
#: doesn't say: a receipt is owed, so nothing takes its place and no draw decides against it.
_STANDING = {"priority": 50, "displaceable": True, "allow_no_send": True}
_TRANSACTIONAL_STANDING = {"priority": 90, "displaceable": False, "allow_no_send": False}


class RequirementIn(Body):
    """The variant is open only after the recipient did, or did not do, something with an earlier message.

    Judged when the decision is made, on the last message of that campaign (and variant) that was decided here and sent
    by then; what `/v1/sends` reports is not asked. Without such a message the condition doesn't hold. The campaign need
    not exist yet, and may be this one.
    """

    campaign_id = Id("Of which campaign the earlier message was.", required=True)
    variant_id = Id("Of which variant; left out: any.", load_default=None, allow_none=True)
    outcome = Id("opened, clicked, converted, … or any event type of yours.", required=True)
    happened = Flag(
        "true: it happened within the hours. false: the hours have passed and it didn't.", load_default=True
    )
    within_hours = Number("How long after that message was sent.", above=0, maximum=limits.YEAR_HOURS, required=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Requirement:
        return Requirement(**data)


class VariantIn(Body):
    """One message text or creative."""

    id = Id(required=True)
    status = Choice(get_args(VariantStatus), load_default="active")
    features = Attributes("What describes it; a new variant starts from what its features taught.", load_default=dict)
    text = Text("The message's text, for the model.", longest=limits.TEXT, load_default="")
    cost = Number("What one message costs.", minimum=0, maximum=limits.AMOUNT, load_default=0.0)
    requires = Many(
        Part(RequirementIn),
        "Conditions on earlier messages; every one must hold.",
        longest=limits.REQUIREMENTS,
        load_default=list,
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Variant:
        return Variant(**{**data, "requires": tuple(data["requires"])})


class ChannelIn(Body):
    """A way to reach people."""

    id = Id(
        "Any name: email, letter, …; those that need consent are spelled sms, push, whatsapp, voice.", required=True
    )
    cost = Number("What one message costs.", minimum=0, maximum=limits.AMOUNT, load_default=0.0)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Channel:
        return Channel(**data)


class OutcomeWeightIn(Body):
    """What an outcome is worth: `fixed` when it happens plus `per_value` times its value, clipped to ± `max_value`."""

    fixed = Number(maximum=limits.AMOUNT, load_default=0.0)
    per_value = Number(maximum=limits.AMOUNT, load_default=0.0)
    max_value = Number(
        "Values are clipped to ± this; null: not.", above=0, maximum=limits.AMOUNT, load_default=None, allow_none=True
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> OutcomeWeight:
        return OutcomeWeight(**data)


class GroupsIn(Body):
    """Shares of recipients in the control groups; the rest is treated. Left out: .05, .05, 0; transactional: 0."""

    holdout = Number("Gets nothing.", minimum=0, maximum=1)
    random = Number("Gets a uniformly random eligible action.", minimum=0, maximum=1)
    baseline = Number("Gets the campaign's baseline.", minimum=0, maximum=1)


class BaselineIn(Body):
    """What would be sent without Sendtide: one variant, one channel, one exact time of day of the recipient."""

    variant_id = Id(required=True)
    channel = Id(required=True)
    local_time = ClockTime(required=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Baseline:
        return Baseline(**data)


class GuardrailIn(Body):
    """Limits on a harmful outcome."""

    max_rate = Number("Its highest rate.", minimum=0, maximum=1, load_default=None, allow_none=True)
    max_increase = Number(
        "Its highest increase over the policy in use.", minimum=0, maximum=1, load_default=None, allow_none=True
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Guardrail:
        if data["max_rate"] is None and data["max_increase"] is None:
            raise ValidationError("Must have max_rate, max_increase or both.")
        return Guardrail(**data)


class EventMappingIn(Body):
    """Turns a tracked event into an outcome."""

    outcome = Id(required=True)
    value = Id(
        "The property that holds the outcome's value: a number, or text that is one; else the event's own counts.",
        load_default=None,
        allow_none=True,
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> EventMapping:
        return EventMapping(**data)


def _plain_channel(value: Any) -> Channel | None:
    try:
        return Channel(id=Id().deserialize(value))
    except ValidationError:
        return None


def _plain_weight(value: Any) -> OutcomeWeight | None:
    try:
        return OutcomeWeight(fixed=Number(maximum=limits.AMOUNT).deserialize(value) or 0.0)
    except ValidationError:
        return None


def _channel() -> Either:
    form = {"type": "string", "minLength": 1, "maxLength": limits.ID, "description": "a channel's name"}
    return Either(Part(ChannelIn), _plain_channel, form=form)


def _weight() -> Either:
    form = {"type": "number", "minimum": -limits.AMOUNT, "maximum": limits.AMOUNT, "description": "a number"}
    return Either(Part(OutcomeWeightIn), _plain_weight, form=form)


class CampaignIn(Stored):
    """One question put to the optimizer: which of these variants, on which channel, when, or nothing."""

    #: Whether the ``FACTORS`` are stored already, and are not checked again.
    kept: ClassVar[bool] = False

    campaign_id = Id(dump_only=True)
    version = Whole("Grows with every change; the ETag.", minimum=1, maximum=2**31, dump_only=True)
    created_at = Time(dump_only=True)
    updated_at = Time(dump_only=True)

    name = Text(load_default="")
    category = Id(
        "Rules and suppressions speak of it; `transactional` has no control groups, priority 90, can't be displaced "
        "and doesn't choose not to send, where it doesn't say otherwise.",
        load_default="marketing",
    )
    priority = Whole(
        "Higher wins: it may displace reserved messages of lower ones. Left out: 50; transactional: 90.", maximum=1000
    )
    status = Choice(get_args(CampaignStatus), load_default="active")
    mode = Choice(get_args(Mode), "Who answers: see the overview.", load_default="live")
    variants = Many(
        Part(VariantIn),
        f"One left out of a PUT is archived, and revoked when claimed. At most {limits.VARIANTS} aren't archived.",
        shortest=1,
        longest=VARIANTS_EVER,
        required=True,
    )
    channels = Many(
        _channel(), '`["email"]` is short for `[{"id": "email"}]`.', shortest=1, longest=limits.CHANNELS, required=True
    )
    slot_minutes = Whole("Width of a send slot.", minimum=1, maximum=1440, load_default=60)
    default_window_hours = Number(
        "The window of a request that has none; it may hold at most 4,096 actions: variants x channels x slots.",
        above=0,
        maximum=limits.YEAR_HOURS,
        load_default=24.0,
    )
    spread_within_slot = Flag("Spread send times inside a slot.", load_default=True)
    allow_no_send = Flag(
        "Whether sending nothing is a choice: drawn among the others, before anything is learned as often as each of "
        "them. Left out: true; transactional: false."
    )
    _of_costs = "ISO 4217, of costs and values; fixed once there are decisions. A budget counts costs in one currency."
    currency = Currency(_of_costs, load_default="EUR")
    timezone = ZoneName("For recipients whose zone is unknown.", load_default=None, allow_none=True)
    objective = Table(
        _weight(), 'What each outcome is worth. Left out: `{"clicked": 1}`.', smallest=1, largest=limits.OUTCOMES
    )
    attribution_hours = Table(
        Number(above=0, maximum=limits.ATTRIBUTION_HOURS),
        "How long after the message an outcome counts; 72 where not said. What needs no message counts so long after "
        "the end of the decision's window, whatever was chosen.",
        largest=limits.OUTCOMES,
        load_default=dict,
    )
    groups = Part(GroupsIn, load_default=dict)
    baseline = Part(BaselineIn, load_default=None, allow_none=True)
    displaceable = Flag(
        "Whether a campaign of higher priority may take the place of its reserved messages. Left out: true; "
        "transactional: false."
    )
    exploration = Part(ExplorationIn, load_default=lambda: dict(EXPLORATION))
    guardrails = Table(Part(GuardrailIn), "Limits on harmful outcomes.", largest=limits.OUTCOMES, load_default=dict)
    cold_start = Choice(get_args(ColdStart), "What is done before anything is learned.", load_default="uniform")
    unconfirmed = Choice(
        get_args(Unconfirmed),
        "What an unconfirmed reservation counts as once its time has passed.",
        load_default="assume_sent",
    )
    event_mapping = Table(
        Part(EventMappingIn), "Tracked events that are outcomes.", largest=limits.OUTCOMES, load_default=dict
    )

    @validates_schema(skip_on_field_errors=True)
    def _consistent(self, data: dict[str, Any], **_: Any) -> None:
        problems: dict[str, Any] = {}
        for many in ("variants", "channels"):
            repeated = _repeated([one.id for one in data[many]])
            if repeated:
                problems[many] = [f"Ids must differ; more than once: {', '.join(map(repr, repeated))}."]
        if not any(v.status == "active" for v in data["variants"]):
            problems["variants"] = ["At least one variant must be active."]
        unarchived = sum(v.status != "archived" for v in data["variants"])
        if unarchived > limits.VARIANTS and not self.kept:
            problems["variants"] = [f"At most {limits.VARIANTS} may be active or paused; {unarchived} are."]
        shares = shares_of(data)
        if sum(shares.values()) > 1 + 1e-12:
            problems["groups"] = [f"Shares must add up to at most 1; they add up to {sum(shares.values()):g}."]
        problems.update(_baseline_problems(data, shares))
        if not self.kept:
            no_send = bool({**_standing(data), **data}["allow_no_send"]) or shares["holdout"] > 0
            faults = faults_of_factors(data, no_send=no_send)
            problems.update({name: fault for name, fault in faults.items() if name not in problems})
        if problems:
            raise ValidationError(problems)


class KeptCampaignIn(CampaignIn):
    """A campaign whose ``FACTORS`` are as they are stored: an older version let them be what is refused now, and it
    must still be possible to pause it."""

    kept = True

    variants = Many(Part(VariantIn), shortest=1, longest=limits.STORED, required=True)


def _repeated(ids: list[str]) -> list[str]:
    return sorted(one for one, times in Counter(ids).items() if times > 1)


def _standing(data: dict[str, Any]) -> dict[str, Any]:
    return _TRANSACTIONAL_STANDING if data["category"] == "transactional" else _STANDING


def shares_of(data: dict[str, Any]) -> dict[str, float]:
    """The shares of the control groups, with the defaults of the campaign's category."""
    default = dict.fromkeys(DEFAULT_SHARES, 0.0) if data["category"] == "transactional" else DEFAULT_SHARES
    return {**default, **data["groups"]}


def _baseline_problems(data: dict[str, Any], shares: dict[str, float]) -> dict[str, Any]:
    baseline: Baseline | None = data["baseline"]
    if baseline is None:
        why = [
            *(["groups.baseline > 0"] if shares["baseline"] > 0 else []),
            *([f"mode {data['mode']}"] if data["mode"] in ("shadow", "baseline_only") else []),
            *(["cold_start around_baseline"] if data["cold_start"] == "around_baseline" else []),
        ]
        return {"baseline": [f"Missing; it is required by {' and '.join(why)}."]} if why else {}
    problems: dict[str, list[str]] = {}
    active = [v.id for v in data["variants"] if v.status == "active"]
    channels = [c.id for c in data["channels"]]
    if baseline.variant_id not in active:
        problems["variant_id"] = [f"Must be an active variant of this campaign: {', '.join(active[:20])}."]
    if baseline.channel not in channels:
        problems["channel"] = [f"Must be a channel of this campaign: {', '.join(channels[:20])}."]
    return {"baseline": problems} if problems else {}


def campaign_of(data: dict[str, Any], *, workspace_id: str, campaign_id: str, now: datetime) -> Campaign:
    """The record of a loaded ``CampaignIn``; the service sets its version and times."""
    facts = {k: v for k, v in data.items() if k not in ("variants", "channels", "groups", "exploration", "objective")}
    return Campaign(
        workspace_id=workspace_id,
        campaign_id=campaign_id,
        variants=tuple(data["variants"]),
        channels=tuple(data["channels"]),
        created_at=now,
        updated_at=now,
        version=0,
        objective=data.get("objective", DEFAULT_OBJECTIVE),
        groups=GroupShares(**shares_of(data)),
        **data["exploration"],
        **{**_standing(data), **facts},
    )


CampaignOut = shown(CampaignIn, "Campaign")
CampaignsPage = page_of(CampaignOut, "campaigns")
