"""Webhook sources, and what vendors are answered."""

from __future__ import annotations

from typing import Any, get_args

from marshmallow import fields, post_load

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Shown, moment, page_of, state
from optimizer.web.schemas.containers import Many
from optimizer.web.schemas.fields import Choice, Id, Text, Whole
from storage.webhooks import Vendor

_SECRETS = (
    "What its signatures are checked with; any of them may match, so that they can be rotated. sendgrid: the "
    "verification key; mailgun: the HTTP webhook signing key; postmark: USER:PASSWORD of the webhook's Basic auth; "
    "twilio: the auth token or a shared key; standard: whsec_… or whpk_…; ses: none."
)


class SourceIn(Body):
    """Where a vendor's webhooks come in."""

    vendor = Choice(get_args(Vendor), required=True)
    secrets = Many(
        Text(shortest=1, longest=4096),
        _SECRETS,
        longest=10,
        load_default=tuple,
        metadata={"writeOnly": True},
    )
    topic_arns = Many(
        Text(shortest=1, longest=512), "ses: the SNS topics that may post.", longest=20, unique=True, load_default=tuple
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "secrets": tuple(dict.fromkeys(data["secrets"])), "topic_arns": tuple(data["topic_arns"])}


class SourceOut(Shown):
    """A source, without its secrets."""

    source_id = Id(required=True)
    vendor = state(get_args(Vendor))
    url = Text("What to tell the vendor.", longest=4096, required=True)
    fingerprints = fields.List(
        Text(), required=True, metadata={"description": "One for each secret, to tell them apart by."}
    )
    topic_arns = fields.List(Text(longest=512), required=True)
    note = Text("For people, what may keep it from working; may be empty.", longest=1024, required=True)
    created_at = moment()
    updated_at = moment()


SourcesPage = page_of(SourceOut, "webhook_sources")


class WebhookOut(Shown):
    """What became of a delivery. Once it is signed, sending it again would change nothing."""

    accepted = Whole("Stored; the unmatched are among them.", maximum=limits.ROWS, required=True)
    duplicates = Whole("Known already.", maximum=limits.ROWS, required=True)
    unmatched = Whole("Kept until their decision appears.", maximum=limits.ROWS, required=True)
    rejected = Whole("Could not be read.", maximum=limits.ROWS, required=True)
