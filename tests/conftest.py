"""What all tests share: a database each, and the PostgreSQL server of this test process.

``pytest --store postgresql`` runs what speaks to the service on PostgreSQL instead of SQLite. The contract of the store
runs on both anyway. The server starts when the first test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql import Server, running


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store", choices=("sqlite", "postgresql"), default="sqlite", help="what the service's tests store in"
    )
    parser.addoption(
        "--whole", action="store_true", help="also what takes a minute; faults last as long as the documentation says"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("whole"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def module_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As ``database``, for all tests of a module."""
    yield from _database(request, tmp_path_factory.mktemp("store"))


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of the chosen kind."""
    yield from _database(request, tmp_path)


def _database(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.config.getoption("store") == "sqlite":
        yield f"sqlite:///{folder}/test.db"
        return
    server: Server = request.getfixturevalue("postgresql")
    url = server.take()
    yield url
    server.give_back(url)
