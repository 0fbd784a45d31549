"""Postmark's webhooks: one record, Basic auth (nothing is signed), and ids on bounces and complaints only.

Fields: postmarkapp.com/developer/webhooks and /developer/api/bounce-api ("Bounce types").
"""

from __future__ import annotations

import base64
import hmac
from datetime import datetime
from typing import Any

from optimizer.errors import Forged, Invalid
from optimizer.service.requests import RejectedEvent, VendorEvent
from optimizer.service.webhooks.delivery import DECISION_ARGUMENT, Batch, Delivery, Meaning, Signs, Understood
from optimizer.service.webhooks.parsing import (
    below,
    content_hash,
    event_id,
    event_type,
    identifier,
    iso_time,
    kept,
    members,
    parse,
    text,
)
from storage.records import JsonObject

CHALLENGE = 'Basic realm="sendtide"'
#: The records with an id, and where the time stands.
_TIMES = ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt")

UNDERSTOOD = Understood(
    "postmark",
    (
        Meaning("Delivery", "delivered"),
        Meaning("Bounce", "bounced", hard=False),
        Meaning("Bounce", "bounced", "Type", "HardBounce"),
        Meaning("Bounce", "bounced", "Type", "BadEmailAddress"),
        Meaning("Bounce", "complained", "Type", "SpamComplaint"),
        Meaning("Bounce", "unsubscribed", "Type", "Unsubscribe"),
        Meaning("Bounce", "autoreplied", "Type", "AutoResponder"),
        Meaning("Bounce", "failed", "Type", "ManuallyDeactivated", refuses="channel"),
        Meaning("Bounce", "failed", "Type", "SMTPApiError"),
        Meaning("Bounce", "failed", "Type", "TemplateRenderingFailed"),
        Meaning("SpamComplaint", "complained"),
        Meaning("Open", "opened"),
        Meaning("Click", "clicked"),
        Meaning("SubscriptionChange", "resubscribed"),
        Meaning("SubscriptionChange", "unsubscribed", "SuppressionReason", "ManualSuppression"),
        Meaning("SubscriptionChange", "complained", "SuppressionReason", "SpamComplaint"),
        Meaning("SubscriptionChange", "bounced", "SuppressionReason", "HardBounce"),
    ),
)


def read(delivery: Delivery) -> Batch:
    """See ``webhooks``."""
    _verify(delivery)
    try:
        words = members(parse(delivery.raw), "body")
        event = _event(words, delivery.now)
    except Invalid as error:
        return Batch((RejectedEvent(0, error.code, error.detail),))
    return Batch((event,), int(UNDERSTOOD.of(text(words.get("RecordType"))) is None))


def _verify(delivery: Delivery) -> None:
    kind, _, given = delivery.header("Authorization").partition(" ")
    if kind.lower() != "basic":
        raise Forged("no Basic auth", challenge=CHALLENGE)
    told = given.strip().encode("utf-8", "replace")
    made = [base64.b64encode(secret.encode()) for secret in delivery.source.secrets]
    if not any(hmac.compare_digest(told, one) for one in made):
        raise Forged("Basic auth with another user or password", challenge=CHALLENGE)


def _event(words: dict[str, Any], now: datetime) -> VendorEvent:
    name = text(words.get("RecordType"), 100)
    if not name:
        raise Invalid.field("RecordType", "missing", code="no_type")
    meaning = _meaning(name, words)
    message_id = identifier(words.get("MessageID"))
    stamp = next((field for field in _TIMES if field in words), _TIMES[0])
    number = words.get("ID")
    own_id = f"{name}:{number}" if isinstance(number, int) and number else content_hash(words)
    return VendorEvent(
        type=event_type("postmark", name) if meaning is None else meaning.outcome,
        occurred_at=iso_time(words.get(stamp), stamp, now),
        event_id=event_id("postmark", own_id),
        decision_id=identifier(below(words, "Metadata", DECISION_ARGUMENT)),
        provider="postmark" if message_id is not None else None,
        message_id=message_id,
        hard=meaning is None or meaning.hard,
        refuses=None if meaning is None else meaning.refuses,
        vendor="postmark",
        words=kept(words),
    )


def _meaning(name: str, words: JsonObject) -> Meaning | None:
    if name != "SubscriptionChange":
        return UNDERSTOOD.of(name, text(words.get("Type")))
    if words.get("SuppressSending") is not True:
        return UNDERSTOOD.of(name)
    # A reason that nobody here knows stops the mail all the same.
    return UNDERSTOOD.of(name, text(words.get("SuppressionReason")) or "ManualSuppression")


def signs(words: JsonObject) -> Signs:
    """See ``webhooks``."""
    return Signs(
        user_agent=text(words.get("UserAgent")),
        address=text(below(words, "Geo", "IP")),
        url=text(words.get("OriginalLink")),
    )
