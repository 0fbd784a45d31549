"""Vendors, played: each writes an event as its vendor documents it and signs it as that vendor does.

Nothing here comes from what checks them (``optimizer.service.webhooks``): the keys are made here, and signatures follow
the vendors' documentation, or their own libraries' behaviour, a second time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from storage.webhooks import Vendor

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
JSON = "application/json"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:ses"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that a vendor reports: ``delivered``, ``opened``, ``clicked``, ``unsubscribed``, … of a message.

    ``decision_id`` is what the sender gave with the message, None = nothing; ``more`` goes into the vendor's record.
    """

    number: int
    type: str
    at: datetime
    message_id: str
    decision_id: str | None = None
    more: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request of a vendor. ``query`` is what stands behind the path, with its ``?``."""

    body: bytes
    headers: dict[str, str]
    query: str = ""


class Sender(Protocol):
    """One vendor."""

    vendor: Vendor
    secrets: tuple[str, ...]
    topic_arns: tuple[str, ...]

    def record(self, happened: Happened) -> Any:
        """The vendor's own words for it."""

    def request(self, record: Any, now: datetime, url: str = "") -> Request:
        """A signed delivery of ``record`` (SendGrid: a list of them), made at ``now``, to the address ``url``."""


class SendGrid:
    """ECDSA P-256 over time and body; the decision id is a custom argument."""

    vendor: Vendor = "sendgrid"
    topic_arns: tuple[str, ...] = ()
    names: Mapping[str, str] = {
        "delivered": "delivered",
        "opened": "open",
        "clicked": "click",
        "unsubscribed": "unsubscribe",
        "complained": "spamreport",
        "bounced": "bounce",
    }

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.secrets: tuple[str, ...] = (base64.b64encode(public).decode(),)

    def record(self, happened: Happened) -> dict[str, Any]:
        """See ``Sender``."""
        argument = {"sendtide_decision_id": happened.decision_id} if happened.decision_id else {}
        return {
            "email": "alex@example.com",
            "timestamp": int(happened.at.timestamp()),
            "event": self.names.get(happened.type, happened.type),
            "sg_event_id": f"sg-event-{happened.number}",
            "sg_message_id": f"{happened.message_id}.filter0001.16648.5515E0B88.0",
            "useragent": BROWSER,
            "ip": "203.0.113.7",
            "url": "https://shop.example/spring",
            **argument,
            **(happened.more or {}),
        }

    def request(self, record: Any, now: datetime, url: str = "") -> Request:  # noqa: ARG002 - signs no address
        """See ``Sender``."""
        body = orjson.dumps(record if isinstance(record, list) else [record])
        return self.signed(body, now)

    def signed(self, body: bytes, now: datetime) -> Request:
        """A delivery of these very bytes."""
        stamp = str(int(now.timestamp()))
        signature = self._key.sign(stamp.encode() + body, ec.ECDSA(SHA256()))
        return Request(
            body,
            {
                "Content-Type": JSON,
                "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
                "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
            },
        )


