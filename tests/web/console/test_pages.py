"""The pages: what they show, whose they show, and what odd names can't do."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from optimizer.service import freshreports, setup
from optimizer.service.card import card
from optimizer.service.report import report_with_trends
from optimizer.web.console import reports
from storage.policies import Component, Policy, PolicyStatus, TrainingRun
from storage.port import Writer
from storage.records import Recipient
from tests.service.trained import publish_model
from tests.web.conftest import CAMPAIGN, NOW, Caller, StillClock, key, moved_afar
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
ODD = "<b>\"Ünï&amp;'</b> \U0001f30a\u202e"


@pytest.fixture
def shop(ready: Caller) -> dict[str, str]:
    """A campaign with a decision, an event and a training run; the ids of all."""
    asked = {"campaign_id": "c", "recipient_id": "ada", "recipient": {"timezone": "Europe/Berlin"}}
    decision = ready("POST", "/v1/decisions", {**asked, "context": {"cart": 80}}).get_json()["decision_id"]
    opened = {"event_id": "e1", "decision_id": decision, "type": "opened", "occurred_at": NOW.isoformat()}
    assert ready("POST", "/v1/events", {"events": [opened]}).status_code == 202
    evening = {"kind": "quiet_hours", "start": "18:00", "end": "20:00"}
    assert ready("PUT", "/v1/rules/evening", evening).status_code == 201
    run = ready("POST", "/v1/training-runs").get_json()["run_id"]
    return {"campaign": "c", "decision": decision, "recipient": "ada", "run": run, "rule": "evening"}


PAGES = (
    "/console",
    "/console/campaigns",
    "/console/campaigns/{campaign}",
    "/console/decisions",
    "/console/decisions/{decision}",
    "/console/recipients",
    "/console/recipients/{recipient}",
    "/console/policies",
    "/console/training",
    "/console/training/{run}",
    "/console/rules",
    "/console/rules/{rule}",
    "/console/rules/{rule}/edit",
    "/console/rules/{rule}/switch/off",
    "/console/new-rule",
    "/console/keys",
    "/console/data",
    "/console/start",
)
FOR_ADMINS = ("/console/keys", "/console/new-rule", "/console/rules/{rule}/edit", "/console/rules/{rule}/switch/off")
OF_ONE = [path for path in PAGES if "{" in path]


def least(path: str) -> str:
    """The scope that is enough for a page."""
    return "admin" if path in FOR_ADMINS else "read"


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_there_in_every_language(
    signed_in: SignedIn, shop: dict[str, str], path: str, language: str
) -> None:
    page = signed_in(least(path)).get(path.format(**shop), headers={"Accept-Language": language})
    assert page.status_code == 200
    assert f'<html lang="{language}"' in page.text
    assert len(page.data) < 300_000


@pytest.mark.parametrize("path", OF_ONE)
def test_pages_tell_of_a_channel_that_the_campaign_no_longer_has(
    signed_in: SignedIn, shop: dict[str, str], ready: Caller, path: str
) -> None:
    asked = {"campaign_id": "c", "recipient_id": "ada", "channels": ["chat"]}
    assert ready("PUT", "/v1/campaigns/c", {**CAMPAIGN, "channels": ["email", "chat"]}).status_code == 200
    decision = ready("POST", "/v1/decisions", asked).get_json()
    assert decision["action"]["channel"] == "chat"
    assert ready("PUT", "/v1/campaigns/c", CAMPAIGN).status_code == 200
    page = signed_in("admin").get(path.format(**{**shop, "decision": decision["decision_id"]}))
    assert page.status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_an_empty_workspace_has_pages_too(signed_in: SignedIn, path: str) -> None:
    browser = signed_in(least(path))
    if "{" not in path:
        assert browser.get(path).status_code == 200
    else:
        kind = path.split("{")[1].split("}")[0]
        assert browser.get(path.format(**{kind: "nothing"})).status_code == 404


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_inline_script_or_style(signed_in: SignedIn, shop: dict[str, str], path: str) -> None:
    text = signed_in("admin").get(path.format(**shop)).text
    assert "<style" not in text
    assert "style=" not in text
    assert "javascript:" not in text
    assert text.count("<script") == text.count('<script src="/static/console/console.js"') == 1


@pytest.mark.parametrize("path", OF_ONE)
def test_another_workspace_sees_nothing_of_it(signed_in: SignedIn, shop: dict[str, str], path: str) -> None:
    page = signed_in("admin", workspace="other").get(path.format(**shop))
    assert page.status_code == 404
    assert "Europe/Berlin" not in page.text


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_there_is_none(stranger: Browser, shop: dict[str, str], path: str) -> None:
    page = stranger.get(path.format(**shop))
    assert (page.status_code, page.data) == (303, b"")
    assert page.headers["Location"].startswith("/console/sign-in")


def test_a_decision_tells_what_was_chosen_why_and_what_came_of_it(
    signed_in: SignedIn, shop: dict[str, str], ready: Caller
) -> None:
    page = signed_in("read").get(f"/console/decisions/{shop['decision']}").text
    told = ready("GET", f"/v1/decisions/{shop['decision']}").get_json()
    assert f"{told['action']['variant_id']} by email" in page
    assert "Nothing has been learned yet: drawn from the cold start with probability " in page
    assert "Opened" in page
    assert "Europe/Berlin" in page


def test_a_decision_is_explained_in_the_language_of_the_page(
    signed_in: SignedIn, ready: Caller, shop: dict[str, str], app: Flask
) -> None:
    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        made = reader.campaign("default", "c")
    assert made is not None
    publish_model(services, made)
    asked = {"campaign_id": "c", "recipient_id": "bob", "recipient": {"timezone": "Europe/Berlin"}}
    told = ready("POST", "/v1/decisions", {**asked, "context": {"cart": 80}}).get_json()
    why = ready("GET", f"/v1/decisions/{told['decision_id']}/explanation").get_json()
    assert why["kind"] == "learned"
    assert {one["kind"] for one in why["masked"]} >= {"quiet_hours"}
    browser, path = signed_in("read"), f"/console/decisions/{told['decision_id']}"
    (masked,) = [one["masked"] for one in why["masked"] if one["rule_id"] == "evening"]
    for language, kind, begins in (("en", "Quiet hours", "Chosen with"), ("ru", "Тихие часы", "Выбрано с")):
        page = browser.get(path, headers={"Accept-Language": language}).text
        assert f"evening ({kind}, {masked})" in page
        assert "quiet_hours" not in page
        assert f'<p class="lead">{begins}' in page
    for one in why["comparisons"][0]["contributions"]:
        if one["feature"] == "hour of the day":
            assert "час дня" in page
            assert "hour of the day" not in page


def test_decisions_are_found_by_what_is_known_of_them(signed_in: SignedIn, shop: dict[str, str], ready: Caller) -> None:
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "bob"})
    browser = signed_in("read")
    by_person = browser.get("/console/decisions?recipient_id=bob&status=reserved").text
    assert ">bob<" in by_person
    assert ">ada<" not in by_person
    assert "No decisions found" in browser.get("/console/decisions?recipient_id=bob&status=sent").text
    to_one = browser.get(f"/console/decisions?decision_id={shop['decision']}")
    assert to_one.headers["Location"] == f"/console/decisions/{shop['decision']}"
    assert browser.get("/console/decisions?cursor=broken").status_code == 422


@pytest.mark.parametrize(
    ("path", "name"), [("/console/decisions", "decision_id"), ("/console/recipients", "recipient_id")]
)
def test_a_search_that_finds_nothing_can_be_changed(
    signed_in: SignedIn, shop: dict[str, str], path: str, name: str
) -> None:
    browser = signed_in("read")
    answer = browser.get(browser.get(f"{path}?{name}=no%3Cone").headers["Location"])
    assert answer.status_code == 404
    assert "“no&lt;one”" in answer.text
    assert f'name="{name}" value="no&lt;one"' in answer.text
    assert f"/console/recipients/{shop['recipient']}" in answer.text, "what there is stays in sight"


def test_decisions_are_paged(signed_in: SignedIn, ready: Caller) -> None:
    people = [{"recipient_id": f"u{n}"} for n in range(60)]
    ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": people})
    browser = signed_in("read")
    first = browser.get("/console/decisions?campaign_id=c").text
    assert first.count("/console/recipients/u") == 50
    older = first.split('class="button" href="')[1].split('"')[0].replace("&amp;", "&")
    second = browser.get(older).text
    assert second.count("/console/recipients/u") == 10
    assert "campaign_id=c" in older


def test_a_recipient_page_tells_what_is_reserved_and_what_is_open(
    signed_in: SignedIn, shop: dict[str, str], ready: Caller
) -> None:
    rule = {"kind": "cap", "limit": 1, "window": {"rolling_hours": 48}}
    ready("PUT", "/v1/rules/one-in-two-days", rule)
    page = signed_in("read").get("/console/recipients/ada").text
    assert "one-in-two-days" in page
    assert "Nothing is open" in page
    assert shop["decision"] in page
    assert len(ready("GET", "/v1/decisions").get_json()["decisions"]) == 1, "looking reserves nothing"


def test_what_is_open_is_told_of_who_has_no_record_and_of_nobody_who_was_erased(
    signed_in: SignedIn, ready: Caller
) -> None:
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "eve"})
    assert ready("GET", "/v1/recipients/eve").status_code == 404
    browser = signed_in("admin")
    page = browser.get("/console/recipients/eve").text
    assert "No active campaign to ask." not in page
    asked = {"campaign_id": "c", "recipient_id": "eve", "preview": True}
    told = ready("POST", "/v1/decisions", asked).get_json()
    assert f">{told['eligible_actions']:,} of " in page
    browser.get("/console/erase/eve")
    browser.post("/console/erase/eve")
    pseudonym = ready("GET", "/v1/decisions").get_json()["decisions"][0]["recipient_id"]
    page = browser.get(f"/console/recipients/{pseudonym}").text
    assert "there is nobody to ask about" in page
    assert "open actions" not in page.lower()


def test_the_five_hundred_and_first_campaign_is_there_like_any_other(
    signed_in: SignedIn, shop: dict[str, str], app: Flask, ready: Caller
) -> None:
    with app.extensions["sendtide"].get().store.read() as reader:
        made = reader.campaign("default", "c")
    assert made is not None
    urgent = replace(made, campaign_id="urgent", name="The most urgent", priority=1_000, created_at=NOW + timedelta(1))

    def much(writer: Writer) -> None:
        for n in range(500):
            writer.put_campaign(replace(made, campaign_id=f"d{n:03}", status="archived"))
        writer.put_campaign(urgent)

    app.extensions["sendtide"].get().store.write(much)
    browser = signed_in("admin")
    for path in ("/console/decisions", "/console/policies", "/console/training"):
        assert re.search(r'<option( value="urgent")?>(urgent|The most urgent)</option>', browser.get(path).text), path
    assert "The most urgent" in browser.get("/console/recipients/ada").text
    assert "The most urgent" in browser.get("/console/start").text


def test_a_recipients_group_is_that_of_a_request_now(signed_in: SignedIn, shop: dict[str, str], ready: Caller) -> None:
    browser = signed_in("read")
    assert "gets random choices so far" in browser.get("/console/recipients/ada").text
    ready("PUT", "/v1/campaigns/c", {**CAMPAIGN, "groups": {"holdout": 1, "random": 0, "baseline": 0}})
    page = browser.get("/console/recipients/ada").text
    assert ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"}).get_json()["group"] == "holdout"
    assert "gets nothing, to show what happens" in page
    assert "the policy chooses" not in page


@pytest.mark.parametrize(
    "recipient", ["a/b", "a//b", "/a", "a b+c", "50%", "%2e%2E", "a%2Fb", "..", "x/../ada", "a?b#c", ODD, "Ä" * 200]
)
def test_odd_names_stay_text_and_can_be_followed(signed_in: SignedIn, ready: Caller, recipient: str) -> None:
    context = {"note": "<script>alert(1)</script>"}
    asked = {"campaign_id": "c", "recipient_id": recipient, "context": context}
    decision = ready("POST", "/v1/decisions", asked).get_json()["decision_id"]
    browser = signed_in("read")
    for path in ("/console/decisions", f"/console/decisions/{decision}"):
        page = browser.get(path).text
        assert "<b>" not in page
        assert "<script>alert" not in page
        link = page.split('href="/console/recipients/')[1].split('"')[0]
        there = browser.get(f"/console/recipients/{unescape(link)}")
        assert there.status_code == 200
        assert decision in there.text
        assert "<b>" not in there.text
    looked_up = browser.get(f"/console/recipients?recipient_id={quote(recipient)}")
    assert browser.get(looked_up.headers["Location"]).status_code == 200


def test_a_page_never_waits_for_a_cold_report(
    signed_in: SignedIn, shop: dict[str, str], app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = threading.Event()

    def slow(*about: Any) -> dict[str, Any]:
        assert finish.wait(20)
        return report_with_trends(*about)

    monkeypatch.setattr(reports, "report_with_trends", slow)
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 0.01)
    browser = signed_in("read")
    try:
        for path in ("/console", "/console/campaigns/c"):
            page = browser.get(path).text
            assert "data-pending" in page
            assert "Being worked out" in page or "for the first time" in page
    finally:
        finish.set()
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    page = browser.get("/console/campaigns/c").text
    assert "data-pending" not in page
    assert ">just now</time>" in page
    assert freshreports.PATIENCE_SECONDS < 1


@pytest.mark.parametrize(
    ("language", "told"), [("en", "(treated: 60 and 40; sending nothing: 0 and 9)"), ("ru", "60 и 40")]
)
def test_a_campaigns_page_says_that_its_orders_are_reported_in_two_forms(
    signed_in: SignedIn, shop: dict[str, str], monkeypatch: pytest.MonkeyPatch, language: str, told: str
) -> None:
    counts = {"treated": {"by_decision": 60, "by_recipient": 40}, "holdout": {"by_decision": 0, "by_recipient": 9}}
    doubts = [{"outcome": "converted", "doubt": "two_forms"}]
    lift = {"control": "holdout", "compared": 9, "value": None, "money": None, "doubts": doubts, "harms": {}}

    def doubtful(*about: Any) -> dict[str, Any]:
        forms = [{"outcome": "converted", "groups": counts}]
        return {**report_with_trends(*about), "forms": forms, "lifts": [lift]}

    monkeypatch.setattr(reports, "report_with_trends", doubtful)
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    page = unescape(signed_in("read").get("/console/campaigns/c", headers={"Accept-Language": language}).text)
    assert told in page
    assert "recipient_id" in page


def test_a_kept_report_tells_its_age(
    signed_in: SignedIn, shop: dict[str, str], app: Flask, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    fresh = app.extensions["sendtide"].get().fresh
    ticks = iter(float(n * 60) for n in range(100))
    monkeypatch.setattr(fresh, "timer", lambda: next(ticks))
    browser = signed_in("read")
    assert ">just now</time>" in browser.get("/console/campaigns/c").text
    clock.forward(minutes=7)
    assert "As of <time" in (page := browser.get("/console/campaigns/c").text)
    assert "7 minutes ago" in page


def test_policies_put_into_service_are_told_however_much_has_changed_since(
    signed_in: SignedIn, shop: dict[str, str], app: Flask
) -> None:
    """Every message that is called off is a change, too; the overview told that no policy had ever served."""

    def much(writer: Writer) -> None:
        writer.add_change("default", "promoted", NOW, campaign_id="c", policy_id="pol_1")
        for _ in range(1_000):
            writer.add_change("default", "expired", NOW, campaign_id="c", decision_id="dec_1")

    browser = signed_in("read")
    assert "No policy has been put into service yet" in browser.get("/console").text
    app.extensions["sendtide"].get().store.write(much)
    told = browser.get("/console").text
    assert "No policy has been put into service yet" not in told
    assert "Promoted" in told


def test_the_overview_says_whose_figures_and_which_days_it_shows(
    signed_in: SignedIn, ready: Caller, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    ready("PUT", "/v1/campaigns/over", CAMPAIGN)
    for campaign, person in (("c", "ada"), ("c", "bob"), ("over", "eve")):
        assert ready("POST", "/v1/decisions", {"campaign_id": campaign, "recipient_id": person}).status_code == 201
    assert ready("PUT", "/v1/campaigns/over", {**CAMPAIGN, "status": "archived"}).status_code == 200
    page = signed_in("read").get("/console").text
    assert "So far, in the active campaigns above</h2>" in page
    assert "<dt>Decisions</dt><dd>2</dd>" in page
    assert "<figcaption>Decisions a day, last two weeks</figcaption>" in page
    clock.forward(days=30)
    page = signed_in("read").get("/console").text.replace("\u202f", " ").replace("\u2009", " ").replace("\xa0", " ")
    assert "<figcaption>Decisions a day, 24 Nov 2026 to 24 Nov 2026</figcaption>" in page


def test_while_nothing_is_learned_no_page_says_that_a_policy_chooses(
    signed_in: SignedIn, ready: Caller, app: Flask, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    groups = {"holdout": 0.3, "random": 0.3, "baseline": 0}
    campaign = ready("PUT", "/v1/campaigns/c", {**CAMPAIGN, "groups": groups}).get_json()
    assert campaign["groups"]["random"] == 0.3
    for day in range(3):
        people = [{"recipient_id": f"u{day}-{n}"} for n in range(20)]
        answer = ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": people}).get_json()
        clock.forward(days=1)
    clock.forward(days=30)
    treated = next(one for one in answer["decisions"] if one["group"] == "treated")
    browser = signed_in("read")
    of_one = ("decisions", treated["decision_id"]), ("recipients", treated["recipient_id"])
    for kind, name in of_one:
        page = browser.get(f"/console/{kind}/{name}").text
        assert "gets random choices so far: nothing has been learned yet" in page
        assert "the policy chooses" not in page
    page = browser.get("/console/campaigns/c").text
    assert "For the treated, at random so far" in page
    assert "Where the policy chose it" not in page
    lift = page.split('id="lift"')[1].split("</figcaption>")[0]
    assert '<span class="tag">Too early</span>' in lift
    assert "No bounds can be stated yet" in lift

    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        made = reader.campaign("default", "c")
    assert made is not None
    publish_model(services, made)
    page = browser.get("/console/campaigns/c").text
    assert "Where the policy chose it" in page
    assert "At random so far" not in page
    assert "the policy chooses" in browser.get(f"/console/recipients/{treated['recipient_id']}").text
    chosen_then = browser.get(f"/console/decisions/{treated['decision_id']}").text
    assert "gets random choices so far" in chosen_then, "it was decided before"


def test_older_policies_are_reached_and_compared_however_often_models_were_refreshed(
    signed_in: SignedIn, shop: dict[str, str], app: Flask
) -> None:
    def policy(n: int, *, revision: bool) -> Policy:
        status: PolicyStatus = "live" if n == 900 else "retired"
        parts = (Component(1.0, None),)
        return Policy("default", f"pol_{n}", "c", NOW + timedelta(minutes=n), parts, status, revision=revision)

    def much(writer: Writer) -> None:
        for n in range(60):
            writer.add_policy(policy(n, revision=False))
        for n in range(60, 901):
            writer.add_policy(policy(n, revision=True))

    app.extensions["sendtide"].get().store.write(much)
    browser = signed_in("read")
    first = browser.get("/console/policies?campaign_id=c").text
    assert first.count('href="/console/policies/pol_') == 50
    assert "/console/policies/pol_900" in first
    older = unescape(first.split('class="button" href="')[1].split('"')[0])
    second = browser.get(older).text
    assert second.count('href="/console/policies/pol_') == 11
    assert "/console/policies/pol_0" in second
    live = browser.get("/console/policies/pol_900").text
    assert live.count('<option value="pol_') == 60
    assert "There is no other policy" not in live
    assert browser.get("/console/policies/compare?a=pol_900&b=pol_0").status_code == 200


def test_a_policy_tells_what_its_purchases_are_told_by(signed_in: SignedIn, shop: dict[str, str], app: Flask) -> None:
    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        made = reader.campaign("default", "c")
    assert made is not None
    policy = publish_model(services, made)
    path, browser, until = f"/console/policies/{policy.policy_id}", signed_in("read"), time.monotonic() + 60
    while "data-pending" in (page := browser.get(path).text) and time.monotonic() < until:
        time.sleep(0.1)
    model = services.policies.current("default", "c").heaviest_model
    assert model is not None
    share = model.message.links["converted"]["clicked"]
    assert share > 0.1
    assert f"<dt>Converted begins at</dt><dd>{share:.0%} of Clicked " in page


def test_predictions_that_do_not_hold_are_marked(
    signed_in: SignedIn, ready: Caller, app: Flask, clock: StillClock
) -> None:
    services = app.extensions["sendtide"].get()
    with services.store.read() as reader:
        made = reader.campaign("default", "c")
    assert made is not None
    policy = publish_model(services, made)
    # Nobody answers, and the model was trained on rows of people who do.
    ready(
        "POST",
        "/v1/decisions/batch",
        {"campaign_id": "c", "recipients": [{"recipient_id": f"u{n}"} for n in range(200)]},
    )
    clock.forward(days=30)
    told = card(services, "default", policy.policy_id)["calibration"]
    bins = [one for of_outcome in told for one in of_outcome["bins"]]
    off = [one for one in bins if not one["low"] <= one["predicted"] <= one["high"]]
    assert len(off) > 0
    path, browser, until = f"/console/policies/{policy.policy_id}", signed_in("read"), time.monotonic() + 60
    while "data-pending" in (page := browser.get(path).text) and time.monotonic() < until:
        time.sleep(0.1)
    assert page.count('<span class="tag warn">Off</span>') == len(off)


def test_a_failed_run_tells_its_error(signed_in: SignedIn, shop: dict[str, str], app: Flask) -> None:
    store = app.extensions["sendtide"].get().store
    failed = TrainingRun("default", shop["run"], "retrain", "failed", NOW, finished_at=NOW, error="<out of> memory")
    store.write(lambda writer: writer.put_training_run(failed))
    browser = signed_in("read")
    assert "&lt;out of&gt; memory" in browser.get(f"/console/training/{shop['run']}").text
    overview = browser.get("/console").text
    assert "The last training run failed" in overview
    assert "Needs you" in overview


def test_an_archived_campaign_is_told_as_such(signed_in: SignedIn, ready: Caller) -> None:
    ready("DELETE", "/v1/campaigns/c")
    browser = signed_in("read")
    assert "Archived" in browser.get("/console/campaigns").text
    assert "No campaigns yet" in browser.get("/console").text


def test_only_an_admin_is_offered_what_only_an_admin_may(signed_in: SignedIn, shop: dict[str, str]) -> None:
    assert "Train now" not in signed_in("read").get("/console/training").text
    assert "Train now" in signed_in("admin").get("/console/training").text


def test_campaigns_of_the_api_are_those_of_the_console(signed_in: SignedIn, admin: Caller) -> None:
    admin("PUT", "/v1/campaigns/spring", {**CAMPAIGN, "name": ODD})
    page = signed_in("read").get("/console/campaigns").text
    assert "spring" in page
    assert "<b>" not in page
    assert key(admin.app, "read").startswith("st_")


@pytest.mark.parametrize(
    ("asked", "told", "decisions"),
    [
        ("", "", 2),
        ("?days=7", "Decisions made since", 1),
        ("?days=8", "", 2),
        ("?from={then}&to={then}", "Decisions made from", 1),
        ("?to={then}", "Decisions made until", 1),
        ("?from=2001-02-03&to=2001-02-03", "No decision in this period", 0),
        ("?from=yesterday", "Must be a date", 2),
        ("?to=9999-12-31", "Must be a date", 2),
        ("?from=2026-02-02&to=2026-02-01", "Must not be before", 2),
    ],
)
def test_a_report_is_of_the_period_that_was_asked_for(
    signed_in: SignedIn,
    ready: Caller,
    clock: StillClock,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    told: str,
    decisions: int,
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"})
    clock.forward(days=9)
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "bob"})
    page = signed_in("read").get(f"/console/campaigns/c{asked.format(then=NOW.date())}").text
    assert told in page
    assert f"<dt>Decisions</dt><dd>{decisions}</dd>" in page
    assert page.count('aria-current="true"') == (0 if "from" in asked or "to" in asked else 1)


def test_a_variant_keeps_its_colour_in_every_period(
    signed_in: SignedIn, ready: Caller, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)

    def only(variant: str, days: int) -> None:
        variants = [{"id": one, "status": "active" if one == variant else "paused"} for one in ("a", "b")]
        ready("PUT", "/v1/campaigns/c", {**CAMPAIGN, "variants": variants})
        ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": f"{variant}{days}"})
        clock.forward(days=days)

    only("a", 10)
    only("b", 1)
    only("a", 0)
    browser = signed_in("read")
    for period in ("", "?days=7"):
        page = browser.get(f"/console/campaigns/c{period}").text
        assert '<span class="swatch s1"></span>a<' in page
        assert '<span class="swatch s2"></span>b<' in page


def test_a_campaign_with_a_control_group_is_not_told_to_have_none(
    signed_in: SignedIn, ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    ready("PUT", "/v1/campaigns/new", CAMPAIGN)
    ready("PUT", "/v1/campaigns/held", {**CAMPAIGN, "groups": {"holdout": 0.01}})
    for campaign in ("c", "held"):
        ready("POST", "/v1/decisions", {"campaign_id": campaign, "recipient_id": "ada"})
    browser = signed_in("read")
    overview = browser.get("/console").text
    assert overview.count("No control group") == 1
    assert overview.count("No decision has been asked for yet.") == 1
    assert "No control group" in browser.get("/console/campaigns/c").text
    assert "Too early" in browser.get("/console/campaigns/held").text


def test_no_card_of_a_campaign_without_decisions_is_bare(
    signed_in: SignedIn, ready: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    page = signed_in("read").get("/console/campaigns/c").text
    cards = page.split('<section class="card"')[2:]
    assert len(cards) == 6
    assert all('<div class="empty">' in card and "<table" not in card for card in cards)


def test_a_band_is_told_of_where_there_is_one(
    signed_in: SignedIn, ready: Caller, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PATIENCE_SECONDS", 20.0)
    halves = {"groups": {"holdout": 0.5, "random": 0, "baseline": 0}, "objective": {"converted": 1}}
    ready("PUT", "/v1/campaigns/c", {**CAMPAIGN, **halves})

    def page(people: int, days: int, first: int = 0) -> str:
        for day in range(days):
            asked = [{"recipient_id": f"u{first + n}-{day}"} for n in range(people)]
            ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": asked})
            clock.forward(hours=1)
            bought = {"type": "converted", "occurred_at": clock().isoformat(), "value": 1.0}
            events = [{"event_id": f"e{one['recipient_id']}", **bought, **one} for one in asked[::2]]
            assert ready("POST", "/v1/events", {"events": events}).status_code == 202
            clock.forward(hours=23)
        clock.forward(days=30)
        return signed_in("read").get("/console/campaigns/c").text

    few = page(5, 2)
    assert "still without bounds" in few
    assert "The band is" not in few
    many = page(250, 4, first=5)
    assert "still without bounds" not in many
    assert "The band is" in many


def test_a_zone_that_this_host_lacks_spoils_no_page(
    signed_in: SignedIn, shop: dict[str, str], ready: Caller, app: Flask
) -> None:
    afar = moved_afar(ready, shop["decision"])
    setup.put_recipient(app.extensions["sendtide"].get(), Recipient("default", "ada", timezone="America/Nowhere"))
    browser = signed_in("read")
    for path in ("/console", "/console/decisions", f"/console/decisions/{afar}", "/console/recipients/ada"):
        page = browser.get(path)
        assert (path, page.status_code) == (path, 200)
    assert "America/Nowhere" in browser.get(f"/console/decisions/{afar}").text
