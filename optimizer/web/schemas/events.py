"""Events and sends: what happened, as callers report it."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, post_load

from optimizer.service.requests import BREADTHS, EventInput
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Shown, rows
from optimizer.web.schemas.containers import Attributes
from optimizer.web.schemas.fields import ChannelName, Choice, Flag, Id, Number, Text, Time, Whole

_NAMES = ("decision_id", "request_id", "message_id", "recipient_id")


class EventIn(Body):
    """Something that happened. It names its decision by the first that is given of `decision_id`, `request_id`,
    `provider` + `message_id`, and counts for that one alone; an outcome that needs no message may name its
    `recipient_id` alone, and counts for every open decision of theirs: report all of them so where they are to be
    compared with a holdout, which has no message to name. `unsubscribed` and `complained` may, too, and then hold for
    every channel and category. `resubscribed` takes back what was refused before it: by its message, the
    unsubscription of that channel and category; by its `recipient_id` alone, all that events recorded, complaints and
    hard bounces too."""

    event_id = Id("The same again counts once; left out: derived from the content.", load_default=None)
    type = Id(
        "delivered, opened, clicked, converted, unsubscribed, resubscribed, complained, bounced, failed or any name. "
        "One that is nearly one of these (`Unsubscribed`, `unsubscribe`) is refused, unless a campaign's "
        "`event_mapping` or `objective` has that very name.",
        required=True,
    )
    occurred_at = Time(required=True)
    decision_id = Id(load_default=None)
    request_id = Id(load_default=None)
    provider = Id(load_default=None)
    message_id = Id("Needs `provider`.", load_default=None)
    recipient_id = Id(load_default=None)
    campaign_id = Id("Narrows `recipient_id`.", load_default=None)
    value = Number("What it was worth.", maximum=limits.AMOUNT, load_default=None, allow_none=True)
    automated = Flag("By a machine: kept, never rewarded.", load_default=False)
    hard = Flag("Of a bounce: for good.", load_default=True)
    refuses = Choice(
        BREADTHS,
        "Of an opt-out or failure: how much is refused from now on. Left out: `category` (messages of its message's "
        "category, on its channel) of unsubscribed and complained, `channel` of a hard bounce, nothing of a failure.",
        load_default=None,
    )
    properties = Attributes(load_default=dict)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> EventInput:
        d = data
        if d["decision_id"] is d["request_id"] is d["message_id"] is d["recipient_id"] is None:
            raise ValidationError(f"Must name its decision or recipient by one of: {', '.join(_NAMES)}.")
        if data["message_id"] is not None and data["provider"] is None:
            raise ValidationError("Missing; message_id needs it.", "provider")
        return EventInput(**data)


class EventsIn(Body):
    """An envelope of events. They are checked one by one, see `EventIn`; a bad one never spoils the others."""

    events = rows(EventIn)


class RejectedEventOut(Shown):
    """An event that was refused."""

    index = Whole("Its place in the envelope.", maximum=limits.ROWS, required=True)
    code = Text(required=True)
    detail = Text("The first of the errors, for people.", longest=10_000, required=True)
    errors = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.String()),
        required=True,
        metadata={"description": "Everything that is wrong with it, by field."},
    )


class IngestOut(Shown):
    """What became of an envelope; 202 means durably stored."""

    accepted = Whole("Stored; the unmatched are among them.", maximum=limits.ROWS, required=True)
    duplicates = Whole("Known already.", maximum=limits.ROWS, required=True)
    unmatched = Whole("Kept until their decision appears.", maximum=limits.ROWS, required=True)
    rejected = fields.List(fields.Nested(RejectedEventOut), required=True)


class SendIn(Body):
    """A message that another system sent; it counts against the caps."""

    id = Id("Its id there: the same again of the same recipient counts once.", required=True)
    recipient_id = Id(required=True)
    channel = ChannelName(required=True)
    category = Id(load_default="marketing")
    sent_at = Time(required=True)
    campaign_id = Id(load_default=None)
    variant_id = Id(load_default=None)


class SendOut(Shown):
    """A send as it counts."""

    id = Id(required=True)
    counted = Flag("false: it was known already.", required=True)
