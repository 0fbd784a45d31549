"""The README tells the truth: its commands exist, its make targets exist, its example of an outage works; and the
mapping of ``docs/imports.md`` means what it says."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import click
import pytest
from click.testing import CliRunner

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import setup
from optimizer.web import create_app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(group: click.Group) -> set[str]:
    """The names of a group's commands that are not hidden."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name for name, command in found.items() if command is not None and not command.hidden}


def test_every_command_of_the_table_exists_and_none_is_missing() -> None:
    named = set(re.findall(r"^\| `sendtide (\S+?)[ `]", README, flags=re.MULTILINE))
    assert named == commands(main)


def test_every_option_that_the_table_names_exists() -> None:
    for line in re.findall(r"^\| `sendtide ([^`]+)`", README, flags=re.MULTILINE):
        command = main.get_command(click.Context(main), line.split()[0])
        assert command is not None
        options = {o for c in _with_children(command) for p in c.params for o in (*p.opts, *p.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


def _with_children(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    return [command, *(c for child in command.commands.values() for c in _with_children(child))]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`?", README)) <= targets


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    app = create_app(Settings(database=f"sqlite:///{tmp_path}/readme.db"))
    services = app.extensions["sendtide"].get()
    secret = setup.create_key(services, "default", "readme", ["admin"])[1]
    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", secret
    server.shutdown()
    thread.join()
    server.server_close()
    app.extensions["sendtide"].close()


def curl_body(block: str) -> dict[str, Any]:
    found = re.search(r"-d '(.*?)'", block, flags=re.DOTALL)
    assert found is not None
    return dict(json.loads(found.group(1)))


def test_the_outage_example_answers_the_baseline_when_nobody_listens(service: tuple[str, str]) -> None:
    _, key = service
    scope: dict[str, Any] = {}
    example = next(block for block in blocks("python") if "def ask(" in block)
    exec(example, scope)  # noqa: S102  the README's own code is what is under test
    baseline = {"variant_id": "hello", "channel": "email"}
    body = {"campaign_id": "spring", "recipient_id": "u1"}
    assert scope["ask"]("http://127.0.0.1:9", key, body, baseline) == {"status": "baseline", "action": baseline}


def test_the_curl_examples_are_accepted(service: tuple[str, str]) -> None:
    base, key = service
    campaign = next(curl_body(b) for b in blocks("bash") if "/v1/campaigns/spring" in b)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    put = urllib.request.Request(f"{base}/v1/campaigns/spring", json.dumps(campaign).encode(), headers, method="PUT")
    with urllib.request.urlopen(put) as answer:
        assert answer.status == 201
    decision = next(curl_body(b) for b in blocks("bash") if "/v1/decisions" in b)
    ask = urllib.request.Request(
        f"{base}/v1/decisions", json.dumps({**decision, "campaign_id": "spring"}).encode(), headers
    )
    with urllib.request.urlopen(ask) as answer:
        assert answer.status == 201
        assert json.load(answer)["propensity"] > 0


def test_the_mapping_imports_a_crms_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "imports.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", page, flags=re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content, encoding="utf-8")
    database = f"sqlite:///{tmp_path}/s.db"
    made = CliRunner().invoke(main, ["keys", "create", "--name", "first", "--scopes", "admin", "--database", database])
    assert made.exit_code == 0, made.output
    told = ["import", "recipients", str(tmp_path / "crm.csv"), "--mapping", str(tmp_path / "crm.toml")]
    done = CliRunner().invoke(main, [*told, "--database", database])
    assert done.exit_code == 0, done.output
    app = create_app(Settings(database=database))
    with app.extensions["sendtide"].get().store.read() as reader:
        found = reader.recipients("default", ["17", "18"])
    app.extensions["sendtide"].close()
    assert {
        key: (one.timezone, one.attributes["spent"], one.channels["email"].state) for key, one in found.items()
    } == {
        "17": ("Europe/Berlin", 1234.5, True),
        "18": ("Europe/Berlin", 0.99, False),
    }
