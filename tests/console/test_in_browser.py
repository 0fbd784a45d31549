"""Every page in a real browser: no error, nothing wide, nothing heavy, nothing that a screen reader stumbles over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import pytest

from optimizer.service.report import report_with_trends
from optimizer.service.wiring import Services
from optimizer.web.console import reports
from tests.console.conftest import AXE, Site, needed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

MISSING = needed()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

#: What a page may weigh, with everything that it loads.
MOST_BYTES = 300_000
PHONE, DESK = 390, 1280
#: Each page with what must be seen on it; what stands in brackets is followed from there.
PAGES = {
    "/console": "Is it paying?",
    "/console/campaigns": "Spring collection",
    "/console/campaigns/spring": "Lift over time",
    "/console/campaigns/winback": "No decision yet",
    "/console/campaigns/spring?days=7": "Decisions made since",
    "/console/campaigns/spring?from=2026-11-20&to=2026-11-01": "Must not be before the first day.",
    "/console/decisions": "Choice",
    "/console/decisions?status=sent": "Sent",
    "/console/recipients": "Decided for most recently",
    "/console/recipients/person-3": "Timeline",
    "/console/erase/person-3": "There is no way back.",
    "/console/policies": "What the gate said",
    "/console/training": "Schedule",
    "/console/rules": "At least 4 hours between two messages",
    "/console/rules/three-a-week": "What it would have masked last week",
    "/console/rules/no-sundays/switch/on": "Enforce this rule?",
    "/console/rules/no-sundays/edit": "JSON document",
    "/console/rules/no-sundays/switch/archived": "Archive this rule?",
    "/console/new-rule?kind=budget": "Try it on last week",
    "/console/keys": "Keys of this workspace",
    "/console/data": "What came in",
    "/console/start": "First steps",
}
#: Figures with something in them that reaches beyond them, into their neighbour or out of their card.
TOO_WIDE = """
[...document.querySelectorAll('main figure')].filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.innerText.slice(0, 80))
"""


@contextmanager
def visiting(
    chromium: Browser,
    site: Site,
    width: int = DESK,
    scheme: Literal["light", "dark"] = "light",
    language: Literal["en", "ru"] = "en",
) -> Iterator[tuple[Page, list[str]]]:
    """A page of somebody who is signed in, and what went wrong on it."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, locale=language, base_url=site.address
    )
    page, faults = context.new_page(), list[str]()

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            faults.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto("/console/sign-in")
    page.fill("#key", site.secret)
    page.keyboard.press("Enter")
    page.wait_for_selector("main#content")
    yield page, faults
    context.close()


def followed(page: Page) -> list[str]:
    """The addresses of a policy, of a training run and of a decision."""
    return [
        _first_link(page, "/console/policies", "tbody a"),
        _first_link(page, "/console/training", "#runs a"),
        _first_link(page, "/console/decisions?campaign_id=spring&status=reserved", "tbody th a"),
    ]


def settled(page: Page) -> None:
    """Waits until nothing on the page is being worked out any more."""
    page.wait_for_selector("[data-pending]", state="detached")


def stumbles(page: Page) -> list[str]:
    """What axe finds serious or critical, with where."""
    # Through the debugger, since the page's own policy lets no script in.
    found: dict[str, Any] = page.evaluate("async () => await axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url} {one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_pages_load_cleanly_and_can_be_read_by_everybody(
    chromium: Browser, site: Site, width: int, scheme: Literal["light", "dark"]
) -> None:
    axe = AXE.read_text(encoding="utf-8")
    with visiting(chromium, site, width, scheme) as (page, faults):
        wanted = {**PAGES, **dict.fromkeys(followed(page), "")}
        for path, words in wanted.items():
            page.goto(path)
            settled(page)
            assert words in page.inner_text("main"), path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            page.evaluate(axe)
            assert stumbles(page) == []
    assert faults == []


@pytest.mark.parametrize("language", ["en", "ru"])
def test_no_page_is_wider_than_its_window_with_everything_opened(
    chromium: Browser, site: Site, language: Literal["en", "ru"]
) -> None:
    with visiting(chromium, site, language=language) as (page, _):
        opened = 0
        for path in [*PAGES, *followed(page)]:
            page.goto(path)
            settled(page)
            opened += page.evaluate(
                "[...document.querySelectorAll('main details')].map(one => { one.open = true }).length"
            )
            for width in (DESK, PHONE):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
                assert page.evaluate(TOO_WIDE) == [], (path, width)
        assert opened > len(PAGES)


