"""The manners of the API: keys, scopes, tenants, versions, cursors, idempotency, request ids, headers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import CAMPAIGN, NOW, Caller, key

ASK = {"campaign_id": "c", "recipient_id": "u"}
CAP: dict[str, Any] = {"kind": "cap", "limit": 2, "window": {"rolling_hours": 168}}


# Keys and scopes


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "Bearer \xe9"])
def test_without_a_known_key_it_is_401_with_a_challenge(ready: Caller, nobody: Caller, header: str | None) -> None:
    reply = nobody("POST", "/v1/decisions", ASK, headers={} if header is None else {"Authorization": header})
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert ready("GET", "/v1/decisions").get_json()["decisions"] == []


def test_a_revoked_key_ends_at_once(ready: Caller) -> None:
    made = ready("POST", "/v1/keys", {"name": "n", "scopes": ["read"]}).get_json()
    reader = Caller(ready.app, made["secret"])
    assert reader("GET", "/v1/campaigns").status_code == 200
    assert ready("DELETE", f"/v1/keys/{made['key_id']}").status_code == 204
    assert reader("GET", "/v1/campaigns").status_code == 401
    assert ready("DELETE", "/v1/keys/key_nope").status_code == 404


@pytest.mark.parametrize("name", [" ", "shop\nadmin", "shop\u202enimda", "\x85"])
def test_a_key_has_a_name_that_can_be_read_in_a_list(admin: Caller, name: str) -> None:
    refused = admin("POST", "/v1/keys", {"name": name, "scopes": ["read"]})
    assert refused.status_code == 422
    assert "all of them printable and not only spaces" in refused.get_json()["errors"]["name"][0]
    assert admin("POST", "/v1/keys", {"name": "Shop 漢 😀", "scopes": ["read"]}).status_code == 201


def test_a_secret_is_shown_once_and_never_listed(ready: Caller) -> None:
    made = ready("POST", "/v1/keys", {"name": "n", "scopes": ["read"]})
    listed = ready("GET", "/v1/keys").get_data(as_text=True)
    assert made.get_json()["key_id"] in listed
    assert made.get_json()["secret"] not in listed
    assert made.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("decide", {("POST", "/v1/decisions"), ("POST", "/v1/decisions/x/claim")}),
        ("feedback", {("POST", "/v1/events")}),
        ("read", {("GET", "/v1/campaigns"), ("GET", "/v1/decisions/x")}),
        (
            "admin",
            {("PUT", "/v1/workspace"), ("GET", "/v1/campaigns"), ("POST", "/v1/events"), ("POST", "/v1/decisions")},
        ),
    ],
)
def test_a_scope_opens_its_routes_and_no_other(ready: Caller, scope: str, allowed: set[tuple[str, str]]) -> None:
    caller = Caller(ready.app, key(ready.app, scope))
    routes = {
        ("POST", "/v1/decisions"),
        ("POST", "/v1/decisions/x/claim"),
        ("POST", "/v1/events"),
        ("GET", "/v1/campaigns"),
        ("GET", "/v1/decisions/x"),
        ("PUT", "/v1/workspace"),
    }
    for method, path in routes:
        status = caller(method, path, None if method == "GET" else {}).status_code
        if (method, path) in allowed:
            assert status not in (401, 403), (method, path)
        elif scope != "admin":
            assert status == 403, (method, path)


def test_overriding_rules_needs_admin(ready: Caller) -> None:
    caller = Caller(ready.app, key(ready.app, "decide"))
    asked = {**ASK, "override_rules": True}
    assert caller("POST", "/v1/decisions", asked).status_code == 403
    lines = b'{"campaign_id":"c","recipient_id":"u","override_rules":true}\n{"campaign_id":"c","recipient_id":"u"}'
    batch = caller("POST", "/v1/decisions/batch", lines, headers={"Content-Type": "application/x-ndjson"})
    assert b'"status":403' in batch.data.splitlines()[0]
    assert b'"decision_id"' in batch.data.splitlines()[1]
    assert ready("POST", "/v1/decisions", asked).status_code == 201


def test_a_key_sees_nothing_of_another_workspace(ready: Caller) -> None:
    decision = ready("POST", "/v1/decisions", {**ASK, "request_id": "r", "recipient": {"timezone": "UTC"}}).get_json()
    ready("PUT", "/v1/rules/cap", CAP)
    run = ready("POST", "/v1/training-runs").get_json()
    stranger = Caller(ready.app, key(ready.app, "admin", workspace="other"))
    at = f"/v1/decisions/{decision['decision_id']}"
    for method, path in [
        ("GET", at),
        ("POST", f"{at}/claim"),
        ("POST", f"{at}/confirm"),
        ("POST", f"{at}/release"),
        ("GET", "/v1/campaigns/c"),
        ("DELETE", "/v1/campaigns/c"),
        ("GET", "/v1/rules/cap"),
        ("DELETE", "/v1/rules/cap"),
        ("GET", "/v1/recipients/u"),
        ("GET", f"/v1/training-runs/{run['run_id']}"),
    ]:
        assert stranger(method, path).status_code == 404, (method, path)
    assert stranger("PATCH", "/v1/campaigns/c", {"priority": 1}).status_code == 404
    assert stranger("POST", "/v1/decisions", ASK).status_code == 422
    assert stranger("GET", "/v1/decisions").get_json()["decisions"] == []
    told = stranger("POST", "/v1/events", {"events": [_opened(decision["decision_id"])]}).get_json()
    assert told["unmatched"] == 1
    assert ready("GET", at).get_json()["status"] == "reserved"


def _opened(decision_id: str) -> dict[str, Any]:
    return {"event_id": "e", "decision_id": decision_id, "type": "opened", "occurred_at": "2026-11-24T09:00:00Z"}


# Versions


DOCUMENTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "campaign": ("/v1/campaigns/d", CAMPAIGN, {"priority": 70}),
    "rule": ("/v1/rules/d", CAP, {"limit": 5}),
    "gap": ("/v1/rules/g", {"kind": "gap", "minutes": 7}, {"minutes": 90.5}),
    "recipient": ("/v1/recipients/d", {"timezone": "Europe/Berlin"}, {"timezone": "Asia/Tokyo"}),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_etags_guard_against_lost_updates(admin: Caller, kind: str) -> None:
    path, document, patch = DOCUMENTS[kind]
    none = {"If-None-Match": "*"}
    assert admin("PUT", path, document, headers={"If-Match": '"1"'}).status_code == 412
    made = admin("PUT", path, document, headers=none)
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    assert admin("PUT", path, document, headers=none).status_code == 412
    changed = admin("PATCH", path, patch, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    for stale in ('"1"', 'W/"2"', '"x"', "2", '"1", "3"'):
        assert admin("PUT", path, document, headers={"If-Match": stale}).status_code == 412, stale
        assert admin("PATCH", path, patch, headers={"If-Match": stale}).status_code == 412, stale
    assert admin("GET", path).headers["ETag"] == '"2"'
    assert admin("PUT", path, document, headers={"If-Match": '"1", "2"'}).status_code == 200
    assert admin("PUT", path, {**document, **patch}, headers={"If-Match": "*"}).status_code == 200
    assert admin("DELETE", path, headers={"If-Match": '"1"'}).status_code == 412
    assert admin("GET", path).headers["ETag"] == '"4"'
    assert admin("DELETE", path, headers={"If-Match": '"4"'}).status_code == 204


def test_the_workspaces_switch_is_guarded_against_lost_updates_too(admin: Caller) -> None:
    path, read = "/v1/workspace", admin("GET", "/v1/workspace")
    assert read.headers["ETag"] == f'"{read.get_json()["version"]}"'
    assert admin("GET", path, headers={"If-None-Match": read.headers["ETag"]}).status_code == 304
    known = {"If-Match": read.headers["ETag"]}
    paused = admin("PUT", path, {"mode": "paused"}, headers=known)
    assert (paused.status_code, paused.headers["ETag"]) == (200, '"2"')
    assert admin("PUT", path, {"mode": "live"}, headers=known).status_code == 412
    assert admin("GET", path).get_json()["mode"] == "paused"


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_read_of_the_known_version_is_304(admin: Caller, kind: str) -> None:
    path, document, patch = DOCUMENTS[kind]
    admin("PUT", path, document)
    same = admin("GET", path, headers={"If-None-Match": 'W/"1"'})
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", '"1"')
    admin("PATCH", path, patch)
    assert admin("GET", path, headers={"If-None-Match": '"1"'}).status_code == 200


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_read_can_be_put_back(admin: Caller, kind: str) -> None:
    path, document, _ = DOCUMENTS[kind]
    admin("PUT", path, document)
    read = admin("GET", path).get_json()
    again = admin("PUT", path, read)
    assert again.status_code == 200, again.get_data(as_text=True)
    changing = {"version", "updated_at"}
    assert {k: v for k, v in again.get_json().items() if k not in changing} == {
        k: v for k, v in read.items() if k not in changing
    }


def test_a_refusal_that_an_event_recorded_can_be_put_back_however_long_the_events_id(admin: Caller) -> None:
    left = {"event_id": "e" * 256, "recipient_id": "ada", "type": "unsubscribed", "occurred_at": NOW.isoformat()}
    assert admin("POST", "/v1/events", {"events": [left]}).get_json()["accepted"] == 1
    read = admin("GET", "/v1/recipients/ada").get_json()
    assert [one["source"] for one in read["suppressed"]] == ["event:unsubscribed:" + "e" * 256]
    assert admin("PUT", "/v1/recipients/ada", read).status_code == 200
    assert admin("PATCH", "/v1/recipients/ada", {"attributes": {"x": 1}}).status_code == 200
    rows = {"recipients": [{**read, "recipient_id": "ada"}]}
    assert admin("POST", "/v1/recipients/batch", rows).get_json()["stored"] == 1
    longer = {"suppressed": [{**read["suppressed"][0], "source": "x" * 520}]}
    assert admin("PUT", "/v1/recipients/ada", longer).status_code == 422


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_patch_changes_what_it_names_and_is_checked_like_a_put(admin: Caller, kind: str) -> None:
    path, document, patch = DOCUMENTS[kind]
    assert admin("PATCH", path, patch).status_code == 404
    admin("PUT", path, document)
    before = admin("GET", path).get_json()
    refused = admin("PATCH", path, {"surprise": 1})
    assert refused.status_code == 422
    merge = {"Content-Type": "application/merge-patch+json"}
    after = admin("PATCH", path, patch, headers=merge).get_json()
    assert {k for k in after if after[k] != before[k]} <= {*patch, "version", "updated_at"}
    assert all(after[name] == value for name, value in patch.items())


def test_a_patch_with_null_returns_a_field_to_its_default(admin: Caller) -> None:
    admin("PUT", "/v1/campaigns/d", {**CAMPAIGN, "priority": 70})
    assert admin("PATCH", "/v1/campaigns/d", {"priority": None}).get_json()["priority"] == 50


def test_what_a_rule_counts_follows_what_it_binds_unless_told_otherwise(admin: Caller) -> None:
    admin("PUT", "/v1/rules/d", {**CAP, "applies_to": {"channels": ["email"]}})
    patched = admin("PATCH", "/v1/rules/d", {"applies_to": {"channels": ["sms"]}}).get_json()
    assert patched["counts"] == {"channels": ["sms"]}
    admin("PATCH", "/v1/rules/d", {"counts": {"channels": ["push"]}})
    patched = admin("PATCH", "/v1/rules/d", {"applies_to": {"channels": ["email"]}}).get_json()
    assert patched["counts"] == {"channels": ["push"]}


def test_a_variant_left_out_is_archived_and_an_archived_campaign_answers_nothing(ready: Caller) -> None:
    ready("PUT", "/v1/campaigns/c", {**CAMPAIGN, "variants": [{"id": "b"}]})
    shown = {v["id"]: v["status"] for v in ready("GET", "/v1/campaigns/c").get_json()["variants"]}
    assert shown == {"a": "archived", "b": "active"}
    assert ready("DELETE", "/v1/campaigns/c").status_code == 204
    assert ready("DELETE", "/v1/campaigns/c").status_code == 204
    assert ready("POST", "/v1/decisions", ASK).status_code == 422
    assert ready("GET", "/v1/campaigns/c").get_json()["status"] == "archived"


# Lists


@pytest.mark.parametrize(
    ("plural", "name", "make"),
    [
        ("campaigns", "campaign_id", lambda c, i: c("PUT", f"/v1/campaigns/x{i}", CAMPAIGN)),
        ("rules", "rule_id", lambda c, i: c("PUT", f"/v1/rules/x{i}", CAP)),
        ("attributes", "name", lambda c, i: c("PUT", f"/v1/attributes/x{i}", {"type": "number"})),
        ("keys", "key_id", lambda c, i: c("POST", "/v1/keys", {"name": f"x{i}", "scopes": ["read"]})),
        ("decisions", "decision_id", lambda c, i: c("POST", "/v1/decisions", {**ASK, "recipient_id": f"x{i}"})),
        ("training-runs", "run_id", lambda c, _: c("POST", "/v1/training-runs")),
    ],
)
def test_pages_hold_every_item_once(ready: Caller, plural: str, name: str, make: Any) -> None:
    for i in range(5):
        assert make(ready, i).status_code in (200, 201, 202)
    member = plural.replace("-", "_")
    whole = [one[name] for one in ready("GET", f"/v1/{plural}?limit=500").get_json()[member]]
    paged: list[str] = []
    cursor: str | None = None
    for _ in range(20):
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = ready("GET", f"/v1/{plural}", query_string=query).get_json()
        assert len(page[member]) <= 2
        paged += [one[name] for one in page[member]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert paged == whole
    assert len(set(paged)) == len(paged) >= 5


def test_the_list_of_attributes_says_that_it_is_full_and_takes_up_declared_ones(ready: Caller) -> None:
    def listed() -> tuple[bool, bool]:
        page = ready("GET", "/v1/attributes?limit=1").get_json()
        return page["full"], any(one["name"] == "a" for one in page["attributes"])

    assert listed() == (False, False)
    rows = [{"recipient_id": f"u{i}", "attributes": {f"b{i}_{j}": j for j in range(200)}} for i in range(10)]
    assert ready("POST", "/v1/recipients/batch", {"recipients": rows}).get_json()["stored"] == 10
    assert ready("POST", "/v1/decisions", {**ASK, "context": {"a": 1}}).status_code == 201
    assert listed() == (True, False)
    assert ready("PUT", "/v1/attributes/a", {"type": "number"}).status_code == 200
    assert listed() == (True, True)


def test_decisions_are_listed_by_campaign_recipient_and_status(ready: Caller) -> None:
    ready("POST", "/v1/decisions", {**ASK, "recipient_id": "one"})
    two = ready("POST", "/v1/decisions", {**ASK, "recipient_id": "two"}).get_json()
    ready("POST", f"/v1/decisions/{two['decision_id']}/release", {"reason": "stock"})

    def listed(query: str) -> list[str]:
        return [d["recipient_id"] for d in ready("GET", f"/v1/decisions?{query}").get_json()["decisions"]]

    assert listed("recipient_id=one") == ["one"]
    assert listed("status=released&campaign_id=c") == ["two"]
    assert listed("campaign_id=other") == []


# Idempotency


def test_the_same_request_id_answers_the_same_with_200_and_the_current_status(ready: Caller) -> None:
    first = ready("POST", "/v1/decisions", {**ASK, "request_id": "r"})
    assert first.status_code == 201
    ready("POST", f"/v1/decisions/{first.get_json()['decision_id']}/claim")
    second = ready("POST", "/v1/decisions", {**ASK, "request_id": "r"})
    assert second.status_code == 200
    assert second.get_json() == {**first.get_json(), "status": "claimed"}
    assert len(ready("GET", "/v1/decisions").get_json()["decisions"]) == 1


def test_the_idempotency_key_is_the_request_id_in_a_header(ready: Caller) -> None:
    first = ready("POST", "/v1/decisions", ASK, headers={"Idempotency-Key": "r"})
    assert (first.status_code, first.get_json()["request_id"]) == (201, "r")
    assert ready("POST", "/v1/decisions", {**ASK, "request_id": "r"}).status_code == 200
    both = ready("POST", "/v1/decisions", {**ASK, "request_id": "r"}, headers={"Idempotency-Key": "r"})
    assert both.status_code == 200
    other = ready("POST", "/v1/decisions", {**ASK, "request_id": "r"}, headers={"Idempotency-Key": "s"})
    assert other.status_code == 422
    assert "request_id" in other.get_json(force=True)["errors"]
    long = ready("POST", "/v1/decisions", ASK, headers={"Idempotency-Key": "r" * 300})
    assert long.status_code == 422


def test_a_batch_with_the_same_key_answers_the_same(ready: Caller) -> None:
    batch = {"campaign_id": "c", "recipients": [{"recipient_id": f"u{i}"} for i in range(3)]}
    key_header = {"Idempotency-Key": "run-1"}
    first = ready("POST", "/v1/decisions/batch", batch, headers=key_header).get_json()
    assert ready("POST", "/v1/decisions/batch", batch, headers=key_header).get_json() == first
    assert len(ready("GET", "/v1/decisions").get_json()["decisions"]) == 3
    ready("POST", "/v1/decisions/batch", batch)
    assert len(ready("GET", "/v1/decisions").get_json()["decisions"]) == 6


def test_a_training_run_is_queued_once_for_a_key(ready: Caller) -> None:
    header = {"Idempotency-Key": "k"}
    first = ready("POST", "/v1/training-runs", {"campaign_id": "c"}, headers=header)
    assert first.status_code == 202
    assert ready("POST", "/v1/training-runs", {"campaign_id": "c"}, headers=header).get_json() == first.get_json()
    assert ready("POST", "/v1/training-runs", {}, headers=header).status_code == 409
    assert ready("GET", first.headers["Location"]).get_json() == first.get_json()
