"""Reports over HTTP."""

from __future__ import annotations

from dataclasses import replace

from flask import Flask

from optimizer.service import setup
from optimizer.web.schemas.cards import InsightsOut
from tests.service.trained import publish_model
from tests.web.conftest import Caller, StillClock, key
from tests.web.test_learning import POLICY


def test_a_report_says_what_a_campaign_decided_and_what_is_open(ready: Caller, clock: StillClock) -> None:
    for number in range(3):
        asked = {"campaign_id": "c", "recipient_id": f"u{number}"}
        assert ready("POST", "/v1/decisions", asked).status_code == 201
    found = ready("GET", "/v1/campaigns/c/report").get_json()
    assert (found["campaign_id"], found["as_of"], found["level"]) == ("c", "2026-11-24T00:00:00Z", 0.95)
    assert (found["decisions"]["total"], found["decisions"]["windows_open"], found["lifts"]) == (3, 3, [])
    (treated,) = found["groups"]
    assert (treated["group"], treated["recipients"], treated["value"]["estimate"]) == ("treated", 3, None)
    clock.forward(days=6)
    later = ready("GET", "/v1/campaigns/c/report").get_json()
    assert (later["decisions"]["compared"], later["groups"][0]["value"]["estimate"]) == (3, 0.0)
    assert later["summary"]
    none = ready("GET", "/v1/campaigns/c/report?since=2026-11-25T00:00:00%2B01:00").get_json()
    assert (none["decisions"]["total"], none["since"]) == (0, "2026-11-24T23:00:00Z")


def test_a_report_needs_a_campaign_of_this_workspace_a_period_and_the_scope(ready: Caller, app: Flask) -> None:
    path = "/v1/campaigns/c/report"
    assert ready("GET", "/v1/campaigns/none/report").status_code == 404
    assert Caller(app, key(app, "read", workspace="other"))("GET", path).status_code == 404
    assert Caller(app, key(app, "decide", "feedback"))("GET", path).status_code == 403
    assert Caller(app, None)("GET", path).status_code == 401
    for query in (
        "since=yesterday",
        "since=2026-13-01",
        "since=2026-11-24T00:00:00",
        "until=%00",
        "from=2026-11-24T00:00:00Z",
    ):
        assert ready("GET", f"{path}?{query}").status_code == 422, query
    assert ready("GET", f"{path}?since=2026-11-24").get_json()["since"] == "2026-11-24T00:00:00Z"
    turned = ready("GET", f"{path}?since=2026-11-24T00:00:00Z&until=2026-11-23T00:00:00Z")
    assert turned.status_code == 422
    assert "query.until" in turned.get_json()["errors"]


def test_cards_and_insights_need_something_of_this_workspace_and_the_scope(ready: Caller, app: Flask) -> None:
    store = app.extensions["sendtide"].get().store
    store.write(lambda writer: writer.add_policy(POLICY))
    assert ready("POST", "/v1/policies/pol_1/promote").status_code == 200
    found = ready("GET", "/v1/policies/pol_1/card").get_json()
    assert (found["model"], found["verdict"]) == (None, POLICY.verdict)
    (move,) = found["moves"]
    assert (move["kind"], move["by"].startswith("key key_")) == ("promoted", True)
    assert ready("GET", "/v1/policies/pol_none/card").status_code == 404
    nothing = ready("GET", "/v1/campaigns/c/insights")
    assert (nothing.status_code, nothing.get_json()["code"]) == (409, "no_model")
    assert ready("GET", "/v1/campaigns/none/insights").status_code == 404
    for path in ("/v1/policies/pol_1/card", "/v1/campaigns/c/insights"):
        assert Caller(app, key(app, "read", workspace="other"))("GET", path).status_code == 404
        assert Caller(app, key(app, "decide"))("GET", path).status_code == 403


def test_insights_answer_as_documented(ready: Caller, app: Flask, clock: StillClock) -> None:
    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        campaign = reader.campaign("default", "c")
    prices = [replace(one, features={"price": 10.0 * place}) for place, one in enumerate(campaign.variants, 1)]
    made, _ = setup.put_campaign(services, replace(campaign, variants=tuple(prices)))
    publish_model(services, made, n=800)
    for number in range(20):
        assert ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": f"u{number}"}).status_code == 201
    clock.forward(days=6)
    found = ready("GET", "/v1/campaigns/c/insights").get_json()
    assert InsightsOut().validate(found) == {}
    assert found["insights"]
    for one in found["insights"]:
        assert one["features"] == ["price ≥ 20"]
        assert one["observed_with"]["messages"] + one["observed_without"]["messages"] == found["averaged_over"] > 0