def test_the_sign_in_and_a_refusal_can_be_read_by_everybody(chromium: Browser, site: Site) -> None:
    axe = AXE.read_text(encoding="utf-8")
    with visiting(chromium, site, PHONE, "dark") as (page, faults):
        page.goto("/console/nowhere")
        page.evaluate(axe)
        assert stumbles(page) == []
        page.context.clear_cookies()
        page.goto("/console/campaigns")
        assert page.url.endswith("/console/sign-in?next=/console/campaigns")
        page.evaluate(axe)
        assert stumbles(page) == []
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]")
        page.evaluate(axe)
        assert stumbles(page) == []
    # The browser itself notes the 404 and the 401.
    assert all("404" in one or "401" in one for one in faults)


def test_what_nobody_could_read_would_be_found(chromium: Browser, site: Site) -> None:
    """Guards the tests above against finding nothing because they look at nothing."""
    with visiting(chromium, site) as (page, _):
        page.evaluate("document.querySelector('label').replaceWith(document.createElement('select'))")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert any("select-name" in one for one in stumbles(page))


def test_no_page_weighs_much_and_nothing_comes_from_elsewhere(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, _):
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        for path in PAGES:
            asked.clear()
            page.goto(path)
            settled(page)
            assert all(one.startswith(site.address) for one in asked)
            # Some came from the browser's cache: what they weigh is asked for anew.
            weights = {one: len(page.request.get(one).body()) for one in {*asked, page.url}}
            assert len(weights) >= 4
            assert sum(weights.values()) <= MOST_BYTES, weights


def test_a_policy_is_rolled_back_and_put_into_service_again(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, faults):
        page.goto("/console/policies?campaign_id=spring")
        page.click("tbody a")
        page.get_by_role("link", name="Roll back …").click()
        assert "random choices" in page.inner_text("main")
        page.get_by_role("button", name="Roll back").click()
        page.wait_for_selector("text=The policy was rolled back.")
        page.get_by_role("link", name="Put into service …").click()
        page.get_by_role("button", name="Put into service").click()
        page.wait_for_selector("text=The policy is in service.")
        assert "showcase" in page.inner_text("section:has(#moves)")
    assert faults == []


def test_decisions_are_searched_by_keyboard_and_explained(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, faults):
        page.goto("/console/decisions")
        page.focus("#recipient_id")
        page.keyboard.type("person-3")
        page.keyboard.press("Enter")
        page.wait_for_url("**recipient_id=person-3**")
        people = {one.inner_text() for one in page.query_selector_all("tbody td:nth-child(2)")}
        assert people == {"person-3"}
        page.click("tbody th a")
        page.wait_for_selector("h2:has-text('Why?')")
    assert faults == []


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "x/../person-3",
        "x/./../person-3",
        "//person-3",
        "../rules/no-sundays/switch/archived",
        "x\\..\\person-3",
        "%2e%2e",
        "x%2F..%2Fperson-3",
    ],
)
def test_an_odd_name_leads_to_nobody_else_who_is_exported_or_erased(chromium: Browser, site: Site, name: str) -> None:
    with visiting(chromium, site) as (page, faults):
        headers = {"Authorization": f"Bearer {site.secret}"}
        made = {"recipients": [{"recipient_id": name}]}
        assert page.request.post("/v1/recipients/batch", data=made, headers=headers).ok
        page.goto("/console/recipients")
        page.fill("#recipient_id", name)
        page.keyboard.press("Enter")
        page.wait_for_selector("h1")
        assert page.inner_text("h1") == name
        with page.expect_download() as download:
            page.get_by_role("link", name="Export").click()
        assert json.loads(download.value.path().read_bytes())["recipient"]["recipient_id"] == name
        page.get_by_role("link", name="Erase").click()
        page.wait_for_selector("text=There is no way back.")
        assert page.inner_text(".crumb") == name
        page.get_by_role("link", name="Cancel").click()
        page.wait_for_selector("#stored")
        assert page.inner_text("h1") == name
        page.get_by_role("link", name="Erase").click()
        page.get_by_role("button", name="Erase").click()
        page.wait_for_selector("text=erased")
        assert page.request.get("/v1/recipients/person-3", headers=headers).ok
        page.goto(f"/console/recipients?recipient_id={quote(name)}")
        page.wait_for_selector("h1:has-text('Recipients')")
    # The browser itself notes the 404 of who is gone.
    assert all("404" in one for one in faults)


def test_a_training_run_is_asked_for(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, faults):
        page.goto("/console/training")
        page.select_option("#campaign_id", "cart")
        page.get_by_role("button", name="Start").click()
        page.wait_for_selector("text=It waits for the scheduler.")
    assert faults == []


