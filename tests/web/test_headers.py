"""What every answer carries: request ids, security headers, problems for every fault, a log without secrets."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from flask import Flask

from storage.errors import SchemaMismatch, StoreUnavailable, VersionConflict
from tests.web.conftest import Caller, StillClock

ASK = {"campaign_id": "c", "recipient_id": "u"}
CAP: dict[str, Any] = {"kind": "cap", "limit": 2, "window": {"rolling_hours": 168}}


# Request ids, headers, logs, errors that are ours


def test_every_answer_has_a_request_id_and_security_headers(ready: Caller, nobody: Caller) -> None:
    answers = [
        ready("GET", "/v1/campaigns"),
        ready("POST", "/v1/decisions", b"{"),
        nobody("GET", "/v1/campaigns"),
        nobody("GET", "/nowhere"),
        nobody("DELETE", "/healthz"),
        nobody("GET", "/docs"),
        nobody("GET", "/static/docs/docs.js"),
        nobody("GET", "/static/nowhere.js"),
    ]
    ids = [a.headers["X-Request-Id"] for a in answers]
    assert len(set(ids)) == len(ids)
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert [a.status_code for a in answers] == [200, 400, 401, 404, 405, 200, 200, 404]
    assert all(a.content_type == "application/problem+json" for a in answers if a.status_code >= 400)
    assert answers[4].headers["Allow"]


@pytest.mark.parametrize(("given", "kept"), [("abc-1._X", True), ("a b", False), ("x" * 129, False), ("é", False)])
def test_a_callers_request_id_is_kept_if_it_is_harmless(admin: Caller, given: str, kept: bool) -> None:
    reply = admin("GET", "/v1/campaigns/none", headers={"X-Request-Id": given})
    assert (reply.headers["X-Request-Id"] == given) is kept
    assert reply.get_json(force=True)["request_id"] == reply.headers["X-Request-Id"]


def test_the_access_log_names_the_route_and_the_key_but_no_secret_and_no_person(
    ready: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "sendtide.access"):
        ready("PUT", "/v1/recipients/someone@example.org", {}, headers={"X-Request-Id": "req-1"})
    (record,) = [r for r in caplog.records if r.name == "sendtide.access"]
    told = vars(record)
    assert told["route"] == "/v1/recipients/<path:recipient_id>"
    assert (told["method"], told["status"], told["request_id"], told["workspace"]) == ("PUT", 201, "req-1", "default")
    assert told["key"].startswith("key_")
    assert told["ms"] >= 0
    assert ready.secret is not None
    assert ready.secret not in str(told)
    assert "someone" not in str(told)


def _failing(app: Flask, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every read and write of the store raise."""
    store = app.extensions["sendtide"].get().store

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(type(store), "write", fail)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreUnavailable("disk full", 7), 503, "store_unavailable"),
        (SchemaMismatch("made by a newer version"), 503, "store_unavailable"),
        (VersionConflict("raced"), 409, "conflict"),
        (ZeroDivisionError("a bug"), 500, "internal"),
    ],
)
def test_errors_of_the_store_and_bugs_are_problems_too(
    ready: Caller,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    code: str,
) -> None:
    with monkeypatch.context() as broken:
        _failing(ready.app, error, broken)
        reply = ready("POST", "/v1/decisions", ASK)
    assert (reply.status_code, reply.get_json(force=True)["code"]) == (status, code)
    assert ("Retry-After" in reply.headers) is (status == 503)
    if isinstance(error, StoreUnavailable):
        assert reply.headers["Retry-After"] == "7"
    if status == 500:
        assert "a bug" not in reply.get_data(as_text=True)
        assert "ZeroDivisionError" in caplog.text
        assert reply.headers["X-Request-Id"] in caplog.text
    assert ready("GET", "/v1/decisions").get_json()["decisions"] == []


def test_recipient_ids_may_hold_slashes_and_other_scripts(ready: Caller) -> None:
    for recipient_id, path in [
        ("a/b==", "a%2Fb%3D%3D"),
        ("a//b", "a%2F%2Fb"),
        ("Ünï", "%C3%9Cn%C3%AF"),
        ("a+b c", "a+b%20c"),
    ]:
        assert ready("PUT", f"/v1/recipients/{path}", {}).get_json()["recipient_id"] == recipient_id
        assert ready("GET", f"/v1/recipients/{path}").get_json()["recipient_id"] == recipient_id


def test_the_clock_of_the_app_is_the_one_it_was_given(ready: Caller, clock: StillClock) -> None:
    clock.forward(days=3)
    assert ready("POST", "/v1/decisions", ASK).get_json()["decided_at"] == "2026-11-27T09:00:00Z"
