"""One message of the Segment tracking API as an event of ours, with what it tells of its recipient.

Source: https://segment.com/docs/connections/spec/ (common fields, and a page for each call).

* ``track``, ``page`` and ``screen`` are events of the recipient, which later decisions know and learn from.
* A write key stands in every copy of an app, so nothing that is told here takes a refusal back: a ``track`` of the name
  ``resubscribed`` is an event like any other, ``segment.resubscribed``.
* ``identify`` and ``group`` tell attributes. They and ``alias`` are kept as automated events, which neither count as
  something that the person did nor as an outcome: so the same message counts once. The other id that they name is not
  kept: nothing here asks for it, and whoever erases one of the two would leave it with the other.
* The recipient is ``userId``, else ``anonymousId``: an anonymous visitor is a recipient of their own, and decisions can
  be asked for them. Nothing is merged by ``alias`` or ``identify``: rewards of the anonymous recipient's decisions are
  made of their events, and a device that two people share would mix them up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from marshmallow import ValidationError

from optimizer.bandit.rewards import amount
from optimizer.errors import Invalid
from optimizer.service import moments
from optimizer.service.ids import fresh
from optimizer.service.optout import RESUBSCRIBED
from optimizer.service.requests import EventInput, RecipientPatch, Told
from optimizer.web.compat.traits import PRIVATE, flat, trimmed
from optimizer.web.schemas import limits
from optimizer.web.schemas.fields import ID, ZoneName, is_id

#: The calls of the API; each is also the type of its messages in a batch.
CALLS: tuple[str, ...] = ("track", "identify", "page", "screen", "group", "alias")
_ZONE = ZoneName()
#: Ids of messages get this prefix, so that they can't be taken for another source's.
_PREFIX = "segment:"
_PRIVATE_OF_GROUP = frozenset({"group.email", "group.phone"})
#: Where a message says what it was worth, first come first served (Segment's reserved properties).
_WORTH = ("revenue", "value", "total")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the messages of a request share: its context, when it was sent by its own clock, when it came in by ours."""

    context: Mapping[str, Any]
    sent_at: datetime | None
    received_at: datetime


def read(message: Any, call: str | None, envelope: Envelope) -> tuple[EventInput, Told | None]:
    """What a message means.

    Args:
        message: parsed JSON.
        call: what it is; None = its ``type`` says so.
        envelope: of its request.

    Raises:
        Invalid: names the field, its value and what is allowed.
    """
    if not isinstance(message, dict):
        raise Invalid.field("message", "must be an object")
    try:
        size = len(orjson.dumps(message))
    except orjson.JSONEncodeError:  # it reads deeper than it writes
        raise Invalid.field("message", "is nested too deep") from None
    if size > limits.SEGMENT_MESSAGE:
        raise Invalid.field("message", f"may have at most {limits.SEGMENT_MESSAGE} bytes", code="too_large")
    kind = call or message.get("type")
    if kind not in CALLS:
        raise Invalid.field("type", f"is {kind!r:.80}; allowed: {', '.join(CALLS)}")
    user, anonymous = _id(message, "userId"), _id(message, "anonymousId")
    recipient_id = user or anonymous
    if recipient_id is None:
        raise Invalid.field("userId", "missing; userId or anonymousId is required", code="no_user_anon_id")
    event_type, properties = _content(str(kind), message)
    event = EventInput(
        type=event_type,
        occurred_at=_occurred_at(message, envelope),
        event_id=_event_id(message),
        decision_id=_decision_id(properties),
        recipient_id=recipient_id,
        value=_worth(properties) if kind == "track" else None,
        automated=kind in ("identify", "group", "alias"),
        properties=properties,
    )
    return event, _told(str(kind), message, envelope)


