"""Amazon SES through SNS: event publishing (``eventType``) and identity notifications (``notificationType``).

Both may be switched on at once, and then tell of the same bounce, complaint and delivery under different ids; so an
event's id is made of what happened to which message. Fields: docs.aws.amazon.com/ses, "Contents of event data that
Amazon SES publishes to Amazon SNS" and "Amazon SNS notification contents".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from optimizer.errors import Invalid
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
from optimizer.service.webhooks.sns import open_envelope
from storage.records import JsonObject

UNDERSTOOD = Understood(
    "ses",
    (
        Meaning("Send", "processed"),
        Meaning("Delivery", "delivered"),
        Meaning("DeliveryDelay", "deferred"),
        Meaning("Open", "opened"),
        Meaning("Click", "clicked"),
        Meaning("Bounce", "bounced", hard=False),
        Meaning("Bounce", "bounced", "bounceType", "Permanent"),
        Meaning("Complaint", "complained"),
        Meaning("Complaint", "failed", "complaintSubType", "OnAccountSuppressionList", refuses="channel"),
        Meaning("Complaint", "not_spam", "complaintFeedbackType", "not-spam"),
        Meaning("Reject", "failed"),
        Meaning("Rendering Failure", "failed"),
        Meaning("Subscription", "resubscribed"),
        Meaning("Subscription", "unsubscribed", "newTopicPreferences", "opted out"),
        Meaning("Subscription", "unsubscribed", "newTopicPreferences", "opted out of all", refuses="channel"),
    ),
)
#: Where each type has its own facts: the type's name, written as a member's.
_FACTS = {"Rendering Failure": "failure", "DeliveryDelay": "deliveryDelay"}
#: Where types that may concern some of a message's addresses name them.
_ADDRESSES = {"Bounce": "bouncedRecipients", "Complaint": "complainedRecipients", "Delivery": "recipients"}
#: Types that happen to a message once, whoever tells of it and how often.
_ONCE = frozenset({"Send", "Delivery", "Bounce", "Complaint", "Reject", "Rendering Failure"})


def read(delivery: Delivery) -> Batch:
    """See ``webhooks``."""
    envelope = open_envelope(delivery)
    if envelope.subscribe_url is not None:
        return Batch(confirm_url=envelope.subscribe_url)
    if envelope.type != "Notification" or not envelope.message.lstrip().startswith("{"):
        return Batch()  # a subscription that ended, or the line by which SES tries a new topic out
    try:
        words = members(parse(envelope.message.encode()), "Message")
        events = _events(words, envelope.at, delivery.now)
    except Invalid as error:
        return Batch((RejectedEvent(0, error.code, error.detail),))
    return Batch(events, int(UNDERSTOOD.of(_name(words)) is None))


def _name(words: JsonObject) -> str:
    return text(words.get("eventType") or words.get("notificationType"), 100)


def _facts(words: JsonObject, name: str) -> JsonObject:
    found = words.get(_FACTS.get(name, name.lower()))
    return found if isinstance(found, dict) else {}


def _events(words: dict[str, Any], sent_at: datetime, now: datetime) -> tuple[VendorEvent, ...]:
    """One event; of a message to several addresses one for each that is named, since each may be told of apart."""
    event = _event(words, sent_at, now)
    addresses = _named_addresses(words)
    destination = below(words, "mail", "destination")
    alone = len(addresses) < 2 and not (isinstance(destination, list) and len(destination) > 1)
    if alone or not addresses or event.event_id is None:
        return (event,)
    return tuple(replace(event, event_id=event_id(event.event_id, content_hash(one))) for one in addresses)


def _named_addresses(words: JsonObject) -> list[str]:
    """The addresses to which it happened, each once; none where SES doesn't say."""
    name = _name(words)
    listed = _facts(words, name).get(_ADDRESSES.get(name, ""))
    found = [one if isinstance(one, str) else text(below(one, "emailAddress")) for one in _list(listed)]
    return list(dict.fromkeys(one.lower() for one in found if one))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _event(words: dict[str, Any], sent_at: datetime, now: datetime) -> VendorEvent:
    name = _name(words)
    if not name:
        raise Invalid.field("eventType", "missing; notificationType too", code="no_type")
    facts = _facts(words, name)
    meaning = _meaning(name, facts)
    message_id = identifier(below(words, "mail", "messageId"))
    outcome = event_type("ses", name) if meaning is None else meaning.outcome
    hard = meaning is None or meaning.hard
    stamp = facts.get("timestamp")
    if name in _ONCE and message_id is not None:
        own_id = (message_id, outcome if hard else f"{outcome}-soft")
    else:
        own_id = (message_id or "", content_hash([name, facts]))
    return VendorEvent(
        type=outcome,
        occurred_at=iso_time(stamp, "timestamp", now) if stamp else min(sent_at, now),
        event_id=event_id("ses", *own_id),
        decision_id=next(_decisions(words), None),
        provider="ses" if message_id is not None else None,
        message_id=message_id,
        hard=hard,
        refuses=None if meaning is None else meaning.refuses,
        vendor="ses",
        words=kept(words),
    )


def _meaning(name: str, facts: JsonObject) -> Meaning | None:
    if name == "Subscription":
        change = _change(facts.get("newTopicPreferences"), facts.get("oldTopicPreferences"))
        return None if change is None else UNDERSTOOD.of(name, change)
    narrower = ("bounceType", "complaintSubType", "complaintFeedbackType")
    known = (UNDERSTOOD.of(name, text(facts.get(field))) for field in narrower if facts.get(field))
    return next((one for one in known if one is not None and one.value), UNDERSTOOD.of(name))


def _change(now: Any, before: Any) -> str | None:
    """ "opted out of all", "opted out" of a topic, "" of an opt-in, None where nothing changed.

    All topics are told each time, so one that a person had left before is no news, unless nothing is told of before.
    """
    if below(now, "unsubscribeAll") is True:
        return "opted out of all"
    changed = {status for _, status in _topics(now) - _topics(before)}
    if "OptOut" in changed:
        return "opted out"
    opted_in = "OptIn" in changed or below(before, "unsubscribeAll") is True or not isinstance(before, dict)
    return "" if opted_in else None


def _topics(preferences: Any) -> set[tuple[str, str]]:
    """Names and statuses of topics."""
    topics = below(preferences, "topicSubscriptionStatus") or below(preferences, "topicDefaultSubscriptionStatus")
    return {(text(below(one, "topicName")), text(below(one, "subscriptionStatus"))) for one in _list(topics)}


def _decisions(words: JsonObject) -> Iterator[str]:
    """Our decision id: a message tag, or the header by which tags are given (identity notifications have no tags)."""
    tags = below(words, "mail", "tags", DECISION_ARGUMENT)
    for value in tags if isinstance(tags, list) else [tags]:
        found = identifier(value)
        if found is not None:
            yield found
    headers = below(words, "mail", "headers")
    for header in headers if isinstance(headers, list) else []:
        if text(below(header, "name")).lower() == "x-ses-message-tags":
            for tag in text(below(header, "value")).split(","):
                name, _, value = tag.strip().partition("=")
                found = identifier(value.strip()) if name.strip() == DECISION_ARGUMENT else None
                if found is not None:
                    yield found


def signs(words: JsonObject) -> Signs:
    """See ``webhooks``."""
    facts = _facts(words, _name(words))
    return Signs(
        user_agent=text(facts.get("userAgent")),
        address=text(facts.get("ipAddress")),
        url=text(facts.get("link")),
    )
