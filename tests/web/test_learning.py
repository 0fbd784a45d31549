"""Policies, rollbacks and the change feed over HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask import Flask

from optimizer.service.publish import reject
from storage.policies import Component, Policy
from tests.web.conftest import NOW, Caller, key

POLICY = Policy(
    workspace_id="default",
    policy_id="pol_1",
    campaign_id="c",
    created_at=NOW,
    mixture=(Component(weight=1.0, artifact_id=None),),
    verdict={"decision": "publish", "conditions": [{"name": "integrity", "figure": 0.0}]},
)


@pytest.fixture
def policies(ready: Caller) -> Caller:
    """Two stored policies; the second replaced the first."""
    store = ready.app.extensions["sendtide"].get().store
    store.write(lambda writer: writer.add_policy(POLICY))
    store.write(lambda writer: writer.add_policy(replace(POLICY, policy_id="pol_2", parent_id="pol_1")))
    return ready


def test_policies_are_listed_and_read_with_their_verdict(policies: Caller) -> None:
    listed = policies("GET", "/v1/policies?campaign_id=c").get_json()["policies"]
    assert {p["policy_id"] for p in listed} == {"pol_1", "pol_2"}
    assert policies("GET", "/v1/policies?campaign_id=other").get_json()["policies"] == []
    read = policies("GET", "/v1/policies/pol_1").get_json()
    assert read["verdict"] == POLICY.verdict
    assert read["mixture"] == [{"weight": 1.0, "artifact_id": None}]


def test_a_promotion_serves_the_policy_and_a_rollback_takes_it_back(policies: Caller) -> None:
    assert policies("POST", "/v1/policies/rollback", {"campaign_id": "c"}).status_code == 409
    assert policies("POST", "/v1/policies/pol_1/promote").get_json()["status"] == "live"
    assert policies("POST", "/v1/policies/pol_2/promote").get_json()["status"] == "live"
    assert policies("GET", "/v1/policies/pol_1").get_json()["status"] == "retired"
    back = policies("POST", "/v1/policies/rollback", {"campaign_id": "c"}).get_json()
    assert (back["campaign_id"], back["policy"]["policy_id"]) == ("c", "pol_1")
    cold = policies("POST", "/v1/policies/rollback", {"campaign_id": "c"}).get_json()
    assert cold == {"campaign_id": "c", "policy": None}
    feed = policies("GET", "/v1/changes").get_json()
    assert [(c["kind"], c["replaced_id"], c["policy_id"]) for c in feed["changes"]] == [
        ("promoted", "pol_cold", "pol_1"),
        ("promoted", "pol_1", "pol_2"),
        ("rolled_back", "pol_2", "pol_1"),
        ("rolled_back", "pol_1", "pol_cold"),
    ]
    positions = [c["position"] for c in feed["changes"]]
    assert positions == sorted(set(positions))
    assert feed["after"] == positions[-1]


def test_a_rollback_that_names_its_policy_is_not_done_twice(policies: Caller) -> None:
    for policy_id in ("pol_1", "pol_2"):
        policies("POST", f"/v1/policies/{policy_id}/promote")
    told = {"campaign_id": "c", "policy_id": "pol_2"}
    assert policies("POST", "/v1/policies/rollback", told).get_json()["policy"]["policy_id"] == "pol_1"
    again = policies("POST", "/v1/policies/rollback", told)
    assert (again.status_code, again.get_json()["code"]) == (409, "moved")
    assert policies("GET", "/v1/policies/pol_1").get_json()["status"] == "live"


def test_a_key_that_is_not_kept_is_refused_where_a_repetition_does_more(policies: Caller) -> None:
    for policy_id in ("pol_1", "pol_2"):
        policies("POST", f"/v1/policies/{policy_id}/promote")
    keys = len(policies("GET", "/v1/keys").get_json()["keys"])
    for path, body in (
        ("/v1/policies/rollback", {"campaign_id": "c"}),
        ("/v1/policies/pol_1/promote", None),
        ("/v1/keys", {"name": "shop", "scopes": ["read"]}),
    ):
        refused = policies("POST", path, body, headers={"Idempotency-Key": "once"})
        assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["header.Idempotency-Key"])
    assert policies("GET", "/v1/policies/pol_2").get_json()["status"] == "live"
    assert len(policies("GET", "/v1/keys").get_json()["keys"]) == keys


def test_a_rollback_goes_to_what_can_serve(policies: Caller, app: Flask) -> None:
    """Retention deleted what pol_3 had replaced; pol_4 had replaced a candidate that was rejected."""
    services = app.extensions["sendtide"].get()
    reject(services, replace(POLICY, policy_id="pol_bad", parent_id="pol_1"))
    for policy_id, parent_id, expected in (("pol_3", "pol_gone", None), ("pol_4", "pol_bad", "pol_1")):
        made = replace(POLICY, policy_id=policy_id, parent_id=parent_id)
        services.store.write(lambda writer, made=made: writer.add_policy(made))
        policies("POST", f"/v1/policies/{policy_id}/promote")
        back = policies("POST", "/v1/policies/rollback", {"campaign_id": "c"})
        assert back.status_code == 200
        assert (back.get_json()["policy"] or {}).get("policy_id") == expected


def test_the_change_feed_goes_on_where_it_was_left(policies: Caller) -> None:
    for policy_id in ("pol_1", "pol_2", "pol_1"):
        policies("POST", f"/v1/policies/{policy_id}/promote")
    first = policies("GET", "/v1/changes?limit=2").get_json()
    assert [c["policy_id"] for c in first["changes"]] == ["pol_1", "pol_2"]
    rest = policies("GET", f"/v1/changes?after={first['after']}").get_json()
    assert [c["policy_id"] for c in rest["changes"]] == ["pol_1"]
    done = policies("GET", f"/v1/changes?after={rest['after']}").get_json()
    assert done == {"changes": [], "after": rest["after"]}


def test_who_reads_the_change_feed_beyond_its_end_learns_that_it_was_taken_back(policies: Caller) -> None:
    policies("POST", "/v1/policies/pol_1/promote")
    reply = policies("GET", "/v1/changes?after=2")
    assert (reply.status_code, reply.get_json()["code"]) == (409, "ahead")
    assert "after 2 is beyond the newest position, 1" in reply.get_json()["detail"]
    assert policies("GET", "/v1/changes?after=1").get_json() == {"changes": [], "after": 1}


def test_a_promoted_policy_is_served_and_told_by_readyz(policies: Caller, app: Flask) -> None:
    policies("POST", "/v1/policies/pol_1/promote")
    app.extensions["sendtide"].get().policies.refresh_now()
    (served,) = policies("GET", "/readyz").get_json()["policies"]
    assert (served["campaign_id"], served["policy_id"], served["generation"], served["fault"]) == (
        "c",
        "pol_1",
        1,
        None,
    )
    decided = policies("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u"}).get_json()
    assert decided["policy_id"] == "pol_1"


def test_a_rejected_candidate_cannot_be_promoted_and_what_serves_goes_on(policies: Caller, app: Flask) -> None:
    services = app.extensions["sendtide"].get()
    policies("POST", "/v1/policies/pol_1/promote")
    reject(services, replace(POLICY, policy_id="pol_bad", parent_id="pol_1"))
    refused = policies("POST", "/v1/policies/pol_bad/promote")
    assert (refused.status_code, refused.get_json()["code"]) == (409, "no_model")
    assert "pol_bad" in refused.get_json()["detail"]
    assert policies("GET", "/v1/policies/pol_bad").get_json()["status"] == "rejected"
    services.policies.refresh_now()
    decided = policies("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "u"})
    assert (decided.status_code, decided.get_json()["policy_id"]) == (201, "pol_1")


@pytest.mark.parametrize(
    "path", ["/v1/policies/pol_x", "/v1/training-runs/run_x", "/v1/decisions/dec_x", "/v1/rules/x"]
)
def test_what_is_not_there_is_404(ready: Caller, path: str) -> None:
    reply = ready("GET", path)
    assert (reply.status_code, reply.get_json(force=True)["code"]) == (404, "not_found")


def test_a_policy_of_another_workspace_cannot_be_promoted(policies: Caller, app: Flask) -> None:
    stranger = Caller(app, key(app, "admin", workspace="other"))
    assert stranger("POST", "/v1/policies/pol_1/promote").status_code == 404
    assert stranger("POST", "/v1/policies/rollback", {"campaign_id": "c"}).status_code == 404


@pytest.mark.parametrize(
    ("policy_id", "words"), [("pol_cold", "by chance"), ("pol_imported", "imported"), ("pol_x", "no policy 'pol_x'")]
)
def test_a_policy_that_is_not_stored_is_told_why(policies: Caller, policy_id: str, words: str) -> None:
    answer = policies("GET", f"/v1/policies/{policy_id}")
    assert answer.status_code == 404
    assert words in answer.get_json()["detail"]
