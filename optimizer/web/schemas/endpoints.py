"""Outgoing webhooks: where changes are pushed to."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, post_load

from optimizer.service.endpoints import KINDS, MOST_ENDPOINTS, MOST_SECRETS, EndpointInput
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Shown, moment, next_page
from optimizer.web.schemas.containers import Many
from optimizer.web.schemas.fields import Choice, Flag, Id, Text, Whole

_TYPES = tuple(KINDS)


class EndpointIn(Body):
    """Where changes go. A secret that is to go stays in the list behind the new one until the receiver knows that."""

    url = Text("https; no user name, no fragment. Redirects are not followed.", shortest=1, longest=2048, required=True)
    events = Many(Choice(_TYPES), "Which changes; left out: all.", shortest=1, longest=len(_TYPES), unique=True)
    secrets = Many(
        Text("`whsec_` and 24 to 64 bytes in base64.", shortest=1, longest=128),
        "Each signs; left out: those that it has, or a new one, which the answer shows.",
        shortest=1,
        longest=MOST_SECRETS,
        unique=True,
    )
    enabled = Flag("false: nothing is sent; what changes meanwhile is sent later.", load_default=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> EndpointInput:
        return EndpointInput(
            url=data["url"],
            kinds=tuple(KINDS[name] for name in data.get("events", _TYPES)),
            secrets=tuple(data.get("secrets", ())),
            enabled=data["enabled"],
        )


class DeliveryOut(Shown):
    """How far pushing is."""

    position = Whole(
        "Of the feed: all up to it is delivered or none of its events.", maximum=limits.POSITION, required=True
    )
    behind = Whole("Changes of the feed after that.", maximum=limits.POSITION, required=True)
    delivered = Whole("Changes that were taken.", maximum=limits.POSITION, required=True)
    failures = Whole("Attempts that failed in a row.", maximum=2**31, required=True)
    failing_since = moment(known=False)
    next_attempt_at = moment("null: at once.", known=False)
    last_attempt_at = moment(known=False)
    last_status = Whole("The receiver's last answer.", maximum=999, required=True, allow_none=True)
    last_error = Text("Why there was no answer.", longest=1000, required=True, allow_none=True)
    stopped = Text(
        "Why nothing is sent any more: 410, or days of failures. PUT starts it again.",
        longest=1000,
        required=True,
        allow_none=True,
    )


class EndpointOut(Shown):
    """An endpoint, without its secrets."""

    endpoint_id = Id(required=True)
    url = Text(longest=2048, required=True)
    events = fields.List(Choice(_TYPES), required=True)
    enabled = Flag(required=True)
    secrets = Whole("How many it has.", maximum=MOST_SECRETS, required=True)
    created_at = moment()
    updated_at = moment()
    delivery = fields.Nested(DeliveryOut, required=True)


class PutEndpointOut(EndpointOut):
    """An endpoint as it was put."""

    secret = Text("The new secret, shown this once; null where none was made.", required=True, allow_none=True)


class EndpointsPage(Shown):
    """A page of endpoints."""

    endpoints = Many(fields.Nested(EndpointOut), longest=MOST_ENDPOINTS, required=True)
    cursor = next_page()
