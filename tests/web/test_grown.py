"""Documents that grow by themselves: variants that were archived, refusals that events recorded."""

from __future__ import annotations

from typing import Any

import pytest

from optimizer.service import setup
from tests.web.conftest import CAMPAIGN, NOW, Caller

BIG: dict[str, Any] = {**CAMPAIGN, "default_window_hours": 1}


def variants(first: int, last: int) -> list[dict[str, str]]:
    return [{"id": f"v{i}"} for i in range(first, last)]


def grown_campaign(admin: Caller) -> dict[str, Any]:
    """The document of a campaign that had 300 variants and then 300 others."""
    admin("PUT", "/v1/campaigns/big", {**BIG, "variants": variants(0, 300)})
    admin("PUT", "/v1/campaigns/big", {**BIG, "variants": variants(300, 600)})
    return dict(admin("GET", "/v1/campaigns/big").get_json())


def test_a_campaign_with_many_archived_variants_can_be_paused_and_put_back(admin: Caller) -> None:
    document = grown_campaign(admin)
    assert len(document["variants"]) == 600
    paused = admin("PATCH", "/v1/campaigns/big", {"mode": "paused"})
    assert (paused.status_code, paused.get_json()["mode"]) == (200, "paused")
    assert admin("PATCH", "/v1/campaigns/big", {"slot_minutes": 30}).status_code == 200
    assert admin("PUT", "/v1/campaigns/big", document).get_json()["variants"] == document["variants"]


def test_at_most_500_variants_of_a_campaign_are_active_or_paused(admin: Caller) -> None:
    document = grown_campaign(admin)
    first, *others = ({**one, "status": "paused"} for one in document["variants"])
    reply = admin("PATCH", "/v1/campaigns/big", {"variants": [{**first, "status": "active"}, *others[:500]]})
    assert reply.status_code == 422
    assert "At most 500 may be active or paused; 501 are." in reply.get_json()["errors"]["variants"][0]
    most = [{**first, "status": "active"}, *others[:499]]
    assert admin("PATCH", "/v1/campaigns/big", {"variants": most}).status_code == 200


def test_a_campaign_holds_so_many_variants_and_says_what_to_do_then(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "VARIANTS_EVER", 600)
    grown_campaign(admin)
    reply = admin("PUT", "/v1/campaigns/big", {**BIG, "variants": variants(599, 601)})
    assert reply.status_code == 422
    assert "would have 601 variants; at most 600 are allowed" in reply.get_json()["errors"]["variants"][0]
    assert admin("PUT", "/v1/campaigns/big", {**BIG, "variants": variants(0, 2)}).status_code == 200
    monkeypatch.setattr(setup, "VARIANTS_EVER", 400)
    assert admin("PATCH", "/v1/campaigns/big", {"mode": "paused"}).status_code == 200


def refusing_much(admin: Caller) -> dict[str, Any]:
    """The document of a recipient who opted out of 204 channels and categories."""
    channels = [f"c{i}" for i in range(34)]
    told = []
    for i in range(6):
        admin("PUT", f"/v1/campaigns/k{i}", {**CAMPAIGN, "category": f"k{i}", "channels": channels[:17]})
        admin("PUT", f"/v1/campaigns/l{i}", {**CAMPAIGN, "category": f"k{i}", "channels": channels[17:]})
        for n, channel in enumerate(channels):
            ask = {"campaign_id": f"{'kl'[n // 17]}{i}", "recipient_id": "ada", "channels": [channel]}
            decision = admin("POST", "/v1/decisions", {**ask, "immediate": True}).get_json()["decision_id"]
            told.append({"type": "unsubscribed", "decision_id": decision, "occurred_at": NOW.isoformat()})
    admin("POST", "/v1/events", {"events": told})
    return dict(admin("GET", "/v1/recipients/ada").get_json())


def test_a_person_whose_opt_outs_are_many_can_be_changed_and_put_back(admin: Caller) -> None:
    document = refusing_much(admin)
    assert len(document["suppressed"]) == 204
    patched = admin("PATCH", "/v1/recipients/ada", {"attributes": {"plan": "pro"}})
    assert (patched.status_code, patched.get_json()["attributes"]) == (200, {"plan": "pro"})
    assert admin("PATCH", "/v1/recipients/ada", {"channels": {"push": True}}).status_code == 200
    assert admin("PUT", "/v1/recipients/ada", document).get_json()["suppressed"] == document["suppressed"]
    assert admin("POST", "/v1/recipients/batch", {"recipients": [document]}).get_json()["stored"] == 1


def test_a_caller_may_still_tell_200_refusals_of_their_own(admin: Caller) -> None:
    own = [{"channel": "email", "category": f"k{i}"} for i in range(200)]
    by_events = [{"channel": "email", "category": f"k{i}", "source": f"event:complained:e{i}"} for i in range(9)]
    assert admin("PUT", "/v1/recipients/bob", {"suppressed": own + by_events}).status_code == 201
    reply = admin("PUT", "/v1/recipients/bob", {"suppressed": [*own, {"category": "more"}, *by_events]})
    assert reply.status_code == 422
    assert reply.get_json()["errors"]["suppressed"] == [
        "Must be a list of 0 to 200 items, those that events recorded not counted; 201 others are in it. "
        "Got a list of 210 items."
    ]