class Mailgun:
    """HMAC-SHA256 over time and token; the decision id is a user variable."""

    vendor: Vendor = "mailgun"
    topic_arns: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ("mailgun-signing-key",)

    def record(self, happened: Happened) -> dict[str, Any]:
        """See ``Sender``."""
        bounce = {"event": "failed", "severity": "permanent", "reason": "bounce"}
        return {
            **(bounce if happened.type == "bounced" else {"event": happened.type}),
            "id": f"mg-event-{happened.number}",
            "timestamp": happened.at.timestamp(),
            "recipient": "alex@example.com",
            "message": {"headers": {"message-id": f"{happened.message_id}@mg.example.com"}},
            "user-variables": {"sendtide_decision_id": happened.decision_id} if happened.decision_id else {},
            "client-info": {"user-agent": BROWSER, "bot": ""},
            "ip": "203.0.113.7",
            "url": "https://shop.example/spring",
            **(happened.more or {}),
        }

    def request(self, record: Any, now: datetime, url: str = "") -> Request:  # noqa: ARG002 - signs no address
        """See ``Sender``. The token hangs on record and time, so that a repetition is the same request."""
        token = hashlib.sha256(orjson.dumps([record, now])).hexdigest()[:50]
        return self.under(token, record, now)

    def under(self, token: str, record: Any, now: datetime) -> Request:
        """A delivery under a token of choice."""
        stamp = str(int(now.timestamp()))
        made = hmac.new(self.secrets[0].encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
        signature = {"timestamp": stamp, "token": token, "signature": made}
        return Request(orjson.dumps({"signature": signature, "event-data": record}), {"Content-Type": JSON})


class Postmark:
    """Basic auth; the decision id is a metadata field."""

    vendor: Vendor = "postmark"
    topic_arns: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, str]] = {
        "delivered": ("Delivery", "DeliveredAt"),
        "opened": ("Open", "ReceivedAt"),
        "clicked": ("Click", "ReceivedAt"),
        "bounced": ("Bounce", "BouncedAt"),
        "complained": ("SpamComplaint", "BouncedAt"),
        "unsubscribed": ("SubscriptionChange", "ChangedAt"),
    }

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ("hook:s3cret:with colon",)

    def record(self, happened: Happened) -> dict[str, Any]:
        """See ``Sender``."""
        name, stamp = self.names.get(happened.type, (happened.type, "ReceivedAt"))
        about = {
            "Bounce": {"ID": happened.number, "Type": "HardBounce"},
            "SpamComplaint": {"ID": happened.number, "Type": "SpamComplaint"},
            "SubscriptionChange": {"SuppressSending": True, "SuppressionReason": "ManualSuppression"},
        }
        return {
            "RecordType": name,
            "MessageID": happened.message_id,
            "Recipient": "alex@example.com",
            stamp: happened.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z"),
            "Metadata": {"sendtide_decision_id": happened.decision_id} if happened.decision_id else {},
            "Tag": f"number-{happened.number}",
            "UserAgent": BROWSER,
            "Geo": {"IP": "203.0.113.7"},
            "OriginalLink": "https://shop.example/spring",
            **about.get(name, {}),
            **(happened.more or {}),
        }

    def request(self, record: Any, now: datetime, url: str = "") -> Request:  # noqa: ARG002 - signs nothing at all
        """See ``Sender``."""
        told = base64.b64encode(self.secrets[0].encode()).decode()
        return Request(orjson.dumps(record), {"Content-Type": JSON, "Authorization": f"Basic {told}"})


class Ses:
    """SNS with a certificate of its own; the decision id is a message tag."""

    vendor: Vendor = "ses"
    names: Mapping[str, str] = {
        "delivered": "Delivery",
        "opened": "Open",
        "clicked": "Click",
        "bounced": "Bounce",
        "complained": "Complaint",
        "unsubscribed": "Subscription",
    }

    def __init__(self, version: str = "2", holds_from: datetime | None = None) -> None:
        """``holds_from``: when the certificate begins to hold, for ten years; left out, in 2020."""
        self.secrets: tuple[str, ...] = ()
        self.topic_arns: tuple[str, ...] = (TOPIC,)
        self._version = version
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        begin = holds_from or datetime(2020, 1, 1, tzinfo=UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=3650))
            .sign(self._key, SHA256())
        )
        self.certificate = certificate.public_bytes(Encoding.PEM)

    def record(self, happened: Happened) -> dict[str, Any]:
        """See ``Sender``."""
        name = self.names.get(happened.type, happened.type)
        facts: dict[str, Any] = {
            "timestamp": happened.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
            "userAgent": BROWSER,
            "ipAddress": "203.0.113.7",
            "link": f"https://shop.example/spring#{happened.number}",
        }
        if name == "Bounce":
            facts |= {"bounceType": "Permanent", "bounceSubType": "General"}
        if name == "Subscription":
            facts |= {"newTopicPreferences": {"unsubscribeAll": True}}
        tags = {"sendtide_decision_id": [happened.decision_id]} if happened.decision_id else {}
        mail = {"messageId": happened.message_id, "destination": ["alex@example.com"], "tags": tags}
        return {"eventType": name, "mail": mail, name.lower(): facts | dict(happened.more or {})}

    def request(self, record: Any, now: datetime, url: str = "") -> Request:  # noqa: ARG002 - signs no address
        """See ``Sender``."""
        return self.envelope({"Type": "Notification", "Message": orjson.dumps(record).decode()}, now)

    def envelope(self, members: Mapping[str, str], now: datetime) -> Request:
        """A signed envelope; ``members`` beyond or instead of the usual ones are signed with it."""
        body = {
            "MessageId": hashlib.sha256(orjson.dumps([dict(members), now])).hexdigest()[:36],
            "TopicArn": self.topic_arns[0],
            "Timestamp": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "SignatureVersion": self._version,
            "SigningCertURL": CERTIFICATE_URL,
            **members,
        }
        names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        signed = "".join(f"{name}\n{body[name]}\n" for name in names if name in body)
        digest = SHA1() if self._version == "1" else SHA256()  # noqa: S303 - what version 1 is
        body["Signature"] = base64.b64encode(self._key.sign(signed.encode(), padding.PKCS1v15(), digest)).decode()
        return Request(orjson.dumps(body), {"Content-Type": "text/plain; charset=UTF-8"})


