"""Webhook endpoints over HTTP: set up, read, deleted; secrets are shown once; hidden addresses are refused."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from tests.web.conftest import NOW, Caller, key

PATH = "/v1/webhook-endpoints/sender"
BODY: dict[str, Any] = {"url": "https://sender.example.com/hook"}
SECRET = "whsec_" + "QUJD" * 10


def test_a_new_endpoint_has_a_secret_that_is_shown_this_once(admin: Caller) -> None:
    made = admin("PUT", PATH, BODY)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    told = made.get_json()
    assert told.pop("secret").startswith("whsec_")
    assert told["events"] == [
        "decision.revoked",
        "decision.displaced",
        "decision.expired",
        "policy.promoted",
        "policy.rolled_back",
    ]
    assert told["delivery"] == {
        "position": 0,
        "behind": 0,
        "delivered": 0,
        "failures": 0,
        "failing_since": None,
        "next_attempt_at": None,
        "last_attempt_at": None,
        "last_status": None,
        "last_error": None,
        "stopped": None,
    }
    assert admin("GET", PATH).get_json() == told
    assert admin("GET", "/v1/webhook-endpoints").get_json() == {"endpoints": [told], "cursor": None}
    again = admin("PUT", PATH, {**BODY, "events": ["policy.promoted"], "secrets": [SECRET]})
    assert (again.status_code, again.get_json()["secret"]) == (200, None)
    assert SECRET not in again.get_data(as_text=True)
    assert (again.get_json()["events"], again.get_json()["secrets"]) == (["policy.promoted"], 1)


def test_a_deleted_endpoint_is_gone(admin: Caller) -> None:
    admin("PUT", PATH, BODY)
    assert admin("DELETE", PATH).status_code == 204
    assert [admin(method, PATH).status_code for method in ("GET", "DELETE")] == [404, 404]


def test_the_state_of_delivery_shows_in_the_route_and_in_the_metrics(ready: Caller, nobody: Caller) -> None:
    ready("PUT", PATH, BODY)
    asked = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u1"}).get_json()
    event = {"event_id": "e", "type": "unsubscribed", "recipient_id": "u1", "occurred_at": NOW.isoformat()}
    ready("POST", "/v1/events", {"events": [event]})
    (entry,) = ready("GET", "/v1/changes").get_json()["changes"]
    assert (entry["kind"], entry["decision_id"]) == ("revoked", asked["decision_id"])
    assert ready("GET", PATH).get_json()["delivery"]["behind"] == 1
    text = nobody("GET", "/metrics").get_data(as_text=True)
    labels = '{endpoint="sender",workspace="default"}'
    assert f"sendtide_webhook_behind{labels} 1.0" in text
    assert f"sendtide_webhook_delivered_total{labels} 0.0" in text
    assert f"sendtide_webhook_failures{labels} 0.0" in text
    assert f"sendtide_webhook_stopped{labels} 0.0" in text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://sender.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url"),
        ({"url": 7}, "url"),
        ({"events": []}, "events"),
        ({"events": ["displaced"]}, "events.0"),
        ({"secrets": ["short"]}, "secrets"),
        ({"secrets": [SECRET, SECRET]}, "secrets"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_not_allowed_is_422_and_names_the_field(admin: Caller, change: dict[str, Any], field: str) -> None:
    answer = admin("PUT", PATH, {**BODY, **change})
    assert answer.status_code == 422
    assert field in answer.get_json()["errors"]
    assert admin("GET", PATH).status_code == 404


def test_a_workspace_has_only_so_many(admin: Caller) -> None:
    answers = [admin("PUT", f"{PATH}{n}", BODY).status_code for n in range(51)]
    assert answers == [201] * 50 + [422]
    assert admin("PUT", f"{PATH}0", BODY).status_code == 200


def test_the_list_comes_in_pages(admin: Caller) -> None:
    for name in ("b", "a", "c"):
        assert admin("PUT", f"/v1/webhook-endpoints/{name}", BODY).status_code == 201
    found, cursor = [], ""
    for _ in range(3):
        page = admin("GET", f"/v1/webhook-endpoints?limit=1{cursor}").get_json()
        found += [one["endpoint_id"] for one in page["endpoints"]]
        cursor = f"&cursor={page['cursor']}"
    assert (found, page["cursor"]) == (["a", "b", "c"], None)


@pytest.mark.parametrize("scopes", [("decide", "feedback"), ("read",)])
def test_only_admins_see_or_change_endpoints_and_no_other_workspace_does(
    admin: Caller, app: Flask, scopes: tuple[str, ...]
) -> None:
    admin("PUT", PATH, BODY)
    caller = Caller(app, key(app, *scopes))
    assert {
        caller(method, PATH, BODY if method == "PUT" else None).status_code for method in ("GET", "PUT", "DELETE")
    } == {403}
    other = Caller(app, key(app, "admin", workspace="other"))
    assert other("GET", PATH).status_code == 404
    assert other("GET", "/v1/webhook-endpoints").get_json() == {"endpoints": [], "cursor": None}
    assert other("DELETE", PATH).status_code == 404
    assert admin("GET", PATH).status_code == 200
