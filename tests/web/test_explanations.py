"""Explanations over HTTP."""

from __future__ import annotations

from flask import Flask

from tests.web.conftest import Caller, key


def test_a_decision_is_explained(ready: Caller) -> None:
    decided = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ü"}).get_json()
    found = ready("GET", f"/v1/decisions/{decided['decision_id']}/explanation").get_json()
    assert (found["kind"], found["recipient_id"], found["propensity"]) == ("cold_start", "ü", decided["propensity"])
    assert found["chosen"]["send_at"] == decided["action"]["send_at"]
    assert found["sentence"].startswith("Nothing has been learned yet")


def test_an_explanation_needs_a_decision_of_this_workspace_and_the_scope(ready: Caller, app: Flask) -> None:
    decided = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u"}).get_json()
    path = f"/v1/decisions/{decided['decision_id']}/explanation"
    assert ready("GET", "/v1/decisions/dec_none/explanation").status_code == 404
    assert Caller(app, key(app, "read", workspace="other"))("GET", path).status_code == 404
    assert Caller(app, key(app, "decide"))("GET", path).status_code == 403
    assert Caller(app, None)("GET", path).status_code == 401
    assert ready("GET", f"{path}?deep=1").status_code == 422
