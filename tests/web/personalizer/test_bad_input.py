"""Whatever is sent, the answer is Personalizer's error form and never a 5xx."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.errors import Invalid
from optimizer.web.compat.personalizer import bodies, durations
from optimizer.web.compat.personalizer.leading import SingleSlash
from storage.errors import StoreUnavailable, VersionConflict
from tests.web.conftest import Caller, key
from tests.web.personalizer.conftest import LATER, Loop, rank_body


def action(name: str) -> dict[str, Any]:
    return {"id": name, "features": []}


BAD_RANKS: list[tuple[dict[str, Any], str]] = [
    ({"actions": []}, "actions"),
    ({"actions": [action(str(n)) for n in range(51)]}, "actions"),
    ({"actions": [action("x" * 257)]}, "actions[0].id"),
    ({"actions": [action("")]}, "actions[0].id"),
    ({"actions": [action("a"), action("a")]}, "actions"),
    ({"actions": [{"id": "a", "features": 3}]}, "actions[0].features"),
    ({"actions": [{"id": "a", "features": ["text"]}]}, "actions[0].features"),
    ({"actions": None}, "actions"),
    ({"actions": [{"features": []}]}, "actions[0]"),
    ({"eventId": "x" * 257}, "eventId"),
    ({"eventId": 7}, "eventId"),
    ({"excludedActions": ["a", "b", "c"]}, "excludedActions"),
    ({"contextFeatures": "text"}, "contextFeatures"),
    ({"contextFeatures": [1]}, "contextFeatures"),
    (
        {"contextFeatures": [{"x": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}]},
        "contextFeatures",
    ),
    ({"deferActivation": "yes"}, "deferActivation"),
]


@pytest.mark.parametrize(("change", "target"), BAD_RANKS)
def test_a_bad_rank_names_the_field(loop: Loop, change: dict[str, Any], target: str) -> None:
    error = loop.call("POST", f"/rank{LATER}", {**rank_body(), **change})
    assert error.status_code == 400
    assert error.content_type == "application/json"
    assert (error.json["error"]["code"], error.json["error"]["target"]) == ("InvalidRankRequest", target)
    assert error.headers["x-ms-error-code"] == "InvalidRankRequest"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b'{"actions": [{"id": "\\ud800", "features": []}]}',
        b'{"actions": [{"id": "a", "features": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
        b'{"actions": [{"id": "a", "features": [{"x": 1e999}]}]}',
        b'{"actions": [{"id": "a", "features": [{"x": NaN}]}]}',
        b'{"actions": [{"id": "a"}], "contextFeatures": ' + b'[{"x":' * 3000 + b"1" + b"}]" * 3000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1.0/rank", "/multislot/rank", "/v1.0/events/e/reward", "/configurations/policy"])
def test_what_cant_be_read_is_400(loop: Loop, path: str, raw: bytes) -> None:
    method = "PUT" if "configurations" in path else "POST"
    answer = loop.call(method, path, raw)
    assert answer.status_code == 400, answer.data
    assert set(answer.json["error"]) >= {"code", "message"}


def test_numbers_and_nesting_beyond_reason_are_ranked_and_learned_from(loop: Loop) -> None:
    deep: Any = 1
    for _ in range(20):
        deep = {"x": deep}
    strange = [{"big": 10**30, "deep": deep, "none": None, "ns": {"": {"é\u0000": True}}, "list": [1, "a", [2]]}]
    for n in range(10):
        body = rank_body(f"e{n}", contextFeatures=strange, actions=[{"id": "\0", "features": strange}, action("b")])
        answer = loop.call("POST", "/v1.0/rank", json.dumps(body).encode())
        assert answer.status_code == 201, answer.data
        assert answer.json["rewardActionId"] in {"\0", "b"}
        loop.reward(f"e{n}", 1e9 if n % 2 else -1e9)
    assert loop.learn()
    assert sum(one["probability"] for one in loop.rank("after")["ranking"]) == pytest.approx(1)


def test_contexts_and_large_actions_are_not_kept_in_memory(loop: Loop) -> None:
    large = [{f"k{n}": n for n in range(1_000)}]
    bodies._kept.cache_clear()
    for n in range(3):
        actions = [{"id": "large", "features": [*large, {"n": n}]}, {"id": "small", "features": [{"n": 1}]}]
        loop.rank(f"e{n}", contextFeatures=[*large, {"n": n}], actions=actions)
        loop.reward(f"e{n}", 1.0)
    assert bodies._kept.cache_info().currsize == 1
    asked = bodies.rank_request(json.dumps(rank_body(actions=actions)).encode())
    assert [one.raw is None for one in asked.actions] == [True, False]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"actions": []}, "actions: Must be a list of 1 or more entries"),
        ({"actions": [{"id": f"a{i}"} for i in range(51)]}, "actions: Must be a list of 50 or fewer entries"),
        ({"eventId": "e" * 257}, "eventId: Must be a string of 256 or fewer characters"),
    ],
)
def test_a_length_that_is_not_allowed_is_told_in_words(loop: Loop, told: dict[str, Any], said: str) -> None:
    answer = loop.call("POST", "/rank", rank_body() | told)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "InvalidRankRequest")
    assert said in answer.json["error"]["message"]


@pytest.mark.parametrize("value", ["1", None, True, 1e10, [1]])
def test_a_bad_reward_is_refused(loop: Loop, value: Any) -> None:
    answer = loop.call("POST", f"/events/e/reward{LATER}", {"value": value})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "InvalidRewardRequest")


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ([], "slots"),
        ([{"id": "s", "baselineAction": "nobody"}], "none of the actions"),
        ([{"id": "s", "baselineAction": "a", "excludedActions": ["a"]}], "excluded"),
        ([{"id": "s", "baselineAction": "a"}, {"id": "s", "baselineAction": "b"}], "same id"),
        ([{"id": "s", "baselineAction": "a"}, {"id": "t", "baselineAction": "a"}], "same baselineAction"),
        ([{"id": "s"}], "baselineAction"),
    ],
)
def test_bad_slots_are_refused(loop: Loop, slots: list[dict[str, Any]], said: str) -> None:
    answer = loop.call("POST", f"/multislot/rank{LATER}", rank_body() | {"slots": slots})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "InvalidRankRequest")
    assert said in answer.json["error"]["message"] + answer.json["error"]["target"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rewardWaitTime": "PT4S"}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "P3D"}, "InvalidRewardWaitTime"),
        ({"rewardWaitTime": "soon"}, "InvalidServiceConfiguration"),
        ({"rewardWaitTime": 600}, "InvalidServiceConfiguration"),
        ({"defaultReward": 1.5}, "InvalidServiceConfiguration"),
        ({"explorationPercentage": -0.1}, "InvalidServiceConfiguration"),
        ({"rewardAggregation": "mode"}, "InvalidServiceConfiguration"),
        ({"learningMode": "Offline"}, "InvalidServiceConfiguration"),
        ({"logRetentionDays": 1}, "InvalidLogRetentionDays"),
        ({"logRetentionDays": 10**30}, "InvalidServiceConfiguration"),
        ({"modelRetrainDays": 91}, "InvalidModelRetrainDays"),
        ({"modelExportFrequency": "PT0S"}, "InvalidServiceConfiguration"),
        ({"learningMode": "Apprentice", "defaultReward": 0.5}, "InvalidLearningModeServiceConfiguration"),
        ({"autoOptimizationStartDate": "0001-01-01T00:00:00Z"}, "InvalidRequest"),
    ],
)
def test_a_bad_configuration_is_refused_and_changes_nothing(loop: Loop, change: dict[str, Any], code: str) -> None:
    before = loop.call("GET", f"/configurations/service{LATER}").json
    answer = loop.call("PUT", f"/configurations/service{LATER}", json.dumps(change).encode())
    assert (answer.status_code, answer.json["error"]["code"]) == (400, code)
    assert loop.call("GET", f"/configurations/service{LATER}").json == before


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"name": "n"}, "InvalidPolicyContract"),
        ({"name": "n" * 257, "arguments": "-q ::"}, "InvalidPolicyContract"),
        ({"name": "n", "arguments": "x" * 1025}, "InvalidPolicyContract"),
        ({"name": "n", "arguments": "--epsilon 2"}, "InvalidPolicyConfiguration"),
        ({"name": "n", "arguments": "--epsilon"}, "InvalidPolicyConfiguration"),
        ({"name": "n", "arguments": "--epsilon 'x"}, "InvalidPolicyConfiguration"),
    ],
)
def test_bad_learning_settings_are_refused(loop: Loop, policy: dict[str, str], code: str) -> None:
    answer = loop.call("PUT", f"/configurations/policy{LATER}", policy)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, code)


def test_bad_evaluations_are_refused(loop: Loop) -> None:
    good = {"name": "n", "startTime": "2026-01-01T00:00:00Z", "endTime": "2027-01-01T00:00:00Z"}
    policies = [{"name": str(n), "arguments": "-q ::"} for n in range(11)]
    path = f"/evaluations/e{LATER}"

    def code(**changes: Any) -> str:
        answer = loop.call("PUT", path, {**good, **changes})
        assert answer.status_code == 400
        return str(answer.json["error"]["code"])

    assert code() == "NoLogsExistInDateRange"
    loop.rank("e1")
    assert code(policies=policies) == "InvalidEvaluationContract"
    assert code(policies=[policies[0], policies[0]]) == "DuplicateCustomPolicyNames"
    assert code(startTime="2028-01-01T00:00:00Z") == "InvalidEvaluationContract"
    assert code(startTime="yesterday") == "InvalidEvaluationContract"
    assert loop.call("PUT", path, good).status_code == 200
    assert code() == "EvaluationAlreadyExists"
    for query in ("intervalInMinutes=7", "window=Sliding", "startTime=soon", "intervalInMinutes=-5"):
        assert loop.call("GET", f"{path}&{query}").status_code == 400
    for kind in ("evaluations", "featureImportances"):
        for rubbish in ("1%3D1", "name eq 'n'", "status eq Failed", "status ne 'Failed'"):
            answer = loop.call("GET", f"/{kind}{LATER}&filter={rubbish}")
            assert (answer.status_code, answer.json["error"]["target"]) == (400, "filter")
    assert loop.call("GET", f"/featureImportances{LATER}&filter=evaluationType eq 'Manual'").status_code == 400
    assert loop.call("GET", f"/evaluations{LATER}&top=x").status_code == 400
    assert loop.call("DELETE", f"/evaluations/none{LATER}").status_code == 404


EDGES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z"]


@pytest.mark.parametrize("at", EDGES)
def test_times_at_the_edge_of_the_calendar_are_refused(loop: Loop, at: str) -> None:
    loop.rank("e1")
    good = {"name": "n", "startTime": "2026-01-01T00:00:00Z", "endTime": "2027-01-01T00:00:00Z"}
    path = f"/evaluations/e{LATER}"
    assert loop.call("PUT", path, good).status_code == 200

    def refused(method: str, path: str, body: Any = None) -> str:
        answer = loop.call(method, path, body)
        assert (answer.status_code, answer.json["error"]["code"]) == (400, "InvalidRequest")
        return str(answer.json["error"]["target"])

    for kind in ("evaluations", "featureImportances"):
        for name in ("startTime", "endTime"):
            assert refused("PUT", f"/{kind}/f{LATER}", {**good, name: at}) == name
    for name in ("startTime", "endTime"):
        assert refused("GET", f"{path}&{name}={at}") == name
    name = "autoOptimizationStartDate"
    assert refused("PUT", f"/configurations/service{LATER}", {name: at}) == name


def test_scopes_are_asked_for(app: Flask, loop: Loop) -> None:
    decider = Caller(app, key(app, "decide"))
    feeder = Caller(app, key(app, "feedback"))
    reader = Caller(app, key(app, "read"))
    assert decider("POST", "/personalizer/v1.0/rank", rank_body("e")).status_code == 201, "a bearer key is taken too"
    assert feeder("POST", "/personalizer/v1.0/events/e/reward", {"value": 1}).status_code == 204
    assert reader("GET", "/personalizer/v1.0/configurations/service").status_code == 200
    for caller, method, path in (
        (feeder, "POST", "rank"),
        (decider, "POST", "events/e/reward"),
        (reader, "PUT", "configurations/service"),
        (reader, "GET", "model"),
        (reader, "DELETE", "logs"),
    ):
        answer: Any = caller(method, f"/personalizer/{path}", {})
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "InvalidApiAccess")
    nobody: Any = Caller(app, None)("POST", "/personalizer/v1.0/rank", rank_body())
    assert (nobody.status_code, nobody.json["error"]["code"]) == (401, "401")


def test_unknown_paths_and_methods_answer_in_personalizers_form(loop: Loop) -> None:
    for method, path in (("GET", "/v1.0/nothing"), ("GET", "/rank"), ("DELETE", "/v1.0/rank"), ("POST", "/v9/rank")):
        answer = loop.call(method, path)
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "ResourceNotFound")
    assert loop.call("POST", f"/events/{'x' * 257}/activate").status_code == 404


def test_a_body_over_the_limit_is_refused(loop: Loop) -> None:
    answer = loop.call("POST", "/v1.0/rank", rank_body(contextFeatures=[{"x": "y" * (1 << 20)}]))
    assert (answer.status_code, answer.json["error"]["innerError"]["code"]) == (400, "PayloadSizeExceeded")


def test_a_store_that_takes_no_write_is_503_and_nothing_was_logged(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(type(loop.services.store), "write", full)
    answer = loop.call("POST", "/v1.0/rank", rank_body("e1"))
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "InternalServerError")
    assert int(answer.headers["Retry-After"]) > 0
    with loop.services.store.read() as reader:
        assert reader.rank("default", "e1") is None


@pytest.mark.parametrize(
    ("fault", "status", "code", "words"),
    [
        (StoreUnavailable("gone", fate_unknown=True), 503, "InternalServerError", "all was recorded or nothing"),
        (VersionConflict("changed"), 409, "Conflict", "changed at the same time"),
    ],
)
def test_the_stores_other_faults_are_told_as_they_are(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: int, code: str, words: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.setattr(type(loop.services.store), "write", fails)
    answer = loop.call("POST", "/rank", rank_body("e1"))
    assert (answer.status_code, answer.json["error"]["code"]) == (status, code)
    assert words in answer.json["error"]["message"]
    assert ("Retry-After" in answer.headers) == (status == 503)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
)
def test_no_features_make_a_5xx(loop: Loop, features: Any) -> None:
    body = rank_body(contextFeatures=features, actions=[{"id": "a", "features": features}, action("b")])
    for path in ("/v1.0/rank", "/multislot/rank"):
        slots = [{"id": "s", "baselineAction": "a", "features": features}]
        raw = json.dumps(body | {"slots": slots}).encode()
        assert loop.call("POST", path, raw).status_code in {201, 400}


def test_a_doubled_slash_in_front_is_forgiven_for_personalizer_alone() -> None:
    seen: list[str] = []

    def inner(environ: dict[str, Any], _: Any) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        return []

    outer = SingleSlash(inner, "/personalizer")
    for path in (
        "//personalizer/v1.0/rank",
        "///personalizer/rank",
        "//v1/rules",
        "/personalizer//x",
        "//personalizers/x",
    ):
        list(outer({"PATH_INFO": path}, lambda *_: None))  # type: ignore[arg-type]  # no answer is begun
    assert seen == [
        "/personalizer/v1.0/rank",
        "/personalizer/rank",
        "//v1/rules",
        "/personalizer//x",
        "//personalizers/x",
    ]


@pytest.mark.parametrize(
    ("text", "span", "dotnet", "iso"),
    [
        ("00:10:00", timedelta(minutes=10), "00:10:00", "PT10M"),
        ("PT10M", timedelta(minutes=10), "00:10:00", "PT10M"),
        ("28.00:00:00", timedelta(days=28), "28.00:00:00", "P28D"),
        ("P1DT2H3M4.5S", timedelta(days=1, hours=2, minutes=3, seconds=4.5), "1.02:03:04.5000000", "P1DT2H3M4.5S"),
        ("P2W", timedelta(weeks=2), "14.00:00:00", "P14D"),
        ("00:00:00.2500000", timedelta(milliseconds=250), "00:00:00.2500000", "PT0.25S"),
        ("PT0S", timedelta(0), "00:00:00", "PT0S"),
    ],
)
def test_spans_of_time_are_read_in_both_forms(text: str, span: timedelta, dotnet: str, iso: str) -> None:
    assert durations.read("x", text) == span
    assert (durations.dotnet(span), durations.iso(span)) == (dotnet, iso)


@pytest.mark.parametrize("text", ["", "P", "PT", "10", "10:00", "1:2:3", "PT10", "-PT10M", "٠٠:١٠:٠٠", "P1Y"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        durations.read("x", text)
