"""What an admin may do in the console: each with a confirmation, a token, a scope, and a note of who did it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from optimizer.service.ids import COLD_POLICY
from storage.errors import VersionConflict
from storage.log import Change
from storage.policies import Component, Policy, TrainingRun
from tests.web.conftest import NOW, Caller
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
FAILED = {"name": "value", "passed": False, "figure": -0.5, "limit": 0, "detail": "lower bound of the difference"}
ALL = ("/console/policies/pol_new/promote", "/console/policies/pol_new/roll-back", "/console/training")


def policy(policy_id: str, hours: int, **facts: Any) -> Policy:
    made = NOW + timedelta(hours=hours)
    return Policy("default", policy_id, "c", made, **{"mixture": (Component(1.0, None),), **facts})


@pytest.fixture
def stored(app: Flask, ready: Caller) -> None:
    """Two policies that could serve, and a rejected candidate."""
    rejected = {"decision": "reject", "reason": "failed: value is -0.5, limit 0", "conditions": [FAILED]}

    def work(writer: Any) -> None:
        writer.add_policy(policy("pol_old", 1))
        writer.add_policy(policy("pol_new", 2, parent_id="pol_old"))
        writer.add_policy(policy("pol_bad", 3, parent_id="pol_old", mixture=(), status="rejected", verdict=rejected))

    app.extensions["sendtide"].get().store.write(work)


def serving(app: Flask) -> str:
    with app.extensions["sendtide"].get().store.read() as reader:
        pointer = reader.pointer("default", "c")
    return COLD_POLICY if pointer is None else str(pointer.policy_id)


def changes(app: Flask) -> list[Change]:
    with app.extensions["sendtide"].get().store.read() as reader:
        return list(reader.changes("default", after=0, limit=100))


def runs(app: Flask) -> list[TrainingRun]:
    with app.extensions["sendtide"].get().store.read() as reader:
        return list(reader.training_runs("default", limit=100).items)


@pytest.mark.usefixtures("stored")
def test_a_policy_is_put_into_service_and_rolled_back_after_a_confirmation(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    for policy_id in ("pol_old", "pol_new"):
        asked = browser.get(f"/console/policies/{policy_id}/promote")
        assert "Put this policy into service?" in asked.text
        done = browser.post(f"/console/policies/{policy_id}/promote")
        assert done.status_code == 303
        assert "The policy is in service." in browser.get(done.headers["Location"]).text
    assert serving(app) == "pol_new"
    asked = browser.get("/console/policies/pol_new/roll-back")
    assert "pol_old" in asked.text, "what would serve then"
    done = browser.post("/console/policies/pol_new/roll-back")
    assert "The policy was rolled back." in browser.get(done.headers["Location"]).text
    assert serving(app) == "pol_old"
    noted = [(one.kind, one.policy_id) for one in changes(app)]
    assert noted == [("promoted", "pol_old"), ("promoted", "pol_new"), ("rolled_back", "pol_old")]
    for policy_id, told in (
        ("pol_new", [("Rolled back", "pol_old"), ("Promoted", None)]),
        ("pol_old", [("Put back", None), ("Replaced", "pol_new"), ("Promoted", None)]),
    ):
        moves = browser.get(f"/console/policies/{policy_id}").text.partition('<h2 id="moves">')[2].partition("</ul>")[0]
        found = re.findall(r'class="tag \w+">([^<]+)</span>(?:(?!</li>).)*?(?:/policies/(\w+)"|</li>)', moves)
        assert [(kind, other or None) for kind, other in found] == told, policy_id
    assert all(one.detail.startswith("key key_") and one.detail.endswith("(test)") for one in changes(app))


@pytest.mark.usefixtures("stored")
def test_a_campaign_whose_policy_was_taken_back_is_not_said_to_have_learned_nothing_yet(
    app: Flask, signed_in: SignedIn
) -> None:
    browser = signed_in("admin")
    assert "random choices: nothing has been learned yet" in browser.get("/console/campaigns/c").text
    browser.post("/console/policies/pol_old/promote")
    browser.post("/console/policies/pol_old/roll-back")
    assert serving(app) == COLD_POLICY
    assert "random choices: what was learned was taken back" in browser.get("/console/campaigns/c").text


@pytest.mark.usefixtures("stored")
def test_asking_changes_nothing(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    browser.get("/console/policies/pol_new/promote")
    assert serving(app) == COLD_POLICY
    assert browser.client.get("/console/policies/pol_new/promote?token=" + browser.token).status_code == 200
    assert changes(app) == []


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("path", ALL)
def test_who_may_only_read_changes_nothing(app: Flask, signed_in: SignedIn, path: str) -> None:
    browser = signed_in("read", "decide", "feedback")
    page = browser.post(path)
    assert page.status_code == 403
    assert "You may not do this" in page.text
    assert (serving(app), changes(app), runs(app)) == (COLD_POLICY, [], [])


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("path", ALL)
def test_a_form_of_another_session_changes_nothing(app: Flask, signed_in: SignedIn, path: str) -> None:
    browser, other = signed_in("admin"), signed_in("admin")
    for token in ({}, {"token": ""}, {"token": other.token}):
        assert browser.client.post(path, data=token).status_code == 403
    assert (serving(app), changes(app), runs(app)) == (COLD_POLICY, [], [])


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("path", ALL)
def test_without_a_session_nothing_changes(app: Flask, stranger: Browser, path: str) -> None:
    stranger.get("/console/sign-in")
    assert stranger.post(path).headers["Location"] == "/console/sign-in"
    assert (serving(app), changes(app), runs(app)) == (COLD_POLICY, [], [])


@pytest.mark.usefixtures("stored")
def test_another_workspaces_policies_are_none(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin", workspace="other")
    for path in ("", "/promote", "/roll-back"):
        assert browser.get(f"/console/policies/pol_new{path}").status_code == 404
    for path in ("/promote", "/roll-back"):
        assert browser.post(f"/console/policies/pol_new{path}").status_code == 404
    assert "pol_new" not in browser.get("/console/policies").text
    assert browser.get("/console/policies/compare?a=pol_new&b=pol_old").status_code == 404
    assert serving(app) == COLD_POLICY


@pytest.mark.usefixtures("stored")
def test_only_what_changed_meanwhile_is_headed_so(
    app: Flask, signed_in: SignedIn, ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, store = signed_in("admin"), app.extensions["sendtide"].get().store
    ready("PUT", "/v1/rules/gap", {"kind": "gap", "minutes": 60})
    for path in (
        "/console/rules/gap/switch/on",
        "/console/policies/pol_bad/promote",
        "/console/policies/pol_new/roll-back",
    ):
        refused = browser.get(path)
        assert refused.status_code == 409
        assert "<h1>This can’t be done as things stand</h1>" in refused.text
    refused = browser.post("/console/rules/gap/switch/off", {"version": "7"})
    assert (refused.status_code, "<h1>It was changed at the same time</h1>" in refused.text) == (412, True)

    def raced(*_: Any, **__: Any) -> None:
        raise VersionConflict("rule gap: version 2 was to be stored, but 3 comes next")

    monkeypatch.setattr(store, "write", raced)
    refused = browser.post("/console/rules/gap/switch/off", {"version": "1"})
    assert (refused.status_code, "<h1>It was changed at the same time</h1>" in refused.text) == (409, True)


@pytest.mark.usefixtures("stored")
def test_what_no_longer_serves_is_not_rolled_back(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    browser.post("/console/policies/pol_new/promote")
    browser.post("/console/policies/pol_old/promote")
    assert browser.post("/console/policies/pol_new/roll-back").status_code == 409
    assert browser.get("/console/policies/pol_new/roll-back").status_code == 409
    assert serving(app) == "pol_old"


@pytest.mark.usefixtures("stored")
def test_a_second_click_takes_no_second_policy_back(
    app: Flask, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, store = signed_in("admin"), app.extensions["sendtide"].get().store
    store.write(lambda writer: writer.add_policy(policy("pol_newer", 3, parent_id="pol_new")))
    browser.post("/console/policies/pol_newer/promote")
    real, second = store.write, []

    def write(work: Any, **options: Any) -> Any:
        """The other click is carried out before this one's write, and after all that it read before."""
        monkeypatch.setattr(store, "write", real)
        second.append(browser.post("/console/policies/pol_newer/roll-back").status_code)
        return real(work, **options)

    monkeypatch.setattr(store, "write", write)
    assert browser.post("/console/policies/pol_newer/roll-back").status_code == 409
    assert second == [303]
    assert serving(app) == "pol_new"


