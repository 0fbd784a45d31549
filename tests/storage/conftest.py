"""The backends that the contract suite runs on: another backend is one more name and one more branch here."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from storage.open import open_store
from storage.port import Store
from storage.sqlite import SqliteStore
from tests.postgresql import Server

StoreFactory = Callable[[], Store]
Opener = Callable[..., SqliteStore]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, also for other processes to open."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/var/store.db"
        return
    server: Server = request.getfixturevalue("postgresql")
    url = server.take()
    yield url
    server.give_back(url)


@pytest.fixture
def store_factory(database_url: str, tmp_path: Path) -> Iterator[StoreFactory]:
    """Opens stores on that database; afterwards they are closed, and no thread and no open file may be left."""
    threads = set(threading.enumerate())
    files = psutil.Process().num_fds()
    stores: list[Store] = []

    def factory() -> Store:
        stores.append(open_store(database_url, tmp_path / "archive"))
        return stores[-1]

    yield factory
    for store in stores:
        store.close()
    assert set(threading.enumerate()) <= threads
    assert psutil.Process().num_fds() <= files


@pytest.fixture
def store(store_factory: StoreFactory) -> Store:
    """One open store."""
    return store_factory()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "var" / "store.db"


@pytest.fixture
def opener(path: Path) -> Iterator[Opener]:
    """Opens stores with a short patience, and closes them."""
    stores: list[SqliteStore] = []

    def opened(wait_seconds: float = 0.1) -> SqliteStore:
        stores.append(SqliteStore(path, wait_seconds=wait_seconds))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def dump(path: Path, workspace_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a workspace in a SQLite file, by table, in the order of the table; without running numbers of the
    file, with positions counted from the workspace's own first decision, and without what imports have done."""
    with closing(sqlite3.connect(path)) as connection:

        def rows(statement: str) -> list[tuple[Any, ...]]:
            return connection.execute(statement, (workspace_id,)).fetchall()

        (first,) = rows("SELECT min(seq) FROM decisions WHERE workspace_id = ?")[0]
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for name in names:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            if "workspace_id" in columns and name != "import_positions":
                shown = ", ".join(
                    f"max(0, {one} - {first or 1 << 60} + 1)" if one in ("known_after", "changed_after") else one
                    for one in columns
                    if one != "seq"
                )
                order = " ORDER BY seq" if "seq" in columns else ""
                found[name] = rows(f"SELECT {shown} FROM {name} WHERE workspace_id = ?{order}")  # noqa: S608 - the schema's names
        return found
