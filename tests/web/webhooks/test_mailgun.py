"""Mailgun signs no body: what its one-time tokens are worth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from optimizer.service.wiring import Services
from simulations.drills.webhooks.senders import Mailgun
from storage.errors import StoreUnavailable
from tests.web.conftest import NOW, Caller, StillClock
from tests.web.webhooks.conftest import FarSide, Hook, hook_of, metric
from tests.web.webhooks.test_signatures import OPENED, body


def test_a_mailgun_token_serves_for_one_event_however_often(
    ready: Caller, clock: StillClock, far_side: FarSide
) -> None:
    hook = hook_of(ready, "mailgun", clock, far_side)
    sender = hook.sender
    assert isinstance(sender, Mailgun)
    event = sender.record(OPENED)
    assert hook.post(sender.under("t" * 50, event, NOW)).get_json()["accepted"] == 1
    clock.forward(hours=7.5)  # the last of Mailgun's retries
    retried = hook.post(sender.under("t" * 50, event, NOW))
    assert retried.get_json() == {"accepted": 0, "duplicates": 1, "unmatched": 0, "rejected": 0}
    other = sender.record(replace(OPENED, number=2, type="unsubscribed"))
    assert hook.post(sender.under("t" * 50, other, NOW)).status_code == 401
    assert metric(hook.app, "mailgun", "accepted") == 1
    again = hook.post(sender.under("u" * 50, event, clock.now))  # signed anew, were Mailgun to do that
    assert again.get_json()["duplicates"] == 1


def test_a_mailgun_token_serves_for_no_other_words_under_the_events_own_id(
    ready: Caller, clock: StillClock, far_side: FarSide, decision: dict[str, Any]
) -> None:
    hook = hook_of(ready, "mailgun", clock, far_side)
    sender = hook.sender
    assert isinstance(sender, Mailgun)
    event = sender.record(replace(OPENED, decision_id=None))
    assert hook.post(sender.under("t" * 50, event, NOW)).get_json()["unmatched"] == 1
    forged = {**event, "event": "unsubscribed", "user-variables": {"sendtide_decision_id": decision["decision_id"]}}
    assert hook.post(sender.under("t" * 50, forged, NOW)).status_code == 401
    assert ready("GET", f"/v1/decisions/{decision['decision_id']}").get_json()["status"] == "reserved"


@pytest.mark.parametrize("whose", ["account", "parent"])
def test_a_mailgun_token_serves_for_one_event_at_all_sources(
    ready: Caller, other_admin: Caller, clock: StillClock, far_side: FarSide, whose: str
) -> None:
    """Other sources, here and in another workspace, have the account's key, or that of its parent."""
    first = hook_of(ready, "mailgun", clock, far_side, "a")
    assert isinstance(first.sender, Mailgun)
    seen = first.sender.under("t" * 50, first.sender.record(OPENED), NOW)
    assert first.post(seen).get_json()["accepted"] == 1
    other = Mailgun()
    if whose == "parent":
        other.secrets = ("the parent's key",)
    forged = other.under("t" * 50, other.record(replace(OPENED, number=2, type="unsubscribed")), NOW)
    if whose == "parent":
        forged = body(b'"signature":"', b'"signature":"abc","parent-signature":"')(forged)
    for admin, name in ((ready, "b"), (other_admin, "c")):
        setup = {"vendor": "mailgun", "secrets": list(other.secrets)}
        assert admin("PUT", f"/v1/webhook-sources/{name}", setup).status_code == 201
        hook = Hook(admin.app, other, name, clock)
        assert hook.post(forged).status_code == 401
        if whose == "account":
            assert hook.post(seen).status_code == 200, "two sources may be told of the same event"


def test_a_mailgun_token_of_a_refused_delivery_is_not_used_up(
    ready: Caller, clock: StillClock, far_side: FarSide, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = hook_of(ready, "mailgun", clock, far_side)
    request = hook.request(OPENED)

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(services.store, "write", down)
        refused = hook.post(request)
        assert (refused.status_code, refused.headers["Retry-After"] > "0") == (503, True)
    assert hook.post(request).get_json()["accepted"] == 1


def test_a_subaccounts_event_passes_by_its_parents_signature(
    ready: Caller, clock: StillClock, far_side: FarSide
) -> None:
    hook = hook_of(ready, "mailgun", clock, far_side)
    request = hook.request(OPENED)
    parents = body(b'"signature":"', b'"signature":"abc","parent-signature":"')(request)
    assert hook.post(parents).status_code == 200


def test_a_delivery_without_a_signature_is_told_that_it_is_missing(ready: Caller) -> None:
    ready("PUT", "/v1/webhook-sources/m", {"vendor": "mailgun", "secrets": ["key-of-the-webhooks-page"]})
    refused = ready("POST", "/v1/webhooks/mailgun/m", {"event-data": {}})
    assert (refused.status_code, refused.get_json()["code"]) == (401, "forged")
    assert refused.get_json()["detail"] == "no signature, signature: missing; it must be an object"
