"""Standard Webhooks, for every sender that speaks it: ``{"type", "timestamp", "data"}``, signed v1 (HMAC-SHA256) or v1a
(ed25519). Headers named ``svix-…`` are taken as well.

Specification: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from optimizer.errors import Forged, Invalid
from optimizer.service.requests import BREADTHS, RejectedEvent, VendorEvent
from optimizer.service.webhooks.delivery import DECISION_ARGUMENT, Batch, Delivery, Meaning, Signs, Understood
from optimizer.service.webhooks.messages import normalised
from optimizer.service.webhooks.parsing import (
    base64_bytes,
    below,
    event_id,
    identifier,
    iso_time,
    kept,
    members,
    parse,
    require_fresh,
    text,
)
from storage.records import JsonObject

#: Every attempt is signed anew, so that little age is needed.
MAX_AGE = timedelta(minutes=5)
SYMMETRIC, PUBLIC = "whsec_", "whpk_"
#: Prefixes of types under which an outcome is a message's: a shop's ``order.delivered`` is not ours.
_OF_MESSAGES = frozenset({"", "email", "mail", "message", "sms", "push", "notification"})
_MOST_SIGNATURES = 20
_AMOUNT = 1e9
_NAMES = f"{DECISION_ARGUMENT}, decision_id, request_id, message_id, recipient_id"

UNDERSTOOD = Understood(
    "standard",
    (
        *(
            Meaning(name, name)
            for name in (
                "delivered",
                "opened",
                "clicked",
                "converted",
                "unsubscribed",
                "resubscribed",
                "complained",
                "failed",
            )
        ),
        Meaning("bounced", "bounced"),
        Meaning("bounced", "bounced", "hard", "false", hard=False),
    ),
)


def require_secret(secret: str) -> None:
    """``Invalid`` unless ``secret`` is one that signatures can be checked with."""
    kind = PUBLIC if secret.startswith(PUBLIC) else SYMMETRIC
    key = _decoded(secret.removeprefix(kind))
    if not key or (kind == PUBLIC and len(key) != 32):
        raise Invalid("must be whsec_ and a key in base64 (v1), or whpk_ and a public ed25519 key in base64 (v1a)")


def read(delivery: Delivery) -> Batch:
    """See ``webhooks``."""
    message_id = _verify(delivery)
    try:
        words = members(parse(delivery.raw), "body")
        event = _event(words, message_id, delivery)
    except Invalid as error:
        return Batch((RejectedEvent(0, error.code, error.detail),))
    return Batch((event,), int(UNDERSTOOD.of(event.type) is None))


def _decoded(key: str) -> bytes | None:
    return base64_bytes(key + "=" * (-len(key) % 4))


def _verify(delivery: Delivery) -> str:
    message_id, stamp, signatures = (
        delivery.header(f"webhook-{name}") or delivery.header(f"svix-{name}")
        for name in ("id", "timestamp", "signature")
    )
    if not message_id or not stamp or not signatures:
        raise Forged("no webhook-id, webhook-timestamp and webhook-signature")
    require_fresh(stamp, delivery.now, MAX_AGE)
    signed = f"{message_id}.{stamp}.".encode("utf-8", "replace") + delivery.raw
    for one in signatures.split()[:_MOST_SIGNATURES]:
        version, _, given = one.partition(",")
        signature = base64_bytes(given)
        if signature and any(_made(secret, version, signature, signed) for secret in delivery.source.secrets):
            return message_id
    raise Forged("no key of this source made the signature")


def _made(secret: str, version: str, signature: bytes, signed: bytes) -> bool:
    public = secret.startswith(PUBLIC)
    key = _decoded(secret.removeprefix(PUBLIC).removeprefix(SYMMETRIC)) or b""
    if version == "v1" and not public:
        return hmac.compare_digest(hmac.new(key, signed, hashlib.sha256).digest(), signature)
    if version == "v1a" and public:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        except InvalidSignature:
            return False
        return True
    return False


def _event(words: dict[str, Any], message_id: str, delivery: Delivery) -> VendorEvent:
    """``email.bounced`` is ``bounced``; a type that nobody here knows may be an outcome of the caller's own."""
    named = identifier(words.get("type"))
    if named is None:
        raise Invalid.field("type", "must be a string of 1 to 256 characters", code="no_type")
    data = words.get("data") if isinstance(words.get("data"), dict) else {}
    prefix, _, last = named.lower().rpartition(".")
    meaning = UNDERSTOOD.of(last, "false" if below(data, "hard") is False else "") if prefix in _OF_MESSAGES else None
    told = identifier(below(data, "message_id"))
    provider, told = normalised(identifier(below(data, "provider")) or delivery.source.source_id, told)
    decision_id = identifier(below(data, DECISION_ARGUMENT)) or identifier(below(data, "decision_id"))
    request_id, recipient_id = identifier(below(data, "request_id")), identifier(below(data, "recipient_id"))
    if all(one is None for one in (decision_id, request_id, told, recipient_id)):
        # Here the sender chooses the fields: as POST /v1/events.
        raise Invalid.field("data", f"must name its decision or recipient by one of: {_NAMES}", code="uncorrelated")
    return VendorEvent(
        type=named if meaning is None else meaning.outcome,
        occurred_at=_time(words, delivery.now),
        event_id=event_id("standard", delivery.source.source_id, message_id),
        decision_id=decision_id,
        request_id=request_id,
        provider=provider if told is not None else None,
        message_id=told,
        recipient_id=recipient_id,
        value=_value(below(data, "value")),
        hard=meaning is None or meaning.hard,
        refuses=next((one for one in BREADTHS if one == below(data, "refuses")), None),
        vendor="standard",
        words=kept(words),
    )


def _time(words: JsonObject, now: datetime) -> datetime:
    return iso_time(words["timestamp"], "timestamp", now) if words.get("timestamp") is not None else now


def _value(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _AMOUNT:
        raise Invalid.field("data.value", f"must be a number from {-_AMOUNT:g} to {_AMOUNT:g}", code="bad_value")
    return float(value)


def signs(words: JsonObject) -> Signs:
    """See ``webhooks``. ``data.automated`` is the sender's own verdict, ``data.method`` how it was fetched."""
    data = words.get("data")
    return Signs(
        flagged="data.automated" if below(data, "automated") is True else "",
        user_agent=text(below(data, "user_agent")),
        address=text(below(data, "ip")),
        url=text(below(data, "url")),
        method=text(below(data, "method"), 20),
        timed=words.get("timestamp") is not None,
    )


def signature(key: bytes, message_id: str, stamp: int, body: bytes) -> str:
    """The v1 signature of a message: what a sender makes."""
    made = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode("ascii")
