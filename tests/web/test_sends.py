"""Messages of other systems, as callers report them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import CAMPAIGN, Caller

ASK = {"campaign_id": "c", "recipient_id": "u"}
CAP: dict[str, Any] = {"kind": "cap", "limit": 1, "window": {"rolling_hours": 168}}
SEND = {"id": "s", "recipient_id": "u", "channel": "email", "category": "news", "sent_at": "2026-11-24T08:00:00Z"}


def test_a_send_of_another_system_counts_once_and_against_the_cap(ready: Caller) -> None:
    ready("PUT", "/v1/rules/cap", CAP)
    first, second = ready("POST", "/v1/sends", SEND), ready("POST", "/v1/sends", SEND)
    assert (first.status_code, first.get_json()["counted"]) == (201, True)
    assert (second.status_code, second.get_json()["counted"]) == (200, False)
    assert ready("POST", "/v1/decisions", ASK).get_json()["status"] == "withheld"
    far = ready("POST", "/v1/sends", {**SEND, "id": "t", "sent_at": "2099-01-01T00:00:00Z"})
    assert far.status_code == 422


def test_a_budget_counts_a_send_of_a_campaign_at_what_that_campaign_says_it_costs(ready: Caller) -> None:
    dear = {**CAMPAIGN, "variants": [{"id": "a", "cost": 0.3}, {"id": "b", "cost": 0.2}]}
    dear |= {"channels": [{"id": "email", "cost": 0.1}]}
    assert ready("PUT", "/v1/campaigns/dear", dear).status_code == 201
    budget = {"kind": "budget", "amount": 1.0, "per": "month", "timezone": "UTC"}
    assert ready("PUT", "/v1/rules/budget", budget).status_code == 201
    mine = {**SEND, "campaign_id": "dear", "variant_id": "a"}
    for name, known in (("free", {"campaign_id": None}), ("one", {}), ("two", {}), ("channel", {"variant_id": None})):
        assert ready("POST", "/v1/sends", {**mine, "id": name, **known}).status_code == 201
    ask = {"campaign_id": "dear", "recipient_id": "someone else"}
    assert ready("POST", "/v1/decisions", ask).get_json()["status"] == "withheld", "0.90 is spent, and b costs 0.30"
    assert ready("PUT", "/v1/rules/budget", {**budget, "amount": 1.2, "version": 2}).status_code == 200
    told = ready("POST", "/v1/decisions", ask).get_json()
    assert (told["status"], told["action"]["variant_id"]) == ("reserved", "b"), "0.90 and 0.30 are 1.20"
    cheaper = {**dear, "channels": [{"id": "email", "cost": 0.05}], "version": 2}
    assert ready("PUT", "/v1/campaigns/dear", cheaper).status_code == 200
    assert ready("POST", "/v1/sends", {**mine, "id": "one"}).status_code == 200, "the same one, at the price of then"


def test_the_same_id_told_otherwise_is_a_conflict_that_says_in_what(ready: Caller) -> None:
    ready("POST", "/v1/sends", SEND)
    same = ready("POST", "/v1/sends", {**SEND, "sent_at": "2026-11-24T09:00:00+01:00"})
    assert (same.status_code, same.get_json()["counted"]) == (200, False)
    changes = {"channel": "sms", "sent_at": "2026-11-24T08:00:01Z", "category": "x", "variant_id": "a"}
    for field, value in changes.items():
        other = ready("POST", "/v1/sends", {**SEND, field: value})
        assert (other.status_code, other.get_json()["code"]) == (409, "id_reused")
        assert list(other.get_json()["errors"]) == [field]
    assert ready("POST", "/v1/sends", {**SEND, "recipient_id": "u2"}).status_code == 201


def test_a_send_that_names_a_decision_is_that_decisions_message_whenever_it_went_out(ready: Caller) -> None:
    decision = ready("POST", "/v1/decisions", ASK).get_json()
    told = ready("POST", "/v1/sends", {**SEND, "id": decision["decision_id"], "channel": "email"})
    assert (told.status_code, told.get_json()["counted"]) == (200, False)
    sent_at = ready("GET", f"/v1/decisions/{decision['decision_id']}").get_json()["sent_at"]
    assert sent_at == decision["decided_at"], "not an hour before, where caps of the last hour don't look"


@pytest.mark.parametrize("ended", [False, True])
def test_a_send_that_names_a_decision_confirms_it_before_and_after_its_end(ready: Caller, ended: bool) -> None:
    ready("PUT", "/v1/rules/cap", CAP)
    path = f"/v1/decisions/{ready('POST', '/v1/decisions', ASK).get_json()['decision_id']}"
    if ended:
        assert ready("POST", f"{path}/release", {}).status_code == 200
    sent = {**SEND, "id": path.rpartition("/")[2], "sent_at": "2026-11-24T09:00:00Z"}
    told = ready("POST", "/v1/sends", sent)
    assert (told.status_code, told.get_json()["counted"]) == ((201, True) if ended else (200, False))
    assert ready("POST", f"{path}/release", {}).status_code == 409, "it is out"
    record = ready("GET", path).get_json()
    assert (record["status"], record["sent_at"]) == ("sent", "2026-11-24T09:00:00Z")
    assert ready("POST", "/v1/decisions", ASK).get_json()["status"] == "withheld"
    again = ready("POST", "/v1/sends", sent)
    assert (again.status_code, again.get_json()["counted"]) == (200, False)


def test_a_send_that_names_a_decision_cannot_lie_ahead(ready: Caller) -> None:
    name = ready("POST", "/v1/decisions", ASK).get_json()["decision_id"]
    told = ready("POST", "/v1/sends", {**SEND, "id": name, "sent_at": "2026-12-24T08:00:00Z"})
    assert told.status_code == 422
    assert "is in the future; allowed: up to" in told.get_json()["errors"]["sent_at"][0]


def test_a_send_on_a_channel_of_consents_in_another_spelling_is_refused(ready: Caller) -> None:
    reply = ready("POST", "/v1/sends", {**SEND, "channel": "Sms"})
    assert reply.status_code == 422
    assert reply.get_json()["errors"]["channel"][0].startswith("Must be spelled 'sms'")
    assert ready("POST", "/v1/sends", {**SEND, "channel": "In-App"}).status_code == 201, "any other name is a channel"
