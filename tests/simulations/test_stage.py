"""The stages: simulated time in one process, and a real server that answers the same and is gone afterwards."""

from __future__ import annotations

import http.client
from datetime import datetime, timedelta

import pytest

from simulations.client import Call, RefusedError
from simulations.clock import SteppingClock
from simulations.stage import MATURING_SECONDS, START, Stage, app_stage, put_campaign, server_stage
from simulations.stream import CAMPAIGN, campaign_body


def ask(stage: Stage) -> dict[str, object]:
    put_campaign(stage, CAMPAIGN, campaign_body(stage.attribution_hours))
    body = {"campaign_id": CAMPAIGN, "immediate": True, "recipients": [{"recipient_id": "u", "request_id": "r"}]}
    decision: dict[str, object] = stage.client.call("POST", "/v1/decisions/batch", body)["decisions"][0]
    return decision


def test_a_clock_needs_an_offset_and_runs_forward() -> None:
    with pytest.raises(ValueError, match="offset"):
        SteppingClock(datetime(2026, 3, 2))  # noqa: DTZ001  a naive time is what must be refused
    clock = SteppingClock(START)
    clock.advance(1.5)
    assert (clock() - START).total_seconds() == 1.5
    with pytest.raises(ValueError, match="negative"):
        clock.advance(-1)


def test_maturing_moves_simulated_time_by_whole_weeks() -> None:
    with app_stage(seed=1, gate=True) as stage:
        before = stage.now()
        stage.mature()
        passed = (stage.now() - before).total_seconds()
        stage.pass_until(stage.now() + timedelta(days=7, minutes=-59))
        stage.mature()
        later = (stage.now() - before).total_seconds()
    assert passed == MATURING_SECONDS
    assert passed % (7 * 86_400) == 0
    assert later == 3 * MATURING_SECONDS, "what was sent an hour before the week's end matures in the next"


def test_a_refusal_stops_a_simulation_with_what_was_answered() -> None:
    with app_stage(seed=1, gate=True) as stage, pytest.raises(RefusedError, match="404") as refused:
        stage.client.call("GET", "/v1/decisions/dec_nothing")
    assert refused.value.status == 404


def test_learning_before_there_is_anything_to_learn_is_skipped() -> None:
    with app_stage(seed=1, gate=True) as stage:
        ask(stage)
        assert stage.learn(CAMPAIGN, full=True) == "skipped"
        assert stage.learn(CAMPAIGN, full=False) == "nothing"


def test_a_real_server_draws_what_the_app_draws_and_is_gone_afterwards() -> None:
    with app_stage(seed=5, gate=True) as stage:
        here = ask(stage)
    with server_stage(seed=5, gate=True, workers=1) as server:
        there = ask(server)
        path = f"/v1/decisions/{there['decision_id']}/release"
        calls = [Call("POST", path, {"reason": "test"}), Call("GET", f"/v1/decisions/{there['decision_id']}")]
        assert [one["decision_id"] for one in server.client.call_all(calls)] == [there["decision_id"]] * 2
        bind = server.settings.bind
    same = ("decision_id", "status", "propensity", "policy_id")
    assert {name: here[name] for name in same} == {name: there[name] for name in same}
    connection = http.client.HTTPConnection(bind, timeout=5)
    with pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/healthz")
