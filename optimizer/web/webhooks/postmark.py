"""Postmark's webhooks."""

from __future__ import annotations

from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.webhooks import WebhookOut
from optimizer.web.webhooks.receive import receive

api = Operations("webhooks_postmark", "Webhooks")


@api.operation(
    "POST",
    "/v1/webhooks/postmark/{source_id}",
    "Take a record of Postmark",
    payload={"type": "object", "required": ["RecordType"]},
    answers={200: Told(WebhookOut, "Stored.")},
    scope=None,
    problems=(401, 403, 404),
)
def take_postmark(call: Call) -> Answer:
    """A webhook of Postmark with Basic auth: the metadata field `sendtide_decision_id`, else `MessageID`."""
    return Answer(receive(call, "postmark"))
