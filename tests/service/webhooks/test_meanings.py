"""How much vendors' own words refuse."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from optimizer.service.requests import VendorEvent
from optimizer.service.webhooks import mailgun, postmark, sendgrid, ses

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


def read(vendor: str, words: dict[str, Any]) -> VendorEvent:
    if vendor == "sendgrid":
        return sendgrid._event({"timestamp": NOW.timestamp(), **words}, now=NOW)
    if vendor == "mailgun":
        return mailgun._event({"timestamp": NOW.timestamp(), **words}, NOW)
    if vendor == "postmark":
        return postmark._event({"BouncedAt": NOW.isoformat(), **words}, NOW)
    return ses._event(words, NOW, NOW)


@pytest.mark.parametrize(
    ("vendor", "words", "outcome", "refuses"),
    [
        ("sendgrid", {"event": "unsubscribe"}, "unsubscribed", "channel"),
        ("sendgrid", {"event": "group_unsubscribe"}, "unsubscribed", None),
        ("sendgrid", {"event": "dropped", "reason": "Bounced Address"}, "failed", "channel"),
        ("sendgrid", {"event": "dropped", "reason": "Invalid"}, "failed", "channel"),
        ("sendgrid", {"event": "dropped", "reason": "Invalid Address"}, "failed", "channel"),
        ("sendgrid", {"event": "dropped", "reason": "Unsubscribed Address"}, "failed", "category"),
        ("sendgrid", {"event": "dropped", "reason": "Invalid SMTPAPI header"}, "failed", None),
        ("sendgrid", {"event": "bounce", "type": "blocked"}, "bounced", None),
        ("mailgun", {"event": "failed", "severity": "permanent", "reason": "suppress-complaint"}, "failed", "channel"),
        (
            "mailgun",
            {"event": "failed", "severity": "permanent", "reason": "suppress-unsubscribe"},
            "failed",
            "category",
        ),
        ("mailgun", {"event": "failed", "severity": "permanent", "reason": "suppress-bounce"}, "failed", "channel"),
        ("postmark", {"RecordType": "Bounce", "Type": "ManuallyDeactivated", "ID": 1}, "failed", "channel"),
        (
            "ses",
            {"eventType": "Subscription", "subscription": {"newTopicPreferences": {"unsubscribeAll": True}}},
            "unsubscribed",
            "channel",
        ),
        (
            "ses",
            {
                "eventType": "Subscription",
                "subscription": {
                    "newTopicPreferences": {
                        "topicSubscriptionStatus": [{"topicName": "a", "subscriptionStatus": "OptOut"}]
                    }
                },
            },
            "unsubscribed",
            None,
        ),
        (
            "ses",
            {"eventType": "Complaint", "complaint": {"complaintSubType": "OnAccountSuppressionList"}},
            "failed",
            "channel",
        ),
    ],
)
def test_words_refuse_as_much_as_they_mean(
    vendor: str, words: dict[str, Any], outcome: str, refuses: str | None
) -> None:
    found = read(vendor, words)
    assert (found.type, found.refuses) == (outcome, refuses)


def preferences(all_: bool = False, **topics: str) -> dict[str, Any]:
    """What somebody chose: ``OptIn`` or ``OptOut`` by topic."""
    listed = [{"topicName": name, "subscriptionStatus": status} for name, status in topics.items()]
    return {"unsubscribeAll": all_, "topicSubscriptionStatus": listed}


@pytest.mark.parametrize(
    ("before", "now", "outcome", "refuses"),
    [
        (preferences(a="OptOut", b="OptOut"), preferences(a="OptIn", b="OptOut"), "resubscribed", None),
        (preferences(a="OptIn", b="OptOut"), preferences(a="OptOut", b="OptIn"), "unsubscribed", None),
        (preferences(a="OptIn"), preferences(a="OptIn", b="OptOut"), "unsubscribed", None),
        (preferences(a="OptOut"), preferences(a="OptOut"), "ses.Subscription", None),
        (preferences(all_=True, a="OptOut"), preferences(a="OptOut"), "resubscribed", None),
        (preferences(a="OptIn"), preferences(all_=True, a="OptIn"), "unsubscribed", "channel"),
        (preferences(all_=True), preferences(all_=True), "unsubscribed", "channel"),
        (None, preferences(a="OptIn", b="OptOut"), "unsubscribed", None),
        (None, preferences(a="OptIn"), "resubscribed", None),
        (
            {"topicDefaultSubscriptionStatus": [{"topicName": "b", "subscriptionStatus": "OptOut"}]},
            preferences(a="OptIn", b="OptOut"),
            "resubscribed",
            None,
        ),
        ({"topicSubscriptionStatus": 7}, {"topicSubscriptionStatus": [7, {"topicName": []}]}, "ses.Subscription", None),
    ],
)
def test_a_subscription_at_ses_is_what_it_changes(
    before: dict[str, Any] | None, now: dict[str, Any], outcome: str, refuses: str | None
) -> None:
    facts = {"newTopicPreferences": now, "oldTopicPreferences": before}
    found = read("ses", {"eventType": "Subscription", "subscription": facts})
    assert (found.type, found.refuses) == (outcome, refuses)


@pytest.mark.parametrize(
    ("reason", "hard"), [("bounce", True), ("generic", False), ("old", False), ("espblock", False)]
)
def test_a_failure_at_mailgun_is_a_dead_address_only_where_it_says_so(reason: str, hard: bool) -> None:
    found = read("mailgun", {"event": "failed", "severity": "permanent", "reason": reason})
    assert (found.type, found.hard) == ("bounced", hard)
    assert read("mailgun", {"event": "failed", "severity": "permanent"}).hard is False
