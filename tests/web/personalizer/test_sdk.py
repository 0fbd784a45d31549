"""Microsoft's Python SDKs of Azure Personalizer, unmodified, against a server of ours."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import pytest
from azure.ai.personalizer import PersonalizerAdministrationClient, PersonalizerClient, aio
from azure.cognitiveservices.personalizer import PersonalizerClient as OldClient
from azure.cognitiveservices.personalizer.models import ErrorResponseException, RankableAction, RankRequest
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from msrest.authentication import CognitiveServicesCredentials
from msrest.exceptions import HttpOperationError

from tests.web.conftest import NOW
from tests.web.personalizer.conftest import Loop, rank_body
from tests.web.personalizer.in_loop import InLoop


@pytest.fixture
def old(loop: Loop, endpoint: str) -> Iterator[OldClient]:
    # An endpoint as Azure's portal gave it: with a slash at its end, which makes //personalizer.
    client = OldClient(endpoint + "/", CognitiveServicesCredentials(loop.secret))
    yield client
    client.close()


@pytest.fixture(params=["sync", "async"])
def either(request: pytest.FixtureRequest) -> str:
    """Both ways in which the new SDK can be used."""
    way: str = request.param
    return way


@pytest.fixture
def client(loop: Loop, endpoint: str, either: str) -> Iterator[PersonalizerClient]:
    key = AzureKeyCredential(loop.secret)
    if either == "async":
        with InLoop(lambda: aio.PersonalizerClient(endpoint, key)) as in_loop:
            yield cast(PersonalizerClient, in_loop)
        return
    with PersonalizerClient(endpoint, key) as made:
        yield made


@pytest.fixture
def manager(loop: Loop, endpoint: str, either: str) -> Iterator[PersonalizerAdministrationClient]:
    key = AzureKeyCredential(loop.secret)
    if either == "async":
        with InLoop(lambda: aio.PersonalizerAdministrationClient(endpoint, key)) as in_loop:
            yield cast(PersonalizerAdministrationClient, in_loop)
        return
    with PersonalizerAdministrationClient(endpoint, key) as made:
        yield made


def old_request(**changes: Any) -> RankRequest:
    actions = [RankableAction(id=name, features=[{"topic": name}]) for name in ("a", "b", "c")]
    return RankRequest(actions=actions, context_features=[{"time": "morning"}, {"user": {"age": 33}}], **changes)


def test_the_old_sdk_ranks_rewards_and_activates(old: OldClient, loop: Loop) -> None:
    answer = old.rank(old_request(excluded_actions=["b"], event_id="order/7 ü", defer_activation=True))
    assert answer.event_id == "order/7 ü"
    assert answer.reward_action_id in {"a", "c"}
    assert [(one.id, one.probability) for one in answer.ranking][1] == ("b", 0.0)
    assert sum(one.probability for one in answer.ranking) == pytest.approx(1)
    old.events.activate("order/7 ü")
    old.events.reward("order/7 ü", value=0.5)
    loop.clock.forward(minutes=11)
    assert loop.learn()
    assert loop.learned_rows == 1


def test_the_old_sdk_reads_our_errors(old: OldClient, endpoint: str) -> None:
    with pytest.raises(ErrorResponseException) as failed:
        old.rank(RankRequest(actions=[]))
    assert failed.value.error.error.code == "BadRequest"
    assert failed.value.error.error.inner_error.code == "InvalidRankRequest"
    assert failed.value.error.error.target == "actions"
    stranger = OldClient(endpoint, CognitiveServicesCredentials("no-such-key"))
    with pytest.raises(ErrorResponseException, match="401"):
        stranger.rank(old_request())
    with pytest.raises(HttpOperationError):
        stranger.events.reward("e", value=1.0)
    stranger.close()


def test_the_new_sdk_ranks_rewards_and_activates(client: PersonalizerClient, loop: Loop) -> None:
    answer = client.rank(rank_body("e1"))
    assert answer["eventId"] == "e1"
    assert answer["rewardActionId"] == answer["ranking"][0]["id"]
    client.activate("e1")
    client.reward("e1", {"value": 1.0})
    assert loop.learn()


def test_the_new_sdk_fills_slots(client: PersonalizerClient, loop: Loop) -> None:
    slots = [{"id": name, "baselineAction": name, "features": [{"size": "big"}]} for name in ("a", "b")]
    body = rank_body("m1", deferActivation=True) | {"slots": slots}
    answer = client.rank_multi_slot(body)
    assert [slot["id"] for slot in answer["slots"]] == ["a", "b"]
    assert len({slot["rewardActionId"] for slot in answer["slots"]}) == 2
    client.activate_multi_slot("m1")
    client.reward_multi_slot("m1", {"reward": [{"slotId": "a", "value": 1.0}, {"slotId": "b", "value": 0.0}]})
    assert loop.learn()
    assert loop.learned_rows == 2


def test_the_new_sdk_configures(manager: PersonalizerAdministrationClient) -> None:
    told = manager.get_service_configuration()
    assert (told["rewardWaitTime"], told["rewardAggregation"], told["learningMode"]) == ("PT10M", "earliest", "Online")
    changed = {**told, "rewardWaitTime": "PT4H", "defaultReward": 0.25, "explorationPercentage": 0.1}
    assert manager.update_service_configuration(changed)["rewardWaitTime"] == "PT4H"
    again = manager.get_service_configuration()
    assert (again["defaultReward"], again["explorationPercentage"]) == (0.25, 0.1)
    assert again["lastConfigurationEditDate"] == "2026-11-24T09:00:00Z"


def test_the_new_sdk_sets_and_resets_learning_settings(manager: PersonalizerAdministrationClient) -> None:
    default = manager.get_policy()
    mine = {"name": "mine", "arguments": "--cb_explore_adf --epsilon 0.05 -q ::"}
    assert manager.update_policy(mine) == mine == manager.get_policy()
    assert manager.get_service_configuration()["explorationPercentage"] == 0.05
    assert manager.reset_policy() == default == manager.get_policy()


# A streamed answer that is an error is left open by the SDK until it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_new_sdk_moves_models(
    manager: PersonalizerAdministrationClient, client: PersonalizerClient, loop: Loop
) -> None:
    assert manager.get_model_properties() == {}
    with pytest.raises(ResourceNotFoundError):
        list(manager.export_model())
    client.rank(rank_body("e1"))
    client.reward("e1", {"value": 1.0})
    assert loop.learn()
    assert set(manager.get_model_properties()) == {"creationTime", "lastModifiedTime"}
    signed, plain = (b"".join(manager.export_model(signed=signed)) for signed in (True, False))
    assert signed.endswith(plain)
    manager.reset_model()
    assert loop.learned_rows == 0
    manager.import_model(io.BytesIO(signed))
    assert loop.learned_rows == 1
    manager.import_model(io.BytesIO(plain))
    for garbage in (b"", b"garbage", plain[:-1], signed[:20] + b"\0" + signed[21:]):
        with pytest.raises(HttpResponseError) as failed:
            manager.import_model(io.BytesIO(garbage))
        assert failed.value.status_code == 400
    assert loop.learned_rows == 1


def test_the_new_sdk_reads_and_deletes_logs(
    manager: PersonalizerAdministrationClient, client: PersonalizerClient, loop: Loop
) -> None:
    with pytest.raises(ResourceNotFoundError, match="LogsPropertiesNotFound"):
        manager.get_log_properties()
    client.rank(rank_body("e1"))
    loop.clock.forward(hours=1)
    client.rank(rank_body("e2"))
    span = {"from": "2026-11-24T09:00:00Z", "to": "2026-11-24T10:00:00Z"}
    assert manager.get_log_properties() == {"dateRange": span}
    manager.delete_logs()
    with pytest.raises(ResourceNotFoundError):
        manager.get_log_properties()


def test_the_new_sdk_evaluates_and_applies(
    manager: PersonalizerAdministrationClient, client: PersonalizerClient, loop: Loop
) -> None:
    for n in range(60):
        client.rank(rank_body(f"e{n}"))
        client.reward(f"e{n}", {"value": float(n % 2)})
    contract = {
        "name": "mine",
        "startTime": (NOW - timedelta(hours=1)).isoformat(),
        "endTime": (NOW + timedelta(hours=1)).isoformat(),
        "policies": [{"name": "narrow", "arguments": "--cb_explore_adf --epsilon 0.05"}],
        "enablePolicyOptimization": True,
    }
    manager.create_evaluation("ev1", contract)
    loop.work()
    times = {"start_time": NOW - timedelta(hours=1), "end_time": NOW + timedelta(hours=1)}
    found = manager.get_evaluation("ev1", **times, interval_in_minutes=60, window="Rolling")
    assert found["status"] == "Succeeded"
    sources = [policy["policySource"] for policy in found["content"]["value"]]
    assert sources == ["Online", "Baseline", "Random", "Custom", "OfflineExperimentation"]
    assert [one["id"] for one in manager.list_evaluations(filter_expression="evaluationType eq 'Manual'")] == ["ev1"]
    manager.apply_from_evaluation({"evaluationId": "ev1", "policyName": "narrow"})
    assert manager.get_policy()["name"] == "narrow"
    with pytest.raises(ResourceNotFoundError):
        manager.apply_from_evaluation({"evaluationId": "ev1", "policyName": "none"})
    manager.delete_evaluation("ev1")
    with pytest.raises(ResourceNotFoundError):
        manager.get_evaluation("ev1", **times)


def test_the_new_sdk_asks_which_features_matter(
    manager: PersonalizerAdministrationClient, client: PersonalizerClient, loop: Loop
) -> None:
    for n in range(40):
        answer = client.rank(rank_body(f"e{n}"))
        client.reward(f"e{n}", {"value": float(answer["rewardActionId"] == "a")})
    contract = {"name": "f", "startTime": NOW.isoformat(), "endTime": (NOW + timedelta(hours=1)).isoformat()}
    for name in ("f1", "f2", "f3"):
        manager.create_feature_importance(name, contract)
        loop.work()
    scores = manager.get_feature_importance("f1")["featureScores"]
    assert scores == sorted(scores, key=lambda one: -one["score"])
    assert {"namespace": "user", "featureName": "age"}.items() <= next(
        one for one in scores if one["featureName"] == "age"
    ).items()
    assert scores[0]["featureName"] in {"topic", "@id"}
    # Two pages: the SDK follows nextLink.
    pages = list(manager.list_feature_importances(top=3, params={"maxpagesize": "2"}))
    assert [one["id"] for one in pages] == ["f3", "f2", "f1"]
    for status, count in (("Succeeded", 3), ("Failed", 0)):
        filtered = manager.list_feature_importances(params={"filter": f"status eq '{status}'"})
        assert len(list(filtered)) == count
    manager.delete_feature_importance("f1")
    with pytest.raises(ResourceNotFoundError):
        manager.delete_feature_importance("f1")


def test_a_wrong_key_is_an_authentication_error(endpoint: str) -> None:
    with (
        PersonalizerClient(endpoint, AzureKeyCredential("no-such-key")) as stranger,
        pytest.raises(ClientAuthenticationError),
    ):
        stranger.rank(rank_body())


def test_every_operation_of_the_new_sdk_is_called_here() -> None:
    source = inspect.getsource(inspect.getmodule(old_request) or pytest)
    both = (PersonalizerClient, aio.PersonalizerClient)
    for kind in (*both, PersonalizerAdministrationClient, aio.PersonalizerAdministrationClient):
        operations = [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]
        missing = [name for name in operations if f".{name}(" not in source]
        assert set(missing) <= {"send_request", "close"}
