"""Mailgun's webhooks: one event, HMAC-SHA256 over a time and a token. The event itself is not signed.

So whoever sees one delivery could send another event under its signature. Hence the age is bounded, and a token serves
for one event's words: a retry, which carries the same token and the same words, passes; whatever else comes under it is
forged, also under the event's own id, which whoever saw the delivery knows. That holds over all sources, not for each
key: the key is the account's, and an event of a subaccount is signed by its parent's key under the same token, too.

Fields, signature, retries: documentation.mailgun.com, "Events", "Bounces", "Securing Webhooks", "Webhook Retries",
"Open and Click Bot Detection".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any

from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.errors import Forged, Invalid
from optimizer.service.requests import OneTimeToken, RejectedEvent, VendorEvent
from optimizer.service.webhooks.delivery import DECISION_ARGUMENT, Batch, Delivery, Meaning, Signs, Understood
from optimizer.service.webhooks.messages import normalised
from optimizer.service.webhooks.parsing import (
    below,
    content_hash,
    event_id,
    event_type,
    identifier,
    kept,
    members,
    parse,
    require_fresh,
    text,
    unix_time,
)
from storage.records import JsonObject

#: A delivery that fails is sent again after 5, 10, 15 minutes, 1, 2 and 4 hours, with the signature of the first time.
MAX_AGE = timedelta(hours=12)
_LONGEST_TOKEN = 200

UNDERSTOOD = Understood(
    "mailgun",
    (
        Meaning("accepted", "processed"),
        Meaning("rejected", "failed"),
        Meaning("delivered", "delivered"),
        # Spam filters, policies and full mailboxes refuse for good, too; the bounce list holds dead addresses alone.
        Meaning("failed", "bounced", hard=False),
        Meaning("failed", "deferred", "severity", "temporary"),
        Meaning("failed", "bounced", "reason", "bounce"),
        Meaning("failed", "failed", "reason", "suppress-bounce", refuses="channel"),
        Meaning("failed", "failed", "reason", "suppress-unsubscribe", refuses="category", opted_out=True),
        Meaning("failed", "failed", "reason", "suppress-complaint", refuses="channel"),
        Meaning("opened", "opened"),
        Meaning("clicked", "clicked"),
        Meaning("unsubscribed", "unsubscribed"),
        Meaning("complained", "complained"),
    ),
)


def read(delivery: Delivery) -> Batch:
    """See ``webhooks``."""
    try:
        body = parse(delivery.raw)
        signature = members(below(body, "signature"), "signature")
    except Invalid as error:  # the signature is inside: without it nobody knows who wrote this
        raise Forged(f"no signature, {error.detail}") from None
    stamp, token = _verify(delivery, signature)
    try:
        words = members(below(body, "event-data"), "event-data")
        event, used_for = _event(words, delivery.now), content_hash(words)
    except Invalid as error:
        return Batch((RejectedEvent(0, error.code, error.detail),))
    until = delivery.now + MAX_AGE + 2 * CLOCK_SKEW
    once = OneTimeToken("mailgun", f"{stamp}{token}", used_for, until)
    return Batch((event,), int(UNDERSTOOD.of(text(words.get("event"))) is None), once)


def _verify(delivery: Delivery, signature: Any) -> tuple[str, str]:
    stamp, token = str(below(signature, "timestamp") or ""), text(below(signature, "token"))
    given = [text(below(signature, name)).lower() for name in ("signature", "parent-signature")]
    if not stamp or not token or not given[0]:
        raise Forged("no signature of time and token")
    if len(stamp) + len(token) > _LONGEST_TOKEN:
        raise Forged("the token is too long to be Mailgun's")
    require_fresh(stamp, delivery.now, MAX_AGE)
    signed = (stamp + token).encode()
    for secret in delivery.source.secrets:
        made = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
        if any(hmac.compare_digest(made, one.encode()) for one in given):
            return stamp, token
    raise Forged("no key of this source made the signature")


def _event(words: dict[str, Any], now: datetime) -> VendorEvent:
    name = text(words.get("event"), 100)
    if not name:
        raise Invalid.field("event-data.event", "missing", code="no_type")
    meaning = _meaning(name, words)
    provider, message_id = normalised("mailgun", identifier(below(words, "message", "headers", "message-id")))
    own_id, at = text(words.get("id")), words.get("timestamp")
    return VendorEvent(
        type=event_type("mailgun", name) if meaning is None else meaning.outcome,
        occurred_at=unix_time(at, "event-data.timestamp", now),
        # An id is unique within a day only ("Events").
        event_id=event_id("mailgun", own_id, str(at)) if own_id else event_id("mailgun", content_hash(words)),
        decision_id=identifier(below(words, "user-variables", DECISION_ARGUMENT)),
        provider=provider if message_id is not None else None,
        message_id=message_id,
        hard=meaning is None or meaning.hard,
        refuses=None if meaning is None else meaning.refuses,
        vendor="mailgun",
        words=kept(words),
        opted_out=meaning is not None and meaning.opted_out,
    )


def _meaning(name: str, words: JsonObject) -> Meaning | None:
    """A failure that is tried again is no bounce; of one that isn't, the reason says whether the address is bad."""
    narrower = text(words.get("severity")) if words.get("severity") == "temporary" else text(words.get("reason"))
    return UNDERSTOOD.of(name, narrower)


def signs(words: JsonObject) -> Signs:
    """See ``webhooks``. ``client-info.bot``: apple, gmail or generic, on opens and clicks."""
    bot = text(below(words, "client-info", "bot"), 40)
    return Signs(
        flagged=f"client-info.bot: {bot}" if bot else "",
        user_agent=text(below(words, "client-info", "user-agent")),
        address=text(words.get("ip")),
        url=text(words.get("url")),
    )
