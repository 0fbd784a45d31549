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
