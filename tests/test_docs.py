"""The pages tell the truth: every block is run against a real server, or checked, and the site builds without warnings.

``bash`` is run in the reader's folder, ``python`` as a program; ``json`` is sent to the route that the text names last
before it. ``text`` shows what is answered or how things hang together, and is not run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from http.client import HTTPConnection
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from optimizer.cli import main
from optimizer.config import Settings, variable
from optimizer.first_start import prepare
from optimizer.service.endpoints import TYPES
from optimizer.service.setup import create_key
from optimizer.service.wiring import open_services
from simulations.server import Server, free_port

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page.stem: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
#: Where a page says that the service listens.
SAID = "127.0.0.1:8080"
#: Lines that are tried elsewhere, need more than this machine, or are no business of ours.
NOT_RUN = re.compile(
    r"make \w+$|source |createdb |(\.venv/bin/)?sendtide (schedule|showcase|serve(?! --help))|.*\.example\.org"
)
#: Folders of a reader's machine, here beside the rest.
THEIR_FOLDERS = ("/backups/", "/srv/")
#: Languages that other tests run: JavaScript's SDK in ``web/personalizer``; nobody runs C#.
ELSEWHERE = ("js", "csharp")
#: Of the README, whose Python has tests of its own.
README_RUNS = ("bash",)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its content, and the route that is named since the block before."""

    language: str
    content: str
    route: tuple[str, str] | None


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found, end = [], 0
    for fence in re.finditer(r"^( *)```([^\s`]+)[^\n]*\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        named = re.findall(r"^`(PUT|POST|PATCH|DELETE) (/[^`]+)`$", text[end : fence.start()], re.MULTILINE)
        found.append(Block(fence[2], textwrap.dedent(fence[3]), named[-1] if named else None))
        end = fence.end()
    return found


@dataclass
class Reader:
    """Somebody who follows a page: a folder in which the service was started for the first time."""

    folder: Path
    address: str
    secret: str

    def at_home(self, text: str) -> str:
        """A block as it is for this reader's server and machine."""
        for folder in THEIR_FOLDERS:
            text = text.replace(folder, f"{self.folder}/")
        return text.replace(SAID, self.address)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SENDTIDE_")}
        asked = {"PERSONALIZER_ENDPOINT": f"http://{self.address}/", "PERSONALIZER_KEY": self.secret}
        # A page shows the demo as it is; here a small audience does.
        small = {"SENDTIDE_DEMO_RECIPIENTS": "40", "SENDTIDE_DEMO_DAYS": "2"}
        path = f"{self.folder}/.venv/bin:{os.environ['PATH']}"
        return {**kept, **asked, **small, "PYTHONPATH": str(ROOT), "PATH": path}

    def bash(self, block: Block) -> None:
        """Runs a block; commands of ours alone in this process, where they are loaded already."""
        content = self.at_home(block.content).replace("curl -s", "curl -s --fail-with-body")
        lines = [line for line in content.splitlines() if not NOT_RUN.match(line)]
        if all(line.startswith("sendtide ") and not set(line) & set("|<>$&;") for line in lines):
            for line in lines:
                self.sendtide(shlex.split(line)[1:])
            return
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (block.content, done.stdout[-2000:], done.stderr[-2000:])

    def sendtide(self, arguments: list[str]) -> None:
        result = CliRunner().invoke(main, arguments, env=self.environment())
        if arguments[0] == "insights" and "serves no learned policy yet" in result.output:
            return  # so small an audience teaches nothing; ``cli/test_card`` looks at insights
        assert result.exit_code == 0, (arguments, result.output, result.exception)

    def python(self, block: Block) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", self.at_home(block.content)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (block.content, done.stderr[-2000:])

    def json(self, block: Block) -> None:
        assert block.route is not None, f"nothing says where this goes: {block}"
        method, path = block.route
        connection = HTTPConnection(self.address, timeout=30)
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        connection.request(method, path, orjson.dumps(orjson.loads(block.content)), headers)
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        assert answer.status < 300, (block, found)
        assert not orjson.loads(found).get("rejected"), found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if not all(map(shutil.which, ("bash", "curl"))):
        pytest.skip("the pages' commands need bash and curl")
    folder = tmp_path_factory.mktemp("reader")
    settings = Settings(
        database=f"sqlite:///{folder}/var/sendtide.db", bind=f"127.0.0.1:{free_port()}", workers=1, scheduler=False
    )
    program = folder / ".venv" / "bin" / "sendtide"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m optimizer.cli "$@"\n')
    program.chmod(0o755)
    services = open_services(settings, watch=False)
    prepare(services)
    # The page on Personalizer makes a workspace for its loop; here one with every right stands for it.
    _, secret = create_key(services, "default", "reader", ["admin"])
    services.close()
    with Server(settings, folder):
        yield Reader(folder, settings.bind, secret)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_does_what_it_says(page: str, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reader.folder)
    for block in blocks(PAGES[page]):
        if page == "README" and block.language not in README_RUNS:
            continue
        if block.language == "bash":
            reader.bash(block)
        elif block.language == "python":
            reader.python(block)
        elif block.language == "json":
            reader.json(block)
        else:
            assert block.language in ("text", "{toctree}", *ELSEWHERE), f"nothing runs {block}"


def test_settings_are_told_as_they_are() -> None:
    page = PAGES["operations"].read_text("utf-8")
    told = dict(re.findall(r"^\| `(SENDTIDE_\w+)` \| `?([^|]+?)`? \|", page, re.MULTILINE))
    defaults = {variable(one.name): one.default for one in fields(Settings)}
    assert told.keys() == defaults.keys()
    for name, default in told.items():
        known = defaults[name]
        if known is not None:
            written = f"{known:g}" if isinstance(known, float) else str(known).lower()
            assert default == written, name


def test_every_page_is_reached_and_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(ROOT / "docs")]
    done = subprocess.run(
        [*build, "-d", str(tmp_path / "read"), str(tmp_path / "site")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / "site" / f"{page.stem}.html").exists()


def test_each_kind_of_change_is_told_with_what_it_is_pushed_as() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+\.\w+)` \|$", PAGES["api"].read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == TYPES
