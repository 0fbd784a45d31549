"""Amazon SES through SNS."""

from __future__ import annotations

from optimizer.web.body import JSON
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.webhooks import WebhookOut
from optimizer.web.webhooks.receive import receive

api = Operations("webhooks_ses", "Webhooks")


@api.operation(
    "POST",
    "/v1/webhooks/ses/{source_id}",
    "Take a message of Amazon SNS",
    payload={"type": "object", "required": ["Type", "MessageId", "TopicArn", "Message", "Timestamp", "Signature"]},
    media=("text/plain", JSON),  # SNS says text/plain of its JSON
    answers={200: Told(WebhookOut, "Stored; or the subscription is confirmed.")},
    scope=None,
    problems=(401, 404),
)
def take_ses(call: Call) -> Answer:
    """An event of SES in its SNS envelope, of a topic that the source lists: the message tag `sendtide_decision_id`,
    else `mail.messageId`. A subscription of such a topic is confirmed."""
    return Answer(receive(call, "ses"))
