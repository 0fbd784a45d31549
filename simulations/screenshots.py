"""Pictures of the console for the documents: ``python -m simulations.screenshots``.

They show the showcase (``sendtide showcase``), made anew or taken from a database that has it, on a real server. Needs
the extra ``dev`` and Debian's chromium.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from PIL import Image
from rich.console import Console

from optimizer.cli.firststeps import Wishes, begin
from optimizer.config import Settings
from optimizer.first_start import WORKSPACE, key_path
from optimizer.service.starters import HOLDOUT, VARIANTS
from optimizer.service.wiring import open_services, utc_now
from simulations.server import Server, free_port
from simulations.showcase import fill

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
#: The largest file that a document may have to load.
MOST_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture: its name, the page, what is clicked there first, and how it is looked at.

    ``new``: of a database in which somebody has just begun, in place of the showcase.
    """

    name: str
    path: str
    click: str | None = None
    scroll: str | None = None
    width: int = 1200
    height: int = 800
    scheme: Literal["light", "dark"] = "light"
    language: str = "en"
    new: bool = False


SHOTS = (
    Shot("overview", "/console"),
    Shot("campaign", "/console/campaigns/spring", height=1000),
    Shot("campaign-hours", "/console/campaigns/spring", scroll="#traffic", height=820, scheme="dark"),
    Shot("decision", "/console/decisions?campaign_id=spring&status=reserved", click="tbody th a", height=1000),
    Shot("recipient", "/console/recipients/person-12", height=1000),
    Shot("policy", "/console/policies?campaign_id=spring", click="tr:has(.tag.good) th a", height=1000),
    Shot("data", "/console/data", height=1150),
    Shot("rules", "/console/rules", height=620),
    Shot("start", "/console/start", height=1000, new=True),
    Shot("phone", "/console", width=390, height=844, scheme="dark"),
    Shot("russian", "/console", language="ru"),
)


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("docs/images"), show_default=True)
@click.option("--database", help="One that has the showcase already; left out, it is made, which takes minutes.")
@click.option("--key", help="A key of that database.")
def main(out: Path, database: str | None, key: str | None) -> None:
    """Draw the console's pages."""
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="sendtide-screenshots-") as folder,
        console.status("the showcase") as status,
    ):
        settings = Settings(
            database=database or f"sqlite:///{Path(folder)}/shop.db",
            bind=f"127.0.0.1:{free_port()}",
            scheduler=False,
            retrain_minutes=14 * 24 * 60.0,
            log_level="error",
        )
        if database is None or key is None:
            key = fill(settings, utc_now(), people=1_600, days=64, seed=1, tell=lambda told: status.update(told))
        fresh = settings.override(database=f"sqlite:///{Path(folder)}/new.db", bind=f"127.0.0.1:{free_port()}")
        status.update("drawing")
        for where, secret, new in ((settings, key, False), (fresh, begun(fresh), True)):
            with Server(where, Path(folder)):
                shots = [shot for shot in SHOTS if shot.new is new]
                for path, size in drawn(f"http://{where.bind}", secret, out, shots):
                    console.print(f"{path} ({size / 1000:.0f} kB)")


def begun(settings: Settings) -> str:
    """Makes a database with a first campaign and a first decision; returns its key."""
    wishes = Wishes(WORKSPACE, "spring", VARIANTS, ("email",), "clicks", HOLDOUT, None, None, "")
    services = open_services(settings, watch=False)
    begin(services, wishes)
    services.close()
    return key_path(settings).read_text(encoding="utf-8").strip()


def drawn(address: str, key: str, out: Path, shots: Sequence[Shot]) -> list[tuple[Path, int]]:
    """Draws pictures; returns the files with their sizes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        made = [(out / f"console-{shot.name}.png", _draw(browser, address, key, shot)) for shot in shots]
        browser.close()
    for path, raw in made:
        path.write_bytes(raw)
    return [(path, len(raw)) for path, raw in made]


def _draw(browser: Browser, address: str, key: str, shot: Shot) -> bytes:
    context = browser.new_context(
        base_url=address,
        viewport={"width": shot.width, "height": shot.height},
        color_scheme=shot.scheme,
        locale=shot.language,
        device_scale_factor=1.5,
    )
    page = context.new_page()
    page.goto("/console/sign-in")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("main#content")
    page.goto(shot.path)
    if shot.click is not None:
        page.click(shot.click)
    _settle(page)
    if shot.scroll is not None:
        page.evaluate(f"document.querySelector('{shot.scroll}').scrollIntoView()")
    raw = _small(page.screenshot())
    context.close()
    return raw


def _settle(page: Page) -> None:
    page.wait_for_load_state()
    page.wait_for_selector("[data-pending]", state="detached", timeout=60_000)


def _small(raw: bytes) -> bytes:
    """A PNG of as many colours as fit the size."""
    picture = Image.open(io.BytesIO(raw)).convert("RGB")
    for colours in (256, 128, 64, 32):
        out = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() <= MOST_BYTES:
            break
    return out.getvalue()


if __name__ == "__main__":
    main()
