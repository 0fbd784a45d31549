"""Twilio's status callbacks."""

from __future__ import annotations

from optimizer.web.body import JSON
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.webhooks.receive import FORM, receive

api = Operations("webhooks_twilio", "Webhooks")


@api.operation(
    "POST",
    "/v1/webhooks/twilio/{source_id}",
    "Take a status of Twilio",
    payload={"type": "object", "required": ["MessageSid", "MessageStatus"]},
    media=(FORM, JSON),
    answers={204: Told(description="Stored.")},
    scope=None,
    problems=(401, 404),
)
def take_twilio(call: Call) -> Answer:
    """A status callback with its signature: the address's own parameter `sendtide_decision_id`, else `MessageSid`. The
    answer is empty, since Twilio would read one as instructions."""
    receive(call, "twilio")
    return Answer(status=204)
