"""Webhooks by the Standard Webhooks specification."""

from __future__ import annotations

from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.webhooks import WebhookOut
from optimizer.web.webhooks.receive import receive

api = Operations("webhooks_standard", "Webhooks")


@api.operation(
    "POST",
    "/v1/webhooks/standard/{source_id}",
    "Take an event of any sender that speaks Standard Webhooks",
    payload={"type": "object", "required": ["type", "data"]},
    answers={200: Told(WebhookOut, "Stored.")},
    scope=None,
    problems=(401, 404, 410),
)
def take_standard(call: Call) -> Answer:
    """A Standard Webhook, signed v1 or v1a: `data` names its decision by `sendtide_decision_id`, `request_id`,
    `provider` and `message_id`, or its recipient by `recipient_id`."""
    return Answer(receive(call, "standard"))
