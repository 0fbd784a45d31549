"""What is told of rules: in decisions and records, in metrics, in the change feed, in the list of breaches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from optimizer.service.wiring import Services
from storage.log import Reason
from storage.rules import RiskLimit
from tests.web.conftest import CAMPAIGN, NOW, Caller, StillClock, key

ASK: dict[str, Any] = {"campaign_id": "c", "recipient_id": "u"}
NEVER: dict[str, Any] = {"kind": "cap", "limit": 0, "window": {"calendar": "day"}}


@pytest.fixture
def service(app: Flask) -> Services:
    found: Services = app.extensions["sendtide"].get()
    return found


def decide(caller: Caller, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = caller("POST", "/v1/decisions", {**ASK, **more}).get_json()
    return told


def test_a_reason_says_whether_the_rule_only_reports_and_what_the_numbers_do_not(ready: Caller) -> None:
    ready("PUT", "/v1/rules/never", {**NEVER, "applies_to": {"campaigns": ["c"]}})
    ready("PUT", "/v1/rules/watch", {"kind": "quiet_hours", "start": "00:00", "end": "00:00", "dry_run": True})
    told = decide(ready)
    assert told["status"] == "withheld"
    assert told["reasons"] == [
        {
            "rule_id": "never",
            "kind": "cap",
            "masked": 48,
            "next_eligible_at": None,
            "dry_run": False,
            "note": "limit 0: never",
        },
        {
            "rule_id": "watch",
            "kind": "quiet_hours",
            "masked": 48,
            "next_eligible_at": None,
            "dry_run": True,
            "note": "",
        },
    ]
    record = ready("GET", f"/v1/decisions/{told['decision_id']}").get_json()
    assert record["reasons"] == told["reasons"]


def test_a_record_holds_what_the_rules_used(ready: Caller, service: Services) -> None:
    made = decide(ready)
    with service.store.read() as reader:
        stored = reader.decision("default", made["decision_id"])
    assert stored is not None
    facts = ready("GET", f"/v1/decisions/{made['decision_id']}").get_json()["snapshot"]
    assert (facts["unanswered"], facts["limits"], facts["risks"], facts["displaced"]) == (None, [], {}, [])
    full = replace(
        stored,
        decision_id="dec_full",
        request_id="full",
        snapshot=replace(
            stored.snapshot,
            cost=30_400,
            unanswered=7,
            limits=(RiskLimit("tired", "unsubscribed", 0.002, ("email",)), RiskLimit("angry", "complained", 0.001)),
            risks={"unsubscribed": (0.25, None), "complained": (0.5, None)},
            displaced=("dec_other",),
        ),
        reasons=(Reason("x", "capacity", 3, NOW, True, "said"),),
    )
    service.store.write(lambda writer: writer.add_decision(full, None))
    record = ready("GET", "/v1/decisions/dec_full").get_json()
    facts = record["snapshot"]
    assert facts["cost"] == 0.0304
    assert facts["unanswered"] == 7
    assert facts["limits"] == [
        {"rule_id": "tired", "outcome": "unsubscribed", "max_risk": 0.002, "channels": ["email"]},
        {"rule_id": "angry", "outcome": "complained", "max_risk": 0.001, "channels": None},
    ]
    assert facts["risks"] == {"unsubscribed": [0.25, None], "complained": [0.5, None]}
    assert facts["displaced"] == ["dec_other"]
    assert record["reasons"][0]["note"] == "said"


# Metrics


def samples(caller: Caller, name: str) -> dict[str, float]:
    """Label text -> value of a metric."""
    text = caller("GET", "/metrics").get_data(as_text=True)
    found = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name + "{")]
    return {labels.removeprefix(name): float(value) for labels, value in found}


def masked(caller: Caller) -> dict[str, float]:
    return samples(caller, "sendtide_rule_masked_actions_total")


def withheld(caller: Caller) -> dict[str, float]:
    return samples(caller, "sendtide_rule_withheld_total")


def test_metrics_count_for_each_rule_what_it_masked_and_what_was_withheld(ready: Caller) -> None:
    ready("PUT", "/v1/rules/never", {**NEVER, "applies_to": {"categories": ["marketing"]}})
    ready("PUT", "/v1/rules/watch", {**NEVER, "dry_run": True})
    ready("PUT", "/v1/campaigns/t", {**CAMPAIGN, "category": "transactional"})
    decide(ready, preview=True)
    assert (masked(ready), withheld(ready)) == ({}, {})

    decide(ready)
    never = '{kind="cap",rule_id="never",workspace="default"}'
    assert masked(ready) == {
        '{dry_run="false",kind="cap",rule_id="never",workspace="default"}': 48,
        '{dry_run="true",kind="cap",rule_id="watch",workspace="default"}': 48,
    }
    assert {name: count for name, count in withheld(ready).items() if count} == {never: 1}

    decide(ready, campaign_id="t")  # open: only the dry run speaks of it
    assert masked(ready)['{dry_run="true",kind="cap",rule_id="watch",workspace="default"}'] == 96
    assert {name: count for name, count in withheld(ready).items() if count} == {never: 1}


def test_a_batch_counts_each_new_decision_once(ready: Caller, clock: StillClock) -> None:
    ready("PUT", "/v1/rules/never", NEVER)
    rows: list[dict[str, Any]] = [
        {"recipient_id": "u1"},
        {"recipient_id": "u2", "request_id": "twice"},
        {"recipient_id": "u2", "request_id": "twice"},
        {"recipient_id": "u3"},
        {"recipient_id": ""},
    ]
    batch = {"campaign_id": "c", "recipients": rows}
    for _ in range(2):  # the second time answers the same and counts nothing
        assert ready("POST", "/v1/decisions/batch", batch, headers={"Idempotency-Key": "k"}).status_code == 200
        clock.forward(seconds=1)
    ready("POST", "/v1/decisions/batch", {**batch, "preview": True})
    assert list(withheld(ready).values()) == [3]
    assert list(masked(ready).values()) == [3 * 48]


def test_a_rule_that_was_overridden_masked_nothing(ready: Caller) -> None:
    ready("PUT", "/v1/rules/never", NEVER)
    assert decide(ready, override_rules=True)["status"] == "reserved"
    assert masked(ready) == {}


# The change feed


def test_a_displaced_decision_is_in_the_change_feed_and_cannot_be_claimed(ready: Caller) -> None:
    ready("PUT", "/v1/rules/cap", {"kind": "cap", "limit": 1, "window": {"rolling_hours": 168}})
    ready("PUT", "/v1/campaigns/t", {**CAMPAIGN, "category": "transactional"})
    first = decide(ready)
    second = decide(ready, campaign_id="t")
    assert (first["status"], second["status"]) == ("reserved", "reserved")
    feed = ready("GET", "/v1/changes?after=0&limit=1").get_json()
    (change,) = feed["changes"]
    assert (change["kind"], change["decision_id"], change["campaign_id"]) == ("displaced", first["decision_id"], "c")
    assert second["decision_id"] in change["detail"]
    assert ready("GET", f"/v1/changes?after={feed['after']}").get_json() == {"changes": [], "after": feed["after"]}
    assert ready("GET", f"/v1/decisions/{first['decision_id']}").get_json()["status"] == "displaced"
    record = ready("GET", f"/v1/decisions/{second['decision_id']}").get_json()
    assert record["snapshot"]["displaced"] == [first["decision_id"]]
    refused = ready("POST", f"/v1/decisions/{first['decision_id']}/claim")
    assert (refused.status_code, refused.get_json(force=True)["code"]) == (409, "not_claimable_displaced")
    # It went out all the same: that is a fact.
    assert ready("POST", f"/v1/decisions/{first['decision_id']}/confirm").get_json()["status"] == "sent"


def test_the_change_feed_is_documented_with_what_it_tells(nobody: Caller) -> None:
    document = nobody("GET", "/openapi.json").get_json()
    kinds = document["components"]["schemas"]["ChangeOut"]["properties"]["kind"]["enum"]
    assert kinds == ["revoked", "displaced", "expired", "promoted", "rolled_back"]
    names = {p["name"] for p in document["paths"]["/v1/changes"]["get"]["parameters"]}
    assert names == {"after", "limit"}


# Out of order over HTTP


def test_confirm_release_and_claim_out_of_order(ready: Caller, clock: StillClock) -> None:
    made = decide(ready)
    at = f"/v1/decisions/{made['decision_id']}"
    clock.forward(days=2)
    sent = ready("POST", f"{at}/confirm", {"sent_at": "2026-11-25T08:00:00Z"})
    assert (sent.status_code, sent.get_json()["status"]) == (200, "sent")
    for path, status, code in (("claim", 409, "not_claimable_sent"), ("release", 409, "not_releasable_sent")):
        refused = ready("POST", f"{at}/{path}", {})
        assert (refused.status_code, refused.get_json(force=True)["code"]) == (status, code)
    again = {"sent_at": "2026-11-25T09:00:00Z", "provider": "ses", "message_id": "m"}
    assert ready("POST", f"{at}/confirm", again).status_code == 200
    record = ready("GET", at).get_json()
    assert (record["sent_at"], record["provider"], record["message_id"]) == ("2026-11-25T08:00:00Z", "ses", "m")


# Breaches


def test_breaches_of_one_rule_and_of_all_are_paged(ready: Caller, app: Flask) -> None:
    for number in range(3):
        decide(ready, recipient_id=f"u{number}")
    assert ready("GET", "/v1/rule-breaches").get_json() == {"breaches": [], "cursor": None}
    ready("PUT", "/v1/rules/breaches", NEVER)  # an id that looks like a path
    ready("PUT", "/v1/rules/quiet", {"kind": "quiet_hours", "start": "00:00", "end": "00:00"})
    read = Caller(app, key(app, "read"))

    def pages(path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = read("GET", f"{path}?limit=2{cursor}").get_json()
            assert len(page["breaches"]) <= 2
            found += page["breaches"]
            if page["cursor"] is None:
                return found
            cursor = f"&cursor={page['cursor']}"

    assert [one["rule_id"] for one in pages("/v1/rules/breaches/breaches")] == ["breaches"] * 3
    assert read("GET", "/v1/rules/breaches").get_json()["kind"] == "cap"
    every = pages("/v1/rule-breaches")
    assert sorted((one["recipient_id"], one["rule_id"]) for one in every) == [
        (f"u{n}", rule) for n in range(3) for rule in ("breaches", "quiet")
    ]
    assert every[0].keys() == {
        "decision_id",
        "recipient_id",
        "campaign_id",
        "channel",
        "status",
        "send_at",
        "rule_id",
        "kind",
        "dry_run",
        "next_eligible_at",
        "detail",
    }
    assert every[0]["send_at"].endswith("Z")


def test_breaches_of_a_rule_that_is_not_there_are_not_found(ready: Caller) -> None:
    ready("PUT", "/v1/rules/gone", NEVER)
    ready("DELETE", "/v1/rules/gone")
    for name in ("gone", "nope"):
        assert ready("GET", f"/v1/rules/{name}/breaches").status_code == 404


def test_a_rule_is_tried_before_it_is_put(ready: Caller) -> None:
    decide(ready)
    found = ready("POST", "/v1/rules/new/preview", {**NEVER, "enabled": False}).get_json()
    assert (found["rule_id"], found["kind"], found["complete"]) == ("new", "cap", True)
    assert (found["decisions"], found["touched"], found["silenced"]) == (1, 1, 1)
    assert found["actions"] == 48
    assert found["by_campaign"][0]["campaign_id"] == "c"
    assert ready("GET", "/v1/rules/new").status_code == 404, "it changes nothing"
    refused = ready("POST", "/v1/rules/new/preview", {"kind": "fatigue", "outcome": "unsubscribed", "max_risk": 0.01})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "not_previewed")
    assert ready("POST", "/v1/rules/new/preview", {"kind": "cap"}).status_code == 422
