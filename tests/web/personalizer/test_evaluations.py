"""Evaluations in the shapes of v1.0 and 2022-09-01-preview (v1.1 has a file of its own); series over time."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from optimizer.service.personalizer import evaluations
from optimizer.service.personalizer.evaluations import Bucket
from optimizer.web.compat.personalizer.shapes import stretches
from tests.web.conftest import NOW
from tests.web.personalizer.conftest import LATER, Loop, rank_body

RANGE = {"startTime": "2026-11-24T09:02:00Z", "endTime": "2026-11-24T12:00:00Z"}


@pytest.fixture
def played(loop: Loop) -> Loop:
    """Sixty answers, one each two minutes from 09:02 on; "b" is worth 1."""
    for n in range(60):
        loop.clock.forward(minutes=2)
        answer = loop.rank(f"e{n}")
        loop.reward(f"e{n}", float(answer["rewardActionId"] == "b"))
    return loop


def test_v1_posts_lists_and_reads_evaluations(played: Loop) -> None:
    body = {"name": "mine", **RANGE, "enableOfflineExperimentation": True, "policies": []}
    made = played.call("POST", "/v1.0/evaluations", body)
    assert made.status_code == 201
    assert made.json["status"] == "pending"
    played.work()
    (listed,) = played.call("GET", "/v1.0/evaluations").json
    assert (listed["id"], listed["status"]) == (made.json["id"], "completed")
    assert {*listed["policyResults"][0]} == {"name", "arguments", "totalSummary"}, "a list has no series"
    found = played.call("GET", f"/v1.0/evaluations/{made.json['id']}").json
    assert found["status"] == "completed"
    results = {one["name"]: one for one in found["policyResults"]}
    assert list(results) == ["Online", "Baseline", "Random", "Optimized"]
    assert {*results["Online"]} == {"name", "arguments", "summary", "totalSummary"}
    total = results["Online"]["totalSummary"]
    assert "averageReward" not in total, "v1.1 brought it"
    assert total["ipsEstimatorDenominator"] == total["snipsEstimatorDenominator"] == 60.0
    assert total["nonZeroProbability"] == 60.0
    assert total["sumOfSquares"] == total["ipsEstimatorNumerator"]  # rewards of 0 and 1, weights of 1
    assert total["aggregateTimeWindow"] == "02:58:00"
    baseline = results["Baseline"]
    assert 0 < baseline["totalSummary"]["nonZeroProbability"] < 60
    assert baseline["totalSummary"]["ipsEstimatorNumerator"] == 0.0, 'the first action is "a"'
    for result in found["policyResults"]:
        summed = sum(one["ipsEstimatorNumerator"] for one in result["summary"])
        assert summed == pytest.approx(result["totalSummary"]["ipsEstimatorNumerator"])
        assert {one["aggregateTimeWindow"] for one in result["summary"]} == {"00:05:00"}
    assert results["Online"]["summary"][0]["timeStamp"] == RANGE["startTime"], "no stretch begins before the range"
    assert played.call("DELETE", f"/v1.0/evaluations/{made.json['id']}").status_code == 204


@pytest.mark.parametrize(
    ("minutes", "window", "count"), [(5, "Expanding", 25), (60, "Rolling", 3), (1440, "Rolling", 1)]
)
def test_later_versions_tell_series_by_interval_and_window(played: Loop, minutes: int, window: str, count: int) -> None:
    assert played.call("PUT", f"/evaluations/ev{LATER}", {"name": "n", **RANGE, "policies": []}).status_code == 200
    query = f"{LATER}&intervalInMinutes={minutes}&window={window}"
    waiting = played.call("GET", f"/evaluations/ev{query}").json
    assert (waiting["status"], waiting["evaluationType"]) == ("NotSubmitted", "Manual")
    assert "content" not in waiting
    played.work()
    found: Any = played.call(
        "GET", f"/evaluations/ev{query}&startTime={RANGE['startTime']}&endTime={RANGE['endTime']}"
    ).json
    assert found["content"]["intervalInMinutes"] == minutes
    online = found["content"]["value"][0]
    data = online["timeseries"]["data"]
    assert len(data) == count
    assert (data[-1]["expectedReward"] == pytest.approx(online["summary"]["expectedReward"])) == (
        window == "Expanding" or count == 1
    )
    low, high = online["summary"]["confidenceInterval"]
    assert low < online["summary"]["expectedReward"] < high
    part = played.call(
        "GET", f"/evaluations/ev{query}&startTime=2026-11-24T10:00:00Z&endTime=2026-11-24T11:00:00Z"
    ).json
    assert len(part["content"]["value"][0]["timeseries"]["data"]) == min(count, 60 // minutes or 1)


@pytest.mark.parametrize("name", ["Online", "Baseline", "Random", "Optimized"])
def test_no_custom_policy_takes_the_name_of_one_of_ours(played: Loop, name: str) -> None:
    mine = {"name": name, "arguments": "--cb_explore_adf --epsilon 0.77 -q ::"}
    asked = {"name": "n", **RANGE, "enablePolicyOptimization": True, "policies": [{**mine, "name": "fine"}, mine]}
    answer = played.call("PUT", f"/evaluations/ev{LATER}", asked)
    assert answer.status_code == 400
    assert answer.json["error"]["code"] == "DuplicateCustomPolicyNames"
    assert name in answer.json["error"]["message"]
    assert played.call("GET", f"/evaluations/ev{LATER}").status_code == 404


def test_what_an_optimisation_found_is_applied_and_not_a_custom_policy_of_its_name(
    played: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {"name": "Optimized", "arguments": "--cb_explore_adf --epsilon 0.77 -q ::"}
    with monkeypatch.context() as before:
        before.setattr(evaluations, "OURS", ())
        asked = {"name": "n", **RANGE, "enablePolicyOptimization": True, "policies": [mine]}
        assert played.call("PUT", f"/evaluations/ev{LATER}", asked).status_code == 200
    played.work()
    body = {"evaluationId": "ev", "policyName": "Optimized"}
    assert played.call("POST", f"/configurations/applyFromEvaluation{LATER}", body).status_code == 204
    assert played.call("GET", f"/configurations/policy{LATER}").json["arguments"] != mine["arguments"]


def test_a_series_leaves_out_what_tells_nothing_of_a_policy(played: Loop) -> None:
    body = {"name": "n", **RANGE, "policies": []}
    assert played.call("PUT", f"/evaluations/ev{LATER}", body).status_code == 200
    played.work()
    query = f"{LATER}&intervalInMinutes=5&window=Rolling"
    found = {one["name"]: one for one in played.call("GET", f"/evaluations/ev{query}").json["content"]["value"]}
    data = {name: one["timeseries"]["data"] for name, one in found.items()}
    assert len(data["Baseline"]) < len(data["Online"]), "in some five minutes the baseline was never shown"
    assert data["Baseline"]


def test_intervals_stay_within_the_rewards(played: Loop) -> None:
    assert played.call("PUT", f"/evaluations/ev{LATER}", {"name": "n", **RANGE, "policies": []}).status_code == 200
    played.work()
    query = f"{LATER}&intervalInMinutes=5&window=Rolling"
    for one in played.call("GET", f"/evaluations/ev{query}").json["content"]["value"]:
        for told in (one["summary"], *one["timeseries"]["data"]):
            low, high = told["confidenceInterval"]
            assert 0.0 <= low <= told["expectedReward"] <= high <= 1.0


def test_what_an_optimisation_found_stands_beside_what_was_in_service_on_good_days_and_bad(loop: Loop) -> None:
    """No action matters, and the last third is a good day for each."""
    draw = random.Random(5)
    for n in range(600):
        loop.rank(f"e{n}")
        loop.reward(f"e{n}", float(draw.random() < (0.2 if n < 400 else 0.7)))
        loop.clock.forward(seconds=15)
    body = {"name": "n", **RANGE, "enablePolicyOptimization": True, "policies": []}
    assert loop.call("PUT", f"/evaluations/ev{LATER}", body).status_code == 200
    loop.work()
    told = {one["name"]: one["summary"] for one in loop.call("GET", f"/evaluations/ev{LATER}").json["content"]["value"]}
    online, found = told["Online"]["expectedReward"], told["Optimized"]
    low, high = found["confidenceInterval"]
    assert low < online < high < 0.7
    assert low < found["expectedReward"] < high


def test_slots_of_one_event_are_not_taken_for_as_many_events(loop: Loop) -> None:
    """Every slot is told whether the visitor bought: three slots know no more than one."""
    draw = random.Random(5)
    slots = [{"id": f"s{n}", "baselineAction": "abc"[n]} for n in range(3)]
    for n in range(120):
        made = loop.call("POST", f"/multislot/rank{LATER}", rank_body(f"m{n}") | {"slots": slots})
        assert made.status_code == 201
        bought = float(draw.random() < 0.5)
        told = {"reward": [{"slotId": slot["id"], "value": bought} for slot in slots]}
        assert loop.call("POST", f"/multislot/events/m{n}/reward{LATER}", told).status_code == 204
    loop.clock.forward(minutes=30)
    body = {"name": "n", **RANGE, "startTime": "2026-11-24T08:00:00Z", "policies": []}
    assert loop.call("PUT", f"/evaluations/ev{LATER}", body).status_code == 200
    loop.work()
    width: dict[str, float] = {}
    for one in loop.call("GET", f"/evaluations/ev{LATER}").json["content"]["value"]:
        if one["name"] == "Online":
            low, high = one["summary"]["confidenceInterval"]
            width[one.get("slotId", "")] = high - low
    assert width[""] == pytest.approx(width["s0"], rel=0.05)


def test_a_long_range_says_that_its_series_is_by_the_hour(played: Loop) -> None:
    long = {"startTime": "2026-11-20T00:00:00Z", "endTime": "2026-11-25T00:00:00Z"}
    assert played.call("PUT", f"/evaluations/ev{LATER}", {"name": "n", **long, "policies": []}).status_code == 200
    played.work()
    content = played.call("GET", f"/evaluations/ev{LATER}&intervalInMinutes=5&window=Rolling").json["content"]
    assert content["intervalInMinutes"] == 60
    assert [one["timeStamp"][11:16] for one in content["value"][0]["timeseries"]["data"]] == ["09:00", "10:00", "11:00"]


def test_stretches_sum_what_lies_in_them() -> None:
    buckets = [Bucket(NOW + timedelta(minutes=5 * n), 1, 1, 2.0, 3.0, 4.0, 5.0, 6.0) for n in (0, 1, 5, 13)]

    def told(expanding: bool, minutes: int = 15) -> list[tuple[int, int]]:
        cut = stretches(buckets, NOW, NOW + timedelta(hours=1), timedelta(minutes=minutes), expanding=expanding)
        return [((one.start - NOW) // timedelta(minutes=1), one.rows) for one in cut]

    assert told(False) == [(0, 2), (15, 1)]
    assert told(True) == [(0, 2), (15, 3)]
    assert told(False, 5) == [(0, 1), (5, 1), (25, 1)]


def test_an_evaluation_of_any_id_can_be_read_and_deleted(played: Loop) -> None:
    path = f"/evaluations/%2Fnightly{LATER}"
    assert played.call("PUT", path, {"name": "n", **RANGE, "policies": []}).status_code == 200
    assert played.call("GET", path).json["id"] == "/nightly"
    assert played.call("DELETE", path).status_code == 204
