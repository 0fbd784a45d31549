"""Examples of request bodies for the document. A test sends every one of them."""

from __future__ import annotations

from typing import Any

CAMPAIGN: dict[str, Any] = {
    "name": "Spring sale",
    "category": "marketing",
    "variants": [
        {"id": "mens", "features": {"category": "mens", "discount": 0.1}, "text": "New for him"},
        {"id": "womens", "features": {"category": "womens", "discount": 0.1}, "text": "New for her"},
    ],
    "channels": [{"id": "email", "cost": 0.0004}, {"id": "push"}],
    "objective": {
        "opened": 0.1,
        "clicked": 1.0,
        "converted": {"per_value": 1.0, "max_value": 500},
        "unsubscribed": -20,
    },
    "attribution_hours": {"opened": 48, "clicked": 72, "converted": 168},
    "groups": {"holdout": 0.05, "random": 0.05, "baseline": 0.0},
    "baseline": {"variant_id": "mens", "channel": "email", "local_time": "09:00"},
    "guardrails": {"unsubscribed": {"max_rate": 0.01, "max_increase": 0.002}},
}
CAP: dict[str, Any] = {
    "kind": "cap",
    "limit": 3,
    "window": {"rolling_hours": 168},
    "applies_to": {"channels": ["email"], "except_categories": ["transactional"]},
}
RECIPIENT: dict[str, Any] = {
    "timezone": "Europe/Berlin",
    "attributes": {"country": "DE", "age": 33, "plan": "pro"},
    "channels": {"email": True, "push": {"state": False, "source": "app"}},
    "suppressed": [{"channel": "email", "category": "newsletter"}],
}
DECISION: dict[str, Any] = {
    "request_id": "order-77-reminder",
    "campaign_id": "spring",
    "recipient_id": "u1",
    "context": {"cart_value": 80},
    "metadata": {"order": "77"},
    "recipient": {"timezone": "Europe/Berlin", "attributes": {"country": "DE"}},
}
DECISIONS: dict[str, Any] = {
    "campaign_id": "spring",
    "context": {"occasion": "sale"},
    "recipients": [{"recipient_id": "u1"}, {"recipient_id": "u2", "context": {"cart_value": 12}}],
}
SCORES: dict[str, Any] = {
    "outcome": "converted",
    "campaign_id": "spring",
    "recipients": [{"recipient_id": "u1"}, {"recipient": {"timezone": "Europe/Berlin", "attributes": {"age": 33}}}],
}
CONFIRM: dict[str, Any] = {"sent_at": "2026-11-24T08:12:04Z", "provider": "ses", "message_id": "0102018f"}
EVENTS: dict[str, Any] = {
    "events": [
        {
            "event_id": "e1",
            "request_id": "order-77-reminder",
            "type": "opened",
            "occurred_at": "2026-11-24T09:00:00Z",
        }
    ]
}
SEND: dict[str, Any] = {
    "id": "news-2026-48/u1",
    "recipient_id": "u1",
    "channel": "email",
    "category": "newsletter",
    "sent_at": "2026-11-24T08:00:00Z",
}
SOURCE: dict[str, Any] = {"vendor": "mailgun", "secrets": ["key-of-the-webhooks-page"]}
