"""The guided start in a real browser on an empty database: each printed command is run as it stands."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson
import pytest
from werkzeug.serving import make_server

from optimizer.config import Settings
from optimizer.service import intake, setup
from optimizer.web import create_app
from tests.console.conftest import AXE, Site, needed
from tests.console.test_in_browser import DESK, MOST_BYTES, PHONE, stumbles, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MISSING = needed() or (
    None if all(map(shutil.which, ("bash", "curl", "openssl"))) else "the shown commands need bash, curl and openssl"
)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A service whose database holds nothing but a key."""
    monkeypatch.setattr(intake, "FLUSH_SECONDS", 0.05)
    app = create_app(Settings(database=f"sqlite:///{tmp_path / 'new.db'}", log_level="error"))
    services = app.extensions["sendtide"].get()
    setup.ensure_workspace(services, "default")
    _, secret = setup.create_key(services, "default", "first", ["admin"])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_port}", secret)
    server.shutdown()
    thread.join()
    server.server_close()
    app.extensions["sendtide"].close()


def run(command: str, **variables: str) -> Any:
    """What a command answers in a shell that has these variables."""
    done = subprocess.run(["bash", "-euc", command], env=variables, capture_output=True, check=True, timeout=30)
    return orjson.loads(done.stdout)


def checked(page: Page) -> None:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert stumbles(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_a_stranger_gets_from_nothing_to_a_first_webhook(
    chromium: Browser, empty: Site, width: int, scheme: Literal["light", "dark"]
) -> None:
    with visiting(chromium, empty, width, scheme) as (page, faults):
        assert page.url.endswith("/console/start"), "who signs in to nothing is led here"
        page.wait_for_selector("text=0 of 5 done. Next: a campaign.")
        checked(page)

        # A mistake is told beside its field, and nothing that was typed is lost.
        page.get_by_label("Name", exact=True).fill("spring/2027")
        page.get_by_label("Words 1").fill("New boots")
        page.get_by_role("button", name="Make a campaign").click()
        assert "Must be a string" in page.inner_text("#campaign_id-fault")
        assert page.get_by_label("Words 1").input_value() == "New boots"
        checked(page)
        page.get_by_label("Name", exact=True).fill("spring")
        page.get_by_role("button", name="Make a campaign").click()
        page.wait_for_selector("text=The campaign was made.")
        page.wait_for_selector("text=1 of 5 done. Next: ask for a decision.")

        # The page sees each thing by itself, whatever has the focus.
        page.get_by_role("button", name="Copy").nth(1).focus()
        asked = run(page.inner_text("#ask-command"), KEY=empty.secret)
        assert asked["campaign_id"] == "spring"
        page.wait_for_selector("text=2 of 5 done. Next: tell what came of it.")
        page.wait_for_selector("#event-command")
        assert asked["decision_id"] in page.inner_text("#event-command")
        if asked["action"] is not None:
            assert asked["action"]["variant_id"] in page.inner_text("#decision-told")
            confirmed = run(page.inner_text("#confirm-command"), KEY=empty.secret)
            assert confirmed["status"] == "sent"
            page.wait_for_selector("text=The message went out")
        told = run(page.inner_text("#event-command"), KEY=empty.secret)
        assert (told["accepted"], told["unmatched"]) == (1, 0)
        page.wait_for_selector("text=3 of 5 done. Next: a webhook")
        checked(page)

        # A vendor whose key is wrong is told beside the field.
        page.get_by_label("SendGrid").check()
        page.get_by_label("Key, token or topic").fill("no key")
        page.get_by_role("button", name="Make a webhook address").click()
        assert page.inner_text("#secret-fault")
        checked(page)
        page.get_by_label("Standard Webhooks").check()
        assert not page.get_by_label("Key, token or topic").is_visible(), "its secret is made here"
        page.get_by_role("button", name="Make a webhook address").click()
        address = page.get_by_label("Address", exact=True).input_value()
        secret = page.get_by_label("Secret", exact=True).input_value()
        assert address.startswith(f"{empty.address}/v1/webhooks/standard/hooks-")
        checked(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        delivered = run(page.inner_text("#signed-command"), SECRET=secret)
        assert delivered["accepted"] == 1
        page.get_by_role("link", name="Back to the steps").click()
        page.wait_for_selector("text=5 of 5 done. All of it works.")
        assert "1 event" in page.inner_text("#heard-told")
        assert secret not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        checked(page)
        assert len(page.content()) < MOST_BYTES
    # The browser itself notes the two refused forms.
    assert all("422" in one for one in faults)
    assert len(faults) == 2


def test_commands_can_be_copied_and_stay_copied(chromium: Browser, empty: Site) -> None:
    with visiting(chromium, empty) as (page, faults):
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Make a campaign").click()
        page.wait_for_selector("#ask-command")
        copy = page.locator("[data-copy=ask-command]")
        copy.click()
        page.wait_for_selector("button:has-text('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#ask-command")
        page.locator("h1").click()
        with page.expect_response("**/console/start**"):
            pass
        page.wait_for_timeout(50)
        assert copy.inner_text() == "Copied", "nothing is made anew where nothing has changed"
    assert faults == []
