"""A person's rights over HTTP: to see everything that is stored, and to be erased."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask import Flask

from tests.web.conftest import CAMPAIGN, Caller, key

PATH = "/v1/recipients/anna%2Fthe first"
NAME = "anna/the first"


def known(admin: Caller) -> str:
    """Someone who was asked about and told of; the decision's id."""
    admin("PUT", "/v1/campaigns/spring", CAMPAIGN)
    admin("PUT", PATH, {"attributes": {"mail": "anna@example.org"}})
    admin(
        "POST",
        "/v1/events",
        {"events": [{"type": "visited", "occurred_at": "2026-11-24T08:00:00Z", "recipient_id": NAME}]},
    )
    answer = admin("POST", "/v1/decisions", {"campaign_id": "spring", "recipient_id": NAME}).get_json()
    return str(answer["decision_id"])


@pytest.mark.parametrize("written", ["a%2Fexport", "a%2fexport", "a%2Fexpor%74"])
def test_a_recipient_whose_id_ends_like_the_export_is_read_and_the_other_not_exported(
    app: Flask, admin: Caller, written: str
) -> None:
    admin("PUT", "/v1/recipients/a", {"attributes": {"secret": 1}})
    assert admin("PUT", f"/v1/recipients/{written}", {"attributes": {"mine": 2}}).status_code == 201
    read = Caller(app, key(app, "read"))("GET", f"/v1/recipients/{written}?")
    assert (read.status_code, read.get_json()["attributes"]) == (200, {"mine": 2})
    for of, attributes in (("a", {"secret": 1}), (written, {"mine": 2})):
        export = admin("GET", f"/v1/recipients/{of}/export")
        assert export.get_json()["recipient"]["attributes"] == attributes
        assert admin("GET", f"/v1/recipients/{of}/%65xport").get_json()["recipient"]["attributes"] == attributes
    assert admin("GET", "/v1/recipients/none%2Fexport").status_code == 404
    unescaped = admin("GET", "/v1/recipients/a%2Fexport", environ_overrides={"RAW_URI": ""})
    assert unescaped.get_json()["recipient"]["attributes"] == {"secret": 1}


def test_the_export_holds_every_record_of_the_person(admin: Caller) -> None:
    decision = known(admin)
    answer = admin("GET", f"{PATH}/export")
    assert answer.status_code == 200
    assert answer.get_json()["recipient"]["attributes"] == {"mail": "anna@example.org"}
    assert [one["decision_id"] for one in answer.get_json()["decisions"]] == [decision]
    assert [one["type"] for one in answer.get_json()["events"]] == ["visited"]
    assert answer.get_json()["messages"] == []


def test_after_an_erasure_there_is_nothing_to_see(admin: Caller) -> None:
    decision = known(admin)
    assert admin("DELETE", PATH).status_code == 204
    for path in (PATH, f"{PATH}/export"):
        assert admin("GET", path).status_code == 404
    record = admin("GET", f"/v1/decisions/{decision}").get_json()
    assert record["snapshot"]["erased"] is True
    assert record["recipient_id"].startswith("erased_")
    assert (record["status"], record["close_reason"]) == ("revoked", "erased")
    assert admin("DELETE", PATH).status_code == 204
    assert admin("DELETE", "/v1/recipients/nobody").status_code == 404


def test_the_erased_are_named_to_whoever_brings_them_up(admin: Caller) -> None:
    known(admin)
    admin("DELETE", PATH)
    asked = admin("POST", "/v1/decisions", {"campaign_id": "spring", "recipient_id": NAME})
    assert (asked.status_code, asked.get_json()["code"]) == (422, "erased")
    send = {"id": "m", "recipient_id": NAME, "channel": "email", "sent_at": "2026-11-24T08:00:00Z"}
    assert admin("POST", "/v1/sends", send).get_json()["code"] == "erased"
    bought = {"type": "converted", "occurred_at": "2026-11-24T08:00:00Z", "recipient_id": NAME}
    told = admin("POST", "/v1/events", {"events": [bought]})
    assert (told.status_code, told.get_json()["accepted"]) == (202, 0)
    assert [one["code"] for one in told.get_json()["rejected"]] == ["erased"]
    assert admin("PUT", PATH, {"attributes": {}}).status_code == 201
    assert admin("POST", "/v1/decisions", {"campaign_id": "spring", "recipient_id": NAME}).status_code == 201


@pytest.mark.parametrize("name", ["/home/u1", "/", "//", "/export", "/a/export", "a/", "batch/"])
def test_whoever_can_be_stored_can_be_read_changed_exported_and_erased(admin: Caller, name: str) -> None:
    path = f"/v1/recipients/{quote(name, safe='')}"
    rows = [{"recipient_id": one, "attributes": {"mine": one}} for one in (name, "a", "home/u1")]
    assert admin("POST", "/v1/recipients/batch", {"recipients": rows}).get_json()["stored"] == 3
    raw = {"environ_overrides": {"RAW_URI": path}}
    assert admin("GET", path, **raw).get_json()["attributes"] == {"mine": name}
    assert admin("PATCH", path, {"attributes": {"more": 1}}).get_json()["attributes"] == {"mine": name, "more": 1}
    assert admin("GET", f"{path}/export").get_json()["recipient"]["recipient_id"] == name
    assert admin("DELETE", path).status_code == 204
    assert admin("GET", path, **raw).status_code == 404
    assert admin("GET", "/v1/recipients/a").get_json()["attributes"] == {"mine": "a"}
    assert admin("GET", "/v1/recipients/home/u1").get_json()["attributes"] == {"mine": "home/u1"}


@pytest.mark.parametrize(("path", "status"), [("/v1/recipients/", 404), ("/v1/recipients/a%0Ab", 422)])
def test_what_is_no_id_addresses_nobody(admin: Caller, path: str, status: int) -> None:
    assert admin("DELETE", path).status_code == status


def test_only_an_admin_sees_and_erases(app: Flask, admin: Caller) -> None:
    known(admin)
    reader = Caller(app, key(app, "read", "decide", "feedback"))
    assert reader("GET", f"{PATH}/export").status_code == 403
    assert reader("DELETE", PATH).status_code == 403