@pytest.mark.usefixtures("stored")
def test_a_rejected_candidate_has_no_model_to_serve(app: Flask, signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    page = browser.get("/console/policies/pol_bad").text
    assert "No improvement was shown; what served before stays." in page, "of value alone; the figures stand below"
    assert "lower bound of the difference" in page
    assert "Put into service" not in page
    assert browser.post("/console/policies/pol_bad/promote").status_code == 409
    assert serving(app) == COLD_POLICY


@pytest.mark.usefixtures("stored")
def test_a_rejected_candidate_replaced_nothing_and_keeps_no_model(signed_in: SignedIn) -> None:
    browser = signed_in("admin")
    page = browser.get("/console/policies/pol_bad").text
    assert "Judged against" in page
    assert "Replaced" not in page
    assert "No model of it is kept: it was rejected." in page
    browser.post("/console/policies/pol_new/promote")
    page = browser.get("/console/policies/pol_new").text
    assert "Replaced" in page
    assert "Judged against" not in page


@pytest.mark.usefixtures("stored")
def test_policies_are_compared_condition_by_condition(signed_in: SignedIn, ready: Caller, app: Flask) -> None:
    browser = signed_in("read")
    page = browser.get("/console/policies/compare?a=pol_bad&b=pol_old").text
    assert "Clearly worth more than what serves now" in page
    assert page.count("Not met") == 1
    assert browser.get("/console/policies/compare?a=pol_bad").status_code == 404
    elsewhere = Policy("default", "pol_elsewhere", "d", NOW, (Component(1.0, None),))
    app.extensions["sendtide"].get().store.write(lambda writer: writer.add_policy(elsewhere))
    assert browser.get("/console/policies/compare?a=pol_bad&b=pol_elsewhere").status_code == 422


def test_a_training_run_is_queued_once_and_notes_who_asked(app: Flask, signed_in: SignedIn, ready: Caller) -> None:
    browser = signed_in("admin")
    done = browser.post("/console/training", {"campaign_id": "c"})
    (run,) = runs(app)
    assert done.headers["Location"] == f"/console/training/{run.run_id}"
    assert (run.status, run.kind, run.campaign_id) == ("queued", "retrain", "c")
    assert run.trigger.startswith("console, key key_")
    page = browser.get(done.headers["Location"]).text
    assert "It waits for the scheduler" in page
    assert run.trigger in page
    assert browser.post("/console/training", {"campaign_id": "nothing"}).status_code == 404
    assert len(runs(app)) == 1


@pytest.mark.usefixtures("stored")
def test_what_was_done_is_in_the_audit_log_and_what_was_refused_is_not(
    signed_in: SignedIn, caplog: pytest.LogCaptureFixture
) -> None:
    browser, reader = signed_in("admin"), signed_in("read")
    with caplog.at_level(logging.INFO, "sendtide.audit"):
        browser.post("/console/policies/pol_new/promote")
        reader.post("/console/policies/pol_old/promote")
        browser.post("/console/policies/pol_nothing/promote")
    (noted,) = [vars(r) for r in caplog.records if r.name == "sendtide.audit"]
    assert (noted["action"], noted["policy_id"], noted["workspace"]) == ("promote", "pol_new", "default")
    assert noted["key"].startswith("key_")
    assert noted["request_id"]


@pytest.mark.parametrize("person", ["ada/1", "/home/ada"])
def test_a_person_is_exported_and_erased_after_a_confirmation(
    app: Flask, signed_in: SignedIn, ready: Caller, caplog: pytest.LogCaptureFixture, person: str
) -> None:
    asked = {"campaign_id": "c", "recipient_id": person, "recipient": {"attributes": {"city": "Kyiv"}}}
    ready("POST", "/v1/decisions", asked)
    browser = signed_in("admin")
    page = browser.get(f"/console/recipients/{person}").text
    link = page.split('href="/console/export/')[1].split('"')[0]
    assert "/" not in link
    export = browser.get(f"/console/export/{link}")
    assert export.headers["Content-Disposition"] == 'attachment; filename="recipient.json"'
    assert export.get_json()["recipient"]["attributes"] == {"city": "Kyiv"}
    assert "Erase this person?" in browser.get(f"/console/erase/{person}").text
    assert browser.get(f"/console/recipients/{person}").status_code == 200, "asking changes nothing"
    with caplog.at_level(logging.INFO, "sendtide.audit"):
        done = browser.post(f"/console/erase/{person}")
    assert "The person was erased: 1 decisions" in done.text
    assert browser.get(f"/console/recipients/{person}").status_code == 404
    (noted,) = [vars(r) for r in caplog.records if r.name == "sendtide.audit"]
    assert noted["action"] == "erase_recipient"
    assert person not in str(noted), "logs name no person"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/events", {"events": [{"type": "viewed", "occurred_at": "2026-11-24T08:00:00Z", "recipient_id": "bob"}]}),
        (
            "/v1/sends",
            {"id": "m", "recipient_id": "bob", "channel": "sms", "category": "x", "sent_at": "2026-11-24T08:00:00Z"},
        ),
    ],
)
def test_who_is_known_by_what_others_report_alone_is_shown_and_erased_too(
    signed_in: SignedIn, ready: Caller, path: str, told: dict[str, Any]
) -> None:
    browser = signed_in("admin")
    assert browser.get("/console/recipients/bob").status_code == 404
    assert ready("POST", path, told).status_code in (201, 202)
    page = browser.get("/console/recipients/bob")
    assert page.status_code == 200
    assert ("viewed" if path == "/v1/events" else "sms") in page.text
    assert "Erase this person?" in browser.get("/console/erase/bob").text
    assert "The person was erased" in browser.post("/console/erase/bob").text
    assert browser.get("/console/recipients/bob").status_code == 404


@pytest.mark.parametrize("path", ["/console/export/ada", "/console/erase/ada"])
def test_a_persons_data_is_for_admins_of_their_workspace(signed_in: SignedIn, ready: Caller, path: str) -> None:
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"})
    reader, other, admin = signed_in("read"), signed_in("admin", workspace="other"), signed_in("admin")
    assert reader.get(path).status_code == 403
    assert "/console/erase/" not in reader.get("/console/recipients/ada").text
    assert other.get(path).status_code == 404
    assert reader.post("/console/erase/ada").status_code == 403
    assert other.post("/console/erase/ada").status_code == 404
    assert admin.client.post("/console/erase/ada").status_code == 403, "no token"
    assert admin.get("/console/recipients/ada").status_code == 200
