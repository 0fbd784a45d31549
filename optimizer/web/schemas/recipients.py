"""Recipients and the attribute registry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args

from marshmallow import ValidationError, fields, post_load

from optimizer.bandit.consent import misspelled
from optimizer.service.recipients import LISTED, by_event
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Shown, Stored, page_of, rows, shown
from optimizer.web.schemas.containers import Attributes, Either, Many, Part, Table
from optimizer.web.schemas.fields import ChannelName, Choice, Flag, Id, Text, Time, Whole, ZoneName
from storage.records import ANY, Attribute, AttributeType, Consent, Recipient, Suppression


class ConsentIn(Body):
    """What a recipient said of one channel, and where and when."""

    state = Flag("true: may be written to.", required=True)
    source = Text("Where it was said.", load_default=None, allow_none=True)
    at = Time("When it was said.", load_default=None, allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Consent:
        return Consent(**data)


class SuppressionIn(Body):
    """A recorded refusal of a channel and a category; `*` stands for all of them."""

    channel: Id = ChannelName(load_default=ANY)
    category = Id(load_default=ANY)
    source = Text("Where it was said.", longest=limits.SOURCE, load_default=None, allow_none=True)
    at = Time("When it was said.", load_default=None, allow_none=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Suppression:
        return Suppression(**data)


class Suppressions(Many):
    """Refusals. Those that events recorded come without the caller's doing, and don't count among theirs."""

    def __init__(self) -> None:
        super().__init__(
            Part(SuppressionIn),
            f"At most {limits.ENTRIES}, those that events recorded (`source` begins with `event:`) not counted.",
            longest=limits.SUPPRESSIONS,
            load_default=list,
        )

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        loaded = super()._deserialize(value)
        own = sum(not by_event(one) for one in loaded)
        if own > limits.ENTRIES:
            raise ValidationError(
                f"Must be a list of 0 to {limits.ENTRIES} items, those that events recorded not counted; {own} others "
                "are in it."
            )
        return loaded


def _plain_consent(value: Any) -> Consent | None:
    return Consent(state=value) if isinstance(value, bool) else None


def consents(refused: Callable[[str], str | None] | None = misspelled) -> Table:
    """Consents by channel, each `true`, `false` or an object; ``refused``: what is wrong with a channel's name."""
    consent = Either(Part(ConsentIn), _plain_consent, form={"type": "boolean", "description": "true or false"})
    about = "A channel not mentioned is allowed, except sms, push, whatsapp and voice, which need `true`."
    return Table(consent, about, largest=limits.CHANNELS, load_default=dict, refused=refused)


class RecipientIn(Stored):
    """A person who may be written to."""

    recipient_id = Id(dump_only=True)
    version = Whole("Grows with every change; the ETag.", minimum=1, maximum=2**31, dump_only=True)
    updated_at = Time(dump_only=True, allow_none=True)

    timezone = ZoneName(load_default=None, allow_none=True)
    attributes = Attributes("What is known of the person.", load_default=dict)
    channels = consents()
    suppressed: Many = Suppressions()


class KeptSuppressionIn(SuppressionIn):
    """A refusal as it is stored; see ``KeptRecipientIn``."""

    channel = Id(load_default=ANY)


class KeptRecipientIn(RecipientIn):
    """A recipient whose channels and refusals are as they are stored: an older version let a channel be spelled in any
    way, and events record any number of refusals."""

    channels = consents(refused=None)
    suppressed = Many(Part(KeptSuppressionIn), longest=limits.STORED, load_default=list)


class RecipientRow(RecipientIn):
    """A recipient of a batch."""

    recipient_id = Id(required=True)


class RecipientsIn(Body):
    """Recipients to store; each replaces the stored one. Rows are checked one by one, see `RecipientRow`."""

    recipients = rows(RecipientRow)


def recipient_of(data: dict[str, Any], *, workspace_id: str, recipient_id: str, now: datetime) -> Recipient:
    """The record of a loaded ``RecipientIn``; the service sets its version."""
    facts = {k: v for k, v in data.items() if k not in ("suppressed", "recipient_id")}
    return Recipient(
        workspace_id=workspace_id,
        recipient_id=recipient_id,
        suppressed=tuple(data["suppressed"]),
        updated_at=now,
        **facts,
    )


def _record(about: str) -> fields.Field[Any]:
    return fields.Dict(keys=fields.String(), required=True, allow_none=True, metadata={"description": about})


def _records(about: str) -> fields.Field[Any]:
    return fields.List(fields.Dict(keys=fields.String()), required=True, metadata={"description": about})


RecipientOut = shown(RecipientIn, "Recipient")


class RecipientExportOut(Shown):
    """Everything that is stored of one person; null or empty: there is none."""

    recipient = _record("Zone, attributes, consents, refusals.")
    decisions = _records("What was decided, with the context that it was decided by.")
    events = _records("What was reported, with the vendor's own words.")
    messages = _records("Messages of other systems.")
    rhythm = _record(
        "Counts by hour of the week, on the recipient's clock: `active`, `sent`, `answered`. What is long ago counts "
        "less: half after 90 days."
    )
    engagement = _record("How many messages were left unanswered.")


class RejectedRow(Shown):
    """A row that was refused; the others were not."""

    index = Whole("Its place in the list.", maximum=limits.ROWS, required=True)
    code = Text(required=True)
    detail = Text(longest=10_000, required=True)
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


class RecipientsOut(Shown):
    """What became of a batch of recipients."""

    stored = Whole(maximum=limits.ROWS, required=True)
    rejected = fields.List(fields.Nested(RejectedRow), required=True)


class AttributeIn(Stored):
    """The type of an attribute and what may be done with it."""

    name = Id(dump_only=True)
    declared = Flag("false: typed at first sight, and by its newest values at each training.", dump_only=True)

    type = Choice(get_args(AttributeType), required=True)
    use_in_model = Flag(
        "true: models may read it, whatever a training finds wrong with it; what was found is told. false: none does.",
        load_default=True,
    )
    sensitive = Flag(
        "true: nobody is grouped by it (sendtide evaluate, segments of a gate); a text must not be used in the model. "
        "Reads of recipients and decisions tell it still, and a model may use it where use_in_model says so.",
        load_default=False,
    )
    retention_days = Whole(
        "A value is taken from a recipient's record once the record has not changed for so many days; null: it stays. "
        "Telling the same again is no change. Decisions keep the values they were made by until they go themselves.",
        minimum=1,
        maximum=36_500,
        load_default=None,
        allow_none=True,
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data["sensitive"] and data["type"] == "text" and data["use_in_model"]:
            raise ValidationError("A sensitive text must not be used in the model; must be false.", "use_in_model")
        return data


def attribute_of(data: dict[str, Any], *, workspace_id: str, name: str) -> Attribute:
    """The record of a loaded ``AttributeIn``."""
    return Attribute(workspace_id=workspace_id, name=name, declared=True, **data)


AttributeOut = shown(AttributeIn, "Attribute")
AttributesPage = page_of(
    AttributeOut,
    "attributes",
    full=Flag(f"true: {LISTED:,} names or more; new ones that nobody declared are no longer listed.", required=True),
)