def _content(kind: str, message: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type of the event and its properties. Traits are not among them: they are the recipient's."""
    if kind == "track":
        name = _required(message, "event")
        return f"segment.{name}" if name == RESUBSCRIBED else name, trimmed(_object(message, "properties"))
    if kind in ("page", "screen"):
        named = {name: message[name] for name in ("name", "category") if isinstance(message.get(name), str)}
        return kind, trimmed({**named, **_object(message, "properties")})
    if kind == "group":
        return kind, {"group_id": _required(message, "groupId")}
    if kind == "alias":
        _required(message, "previousId")  # and no more: an id kept with another's events would outlive its erasure
        return kind, {"user_id": _required(message, "userId")}
    return kind, {}


def _told(kind: str, message: Mapping[str, Any], envelope: Envelope) -> Told | None:
    """What an ``identify`` or ``group`` tells of the recipient; None = nothing."""
    if kind == "group":
        about = {"group_id": _id(message, "groupId"), "group": _object(message, "traits")}
        return Told(RecipientPatch(attributes=flat(about)), _PRIVATE_OF_GROUP)
    if kind != "identify":
        return None
    context = {**envelope.context, **_object(message, "context")}
    locale = context.get("locale")
    given = {"locale": locale} if isinstance(locale, str) else {}
    patch = RecipientPatch(timezone=_zone(context), attributes=flat({**given, **_object(message, "traits")}))
    return Told(patch, PRIVATE)


def _zone(context: Mapping[str, Any]) -> str | None:
    """The zone that a context names; one that nobody knows says nothing."""
    try:
        return _ZONE.deserialize(context.get("timezone"))
    except ValidationError:
        return None


def _id(message: Mapping[str, Any], name: str) -> str | None:
    """An id; a whole number is taken as its text, empty text as none."""
    value = message.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or len(value) > limits.ID or ID.fullmatch(value) is None:
        allowed = f"text of 1 to {limits.ID} characters without control characters"
        raise Invalid.field(name, f"is {value!r:.80}; allowed: {allowed}")
    return value


def _required(message: Mapping[str, Any], name: str) -> str:
    value = _id(message, name)
    if value is None:
        raise Invalid.field(name, "missing; it is required", code="required")
    return value


def _object(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid.field(name, f"is {value!r:.80}; allowed: an object")
    return value


def _decision_id(properties: Mapping[str, Any]) -> str | None:
    """The decision that an event is about, where it names what can be one's id."""
    told = properties.get("sendtide_decision_id")
    return told if isinstance(told, str) and told.startswith("dec_") and is_id(told) else None


def _worth(properties: Mapping[str, Any]) -> float | None:
    """What an event was worth."""
    amounts = (amount(properties.get(name)) for name in _WORTH)
    return next((worth for worth in amounts if worth is not None and abs(worth) <= limits.AMOUNT), None)


def _occurred_at(message: Mapping[str, Any], envelope: Envelope) -> datetime:
    """When it happened, by our clock: ``receivedAt - (sentAt - originalTimestamp)``, as Segment corrects clock skew.

    A message that has passed through Segment has a ``receivedAt`` and a corrected ``timestamp``, which is taken. What
    is reported has happened: a time ahead of ours is now.
    """
    passed = message.get("receivedAt") is not None and message.get("timestamp") is not None
    original = moment(message, "timestamp") if passed else moment(message, "originalTimestamp", "timestamp")
    if original is None:
        return envelope.received_at
    sent_at = None if passed else moment(message, "sentAt") or envelope.sent_at
    skew = envelope.received_at - sent_at if sent_at is not None else None
    try:
        corrected = original if skew is None else original + skew
    except OverflowError:
        corrected = original
    if corrected < moments.EARLIEST:
        raise Invalid.field("timestamp", f"is {corrected.isoformat()}; allowed: from 1970 on")
    return min(corrected, envelope.received_at)


def moment(values: Mapping[str, Any], *names: str) -> datetime | None:
    """The first of these ISO 8601 times that is there, as UTC; one without an offset is taken as UTC.

    Raises:
        Invalid: it is none, or before 1970 or after 2200.
    """
    for name in names:
        value = values.get(name)
        if value is None:
            continue
        try:
            return moments.within(value, UTC)
        except ValueError:
            told = repr(value)[:80] if isinstance(value, str) else f"of type {type(value).__name__}"
            message = f"is {told}; allowed: an ISO 8601 time from 1970 to 2200"
            raise Invalid.field(name, message) from None
    return None


def _event_id(message: Mapping[str, Any]) -> str:
    """The message's own id. Without one, its content is it if it says when it happened: else two of a kind are two."""
    told = message.get("messageId")
    named = isinstance(told, str) and 0 < len(told) <= limits.ID - len(_PREFIX) and ID.fullmatch(told) is not None
    if named:
        return f"{_PREFIX}{told}"
    if told is None and not (message.get("originalTimestamp") or message.get("timestamp")):
        return fresh(_PREFIX.rstrip(":"))
    content = {name: value for name, value in message.items() if name not in ("sentAt", "receivedAt", "writeKey")}
    raw = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return _PREFIX + hashlib.blake2b(raw, digest_size=16).hexdigest()
