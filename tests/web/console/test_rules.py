"""Rules in the console: told in words, tried on last week before they are saved, switched after a confirmation."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import orjson
import pytest
from flask import Flask

from optimizer.web.console.filters import Sayings
from optimizer.web.console.language import LANGUAGES
from optimizer.web.console.rules import STARTS
from optimizer.web.console.rulewords import in_words, selected
from optimizer.web.schemas.rules import KINDS, RuleIn, rule_of
from storage.rules import Adapt, Cap, Rule
from tests.web.conftest import Caller
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
ENGLISH = Sayings(LANGUAGES["en"])
GAP = {"kind": "gap", "minutes": 60}
#: No message is left to anybody at any time.
NEVER = {"kind": "quiet_hours", "start": "00:00", "end": "00:00"}
_TRIED = re.compile(r'name="tried" value="([^"]*)"')


def made(document: dict[str, Any]) -> Rule:
    return rule_of(RuleIn().load(document), workspace_id="default", rule_id="r")


def stored(ready: Caller, rule_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = ready("GET", "/v1/rules").get_json()["rules"]
    return next((one for one in found if one["rule_id"] == rule_id), {})


def form(document: Any, rule_id: str = "mine", version: int = 0, **more: str) -> dict[str, str]:
    text = document if isinstance(document, str) else orjson.dumps(document).decode()
    return {"rule_id": rule_id, "document": text, "version": str(version), **more}


def tried(page: str) -> str:
    found = _TRIED.search(page)
    assert found is not None
    return unescape(found[1])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (GAP, "At least 60 minutes between two messages to a person."),
        ({"kind": "cap", "limit": 1, "window": {"calendar": "week"}}, "At most 1 message to a person a calendar week."),
        (
            {
                "kind": "cap",
                "limit": 3,
                "window": {"rolling_hours": 168},
                "adapt": {"after_unengaged": 5, "limit": 1},
            },
            "At most 3 messages to a person within any 7 days. "
            "At most 1 to those who left 5 messages in a row unanswered.",
        ),
        (
            {"kind": "quiet_hours", "start": "21:00", "end": "08:00", "days": ["sat", "sun"]},
            "No messages from 21:00 to 08:00, in the recipient’s time zone. Only on days: Sat, Sun.",
        ),
        (
            {"kind": "blackout", "dates": ["2026-12-24"], "country_holidays": True},
            "No messages on 2026-12-24. No messages on public holidays of the recipient’s country.",
        ),
        (
            {"kind": "capacity", "limit": 500, "per_minutes": 60},
            "At most 500 messages to all people together, every 60 minutes.",
        ),
        (
            {"kind": "budget", "amount": 12.5, "per": "day"},
            "At most 12.5 spent on messages to all people together, a day.",
        ),
        (
            {"kind": "fatigue", "outcome": "unsubscribed", "max_risk": 0.02},
            "No message that is predicted to lead to “Unsubscribed” with a probability above 2.0%.",
        ),
    ],
)
def test_a_rule_is_told_in_plain_words(document: dict[str, Any], words: str) -> None:
    assert in_words(ENGLISH, made(document)) == words


@pytest.mark.parametrize(
    ("document", "english", "russian"),
    [
        ({"kind": "budget", "amount": 12.34, "per": "day"}, "At most 12.34 spent", "Не больше 12,34 на"),
        ({"kind": "budget", "amount": 1999.99, "per": "day"}, "At most 1,999.99 spent", "Не больше 1\u00a0999,99 на"),
        ({"kind": "budget", "amount": 0.000001, "per": "day"}, "At most 0.000001 spent", "Не больше 0,000001 на"),
        (
            {"kind": "budget", "amount": 5, "per": "week", "timezone": "Asia/Tokyo", "week_start": "wed"},
            "together, a calendar week (from Wed on), in the time zone Asia/Tokyo.",
            "вместе в календарную неделю (начало: ср), по часовому поясу Asia/Tokyo.",
        ),
        (
            {"kind": "cap", "limit": 2, "window": {"calendar": "week", "week_start": "sun"}},
            "At most 2 messages to a person a calendar week (from Sun on).",
            "Не больше 2 сообщений человеку в календарную неделю (начало: вс).",
        ),
        ({"kind": "fatigue", "outcome": "complained", "max_risk": 0.0125}, "above 1.25%.", "выше 1,25\u00a0%."),
        ({"kind": "fatigue", "outcome": "complained", "max_risk": 1e-6}, "above 0.0001%.", "выше 0,0001\u00a0%."),
        ({"kind": "gap", "minutes": 100.5}, "At least 100.5 minutes between", "не меньше: 100,5 минуты."),
        ({"kind": "gap", "minutes": 1.5}, "At least 1.5 minutes between", "не меньше: 1,5 минуты."),
        ({"kind": "gap", "minutes": 10.25}, "At least 10.25 minutes between", "не меньше: 10,25 минуты."),
        ({"kind": "gap", "minutes": 0.001}, "At least 0.06 seconds between", "не меньше: 0,06 секунды."),
        ({"kind": "gap", "minutes": 21}, "At least 21 minutes between", "не меньше: 21 минуту."),
        (
            {"kind": "cap", "limit": 1, "window": {"rolling_hours": 0.123456789}},
            "within any 444.44444 seconds.",
            "(444,44444 секунды).",
        ),
        (
            {"kind": "blackout", "country_holidays": True, "default_country": "DE"},
            "of the recipient’s country, or of DE where that is unknown.",
            "страны получателя, а если она неизвестна – страны DE.",
        ),
    ],
)
def test_a_rules_words_state_the_limit_that_binds(document: dict[str, Any], english: str, russian: str) -> None:
    for language, words in (("en", english), ("ru", russian)):
        assert words in in_words(Sayings(LANGUAGES[language]), made(document))


def test_a_cap_that_adapts_to_more_than_its_limit_tells_the_limit_that_binds() -> None:
    rule = replace(
        made({"kind": "cap", "limit": 3, "window": {"rolling_hours": 24}}), parameters=Cap(3, 24.0, adapt=Adapt(5, 5))
    )
    assert in_words(ENGLISH, rule).endswith(" At most 3 to those who left 5 messages in a row unanswered.")


def test_a_rule_that_names_a_campaign_that_is_not_there_is_marked(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/gone", {**GAP, "applies_to": {"campaigns": ["c", "no such one"]}})
    ready("PUT", "/v1/rules/spared", {**GAP, "applies_to": {"except_campaigns": ["elsewhere"]}})
    ready("PUT", "/v1/rules/kept", {**GAP, "applies_to": {"campaigns": ["c"]}})
    browser = signed_in("read")
    page = browser.get("/console/rules").text
    assert re.findall(r"No such campaign: ([^<]*)<", page) == ["no such one", "elsewhere"]
    assert "No such campaign: no such one" in browser.get("/console/rules/gone").text
    assert "No such campaign" not in browser.get("/console/rules/kept").text
    russian = browser.get("/console/rules/gone", headers={"Accept-Language": "ru"}).text
    assert "Такой кампании нет: no such one" in russian


def test_a_rule_that_is_tried_tells_from_when_on_it_would_warm_up_and_what_it_counts(
    signed_in: SignedIn, ready: Caller
) -> None:
    steps = [{"day": 2, "limit": 50}, *({"day": day, "limit": 50 * day} for day in range(3, 11))]
    document = {"kind": "capacity", "limit": 900, "per_minutes": 60, "warm_up": steps, "counts": {"channels": ["sms"]}}
    told = (
        "Warming up from 2026-11-24 on: 50 at first; 150 from day 3 on; 200 from day 4 on; 250 from day 5 on; 300 from "
        "day 6 on; 350 from day 7 on; 400 from day 8 on; (+2); the whole limit from day 11 on."
    )
    browser = signed_in("admin")
    browser.get("/console/new-rule?kind=capacity")
    page = browser.post("/console/try-rule", form(document, new="yes")).text
    assert told in page
    assert "<dd>channels: sms</dd>" in page
    ready("PUT", "/v1/rules/mine", {**document, "starts_on": "2026-11-20"})
    page = browser.post("/console/try-rule", form(document, version=1)).text
    assert told.replace("-24", "-20") in page
    assert "Counts: channels: sms" in browser.get("/console/rules").text


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_words_and_a_start_that_is_allowed(kind: str, code: str) -> None:
    assert in_words(Sayings(LANGUAGES[code]), made({"kind": kind, **STARTS[kind]})).endswith(".")


def test_what_a_rule_binds_is_told() -> None:
    bound = {"channels": ["sms", "push"], "except_campaigns": ["cart"]}
    assert selected(ENGLISH, made({**GAP, "applies_to": bound}).applies_to) == (
        "channels: sms, push; all campaigns but cart"
    )
    assert selected(ENGLISH, made(GAP).applies_to) == "everything"


def test_a_rule_tells_what_it_would_have_masked(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/never", {**NEVER, "enabled": False})
    browser = signed_in("read")
    assert "Nothing to try it on" in browser.get("/console/rules/never").text
    for person in ("ada", "bob"):
        ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": person})
    ready("PUT", "/v1/rules/never", {**NEVER, "enabled": False, "dry_run": True})
    page = browser.get("/console/rules/never").text
    told = ready("POST", "/v1/rules/never/preview", NEVER).get_json()
    assert told["messages"] == 2
    assert "2 messages would not have gone out" in page
    assert "data-pending" not in page


def test_a_rule_of_predictions_says_why_there_is_no_preview(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/tired", {"kind": "fatigue", **STARTS["fatigue"]})
    page = signed_in("read").get("/console/rules/tired").text
    assert "masks by predictions" in page
    assert "data-pending" not in page


def test_a_rule_is_switched_after_a_confirmation(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/gap", GAP)
    browser = signed_in("admin")
    for version, (to, enabled, dry_run) in enumerate(
        [("dry_run", True, True), ("off", False, True), ("on", True, False)], start=1
    ):
        address = f"/console/rules/gap/switch/{to}"
        assert stored(ready, "gap")["version"] == version
        assert f'name="version" value="{version}"' in browser.get(address).text
        assert stored(ready, "gap")["version"] == version, "asking changes nothing"
        done = browser.post(address, {"version": str(version)})
        assert 'role="status"' in browser.get(done.headers["Location"]).text
        assert (stored(ready, "gap")["enabled"], stored(ready, "gap")["dry_run"]) == (enabled, dry_run)
    assert browser.get("/console/rules/gap/switch/on").status_code == 409
    assert browser.get("/console/rules/gap/switch/loud").status_code == 404


def test_a_rule_is_archived_after_a_confirmation(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/gap", GAP)
    browser = signed_in("admin")
    address = "/console/rules/gap/switch/archived"
    assert address in browser.get("/console/rules/gap").text
    assert "Archive this rule?" in browser.get(address).text
    assert stored(ready, "gap")["archived"] is False, "asking changes nothing"
    assert browser.post(address, {"version": "2"}).status_code == 412
    done = browser.post(address, {"version": "1"})
    listed = browser.get(done.headers["Location"]).text
    assert "The rule was archived." in listed
    assert "/console/rules/gap" not in listed
    assert stored(ready, "gap")["archived"] is True
    for gone in ("/console/rules/gap", address, "/console/rules/gap/edit"):
        assert browser.get(gone).status_code == 404
    again = browser.post("/console/try-rule", form(GAP, "gap", new="yes"))
    saved = browser.post("/console/save-rule", form(GAP, "gap", new="yes", tried=tried(again.text)))
    assert (saved.status_code, stored(ready, "gap")["archived"]) == (303, False)


def test_a_rule_that_somebody_changed_meanwhile_stays(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/gap", GAP)
    browser = signed_in("admin")
    ready("PUT", "/v1/rules/gap", {**GAP, "minutes": 90})
    assert browser.post("/console/rules/gap/switch/off", {"version": "1"}).status_code == 412
    first = browser.post("/console/try-rule", form(GAP, "gap", 1))
    saved = browser.post("/console/save-rule", form(GAP, "gap", 1, tried=tried(first.text)))
    assert saved.status_code == 412
    assert (stored(ready, "gap")["minutes"], stored(ready, "gap")["enabled"]) == (90, True)
    assert browser.post("/console/rules/gap/switch/off", {"version": "x"}).status_code == 422


def test_a_rule_is_saved_only_as_it_was_tried(signed_in: SignedIn, ready: Caller) -> None:
    browser = signed_in("admin")
    untried = browser.post("/console/save-rule", form(GAP, new="yes"))
    assert untried.status_code == 409
    assert "is not saved yet" in untried.text
    first = browser.post("/console/try-rule", form(GAP, new="yes"))
    assert "At least 60 minutes" in first.text
    changed = browser.post("/console/save-rule", form({**GAP, "minutes": 5}, new="yes", tried=tried(first.text)))
    assert changed.status_code == 409
    assert "At least 5 minutes" in changed.text
    assert stored(ready, "mine") == {}
    done = browser.post("/console/save-rule", form(GAP, new="yes", tried=tried(first.text)))
    assert "The rule was saved." in browser.get(done.headers["Location"]).text
    assert stored(ready, "mine")["minutes"] == 60


def test_a_rule_that_is_tried_is_not_said_to_act(signed_in: SignedIn, ready: Caller) -> None:
    page = signed_in("admin").post("/console/try-rule", form(GAP, new="yes")).text
    assert "Not saved" in page
    assert "Once it is saved, it is enforced." in page
    assert "Acts" not in page
    assert "It is enforced." not in page
    assert stored(ready, "mine") == {}


def test_an_edited_rule_keeps_what_its_document_says(signed_in: SignedIn, ready: Caller) -> None:
    full = {**GAP, "applies_to": {"channels": ["email"]}, "counts": {"channels": ["email", "sms"]}, "dry_run": True}
    ready("PUT", "/v1/rules/gap", full)
    browser = signed_in("admin")
    page = browser.get("/console/rules/gap/edit").text
    text = unescape(page.split("<textarea")[1].split(">", 1)[1].split("</textarea>")[0])
    assert orjson.loads(text) == {**full, "enabled": True}
    first = browser.post("/console/try-rule", form(text, "gap", 1))
    browser.post("/console/save-rule", form(text, "gap", 1, tried=tried(first.text)))
    assert {name: stored(ready, "gap")[name] for name in full} == full
    assert stored(ready, "gap")["version"] == 2


@pytest.mark.parametrize(
    ("document", "rule_id", "fault"),
    [
        ({"kind": "gap", "minutes": "long"}, "mine", "<code>minutes</code>"),
        ({"kind": "odd"}, "mine", "<code>kind</code>"),
        ({}, "mine", "<code>kind</code>"),
        ("{", "mine", "not JSON"),
        ("[]", "mine", "must be a JSON object"),
        (GAP, "a/b", "<code>rule_id</code>"),
        (GAP, "", "<code>rule_id</code>"),
        (GAP, "default-quiet-hours", "already"),
        ("</textarea><b>", "mine", "&lt;/textarea&gt;&lt;b&gt;"),
    ],
)
def test_what_is_wrong_is_said_by_field_and_what_was_typed_stays(
    signed_in: SignedIn, ready: Caller, document: Any, rule_id: str, fault: str
) -> None:
    browser = signed_in("admin")
    for path in ("/console/try-rule", "/console/save-rule"):
        page = browser.post(path, form(document, rule_id, new="yes"))
        assert page.status_code == 422
        assert fault in page.text
        assert form(document)["document"] in unescape(page.text)
    assert stored(ready, "mine") == {}


def test_an_archived_rules_name_is_free(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/mine", GAP)
    ready("DELETE", "/v1/rules/mine")
    browser = signed_in("admin")
    assert browser.get("/console/rules/mine").status_code == 404
    assert "/console/rules/mine" not in browser.get("/console/rules").text
    first = browser.post("/console/try-rule", form(GAP, new="yes"))
    browser.post("/console/save-rule", form(GAP, new="yes", tried=tried(first.text)))
    assert not stored(ready, "mine")["archived"]


def test_rules_are_changed_by_admins_of_their_workspace(signed_in: SignedIn, ready: Caller) -> None:
    ready("PUT", "/v1/rules/gap", GAP)
    reader, other, admin = signed_in("read"), signed_in("admin", workspace="other"), signed_in("admin")
    page = reader.get("/console/rules/gap").text
    assert "/switch/" not in page
    assert "/edit" not in page
    switch, edit = "/console/rules/gap/switch/off", "/console/rules/gap/edit"
    for path in (switch, edit, "/console/new-rule"):
        assert reader.get(path).status_code == 403
    for path in ("/console/rules/gap", switch, edit):
        assert other.get(path).status_code == 404
    fields = form(GAP, "gap", 1, tried=orjson.dumps(["gap", GAP], option=orjson.OPT_SORT_KEYS).decode())
    for path in (switch, "/console/try-rule", "/console/save-rule"):
        assert reader.post(path, fields).status_code == 403
        assert other.post(path, fields).status_code == 404
        assert admin.client.post(path, data=fields).status_code == 403, "no token"
    assert (stored(ready, "gap")["version"], stored(ready, "gap")["enabled"]) == (1, True)


def test_what_changed_a_rule_is_noted_and_what_tried_it_is_not(
    app: Flask, signed_in: SignedIn, ready: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    browser = signed_in("admin")
    with caplog.at_level(logging.INFO, "sendtide.audit"):
        first = browser.post("/console/try-rule", form(GAP, new="yes"))
        browser.post("/console/save-rule", form({**GAP, "minutes": 5}, new="yes", tried=tried(first.text)))
        browser.post("/console/save-rule", form(GAP, new="yes", tried=tried(first.text)))
        browser.post("/console/rules/mine/switch/off", {"version": "1"})
    saved, switched = (vars(r) for r in caplog.records if r.name == "sendtide.audit")
    assert (saved["action"], saved["rule_id"]) == ("save_rule", "mine")
    assert (switched["action"], switched["rule_id"], switched["to"]) == ("switch_rule", "mine", "off")