class Twilio:
    """HMAC-SHA1 over the address and the parameters; the decision id is a parameter of the address."""

    vendor: Vendor = "twilio"
    topic_arns: tuple[str, ...] = ()
    names: Mapping[str, str] = {"opened": "read", "clicked": "sent", "bounced": "undelivered"}

    def __init__(self) -> None:
        self.secrets: tuple[str, ...] = ("twilio-auth-token",)

    def record(self, happened: Happened) -> dict[str, str]:
        """See ``Sender``. ``@decision`` is for ``request``: it goes into the address."""
        return {
            "@decision": happened.decision_id or "",
            "MessageSid": happened.message_id,
            "MessageStatus": self.names.get(happened.type, happened.type),
            "To": "+15558675310",
            "From": "+15017122661",
            **(happened.more or {}),
        }

    def request(self, record: Any, now: datetime, url: str = "") -> Request:  # noqa: ARG002 - tells no time
        """See ``Sender``."""
        named = {name: value for name, value in record.items() if not name.startswith("@")}
        query = f"?sendtide_decision_id={record['@decision']}" if record.get("@decision") else ""
        text = url + query + "".join(name + named[name] for name in sorted(named))
        made = base64.b64encode(hmac.new(self.secrets[0].encode(), text.encode(), hashlib.sha1).digest()).decode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": made}
        return Request(urlencode(named).encode(), headers, query)


class Standard:
    """HMAC-SHA256 over id, time and body; the decision id is a member of ``data``."""

    vendor: Vendor = "standard"
    topic_arns: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._key = b"standard-webhooks-key-32-bytes!!"
        self.secrets: tuple[str, ...] = ("whsec_" + base64.b64encode(self._key).decode(),)

    def record(self, happened: Happened) -> dict[str, Any]:
        """See ``Sender``. ``@id`` is for ``request``: it goes into a header."""
        data = {"provider": "acme", "message_id": happened.message_id, "user_agent": BROWSER}
        argument = {"sendtide_decision_id": happened.decision_id} if happened.decision_id else {}
        return {
            "@id": f"msg_{happened.number}",
            "type": f"email.{happened.type}",
            "timestamp": happened.at.isoformat(),
            "data": data | argument | dict(happened.more or {}),
        }

    def request(self, record: Any, now: datetime, url: str = "") -> Request:  # noqa: ARG002 - signs no address
        """See ``Sender``."""
        body = orjson.dumps({name: value for name, value in record.items() if name != "@id"})
        stamp = str(int(now.timestamp()))
        signed = f"{record['@id']}.{stamp}.".encode() + body
        made = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        headers = {"webhook-id": record["@id"], "webhook-timestamp": stamp, "webhook-signature": f"v1,{made}"}
        return Request(body, {"Content-Type": JSON, **headers})


SENDERS: Mapping[Vendor, type[SendGrid | Mailgun | Postmark | Ses | Twilio | Standard]] = {
    "sendgrid": SendGrid,
    "mailgun": Mailgun,
    "postmark": Postmark,
    "ses": Ses,
    "twilio": Twilio,
    "standard": Standard,
}
