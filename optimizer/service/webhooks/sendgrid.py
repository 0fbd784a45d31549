"""SendGrid's Event Webhook: an array of events, custom arguments flattened into each, ECDSA over time and body.

Fields and signature: twilio.com/docs/sendgrid, "Event Webhook Reference" and "Event Webhook Security Features".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from optimizer.errors import Forged, Invalid
from optimizer.service.requests import RejectedEvent, VendorEvent
from optimizer.service.webhooks.delivery import DECISION_ARGUMENT, Batch, Delivery, Meaning, Signs, Understood
from optimizer.service.webhooks.messages import normalised
from optimizer.service.webhooks.parsing import (
    base64_bytes,
    content_hash,
    each,
    event_id,
    event_type,
    identifier,
    kept,
    parse,
    require_fresh,
    text,
    unix_time,
)
from storage.records import JsonObject

#: A batch that isn't answered with 2xx is sent again for 24 hours, and some came after 29. Whether a repetition is
#: signed anew is not documented; since the whole body is signed and events have ids, an old one can do no harm.
MAX_AGE = timedelta(hours=36)
SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"

UNDERSTOOD = Understood(
    "sendgrid",
    (
        Meaning("processed", "processed"),
        Meaning("deferred", "deferred"),
        Meaning("delivered", "delivered"),
        Meaning("dropped", "failed"),
        Meaning("dropped", "failed", "reason", "Bounced Address", refuses="channel"),
        Meaning("dropped", "failed", "reason", "Invalid", refuses="channel"),
        Meaning("dropped", "failed", "reason", "Invalid Address", refuses="channel"),
        Meaning("dropped", "failed", "reason", "Spam Reporting Address", refuses="channel"),
        Meaning("dropped", "failed", "reason", "Unsubscribed Address", refuses="category", opted_out=True),
        Meaning("bounce", "bounced"),
        Meaning("bounce", "bounced", "type", "blocked", hard=False),
        Meaning("blocked", "bounced", hard=False),
        Meaning("open", "opened"),
        Meaning("click", "clicked"),
        Meaning("spamreport", "complained"),
        Meaning("unsubscribe", "unsubscribed", refuses="channel"),
        Meaning("group_unsubscribe", "unsubscribed"),
        Meaning("group_resubscribe", "resubscribed"),
    ),
)


@lru_cache(maxsize=256)
def public_key(secret: str) -> EllipticCurvePublicKey:
    """The verification key as SendGrid shows it: base64 of an EC P-256 key (SPKI, DER), PEM lines around it allowed.

    Raises:
        Invalid: it is something else.
    """
    lines = [line.strip() for line in secret.strip().splitlines() if not line.startswith("-----")]
    try:
        key = load_der_public_key(base64.b64decode("".join(lines), validate=True))
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise Invalid("must be SendGrid's verification key: base64 of a P-256 public key (it begins with MFkw)")
    return key


def read(delivery: Delivery) -> Batch:
    """See ``webhooks``."""
    _verify(delivery)
    try:
        elements = parse(delivery.raw)
        if not isinstance(elements, list):
            raise Invalid("the body must be an array of events", code="unreadable")
    except Invalid as error:
        return Batch((RejectedEvent(0, error.code, error.detail),))
    names = (one.get("event") for one in elements if isinstance(one, dict))
    unknown = sum(isinstance(name, str) and UNDERSTOOD.of(name) is None for name in names)
    return Batch(tuple(each(elements, partial(_event, now=delivery.now))), unknown)


def _verify(delivery: Delivery) -> None:
    stamp = delivery.header(TIMESTAMP)
    signature = base64_bytes(delivery.header(SIGNATURE))
    if not stamp or not signature:
        raise Forged(f"no {SIGNATURE} and {TIMESTAMP}")
    require_fresh(stamp, delivery.now, MAX_AGE)
    signed = stamp.encode("utf-8", "replace") + delivery.raw
    if not any(_signed_with(secret, signature, signed) for secret in delivery.source.secrets):
        raise Forged("no key of this source made the signature")


def _signed_with(secret: str, signature: bytes, signed: bytes) -> bool:
    try:
        public_key(secret).verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _event(words: dict[str, Any], *, now: datetime) -> VendorEvent:
    name = text(words.get("event"), 100)
    if not name:
        raise Invalid.field("event", "missing", code="no_type")
    meaning = UNDERSTOOD.of(name, text(words.get("reason" if name == "dropped" else "type")))
    message_id = identifier(words.get("sg_message_id"))
    provider, message_id = normalised("sendgrid", message_id)
    own_id = text(words.get("sg_event_id"))
    return VendorEvent(
        type=event_type("sendgrid", name) if meaning is None else meaning.outcome,
        occurred_at=unix_time(words.get("timestamp"), "timestamp", now),
        event_id=event_id("sendgrid", own_id or content_hash(words)),
        decision_id=identifier(words.get(DECISION_ARGUMENT)),
        provider=provider if message_id is not None else None,
        message_id=message_id,
        hard=meaning is None or meaning.hard,
        refuses=None if meaning is None else meaning.refuses,
        vendor="sendgrid",
        words=kept(words),
        opted_out=meaning is not None and meaning.opted_out,
    )


def signs(words: JsonObject) -> Signs:
    """See ``webhooks``. ``sg_machine_open``: the open came through Apple's privacy proxy."""
    flag: Mapping[Any, str] = {True: "sg_machine_open", "true": "sg_machine_open", "True": "sg_machine_open"}
    said = words.get("sg_machine_open")
    return Signs(
        flagged=flag.get(said, "") if isinstance(said, bool | str) else "",
        user_agent=text(words.get("useragent")),
        address=text(words.get("ip")),
        url=text(words.get("url")),
    )
