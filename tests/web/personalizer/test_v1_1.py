"""v1.1-preview.1 to .3, read more strictly than any SDK does: the fields, words and spans of Azure's specification."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import msgspec
import pytest

from optimizer.service.personalizer.evaluations import Bucket, Evaluation, PolicyOutcome, Status
from optimizer.web.compat.personalizer import shapes
from optimizer.web.compat.personalizer.versions import Version
from tests.web.conftest import NOW
from tests.web.personalizer.conftest import LATER, Loop, rank_body

PREVIEWS = Version.V1_1.value
RANGE = {"startTime": "2026-11-24T09:02:00Z", "endTime": "2026-11-24T12:00:00Z"}
Source = Literal["Online", "Baseline", "Random", "Custom", "OfflineExperimentation"]
JobStatus = Literal[
    "completed", "pending", "failed", "notSubmitted", "timeout", "optimalPolicyApplied", "onlinePolicyRetained"
]
MINE = {"name": "mine", "arguments": "--cb_explore_adf --epsilon 0.05 -q ::"}


class Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Has these fields and no others."""


class Summary(Strict):
    """``PolicyResultSummary``."""

    time_stamp: datetime
    ips_estimator_numerator: float
    ips_estimator_denominator: float
    snips_estimator_denominator: float
    aggregate_time_window: timedelta
    non_zero_probability: float
    sum_of_squares: float
    confidence_interval: float
    average_reward: float


class Result(Strict):
    """``PolicyResult``."""

    name: str
    arguments: str
    policy_source: Source
    summary: list[Summary] = []
    total_summary: Summary | None = None


class Told(Strict):
    """``Evaluation``."""

    id: str
    name: str
    start_time: datetime
    end_time: datetime
    job_id: str
    status: JobStatus
    policy_results: list[Result]
    feature_importance: list[list[str]]
    evaluation_type: Literal["Manual", "Auto"]
    optimal_policy: str
    creation_time: datetime


class Settings(Strict):
    """``ServiceConfiguration``."""

    reward_wait_time: timedelta
    default_reward: float
    reward_aggregation: str
    exploration_percentage: float
    model_export_frequency: timedelta
    log_retention_days: int
    log_mirror_enabled: bool
    log_mirror_sas_uri: str
    last_configuration_edit_date: datetime
    learning_mode: Literal["Online", "Apprentice", "LoggingOnly"]
    is_auto_optimization_enabled: bool
    auto_optimization_frequency: timedelta
    auto_optimization_start_date: datetime


@pytest.fixture
def played(loop: Loop) -> Loop:
    """Sixty answers, one each two minutes from 09:02 on; "b" is worth 1."""
    for n in range(60):
        loop.clock.forward(minutes=2)
        answer = loop.rank(f"e{n}")
        loop.reward(f"e{n}", float(answer["rewardActionId"] == "b"))
    return loop


def post(loop: Loop, under: str) -> Any:
    body = {"name": "n", **RANGE, "enableOfflineExperimentation": True, "policies": [MINE]}
    answer = loop.call("POST", f"{under}/evaluations", body)
    assert answer.status_code == 201
    return answer


@pytest.mark.parametrize("under", PREVIEWS)
def test_evaluations_are_posted_polled_and_listed(played: Loop, under: str) -> None:
    answer = post(played, under)
    made = msgspec.convert(answer.json, Told)
    assert answer.headers["Location"] == f"/personalizer{under}/evaluations/{made.id}"
    assert (made.status, made.evaluation_type, made.optimal_policy) == ("pending", "Manual", "")
    assert made.policy_results == [Result(MINE["name"], MINE["arguments"], "Custom")]
    polled = answer.headers["Location"].removeprefix("/personalizer")
    assert msgspec.convert(played.call("GET", polled).json, Told) == made

    played.work()
    found = msgspec.convert(played.call("GET", polled).json, Told)
    assert (found.status, found.optimal_policy) == ("completed", "Optimized")
    assert tuple(one.policy_source for one in found.policy_results) == get_args(Source)
    (listed,) = msgspec.convert(played.call("GET", f"{under}/evaluations").json, list[Told])
    assert listed.policy_results == [msgspec.structs.replace(one, summary=[]) for one in found.policy_results]
    assert played.call("DELETE", polled).status_code == 204
    assert played.call("GET", polled).json["error"]["code"] == "EvaluationNotFound"


def test_an_evaluation_tells_the_same_means_as_in_2022_and_sums_by_every_stretch(played: Loop) -> None:
    made = post(played, PREVIEWS[-1]).json
    played.work()
    found = msgspec.convert(played.call("GET", f"{PREVIEWS[-1]}/evaluations/{made['id']}").json, Told)
    results = {one.name: one for one in found.policy_results}
    later = played.call("GET", f"/evaluations/{made['id']}{LATER}").json
    assert later["status"] == "Succeeded"
    for one in later["content"]["value"]:
        total = results[one["name"]].total_summary
        assert total is not None
        assert total.average_reward == one["summary"]["expectedReward"]
        assert total.aggregate_time_window == timedelta(hours=2, minutes=58)
        stretches = [timedelta(minutes=5), timedelta(hours=1), timedelta(hours=6), timedelta(days=1)]
        series = results[one["name"]].summary
        assert list(dict.fromkeys(part.aggregate_time_window for part in series)) == stretches
        for width in stretches:
            parts = [part for part in series if part.aggregate_time_window == width]
            assert sum(part.ips_estimator_denominator for part in parts) == total.ips_estimator_denominator
            assert sum(part.ips_estimator_numerator for part in parts) == pytest.approx(total.ips_estimator_numerator)
    day = results["Online"].summary[-1]
    assert day.average_reward == pytest.approx(day.ips_estimator_numerator / day.snips_estimator_denominator)


