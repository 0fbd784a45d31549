"""Mailgun's webhooks."""

from __future__ import annotations

from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.webhooks import WebhookOut
from optimizer.web.webhooks.receive import receive

api = Operations("webhooks_mailgun", "Webhooks")


@api.operation(
    "POST",
    "/v1/webhooks/mailgun/{source_id}",
    "Take an event of Mailgun",
    payload={"type": "object", "required": ["signature", "event-data"]},
    answers={200: Told(WebhookOut, "Stored.")},
    scope=None,
    problems=(401, 404, 406),
)
def take_mailgun(call: Call) -> Answer:
    """A webhook of Mailgun with its signature: the user variable `sendtide_decision_id`, else the message id. A token
    serves for one event, however often that is sent."""
    return Answer(receive(call, "mailgun"))