def test_a_key_is_made_copied_and_revoked(chromium: Browser, site: Site) -> None:
    axe = AXE.read_text(encoding="utf-8")
    with visiting(chromium, site, PHONE) as (page, faults):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto("/console/keys")
        page.get_by_label("Name").fill("shop backend")
        page.get_by_label("Decide").check()
        page.get_by_role("button", name="Make a key").click()
        secret = page.get_by_label("Secret").input_value()
        page.evaluate(axe)
        assert stumbles(page) == []
        page.get_by_role("button", name="Copy").click()
        page.wait_for_selector("button:has-text('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == secret
        page.get_by_role("link", name="I have stored it").click()
        page.get_by_role("link", name="shop backend").click()
        page.evaluate(axe)
        assert stumbles(page) == []
        page.get_by_role("button", name="Revoke").click()
        page.wait_for_selector("text=The key was revoked.")
    assert faults == []


def test_a_rule_is_changed_after_it_was_tried(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, faults):
        page.goto("/console/rules")
        page.get_by_role("link", name="Gap").click()
        page.get_by_label("Name").fill("a-day-apart")
        page.get_by_label("JSON document").fill('{"kind": "gap", "minutes": "long"}')
        page.get_by_role("button", name="Try it on last week").click()
        assert "minutes" in page.inner_text("[role=alert]")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert stumbles(page) == []
        page.get_by_label("JSON document").fill('{"kind": "gap", "minutes": 1440, "dry_run": true}')
        page.get_by_role("button", name="Try it on last week").click()
        page.wait_for_selector("h2:has-text('What it would have masked')")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert stumbles(page) == []
        page.get_by_role("button", name="Save").click()
        page.wait_for_selector("text=The rule was saved.")
        page.get_by_role("link", name="Turn off").click()
        page.get_by_role("button", name="Turn off").click()
        page.wait_for_selector("text=The rule is off.")
    # The browser itself notes the 422.
    assert all("422" in one for one in faults)


def test_figures_keep_themselves_current_and_leave_alone_what_is_in_use(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, faults):
        page.clock.install()
        page.goto("/console/training")
        with page.expect_response("**/console/training"):
            page.clock.run_for(5_000)
        page.focus("#runs a")
        page.evaluate("document.querySelector('#runs a').dataset.mark = 'in use'")
        with page.expect_response("**/console/training"):
            page.clock.run_for(5_000)
        assert page.get_attribute("#runs a", "data-mark") == "in use"
        assert page.evaluate("document.activeElement.dataset.mark") == "in use"
        page.context.clear_cookies()
        with page.expect_response("**/console/training"):
            page.clock.run_for(5_000)
        page.wait_for_selector("text=You are signed out.")
    assert faults == []


def test_a_report_that_takes_long_comes_in_by_itself(
    chromium: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, calls = threading.Event(), list[str]()

    def slow(services: Services, workspace_id: str, campaign_id: str, *period: datetime | None) -> dict[str, Any]:
        calls.append(campaign_id)
        assert finish.wait(60)
        return report_with_trends(services, workspace_id, campaign_id, *period)

    monkeypatch.setattr(reports, "report_with_trends", slow)
    with visiting(chromium, site) as (page, faults):
        # Nobody has looked at this one before.
        made = {
            "variants": [{"id": "a"}],
            "channels": ["email"],
            "groups": {"holdout": 0.5},
            "objective": {"clicked": 1},
        }
        headers = {"Authorization": f"Bearer {site.secret}"}
        assert page.request.put("/v1/campaigns/fresh", data=made, headers=headers).ok
        page.goto("/console/campaigns/fresh")
        assert "worked out for the first time" in page.inner_text("main")
        assert "Lift over time" not in page.inner_text("main")
        finish.set()
        page.wait_for_selector("h2:has-text('Lift over time')")
        settled(page)
        assert "What rules masked" in page.inner_text("main")
    assert "fresh" in calls
    assert faults == []


def test_theme_and_language_are_chosen_and_kept(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site) as (page, faults):
        colour = "getComputedStyle(document.querySelector('.card')).backgroundColor"
        light = page.evaluate(colour)
        page.select_option("[name=theme]", "dark")
        page.select_option("[name=language]", "ru")
        page.get_by_role("button", name="Apply").click()
        page.wait_for_selector("h1:has-text('Обзор')")
        assert page.evaluate(colour) != light
        page.goto("/console/campaigns/spring")
        settled(page)
        assert "Прирост во времени" in page.inner_text("main")
    assert faults == []


def test_a_phone_has_a_menu(chromium: Browser, site: Site) -> None:
    with visiting(chromium, site, PHONE) as (page, faults):
        menu = page.get_by_role("button", name="Menu")
        areas = page.get_by_role("navigation", name="Areas")
        areas.wait_for(state="hidden")
        menu.click()
        areas.wait_for(state="visible")
        assert menu.get_attribute("aria-expanded") == "true"
        page.keyboard.press("Escape")
        areas.wait_for(state="hidden")
        menu.click()
        areas.get_by_role("link", name="Decisions").click()
        page.wait_for_url("**/console/decisions")
    assert faults == []


def _first_link(page: Page, path: str, selector: str) -> str:
    page.goto(path)
    found = page.get_attribute(selector, "href")
    assert found is not None
    return found
