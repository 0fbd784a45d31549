"""The Segment tracking API as Segment's own Python SDK speaks it, against a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import segment.analytics as analytics
from flask import Flask
from segment.analytics.client import Client
from werkzeug.serving import WSGIRequestHandler, make_server

from optimizer.bandit.rewards import outcomes, reward
from optimizer.model.history import read
from tests.web.conftest import Caller, StillClock, key

SHOP: dict[str, Any] = {
    "variants": [{"id": "a"}],
    "channels": ["email"],
    "groups": {"holdout": 0, "random": 0, "baseline": 0},
    "allow_no_send": False,
    "objective": {"converted": {"per_value": 1.0}},
    "event_mapping": {"Order Completed": {"outcome": "converted", "value": "revenue"}},
}


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def host(app: Flask) -> Iterator[str]:
    """What the SDK's ``host`` is set to."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/segment"
    server.shutdown()
    thread.join()
    server.server_close()


class Sdk:
    """A client of the SDK that fails the test on any upload that is refused."""

    def __init__(self, secret: str, host: str, **options: Any) -> None:
        self.faults: list[Exception] = []
        self.client = Client(secret, host=host, on_error=self._failed, max_retries=0, **options)

    def _failed(self, fault: Exception, _: Any) -> None:
        self.faults.append(fault)

    def done(self) -> list[Exception]:
        """Sends what is queued; what failed."""
        self.client.shutdown()
        return self.faults


def worth(app: Flask, decision_id: str) -> float:
    """The reward of a decision of the campaign ``shop`` as it is known now."""
    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        campaign = reader.campaign("default", "shop")
        decision = reader.decision("default", decision_id)
        known = outcomes(campaign, decision, reader.events("default", decision), services.clock())
    return reward(campaign, decision, known)


@pytest.mark.parametrize("gzip", [False, True])
def test_every_call_of_the_sdk_is_taken(ready: Caller, app: Flask, host: str, gzip: bool) -> None:
    sdk = Sdk(key(app, "feedback"), host, gzip=gzip)
    context = {"timezone": "Europe/Berlin", "locale": "de-DE"}
    traits = {"plan": "pro", "email": "u1@example.org", "address": {"city": "Köln"}}
    sdk.client.identify("u1", traits, context=context)
    sdk.client.track("u1", "Product Viewed", {"category": "shoes"})
    sdk.client.page("u1", "Docs", "Home", {"url": "https://example.org/"})
    sdk.client.screen("u1", "App", "Start")
    sdk.client.group("u1", "g1", {"name": "ACME", "employees": 12})
    sdk.client.alias("anon-1", "u1")
    assert sdk.done() == []

    person = ready("GET", "/v1/recipients/u1").get_json()
    assert person["timezone"] == "Europe/Berlin"
    assert person["attributes"] == {
        "plan": "pro",
        "email": "u1@example.org",
        "address.city": "Köln",
        "locale": "de-DE",
        "group_id": "g1",
        "group.name": "ACME",
        "group.employees": 12,
    }
    registry = {a["name"]: a for a in ready("GET", "/v1/attributes").get_json()["attributes"]}
    assert [name for name, one in registry.items() if not one["use_in_model"]] == ["email"]

    decision = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u1"}).get_json()
    record = ready("GET", f"/v1/decisions/{decision['decision_id']}").get_json()
    happened = [(event.kind, event.subject) for event in read(record["snapshot"]["context"])]
    assert sorted(happened) == [("Product Viewed", "shoes"), ("page", "Docs"), ("screen", "App")]


def test_a_purchase_tracked_by_the_sdk_is_the_worth_of_the_decision(
    admin: Caller, app: Flask, host: str, clock: StillClock
) -> None:
    admin("PUT", "/v1/campaigns/shop", SHOP)
    asked = {"campaign_id": "shop", "recipient_id": "u1", "immediate": True}
    decision = admin("POST", "/v1/decisions", asked).get_json()
    assert decision["status"] == "reserved"
    clock.forward(hours=2)
    sdk = Sdk(key(app, "feedback"), host)
    sdk.client.track("u1", "Order Completed", {"order_id": "o1", "revenue": 39.5, "products": [{"sku": "x"}]})
    assert sdk.done() == []

    assert worth(app, decision["decision_id"]) == 39.5


def test_a_mapping_that_is_changed_later_holds_for_what_was_tracked_before(
    admin: Caller, app: Flask, host: str, clock: StillClock
) -> None:
    admin("PUT", "/v1/campaigns/shop", {**SHOP, "event_mapping": {}})
    asked = {"campaign_id": "shop", "recipient_id": "u1", "immediate": True}
    decision = admin("POST", "/v1/decisions", asked).get_json()
    clock.forward(hours=2)
    sdk = Sdk(key(app, "feedback"), host)
    sdk.client.track("u1", "Order Completed", {"revenue": "12.50"})
    assert sdk.done() == []
    assert worth(app, decision["decision_id"]) == 0.0
    admin("PUT", "/v1/campaigns/shop", SHOP)
    assert worth(app, decision["decision_id"]) == 12.5


def test_a_key_that_is_wrong_reaches_the_sdk_as_an_error_with_its_code(host: str) -> None:
    sdk = Sdk("st_wrong", host)
    sdk.client.track("u1", "Seen")
    (fault,) = sdk.done()
    assert "401" in str(fault)
    assert "unauthenticated" in str(fault)


def test_a_batch_that_is_sent_again_counts_once(ready: Caller, app: Flask, host: str) -> None:
    for _ in range(2):
        sdk = Sdk(key(app, "feedback"), host)
        sdk.client.track("u1", "Seen", message_id="m-1")
        assert sdk.done() == []
    decision = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u1"}).get_json()
    record = ready("GET", f"/v1/decisions/{decision['decision_id']}").get_json()
    assert len(read(record["snapshot"]["context"])) == 1


def test_the_module_level_calls_work_too(ready: Caller, app: Flask, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"write_key": key(app, "feedback"), "host": host, "default_client": None}.items():
        monkeypatch.setattr(analytics, name, value)
    monkeypatch.setattr(analytics, "sync_mode", True)
    analytics.identify("u9", {"plan": "free"})
    assert ready("GET", "/v1/recipients/u9").get_json()["attributes"] == {"plan": "free"}
