"""``POST /v1/scores``."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.trained import publish_model
from tests.web.conftest import Caller, key
from tests.web.test_bad_input import assert_problem

PRO = {"recipient": {"timezone": "Europe/Berlin", "attributes": {"plan": "pro"}}}


@pytest.fixture
def learned(ready: Caller) -> Caller:
    """A campaign ``c`` that serves a learned policy."""
    services = ready.app.extensions["sendtide"].get()
    with services.store.read() as reader:
        campaign = reader.campaign("default", "c")
    publish_model(services, campaign, n=800)
    return ready


def body(*recipients: Any, **changes: Any) -> dict[str, Any]:
    return {"outcome": "converted", "campaign_id": "c", "recipients": list(recipients), **changes}


def test_recipients_are_scored_in_order_and_bad_rows_say_why(learned: Caller) -> None:
    told = learned("POST", "/v1/scores", body({"recipient_id": "u1"}, {"recipient_id": 7}, PRO)).get_json()
    assert (told["campaign_id"], told["outcome"]) == ("c", "converted")
    assert told["policy_id"].startswith("pol_")
    assert told["lacking"] is None
    known, bad, inline = told["scores"]
    assert (known["recipient_id"], inline["recipient_id"]) == ("u1", None)
    assert (bad["status"], bad["index"]) == (422, 1)
    assert "recipients.1.recipient_id" in bad["errors"]
    for one in (known, inline):
        assert 0 < one["without_message"] < 1
        assert one["uplift"] == pytest.approx(one["with_message"] - one["without_message"])
        assert one["best"]["channel"] == "email"
    assert inline["with_message"] > known["with_message"]
    assert inline["best"]["variant_id"] == "a"
    assert inline["best"]["send_at_local"].endswith("+01:00")


def test_a_closed_channel_leaves_no_best_message(learned: Caller) -> None:
    row = {"recipient": {"channels": {"email": False}}}
    (one,) = learned("POST", "/v1/scores", body(row)).get_json()["scores"]
    assert (one["with_message"], one["uplift"], one["best"]) == (None, None, None)


def test_a_log_of_messages_alone_says_nothing_of_going_without_and_the_answer_says_so(ready: Caller) -> None:
    services = ready.app.extensions["sendtide"].get()
    with services.store.read() as reader:
        campaign = reader.campaign("default", "c")
    publish_model(services, campaign, n=800, unsent=0)
    told = ready("POST", "/v1/scores", body(PRO)).get_json()
    assert "at least 100 are needed" in told["lacking"]
    (one,) = told["scores"]
    assert (one["without_message"], one["uplift"]) == (None, None)
    assert 0 < one["with_message"] < 1
    assert one["best"]["variant_id"] == "a"


def test_it_takes_the_scope_read_and_reserves_nothing(learned: Caller) -> None:
    reader = Caller(learned.app, key(learned.app, "read"))
    assert reader("POST", "/v1/scores", body({"recipient_id": "u1"})).status_code == 200
    assert learned("GET", "/v1/decisions").get_json()["decisions"] == []
    assert learned("GET", "/v1/recipients/u1").status_code == 404
    decider = Caller(learned.app, key(learned.app, "decide"))
    assert_problem(decider("POST", "/v1/scores", body()), 403, "scope", "", "read")


def test_without_a_model_it_is_a_conflict_that_says_so(ready: Caller) -> None:
    reply = ready("POST", "/v1/scores", body({"recipient_id": "u1"}))
    assert (reply.status_code, reply.get_json()["code"]) == (409, "no_model")


def test_unknown_outcomes_and_campaigns_and_too_many_rows_are_refused(learned: Caller) -> None:
    assert_problem(learned("POST", "/v1/scores", body(outcome="applauded")), 422, "outcome", "", "clicked, converted")
    assert learned("POST", "/v1/scores", body(campaign_id="nope")).status_code == 404
    assert learned("POST", "/v1/scores", body(*([{}] * 10_001))).status_code == 413
    assert learned("POST", "/v1/scores", body()).get_json()["scores"] == []
    told = learned("POST", "/v1/scores", {**body(), "recipients": {}})
    assert told.status_code == 422
    assert told.get_json()["errors"] == {"recipients": ["Must be a list. Got an object of 0 entries."]}
