"""Mautic's webhooks, as its documentation and its own payloads have them, reach the right decisions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from examples.mautic_events import serve
from tests.examples.conftest import running, service
from tests.web.conftest import CAMPAIGN, Caller, StillClock, key

SECRET = "s3cret"  # noqa: S105  of these tests


class Mautic:
    """Sends signed webhooks as Mautic does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, payload: Any, signature: str | None = None) -> int:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signed = base64.b64encode(hmac.new(SECRET.encode(), body, hashlib.sha256).digest()).decode()
        headers = {"Content-Type": "application/json", "Webhook-Signature": signature or signed}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url, body, headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code


@pytest.fixture
def mautic(app: Flask) -> Iterator[Mautic]:
    secret = key(app, "decide", "feedback")
    with running(service(app)) as url, running(serve(0, url, secret, SECRET)) as address:
        yield Mautic(address)


@pytest.fixture
def decision_id(admin: Caller) -> str:
    admin("PUT", "/v1/campaigns/c", CAMPAIGN)
    asked = admin("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "26", "immediate": True}).get_json()
    return str(asked["decision_id"])


def payload(decision_id: str, at: str) -> dict[str, Any]:
    lead = {"id": 26, "fields": {"core": {"email": {"value": "a@example.org"}}}}
    email = {"id": 5, "name": "Spring"}
    return {
        "mautic.email_on_send": [
            {
                "email": email,
                "contact": lead,
                "tokens": {"{decision}": decision_id, "{unsubscribe_url}": "https://m.example/u"},
                "idHash": "55dd17adace91",
                "source": ["api", 0],
                "timestamp": at,
            }
        ],
        "mautic.email_on_open": [
            {
                "stat": {
                    "id": 8,
                    "emailAddress": "a@example.org",
                    "dateRead": at,
                    "openCount": 1,
                    "trackingHash": "55dd17adace91",
                    "lead": lead,
                    "email": email,
                },
                "timestamp": at,
            }
        ],
        "mautic.page_on_hit": [
            {
                "hit": {"id": 3, "url": "https://shop.example/a", "query": {"decision": decision_id}, "lead": lead},
                "timestamp": at,
            },
            {"hit": {"id": 4, "url": "https://shop.example/b", "query": [], "lead": lead}, "timestamp": at},
        ],
    }


def kinds(app: Flask, decision_id: str) -> list[tuple[str, str | None]]:
    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        decision = reader.decision("default", decision_id)
        return sorted((event.type, event.decision_id) for event in reader.events("default", decision))


def test_sends_opens_clicks_and_visits_find_their_decision(
    mautic: Mautic, admin: Caller, app: Flask, decision_id: str, clock: StillClock
) -> None:
    clock.forward(minutes=5)
    told = payload(decision_id, clock.now.isoformat())
    assert [mautic(told), mautic(told)] == [200, 200]
    record = admin("GET", f"/v1/decisions/{decision_id}").get_json()
    assert (record["status"], record["message_id"]) == ("sent", "55dd17adace91")
    assert kinds(app, decision_id) == [("clicked", decision_id), ("opened", decision_id), ("viewed", None)]


@pytest.mark.parametrize(("status", "silent"), [("unsubscribed", True), ("bounced", True), ("contactable", False)])
def test_a_refusal_silences_and_a_return_grants_nothing(
    mautic: Mautic, admin: Caller, decision_id: str, clock: StillClock, status: str, silent: bool
) -> None:
    change = {"contact": {"id": 26}, "channel": "email", "old_status": "contactable", "new_status": status}
    told = {"mautic.lead_channel_subscription_changed": [{**change, "timestamp": clock.now.isoformat()}]}
    assert mautic(told) == 200
    found = admin("GET", "/v1/recipients/26")
    assert (found.status_code == 200 and bool(found.get_json()["suppressed"])) is silent


def test_what_mautic_did_not_sign_or_does_not_send_is_refused(mautic: Mautic, decision_id: str) -> None:
    assert mautic(payload(decision_id, "2026-11-24T09:00:00+00:00"), signature="bm9wZQ==") == 401
    for odd in (b"{", b"[]", b'{"mautic.email_on_open": [{}]}'):
        assert mautic(odd) == 400


def test_while_sendtide_is_away_mautic_is_told_to_send_it_again(decision_id: str) -> None:
    with running(serve(0, "http://127.0.0.1:9", "st_x", SECRET)) as address:
        assert Mautic(address)(payload(decision_id, "2026-11-24T09:00:00+00:00")) == 503
