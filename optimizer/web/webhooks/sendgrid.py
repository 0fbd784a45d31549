"""SendGrid's Event Webhook."""

from __future__ import annotations

from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.webhooks import WebhookOut
from optimizer.web.webhooks.receive import receive

api = Operations("webhooks_sendgrid", "Webhooks")


@api.operation(
    "POST",
    "/v1/webhooks/sendgrid/{source_id}",
    "Take SendGrid's events",
    payload={"type": "array", "items": {"type": "object"}},
    answers={200: Told(WebhookOut, "Stored.")},
    scope=None,
    problems=(401, 404),
)
def take_sendgrid(call: Call) -> Answer:
    """SendGrid's Event Webhook with its signature: events with the custom argument `sendtide_decision_id`, else by
    message id. One event that can't be read spoils no other."""
    return Answer(receive(call, "sendgrid"))
