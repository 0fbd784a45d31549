"""The guided start: it sees what is done, makes what is missing, and says what is wrong beside the field."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask

from optimizer.bandit.groups import assign
from optimizer.config import unknown_variables
from storage.records import GroupShares
from tests.web.conftest import CAMPAIGN, NOW, Caller, StillClock
from tests.web.console.conftest import Browser

SignedIn = Callable[..., Browser]
FORM = {
    "campaign_id": "spring",
    "id0": "boots",
    "text0": "New boots",
    "channels": ["email"],
    "others": "",
    "aim": "clicks",
    "holdout": "0.1",
}
_FAULT = re.compile(r'class="fault" role="alert" id="([\w-]+)-fault"[^>]*>([^<]*)<')
_COMMAND = re.compile(r'<pre id="([\w-]+)-command"[^>]*>([^<]*)</pre>')
_DONE = re.compile(r"<strong>(\d) of 5 done\.</strong>")


def faults(page: str) -> dict[str, str]:
    return {name: unescape(told) for name, told in _FAULT.findall(page)}


def commands(page: str) -> dict[str, str]:
    return {name: unescape(told) for name, told in _COMMAND.findall(page)}


def done(page: str) -> int:
    found = _DONE.search(page)
    assert found is not None
    return int(found[1])


def test_a_campaign_of_the_form_is_one_as_the_api_makes_it(signed_in: SignedIn, admin: Caller) -> None:
    browser = signed_in("admin")
    assert done(browser.get("/console/start").text) == 0
    two = {**FORM, "id2": "coats", "channels": ["sms", "email"], "others": "letter, whatsapp", "aim": "orders"}
    made = browser.post("/console/start/campaign", two)
    assert made.headers["Location"] == "/console/start?campaign=spring&done=campaign"
    stored = admin("GET", "/v1/campaigns/spring").get_json()
    assert [(one["id"], one["text"]) for one in stored["variants"]] == [("boots", "New boots"), ("coats", "")]
    assert [one["id"] for one in stored["channels"]] == ["email", "sms", "letter", "whatsapp"]
    assert stored["objective"]["converted"]["per_value"] == 1.0
    assert stored["groups"] == {"holdout": 0.1, "random": 0.05, "baseline": 0.0}
    page = browser.get(made.headers["Location"]).text
    assert "The campaign was made." in page
    assert done(page) == 1
    assert '"recipient":{"channels":{"sms":{"state":true},"whatsapp":{"state":true}}}' in commands(page)["ask"]


@pytest.mark.parametrize(
    ("wrong", "field", "told"),
    [
        ({"campaign_id": ""}, "campaign_id", "Must be a string of 1 to 256 characters"),
        ({"campaign_id": "a/b"}, "campaign_id", "or '/'"),
        ({"campaign_id": "c"}, "campaign_id", "there is a campaign 'c' already"),
        ({"id0": "", "text0": ""}, "variants", "1"),
        ({"id1": "boots"}, "variants", "Ids must differ"),
        ({"id0": ""}, "id0", "Must be a string of 1 to 256 characters"),
        ({"id0": "", "text0": "", "text2": "Words without a name"}, "id2", "Must be a string of 1 to 256 characters"),
        ({"text0": "x" * 70_000}, "text0", "0 to 8192 characters"),
        ({"channels": []}, "channels", "1"),
        ({"others": "email"}, "channels", "Ids must differ"),
        ({"aim": "fame"}, "aim", "'fame' is not one of clicks, orders, opens"),
        ({"holdout": "0.99"}, "holdout", "'0.99' is not one of"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    signed_in: SignedIn, ready: Caller, wrong: dict[str, Any], field: str, told: str
) -> None:
    before = ready("GET", "/v1/campaigns").get_json()
    answer = signed_in("admin").post("/console/start/campaign", {**FORM, **wrong})
    assert answer.status_code == 422
    found = faults(answer.text)
    assert set(found) == {field}
    assert told in found[field]
    assert f'aria-describedby="{field}' in answer.text
    assert f'href="#{field}-fault"' in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert "data-refresh" not in answer.text, "the answer to a form can't be loaded anew"
    assert ready("GET", "/v1/campaigns").get_json() == before


def test_all_that_is_wrong_is_said_at_once(signed_in: SignedIn) -> None:
    wrong = {**FORM, "campaign_id": "a/b", "text2": "Words without a name", "channels": []}
    assert set(faults(signed_in("admin").post("/console/start/campaign", wrong).text)) == {
        "campaign_id",
        "id2",
        "channels",
    }


def test_a_webhook_can_be_tried_as_soon_as_there_is_a_decision(signed_in: SignedIn, ready: Caller) -> None:
    browser = signed_in("admin")
    made = browser.post("/console/start/webhook", {"vendor": "standard"}).text
    assert "Once a decision was asked for" in made
    assert commands(made) == {}
    decision = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"}).get_json()["decision_id"]
    shown = commands(browser.get("/console/start").text)
    assert decision in shown["signed"]
    assert "whsec_" not in shown["signed"] + shown["secret"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_what_a_shell_was_told_may_be_exported_and_commands_still_start(signed_in: SignedIn, ready: Caller) -> None:
    browser = signed_in("admin")
    browser.post("/console/start/webhook", {"vendor": "standard"})
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"})
    shown = commands(browser.get("/console/start").text)
    for ask in (shown["key"], shown["secret"]):
        told = subprocess.run(
            ["bash", "-euc", f"set -a; {ask}; env"],
            input="hush\n",
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        )
        exported = dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)
        assert "hush" in exported.values()
        assert unknown_variables(exported) == []


def test_it_sees_a_decision_and_what_came_of_it(signed_in: SignedIn, admin: Caller, app: Flask) -> None:
    admin("PUT", "/v1/campaigns/c", {**CAMPAIGN, "groups": {"holdout": 0.5, "random": 0, "baseline": 0}})
    browser = signed_in("read")
    page = browser.get("/console/start").text
    assert set(commands(page)) == {"key", "ask"}
    person = re.search(r'"recipient_id":"([^"]+)"', commands(page)["ask"])
    assert person is not None
    salt = app.extensions["sendtide"].get().salt
    assert assign(salt, "default", "c", person[1], GroupShares(holdout=0.5)) == "treated"
    asked = {"campaign_id": "c", "recipient_id": person[1]}
    decision = admin("POST", "/v1/decisions", asked).get_json()
    page = browser.get("/console/start").text
    assert done(page) == 2
    assert set(commands(page)) == {"key", "ask", "confirm", "event"}
    assert decision["decision_id"] in commands(page)["event"]
    assert f'"recipient_id":"{person[1]}"' not in commands(page)["ask"], "the next is another person"
    admin("POST", f"/v1/decisions/{decision['decision_id']}/confirm", {})
    page = browser.get("/console/start").text
    assert "The message went out" in page
    assert "confirm" not in commands(page)
    event = {"decision_id": decision["decision_id"], "type": "clicked", "occurred_at": NOW.isoformat()}
    admin("POST", "/v1/events", {"events": [event]})
    page = browser.get("/console/start").text
    assert done(page) == 3
    assert "“Clicked” came in" in page


def test_what_was_done_stays_done(signed_in: SignedIn, ready: Caller, clock: StillClock) -> None:
    answered = ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"}).get_json()
    event = {"decision_id": answered["decision_id"], "type": "clicked", "occurred_at": NOW.isoformat()}
    ready("POST", "/v1/events", {"events": [event]})
    clock.forward(minutes=1)
    later = [{"recipient_id": f"u{n}"} for n in range(25)]
    ready("POST", "/v1/decisions/batch", {"campaign_id": "c", "recipients": later})
    browser = signed_in("read")
    assert done(browser.get("/console/start").text) == 3, "however many decisions came since"
    clock.forward(minutes=1)
    ready("PUT", "/v1/campaigns/newer", CAMPAIGN)
    page = browser.get("/console/start").text
    assert done(page) == 3, "a new campaign takes nothing back"
    assert "No decision of this campaign was asked for yet." in page
    for name in ("c", "newer"):
        ready("DELETE", f"/v1/campaigns/{name}")
    assert done(browser.get("/console/start").text) == 3


def test_a_rejected_event_is_told_while_none_has_come(signed_in: SignedIn, ready: Caller, app: Flask) -> None:
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"})
    ready("POST", "/v1/events", {"events": [{"type": "clicked"}]})
    app.extensions["sendtide"].get().intake.flush()
    assert "1 event was rejected." in signed_in("read").get("/console/start").text


def test_the_newest_campaign_that_runs_is_taken_unless_one_is_named(
    signed_in: SignedIn, ready: Caller, clock: StillClock
) -> None:
    clock.forward(minutes=1)
    ready("PUT", "/v1/campaigns/newer", CAMPAIGN)
    clock.forward(minutes=1)
    ready("PUT", "/v1/campaigns/paused", {**CAMPAIGN, "mode": "paused"})
    browser = signed_in("read")
    assert '"campaign_id":"newer"' in commands(browser.get("/console/start").text)["ask"]
    assert '"campaign_id":"c"' in commands(browser.get("/console/start?campaign=c").text)["ask"]
    ready("DELETE", "/v1/campaigns/newer")
    for named in ("newer", "nobody"):
        assert '"campaign_id":"c"' in commands(browser.get(f"/console/start?campaign={named}").text)["ask"]


@pytest.mark.parametrize(
    ("vendor", "given", "shown"),
    [
        ("standard", "", r'id="secret" class="id" value="(whsec_[^"]+)"'),
        ("postmark", "", r'id="password" class="id" value="([^"]{30,})"'),
        ("mailgun", "their key", None),
        ("twilio", "their token", None),
        ("ses", "arn:aws:sns:eu-west-1:123456789012:mail", None),
    ],
)
def test_a_webhook_address_is_made_and_our_secret_shown_once(
    signed_in: SignedIn, admin: Caller, vendor: str, given: str, shown: str | None
) -> None:
    browser = signed_in("admin")
    made = browser.post("/console/start/webhook", {"vendor": vendor, "secret": given})
    assert made.status_code == 200
    sources = admin("GET", "/v1/webhook-sources").get_json()["webhook_sources"]
    assert [one["vendor"] for one in sources] == [vendor]
    assert f"http://localhost/v1/webhooks/{vendor}/{sources[0]['source_id']}" in made.text
    assert "this machine’s own address" in made.text
    if shown is None:
        assert "shown this once" not in made.text
        assert f'value="{given}"' not in made.text
    else:
        secret = re.search(shown, made.text)
        assert secret is not None
        later = browser.get("/console/start").text
        assert secret[1] not in later
        assert sources[0]["source_id"] in later


@pytest.mark.parametrize(
    ("vendor", "given", "field"),
    [
        ("sendgrid", "", "secret"),
        ("sendgrid", "no key", "secret"),
        ("ses", "arn:aws:s3", "secret"),
        ("pigeon", "x", "vendor"),
        ("", "", "vendor"),
    ],
)
def test_a_webhook_that_cannot_be_checked_is_refused_beside_its_field(
    signed_in: SignedIn, admin: Caller, vendor: str, given: str, field: str
) -> None:
    answer = signed_in("admin").post("/console/start/webhook", {"vendor": vendor, "secret": given})
    assert answer.status_code == 422
    assert field in faults(answer.text)
    assert f'href="#{field}-fault"' in answer.text
    assert admin("GET", "/v1/webhook-sources").get_json()["webhook_sources"] == []


def test_a_wrong_secret_shows(signed_in: SignedIn, ready: Caller, app: Flask) -> None:
    signed_in("admin").post("/console/start/webhook", {"vendor": "mailgun", "secret": "their key"})
    source = ready("GET", "/v1/webhook-sources").get_json()["webhook_sources"][0]["source_id"]
    assert app.test_client().post(f"/v1/webhooks/mailgun/{source}", json={}).status_code == 401
    app.extensions["sendtide"].get().intake.flush()
    page = signed_in("read").get("/console/start").text
    assert "1 delivery without its signature: is the secret right?" in page
    assert "Nothing yet" in page


def test_counts_are_told_of_a_vendor_and_not_of_each_of_its_addresses(
    signed_in: SignedIn, ready: Caller, app: Flask
) -> None:
    browser = signed_in("admin")
    for secret in ("their key", "their other key"):
        browser.post("/console/start/webhook", {"vendor": "mailgun", "secret": secret})
    browser.post("/console/start/webhook", {"vendor": "standard"})
    sources = [one["source_id"] for one in ready("GET", "/v1/webhook-sources").get_json()["webhook_sources"]]
    (first, *_) = [one for one in sources if f"/mailgun/{one}" in browser.get("/console/start").text]
    assert app.test_client().post(f"/v1/webhooks/mailgun/{first}", json={}).status_code == 401
    app.extensions["sendtide"].get().intake.flush()
    page = browser.get("/console/start").text
    assert page.count("1 delivery without its signature") == 1
    assert page.count("Counted together") == 1
    assert all(f"/{one}</span>" in page for one in sources)


def test_only_an_admin_makes_anything(signed_in: SignedIn, admin: Caller) -> None:
    browser = signed_in("read")
    page = browser.get("/console/start").text
    assert "This takes a key that may administer" in page
    assert '<form class="fields' not in page
    assert browser.post("/console/start/campaign", FORM).status_code == 403
    assert browser.post("/console/start/webhook", {"vendor": "standard"}).status_code == 403
    assert admin("GET", "/v1/campaigns").get_json()["campaigns"] == []


def test_what_is_made_is_audited(signed_in: SignedIn, caplog: pytest.LogCaptureFixture) -> None:
    browser = signed_in("admin")
    with caplog.at_level(logging.INFO, "sendtide.audit"):
        browser.post("/console/start/campaign", FORM)
        browser.post("/console/start/webhook", {"vendor": "standard"})
        browser.post("/console/start/webhook", {"vendor": "pigeon"})
    campaign, source = (vars(r) for r in caplog.records if r.name == "sendtide.audit")
    assert (campaign["action"], campaign["campaign_id"]) == ("make_campaign", "spring")
    assert source["action"] == "make_source"
    assert source["source_id"].startswith("hooks-")
    assert "whsec_" not in str(source)


def test_who_signs_in_to_nothing_is_led_here_and_later_to_the_overview(
    app: Flask, stranger: Browser, ready: Caller
) -> None:
    assert stranger.sign_in(ready.secret or "").headers["Location"] == "/console/start"
    assert "To the first steps" in stranger.get("/console").text
    ready("POST", "/v1/decisions", {"campaign_id": "c", "recipient_id": "ada"})
    assert Browser(app.test_client()).sign_in(ready.secret or "").headers["Location"] == "/console"
    assert "To the first steps" not in stranger.get("/console").text


def test_the_example_of_the_first_start_is_no_campaign_of_ones_own(signed_in: SignedIn, admin: Caller) -> None:
    admin("PUT", "/v1/campaigns/welcome", CAMPAIGN)
    browser = signed_in("admin")
    page = browser.get("/console/start").text
    assert done(page) == 0
    assert "the example that the first start made" in page
    assert "nobody is left out to compare with" in page
    assert '"campaign_id":"welcome"' in commands(page)["ask"], "it can be tried with all the same"
    browser.post("/console/start/campaign", FORM)
    page = browser.get("/console/start").text
    assert done(page) == 1
    assert "the example that the first start made" not in page
