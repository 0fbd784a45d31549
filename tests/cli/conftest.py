"""The command line, called in this process on a database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.wiring import Services, open_services
from storage.records import Campaign
from tests.service.conftest import campaign


@dataclass
class Sendtide:
    """Calls ``sendtide`` with a database in ``folder``."""

    folder: Path

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/test.db"

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> Result:
        """The result; whatever the command didn't turn into an exit code is raised."""
        given = [*arguments, "--database", self.database]
        result = CliRunner().invoke(main, given, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def ok(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Standard output of a call that must succeed."""
        result = self(*arguments, env=env)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def json(self, *arguments: str) -> Any:
        """The JSON answer of a call that must succeed."""
        return orjson.loads(self.ok(*arguments, "--json"))

    def file(self, name: str, content: str) -> str:
        """A file in the folder."""
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return str(path)

    def open(self) -> Services:
        """The service on the same database."""
        return open_services(Settings(database=self.database), watch=False)


@pytest.fixture(autouse=True)
def no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SENDTIDE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def sendtide(tmp_path: Path) -> Sendtide:
    return Sendtide(tmp_path)


@pytest.fixture
def services(sendtide: Sendtide) -> Iterator[Services]:
    opened = sendtide.open()
    yield opened
    opened.close()


@pytest.fixture
def spring(services: Services) -> Campaign:
    """The campaign ``spring`` in the workspace ``default``."""
    setup.ensure_workspace(services, "default")
    return setup.put_campaign(services, campaign(workspace_id="default"))[0]
