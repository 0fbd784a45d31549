"""What ranks, rewards and activations mean: as Azure documented it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.personalizer import logs
from optimizer.web import create_app
from storage.ranks import Rank
from tests.web.conftest import StillClock, key
from tests.web.personalizer.conftest import LATER, Loop, rank_body


def logged(loop: Loop, event_id: str) -> Rank:
    with loop.services.store.read() as reader:
        found = reader.rank("default", event_id)
    assert found is not None
    return found


def test_deferred_and_not_activated_is_not_learned_even_if_rewarded(loop: Loop) -> None:
    loop.rank("e1", deferActivation=True)
    loop.reward("e1", 1.0)
    loop.rank("shown")
    loop.clock.forward(minutes=11)
    loop.learn()
    assert loop.learned_rows == 1


def test_an_activation_after_the_wait_is_taken_and_not_learned(loop: Loop) -> None:
    loop.rank("e1", deferActivation=True)
    loop.clock.forward(minutes=11)
    assert loop.call("POST", "/v1.0/events/e1/activate").status_code == 204
    assert not loop.learn()


def test_activated_without_a_reward_is_the_default_reward_after_the_wait(loop: Loop) -> None:
    loop.configure(defaultReward=-0.75)
    loop.rank("e1", deferActivation=True)
    assert loop.call("POST", "/v1.0/events/e1/activate").status_code == 204
    loop.clock.forward(minutes=9)
    assert not loop.learn()
    loop.clock.forward(minutes=2)
    assert loop.learn()
    assert evaluate(loop)["Online"] == pytest.approx(-0.75)


@pytest.mark.parametrize("event_id", ["/abs", "/", "a//b", "trail/", "x\n", "/reward", "v1.0/events/e/reward"])
@pytest.mark.parametrize("slots", ["", "/multislot"])
def test_an_event_of_any_id_can_be_activated_and_rewarded(loop: Loop, event_id: str, slots: str) -> None:
    two = {"slots": [{"id": "s", "baselineAction": "a"}]} if slots else {}
    path = f"{slots}/events/{quote(event_id, safe='')}"
    told = {"reward": [{"slotId": "s", "value": 1.0}]} if slots else {"value": 1.0}
    body = {**rank_body(event_id), **two, "deferActivation": True}
    assert loop.call("POST", f"{slots}/rank{LATER}", body).status_code == 201
    assert loop.call("POST", f"{path}/activate{LATER}").status_code == 204
    assert loop.call("POST", f"{path}/reward{LATER}", told).status_code == 204
    assert len(rewards_of(loop, event_id)) == 1


def rewards_of(loop: Loop, event_id: str) -> list[float]:
    with loop.services.store.read() as reader:
        return [told.value for row in reader.ranks("default") if row.rank.event_id == event_id for told in row.rewards]


def evaluate(loop: Loop, **contract: Any) -> dict[str, float]:
    body = {"name": "n", "startTime": "2026-01-01T00:00:00Z", "endTime": "2027-01-01T00:00:00Z", **contract}
    assert loop.call("PUT", f"/evaluations/now{LATER}", body).status_code == 200
    loop.work()
    found = loop.call("GET", f"/evaluations/now{LATER}").json
    assert found["status"] == "Succeeded", found
    return {
        policy["name"]: policy["summary"]["expectedReward"]
        for policy in found["content"]["value"]
        if "slotId" not in policy
    }


def test_late_rewards_are_logged_and_not_learned(loop: Loop) -> None:
    loop.rank("e1")
    loop.clock.forward(minutes=11)
    loop.reward("e1", 1.0)
    assert rewards_of(loop, "e1") == [1.0]
    assert evaluate(loop)["Online"] == 0.0


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("earliest", 0.5), ("average", 0.3), ("median", 0.5), ("sum", 0.9), ("min", -0.5), ("max", 0.9)],
)
def test_rewards_within_the_wait_are_aggregated(loop: Loop, aggregation: str, expected: float) -> None:
    loop.configure(rewardAggregation=aggregation)
    loop.rank("e1")
    for value in (0.5, -0.5, 0.9):
        loop.reward("e1", value)
        loop.clock.forward(minutes=1)
    loop.clock.forward(minutes=8)
    loop.reward("e1", 100.0)
    assert evaluate(loop)["Online"] == pytest.approx(expected)


def test_with_earliest_a_rewarded_event_is_learned_at_once_but_none_before_an_open_one(loop: Loop) -> None:
    loop.rank("e1")
    loop.reward("e1", 1.0)
    assert loop.learn()
    assert loop.learned_rows == 1
    loop.rank("open")
    loop.rank("e2")
    loop.reward("e2", 1.0)
    assert not loop.learn(), "teaching from those that were rewarded first would teach from successes alone"
    loop.reward("open", 0.0)
    assert loop.learn()
    assert loop.learned_rows == 3


def test_a_reward_of_an_unknown_event_is_taken_and_counts_when_its_rank_follows(loop: Loop) -> None:
    loop.reward("e1", 1.0)
    loop.rank("e1")
    assert loop.learn()
    assert loop.learned_rows == 1


def test_unknown_events_can_be_refused(tmp_path: Any) -> None:
    app = create_app(
        Settings(database=f"sqlite:///{tmp_path}/strict.db", personalizer_unknown_events="refuse"), clock=StillClock()
    )
    strict = Loop(app, StillClock(), key(app, "admin"))
    for path, body in (("reward", {"value": 1}), ("activate", None)):
        answer = strict.call("POST", f"/v1.0/events/nobody/{path}", body)
        assert answer.status_code == 404
        assert answer.json["error"]["code"] == "ResourceNotFound"
    app.extensions["sendtide"].close()


def test_an_apprentice_always_shows_the_first_action_and_learns_to_do_as_the_application(loop: Loop) -> None:
    loop.configure(learningMode="Apprentice")
    for n in range(150):
        first = "abc"[n % 3]  # the application's own rule: who is in the context is shown
        actions = [{"id": name, "features": []} for name in sorted("abc", key=lambda name: name != first)]
        answer = loop.rank(f"e{n}", contextFeatures=[{"wants": first}], actions=actions)
        assert answer["rewardActionId"] == first
        assert answer["ranking"][0] == {"id": first, "probability": 1.0}
        loop.reward(f"e{n}", 1.0)
        if n % 30 == 29:
            loop.learn()
    told = loop.call("GET", f"/configurations/service{LATER}").json["latestApprenticeModeMetrics"]
    assert told["numberOfEvents"] == 150
    assert told["sumOfRewards"] == 150.0
    last = told["lastBatchMetrics"]
    assert last["numberOfImitatedEvents"] > 0.6 * last["numberOfEvents"]  # by chance a third


def test_logging_only_shows_the_first_action_and_learns_nothing(loop: Loop) -> None:
    loop.configure(learningMode="LoggingOnly")
    assert loop.rank("e1", excludedActions=["a"])["rewardActionId"] == "b"
    loop.reward("e1", 1.0)
    assert not loop.learn()
    loop.configure(learningMode="Online")
    assert not loop.learn()


def test_excluded_actions_keep_their_place_with_probability_0_and_the_rest_are_ordered_around_them(loop: Loop) -> None:
    for n in range(30):
        answer = loop.rank(f"e{n}", excludedActions=["a", "unheard of"])
        ranking = answer["ranking"]
        assert ranking[0] == {"id": "a", "probability": 0.0}
        assert ranking[1]["id"] == answer["rewardActionId"]
        assert {ranking[1]["id"], ranking[2]["id"]} == {"b", "c"}
        loop.reward(f"e{n}", float(answer["rewardActionId"] == "b"))
    loop.learn()
    answer = loop.rank("after", excludedActions=["a"])
    by_id = {one["id"]: one["probability"] for one in answer["ranking"]}
    assert by_id["a"] == 0.0
    assert by_id["b"] > by_id["c"]


def test_probabilities_sum_to_1_and_are_those_that_are_logged(loop: Loop) -> None:
    for n in range(60):
        answer = loop.rank(f"e{n}", excludedActions=["b"] if n % 3 == 0 else [])
        rank = logged(loop, f"e{n}")
        slot = rank.slots[0]
        stored = {rank.actions[place].id: p for place, p in zip(slot.eligible, slot.probability, strict=True)}
        assert {one["id"]: one["probability"] for one in answer["ranking"] if one["id"] in stored} == stored
        assert sum(one["probability"] for one in answer["ranking"]) == pytest.approx(1, abs=1e-12)
        assert rank.actions[slot.chosen].id == answer["rewardActionId"]
        loop.reward(f"e{n}", float(n % 2))
        loop.learn()


def test_the_same_event_id_answers_the_same_and_is_logged_once(loop: Loop) -> None:
    first = loop.rank("e1")
    loop.rank("other")
    loop.reward("e1", 1.0)
    loop.reward("other", 0.0)
    assert loop.learn()
    again = loop.call("POST", "/v1.0/rank", dict(reversed(list(rank_body("e1").items()))))
    assert (again.status_code, again.json) == (201, first)
    with loop.services.store.read() as reader:
        assert len(list(reader.ranks("default"))) == 2


def test_an_event_id_seeds_the_choice(loop: Loop, tmp_path: Any) -> None:
    chosen = [loop.rank(f"e{n}")["rewardActionId"] for n in range(40)]
    twin = create_app(Settings(database=f"sqlite:///{tmp_path}/twin.db"), clock=StillClock(), seed="web-tests")
    other = Loop(twin, StillClock(), key(twin, "admin"))
    assert [other.rank(f"e{n}")["rewardActionId"] for n in range(40)] == chosen
    assert set(chosen) == {"a", "b", "c"}
    twin.extensions["sendtide"].close()


def test_an_event_id_with_another_request_is_refused(loop: Loop) -> None:
    loop.rank("e1")
    error = loop.rank("e1", 400, excludedActions=["a"])["error"]
    assert (error["code"], error["target"], error["innerError"]["code"]) == (
        "BadRequest",
        "eventId",
        "InvalidRankRequest",
    )


def test_an_event_id_is_made_where_none_is_given(loop: Loop) -> None:
    assert loop.rank(None)["eventId"] != loop.rank(None)["eventId"]
    assert loop.rank("")["eventId"]


def test_every_slot_gets_an_action_of_its_own_whatever_is_drawn(loop: Loop) -> None:
    slots = [
        {"id": "s1", "baselineAction": "a"},
        {"id": "s2", "baselineAction": "b", "excludedActions": ["c"]},
        {"id": "s3", "baselineAction": "c", "excludedActions": ["a", "b"]},
    ]
    seen = set()
    for n in range(40):
        answer = loop.call("POST", f"/multislot/rank{LATER}", rank_body(f"m{n}") | {"slots": slots})
        assert answer.status_code == 201, answer.json
        chosen = [slot["rewardActionId"] for slot in answer.json["slots"]]
        assert chosen[2] == "c"
        seen.add(tuple(chosen))
    assert seen == {("a", "b", "c"), ("b", "a", "c")}


def test_slots_are_rewarded_one_by_one_and_a_slot_without_a_reward_has_the_default(loop: Loop) -> None:
    slots = [{"id": "s1", "baselineAction": "a"}, {"id": "s2", "baselineAction": "b"}]
    assert loop.call("POST", f"/multislot/rank{LATER}", rank_body("m") | {"slots": slots}).status_code == 201
    path = f"/multislot/events/m/reward{LATER}"
    assert loop.call("POST", path, {"reward": [{"slotId": "s1", "value": 1.0}]}).status_code == 204
    assert loop.call("POST", path, {"reward": [{"slotId": "s9", "value": 1.0}]}).status_code == 400
    assert loop.call("POST", f"/events/m/reward{LATER}", {"value": 1.0}).status_code == 400
    assert not loop.learn()
    loop.clock.forward(minutes=11)
    assert loop.learn()
    assert loop.learned_rows == 2
    assert evaluate(loop)["Online"] == pytest.approx(0.5)


def test_each_reward_of_a_slot_that_is_named_twice_counts(loop: Loop) -> None:
    loop.configure(rewardAggregation="sum")
    slots = [{"id": "s1", "baselineAction": "a"}, {"id": "s2", "baselineAction": "b"}]
    assert loop.call("POST", f"/multislot/rank{LATER}", rank_body("m") | {"slots": slots}).status_code == 201
    told = {
        "reward": [{"slotId": "s1", "value": 0.75}, {"slotId": "s2", "value": 0.0}, {"slotId": "s1", "value": 0.25}]
    }
    assert loop.call("POST", f"/multislot/events/m/reward{LATER}", told).status_code == 204
    loop.clock.forward(minutes=11)
    assert evaluate(loop)["Online"] == pytest.approx(0.5), "1 and 0"


def test_to_put_back_what_is_in_service_changes_nothing(loop: Loop) -> None:
    loop.rank("e1")
    loop.clock.forward(minutes=11)
    loop.configure(explorationPercentage=0.05)
    evaluate(loop)
    body = {"evaluationId": "now", "policyName": "Online"}
    assert loop.call("POST", f"/configurations/applyFromEvaluation{LATER}", body).status_code == 204
    assert loop.call("GET", f"/configurations/service{LATER}").json["explorationPercentage"] == 0.05
    told = loop.call("GET", f"/configurations/policy{LATER}").json
    assert "--epsilon 0.05 " in told["arguments"]
    assert loop.call("PUT", f"/configurations/policy{LATER}", told).json == told
    assert loop.call("GET", f"/configurations/service{LATER}").json["explorationPercentage"] == 0.05


def test_a_key_of_another_workspace_sees_another_loop(loop: Loop) -> None:
    setup.ensure_workspace(loop.services, "other")
    stranger = Loop(loop.app, loop.clock, key(loop.app, "admin", workspace="other"))
    loop.rank("e1")
    assert stranger.rank("e1", excludedActions=["a"])["eventId"] == "e1"
    stranger.configure(defaultReward=0.5)
    assert loop.call("GET", "/v1.0/configurations/service").json["defaultReward"] == 0.0
    assert stranger.call("DELETE", f"/logs{LATER}").status_code == 204
    assert loop.call("GET", f"/logs/properties{LATER}").status_code == 200


def test_exploration_of_0_shows_what_the_model_thinks_best(loop: Loop) -> None:
    for n in range(60):
        answer = loop.rank(f"e{n}")
        loop.reward(f"e{n}", float(answer["rewardActionId"] == "c"))
    loop.learn()
    loop.configure(explorationPercentage=0.0)
    answer = loop.rank("greedy")
    assert answer["ranking"][0] == {"id": "c", "probability": 1.0}
    loop.configure(explorationPercentage=0.3)
    assert 0.0 < loop.rank("open")["ranking"][1]["probability"] < 0.3


def test_answers_can_be_explained(loop: Loop) -> None:
    path = f"/rank{LATER}"
    assert "inferenceExplanation" not in loop.call("POST", path, rank_body("plain")).json
    loop.configure(isInferenceExplainabilityEnabled=True)
    assert [one["features"] for one in loop.call("POST", path, rank_body("new")).json["inferenceExplanation"]] == [
        []
    ] * 3
    for n in range(90):
        wants = "xyz"[n % 3]
        answer = loop.rank(f"e{n}", contextFeatures=[{"user": {"wants": wants}}])
        chosen = {"a": "x", "b": "y", "c": "z"}[answer["rewardActionId"]]
        loop.reward(f"e{n}", float(chosen == wants))
    for event_id in ("plain", "new"):
        loop.reward(event_id, 0.0)
    loop.learn()
    told = loop.call("POST", path, rank_body("after", contextFeatures=[{"user": {"wants": "y"}}])).json
    by_id = {one["id"]: {f["name"]: f["score"] for f in one["features"]} for one in told["inferenceExplanation"]}
    assert by_id["b"]["user.wants^topic"] > 0 > by_id["a"]["user.wants^topic"]
    assert "inferenceExplanation" not in loop.rank("old")
    assert "inferenceExplanation" not in loop.call("POST", "/v1.1-preview.3/rank", rank_body("earlier")).json


def test_the_log_is_kept_as_long_as_it_should_be(loop: Loop) -> None:
    loop.configure(logRetentionDays=3)
    loop.rank("old")
    loop.clock.forward(days=2)
    loop.rank("new")
    assert logs.retain(loop.services, "default") == 0
    loop.clock.forward(days=2)
    assert logs.retain(loop.services, "default") == 1
    loop.configure(logRetentionDays=-1)
    loop.clock.forward(days=2_000)
    assert logs.retain(loop.services, "default") == 0
