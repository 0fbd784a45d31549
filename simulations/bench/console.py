"""How fast the console's pages are over a long log: ``python -m simulations.bench.console``.

The showcase's decisions and events are copied until there are a million decisions, under other recipients' names; then
every page is opened in a real browser on a real server: at first with nothing worked out, then again. Needs the extra
``dev`` and Debian's chromium.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from optimizer.config import Settings
from optimizer.service.record import message_of
from optimizer.service.wiring import Services, open_services, utc_now
from simulations.server import Server, free_port
from simulations.showcase import fill
from simulations.showcase_shop import WORKSPACE
from storage.log import Decision, Event, FeedbackRow

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = "/usr/bin/chromium"
_CHUNK = 5_000
#: Kinds of rules that are tried on last week: one that each decision is judged by, one that is filled in their order.
TRIED = ("cap", "quiet_hours", "capacity")
#: When a page can be used, in ms after it was asked for.
_INTERACTIVE = "performance.getEntriesByType('navigation')[0].domInteractive"


@dataclass(frozen=True, slots=True)
class Opened:
    """A page: how long until it can be used, the first time and later (ms), and what its HTML weighs (bytes)."""

    path: str
    first: float
    later: float
    weight: int


@click.command()
@click.option("--decisions", type=click.IntRange(1_000), default=1_000_000, show_default=True, help="In the log.")
@click.option("--people", type=click.IntRange(20), default=400, show_default=True, help="Of the showcase.")
def main(decisions: int, people: int) -> None:
    """Measure when the console's pages can be used."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="sendtide-console-") as folder, console.status("the showcase") as status:
        settings = Settings(
            database=f"sqlite:///{Path(folder)}/bench.db",
            bind=f"127.0.0.1:{free_port()}",
            log_level="error",
            scheduler=False,
            workers=1,
            gate=False,
        )
        secret = fill(settings, utc_now(), people=people, days=20, seed=1, tell=lambda told: status.update(told))
        services = open_services(settings, watch=False)
        for done in multiply(services, decisions):
            status.update(f"{done:,} decisions")
        services.close()
        status.update("opening pages")
        with Server(settings, Path(folder)):
            opened = open_pages(f"http://{settings.bind}", secret)
    table = Table(title=f"{decisions:,} decisions, one worker", caption="ms until a page can be used (domInteractive)")
    for heading in ("page", "first", "later", "kB"):
        table.add_column(heading, justify="left" if heading == "page" else "right")
    for one in opened:
        table.add_row(one.path, f"{one.first:,.0f}", f"{one.later:,.0f}", f"{one.weight / 1000:,.0f}")
    console.print(table)


def multiply(services: Services, wanted: int) -> Iterator[int]:
    """Copies the log under other names until there are ``wanted`` decisions; yields how many there are."""
    with services.store.read() as reader:
        rows = list(reader.feedback(WORKSPACE))
    there, turn = len(rows), 0
    while there < wanted:
        turn += 1
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + min(_CHUNK, wanted - there)]
            _store(services, part, turn)
            there += len(part)
            yield there
            if there >= wanted:
                return


def _store(services: Services, rows: Sequence[FeedbackRow], turn: int) -> None:
    decisions = [_copied(row.decision, turn) for row in rows]
    events = [_copied_event(event, turn) for row in rows for event in row.events if event.decision_id is not None]

    def work(writer: Any) -> None:
        writer.add_decisions([(one, message_of(one)) for one in decisions])
        writer.add_events(events)

    services.store.write(work)


def _copied(one: Decision, turn: int) -> Decision:
    return replace(
        one,
        decision_id=f"{one.decision_id}{turn}",
        request_id=f"{one.request_id}/{turn}",
        recipient_id=f"{one.recipient_id}-{turn}",
        message_id=None if one.message_id is None else f"{one.message_id}{turn}",
    )


def _copied_event(one: Event, turn: int) -> Event:
    return replace(one, event_id=f"{one.event_id}/{turn}", decision_id=f"{one.decision_id}{turn}", recipient_id=None)


def open_pages(address: str, secret: str) -> list[Opened]:
    """Opens every page twice."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(base_url=address)
        page.goto("/console/sign-in")
        page.fill("#key", secret)
        page.keyboard.press("Enter")
        page.wait_for_url("**/console")
        paths = [
            "/console",
            "/console/campaigns",
            "/console/campaigns/spring",
            "/console/campaigns/spring?days=7",
            "/console/decisions",
            "/console/decisions?campaign_id=spring&status=sent",
            _link(page, "/console/decisions?campaign_id=spring&status=reserved", "tbody th a"),
            "/console/recipients",
            "/console/recipients/person-7",
            "/console/policies",
            _link(page, "/console/policies", "tbody a"),
            "/console/training",
            "/console/data",
            "/console/start",
            "/console/rules",
            "/console/rules/three-a-week",
            _link(page, "/console/training", "#runs a"),
        ]
        first = {path: _timed(page, path) for path in paths}
        page.goto("/console/campaigns/spring")
        page.wait_for_selector("[data-pending]", state="detached", timeout=120_000)
        later = {path: _timed(page, path) for path in paths}
        weights = {path: len(page.request.get(path).body()) for path in paths}
        tried = [_tried(page, kind) for kind in TRIED]
        browser.close()
    return [*(Opened(path, first[path], later[path], weights[path]) for path in paths), *tried]


def _timed(page: Page, path: str) -> float:
    page.goto(path)
    return float(page.evaluate(_INTERACTIVE))


def _tried(page: Page, kind: str) -> Opened:
    """Tries an example of a kind of rule on last week, twice."""
    took = []
    for _ in range(2):
        page.goto(f"/console/new-rule?kind={kind}")
        page.fill("#rule_id", "tried")
        with page.expect_navigation(timeout=120_000):
            page.click("button[data-busy]")
        took.append(float(page.evaluate(_INTERACTIVE)))
    return Opened(f"trying a rule: {kind}", took[0], took[1], len(page.content().encode()))


def _link(page: Page, path: str, selector: str) -> str:
    page.goto(path)
    return str(page.get_attribute(selector, "href"))


if __name__ == "__main__":
    main()
