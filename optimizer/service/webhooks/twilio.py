"""Twilio's status callbacks: a form (or JSON), HMAC over the address and the sorted parameters.

Fields and signature: twilio.com/docs, "Track the Message Status of Outbound Messages", "Webhooks Security"; the header
of shared keys as ``twilio.request_validator`` of twilio-python 9.13 reads it.

Statuses may arrive in any order and twice. Each is an event of its own, so nothing overwrites anything: what a message
came to is the set of what was reported, and a late ``sent`` takes nothing from a ``delivered``. There is no time in a
callback but that of its arrival.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

from optimizer.errors import Forged, Invalid
from optimizer.service.requests import RejectedEvent, VendorEvent
from optimizer.service.webhooks.delivery import DECISION_ARGUMENT, Batch, Delivery, Meaning, Signs, Understood
from optimizer.service.webhooks.parsing import event_id, event_type, identifier, kept, members, parse, text
from storage.records import JsonObject

SIGNATURE = "X-Twilio-Signature"
#: Of a request signed with a shared key: ``key=ID,algorithm=HMAC_SHA256``.
SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
_HASHES = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}
_MOST_PARAMETERS = 1000
#: Error codes (twilio.com/docs/api/errors): this one was not sent, since the person had stopped messages before, on SMS
#: or on WhatsApp or by blocking us.
_STOPPED = ("21610", "63033", "63014")
#: There is no such number, it is a landline, it is unknown, it can't be reached on this channel.
_NO_SUCH_NUMBER = ("21211", "21614", "30005", "30006", "63003")


def _stopped(status: str, code: str) -> Meaning:
    return Meaning(status, "failed", "ErrorCode", code, refuses="channel", opted_out=True)


UNDERSTOOD = Understood(
    "twilio",
    (
        *(Meaning(name, "processed") for name in ("accepted", "scheduled", "queued", "sending", "sent")),
        Meaning("delivered", "delivered"),
        Meaning("read", "opened"),
        Meaning("undelivered", "bounced", hard=False),
        *(Meaning("undelivered", "bounced", "ErrorCode", code) for code in _NO_SUCH_NUMBER),
        *(_stopped("undelivered", code) for code in _STOPPED),
        Meaning("failed", "failed"),
        *(Meaning("failed", "bounced", "ErrorCode", code) for code in _NO_SUCH_NUMBER),
        *(_stopped("failed", code) for code in _STOPPED),
        Meaning("canceled", "failed"),
    ),
)


def read(delivery: Delivery) -> Batch:
    """See ``webhooks``."""
    pairs = _pairs(delivery)
    _verify(delivery, pairs)
    try:
        words = members(parse(delivery.raw), "body") if pairs is None else dict(pairs)
        event = _event(words, delivery)
    except Invalid as error:
        return Batch((RejectedEvent(0, error.code, error.detail),))
    return Batch((event,), int(UNDERSTOOD.of(_status(words)) is None))


def _pairs(delivery: Delivery) -> list[tuple[str, str]] | None:
    """The form's parameters; None where the body is JSON."""
    if not delivery.form:
        return None
    try:
        body = delivery.raw.decode("utf-8", "replace")
        return parse_qsl(body, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise Forged(f"the form has more than {_MOST_PARAMETERS} parameters") from None


def _verify(delivery: Delivery, pairs: list[tuple[str, str]] | None) -> None:
    given = delivery.header(SIGNATURE).encode("utf-8", "replace")
    if not given:
        raise Forged(f"no {SIGNATURE}")
    algorithm = _algorithm(delivery.header(SETTINGS))
    for url in delivery.urls:
        if pairs is None and not _names_body(url, delivery.raw):
            raise Forged("bodySHA256 in the address is not the body's")
        for spelled in _spellings(url):
            for secret in delivery.source.secrets:
                signed = (spelled + _sorted(pairs or ())).encode("utf-8", "replace")
                made = base64.b64encode(hmac.new(secret.encode(), signed, algorithm).digest())
                if hmac.compare_digest(made, given):
                    return
    raise Forged(
        "no key of this source made the signature for this address; SENDTIDE_PUBLIC_URL must be what Twilio calls"
    )


def _algorithm(settings: str) -> Any:
    told = (part.partition("=") for part in settings.split(","))
    name = next((value.strip() for key, _, value in told if key.strip() == "algorithm" and value.strip()), "HMAC_SHA1")
    if name.upper() not in _HASHES:
        raise Forged(f"{SETTINGS} names another algorithm than {', '.join(_HASHES)}")
    return _HASHES[name.upper()]


def _names_body(url: str, raw: bytes) -> bool:
    told = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
    return hmac.compare_digest(told.lower().encode("utf-8", "replace"), hashlib.sha256(raw).hexdigest().encode())


def _sorted(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values in the order of names; a value that comes twice under one name counts once."""
    return "".join(name + value for name, value in sorted(set(pairs)))


def _spellings(url: str) -> tuple[str, str]:
    """The address with its port and without: Twilio signs now the one, now the other."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    named = f"[{host}]" if ":" in host else parts.netloc.partition(":")[0]
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _at(parts, named), _at(parts, f"{named}:{port}")


def _at(parts: SplitResult, netloc: str) -> str:
    return parts._replace(netloc=netloc).geturl()


def _status(words: Mapping[str, Any]) -> str:
    return text(words.get("MessageStatus") or words.get("SmsStatus"), 100).lower()


def _event(words: dict[str, Any], delivery: Delivery) -> VendorEvent:
    status, sid = _status(words), identifier(words.get("MessageSid") or words.get("SmsSid"))
    if not status or sid is None:
        raise Invalid.field("MessageStatus" if not status else "MessageSid", "missing", code="no_type")
    meaning = UNDERSTOOD.of(status, str(words.get("ErrorCode") or ""))
    return VendorEvent(
        type=event_type("twilio", status) if meaning is None else meaning.outcome,
        occurred_at=delivery.now,
        event_id=event_id("twilio", sid, status),
        decision_id=identifier(delivery.query.get(DECISION_ARGUMENT)),
        provider="twilio",
        message_id=sid,
        hard=meaning is None or meaning.hard,
        refuses=None if meaning is None else meaning.refuses,
        vendor="twilio",
        words=kept(words),
        opted_out=meaning is not None and meaning.opted_out,
    )


def signs(words: JsonObject) -> Signs:  # noqa: ARG001 - nothing in them betrays a machine
    """See ``webhooks``. A read receipt is sent by the recipient's app, not fetched by whoever sees the message."""
    return Signs(timed=False)
