"""A real browser on a real server over a made-up shop's weeks, seeded once for all processes of a test session."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import make_server

from optimizer.config import Settings
from optimizer.web import create_app
from simulations.showcase import fill

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parents[1] / "node" / "node_modules" / "axe-core" / "axe.min.js"
#: When the shop's last day ends; the console's clock stands there.
NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


@dataclass(frozen=True)
class Site:
    """Where the console is, and a key to it."""

    address: str
    secret: str


def needed() -> str | None:
    """What is missing of what these tests need."""
    if not Path(CHROMIUM).exists():
        return "needs chromium: `make test` installs Debian's where it may"
    return None if AXE.exists() else "needs axe-core: `make test` installs it where there is node"


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The shop's database and its key: whichever process comes first makes it, the others take a copy."""
    own = tmp_path_factory.mktemp("console")
    # Processes of one session have folders side by side; a session of one process has nobody to share with.
    above = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else own
    shared = above / "sendtide-showcase"
    shared.mkdir(exist_ok=True)
    made, key = shared / "shop.db", shared / "key"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not key.exists():
            made.unlink(missing_ok=True)
            settings = Settings(database=f"sqlite:///{made}", gate=False, log_level="error")
            secret = fill(settings, NOW, people=150, days=16, seed=3, tell=lambda _: None)
            key.write_text(secret)
    shutil.copy(made, own / "shop.db")
    return own / "shop.db", key.read_text()


@pytest.fixture(scope="session")
def site(seeded: tuple[Path, str]) -> Iterator[Site]:
    path, secret = seeded
    app = create_app(Settings(database=f"sqlite:///{path}"), clock=lambda: NOW)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_port}", secret)
    server.shutdown()
    thread.join()
    server.server_close()
    app.extensions["sendtide"].close()


# Playwright's event loop runs as long as the browser does, and other packages' tests run loops of their own.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root may not have Chromium's sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
