"""The envelope in which Amazon SNS delivers: its signature, and who may have made it.

An attacker can make a topic of their own, which SNS signs as validly as ours: so the topic must be one of the source's,
and the certificate must lie on a host of SNS. Fields, canonical form and versions: docs.aws.amazon.com/sns, "Verifying
the signatures of Amazon SNS messages" and "HTTP/HTTPS notification JSON format".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.errors import Forged, Invalid
from optimizer.service import moments
from optimizer.service.webhooks.delivery import Delivery
from optimizer.service.webhooks.parsing import base64_bytes, members, parse, text

#: SNS tries for up to an hour, and what it failed with can be sent again from a dead-letter queue within days.
MAX_AGE = timedelta(days=14)
_HOST = re.compile(r"sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
#: What follows the host in a certificate's address, such as ``SimpleNotificationService-f3ecfb72.pem``.
_CERTIFICATE = re.compile(r"[0-9A-Za-z_.-]+\.pem")
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED = {
    "Notification": _NOTIFICATION,
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}
# SHA-1 is what version 1 of their signature is made with.
_HASHES: dict[str, type[HashAlgorithm]] = {"1": SHA1, "2": SHA256}
TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A genuine message of an allowed topic. ``subscribe_url`` is set where it asks for a subscription."""

    type: str
    message: str
    at: datetime
    subscribe_url: str | None = None


def open_envelope(delivery: Delivery) -> Envelope:
    """Checks a delivery and opens it.

    Raises:
        Forged: not of SNS, not of a topic of the source's, or too old.
        Unreachable: the signing certificate can't be fetched.
    """
    try:
        body = members(parse(delivery.raw), "body")
    except Invalid as error:
        raise Forged(f"no SNS envelope (raw message delivery must be off): {error.detail}") from None
    kind = text(body.get("Type"))
    if kind not in _SIGNED:
        raise Forged("no SNS envelope: raw message delivery must be off, since it signs nothing")
    if body.get("TopicArn") not in delivery.source.topic_arns:
        raise Forged("the topic is not one of this source's topic_arns")
    at = _time(body.get("Timestamp"))
    if not -CLOCK_SKEW <= delivery.now - at <= MAX_AGE:
        raise Forged(f"it was signed at {at.isoformat()}; allowed: within {MAX_AGE.days} days")
    _verify(body, kind, delivery)
    subscribe_url = None
    if kind == "SubscriptionConfirmation":
        subscribe_url = _of_sns(body.get("SubscribeURL"), "SubscribeURL")
    return Envelope(kind, text(body.get("Message"), 1 << 20), at, subscribe_url)


def canonical(body: dict[str, Any], kind: str) -> bytes:
    """What SNS signs: names and values of some fields, a line each, in order; a subject only where there is one."""
    names = (name for name in _SIGNED[kind] if name != "Subject" or body.get(name) is not None)
    return "".join(f"{name}\n{body.get(name, '')}\n" for name in names).encode()


def _verify(body: dict[str, Any], kind: str, delivery: Delivery) -> None:
    algorithm = _HASHES.get(str(body.get("SignatureVersion")))
    signature = base64_bytes(text(body.get("Signature")))
    if algorithm is None or not signature:
        raise Forged("no signature of version 1 or 2")
    url = _of_sns(body.get("SigningCertURL"), "SigningCertURL")
    if _CERTIFICATE.fullmatch(url.partition("://")[2].partition("/")[2]) is None:
        raise Forged("SigningCertURL is no certificate of SNS")
    key = delivery.certificates.key(url, delivery.now)
    try:
        key.verify(signature, canonical(body, kind), PKCS1v15(), algorithm())
    except InvalidSignature:
        raise Forged("SNS did not make the signature") from None


def _of_sns(value: Any, field: str) -> str:
    """``value`` where it is an https address on a host of SNS."""
    url = text(value)
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "https" and parts.netloc == parts.hostname
    except ValueError:
        plain = False
    if not plain or _HOST.fullmatch(parts.netloc) is None:
        raise Forged(f"{field} is not on a host of SNS")
    return url


def _time(value: Any) -> datetime:
    try:
        return moments.as_utc(text(value), UTC)
    except ValueError:
        raise Forged("the envelope's Timestamp can't be read") from None