@pytest.mark.parametrize("status", get_args(Status))
def test_every_status_is_one_of_its_versions(status: Status) -> None:
    found = Evaluation("id", "n", NOW, NOW + timedelta(hours=1), NOW, status=status)

    def told(version: Version) -> str:
        return str(shapes.early_evaluation(found, version)["status"])

    assert told(Version.V1_0) in {"completed", "pending", "failed"}
    assert told(Version.V1_1) in get_args(JobStatus)
    waits = status in {"NotSubmitted", "Running"}
    assert (told(Version.V1_0) == "pending") is (told(Version.V1_1) == "pending") is waits


def test_a_policy_that_no_answer_tells_of_may_earn_whatever_was_seen() -> None:
    bucket = Bucket(NOW, 4, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    outcome = PolicyOutcome("mine", "-q ::", "Custom", 0.25, 0.0, 1.0, (bucket,))
    slot = replace(outcome, slot_id="s")
    found = Evaluation("id", "n", NOW, NOW + timedelta(hours=1), NOW, status="Succeeded", outcomes=(outcome, slot))
    (told,) = shapes.early_evaluation(found, Version.V1_1)["policyResults"]
    assert (told["totalSummary"]["averageReward"], told["totalSummary"]["confidenceInterval"]) == (0.25, 0.5)
    assert told["summary"][0]["snipsEstimatorDenominator"] == 0.0


def test_of_a_long_range_series_begin_with_hours() -> None:
    bucket = Bucket(NOW, 1, 1, 1.0, 1.0, 1.0, 1.0, 1.0)
    outcome = PolicyOutcome("mine", "-q ::", "Custom", 1.0, 0.0, 1.0, (bucket,))
    found = Evaluation("id", "n", NOW, NOW + timedelta(days=9), NOW, status="Succeeded", outcomes=(outcome,))
    (told,) = shapes.early_evaluation(found, Version.V1_1)["policyResults"]
    assert [part["aggregateTimeWindow"] for part in told["summary"]] == ["PT1H", "PT6H", "P1D"]
    assert told["totalSummary"]["aggregateTimeWindow"] == "P9D"


@pytest.mark.parametrize("under", PREVIEWS)
def test_a_configuration_has_the_fields_of_its_version(loop: Loop, under: str) -> None:
    path = f"{under}/configurations/service"
    told = loop.call("GET", path).json
    loop.configure(modelRetrainDays=1, isInferenceExplainabilityEnabled=True, learningMode="Apprentice")
    loop.rank("e1")
    loop.reward("e1", 1.0)
    assert loop.learn()
    changes = {"rewardWaitTime": "PT4H", "logMirrorSasUri": "https://a/b", "autoOptimizationStartDate": NOW.isoformat()}
    answer = loop.call("PUT", path, {**told, **changes, "learningMode": "Apprentice"})
    assert answer.status_code == 200
    assert answer.json == loop.call("GET", path).json
    assert msgspec.convert(answer.json, Settings).reward_wait_time == timedelta(hours=4)
    later = loop.call("GET", f"/configurations/service{LATER}").json
    assert (later["modelRetrainDays"], later["isInferenceExplainabilityEnabled"]) == (1, True), "as they were"
    assert later["latestApprenticeModeMetrics"]["numberOfEvents"] == 1


@pytest.mark.parametrize("under", PREVIEWS)
def test_the_other_operations_answer_as_specified(loop: Loop, under: str) -> None:
    def call(method: str, path: str, status: int, body: Any = None) -> Any:
        answer = loop.call(method, under + path, body)
        assert answer.status_code == status, answer.data
        return answer

    assert {*call("POST", "/rank", 201, rank_body("e1")).json} == {"ranking", "eventId", "rewardActionId"}
    call("POST", "/events/e1/activate", 204)
    call("POST", "/events/e1/reward", 204, {"value": 1.0})
    slots = {"slots": [{"id": "s", "baselineAction": "a"}]}
    answer = call("POST", "/multislot/rank", 201, {**rank_body("e2"), **slots}).json
    assert ({*answer}, {*answer["slots"][0]}) == ({"eventId", "slots"}, {"id", "rewardActionId"})
    call("POST", "/multislot/events/e2/activate", 204)
    call("POST", "/multislot/events/e2/reward", 204, {"reward": [{"slotId": "s", "value": 0.5}]})
    assert loop.learn()
    assert call("PUT", "/configurations/policy", 200, MINE).json == MINE
    default = call("DELETE", "/configurations/policy", 200).json
    assert call("GET", "/configurations/policy", 200).json == default != MINE
    assert {*call("GET", "/model/properties", 200).json} == {"creationTime", "lastModifiedTime"}
    model = call("GET", "/model?signed=true", 200)
    assert model.content_type == "application/octet-stream"
    call("PUT", "/model", 204, model.data)
    call("DELETE", "/model", 204)
    assert {*call("GET", "/logs/properties", 200).json["dateRange"]} == {"from", "to"}
    call("DELETE", "/logs", 204)
    error = call("GET", "/logs/properties", 404).json["error"]
    assert error["code"] == "LogsPropertiesNotFound"
    assert {*error} <= {"code", "message", "target", "details", "innerError"}
