"""What is committed stays in the database whatever other processes close it, and whatever this one did before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import StoreUnavailable
from storage.sqlite import SqliteStore
from tests.storage.builders import WORKSPACE, make_recipient
from tests.storage.conftest import Opener

#: Whoever closes a database as its last user takes the WAL away.
_COMMAND = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*[name for name, in connection.execute("SELECT recipient_id FROM recipients ORDER BY recipient_id")])
connection.close()
"""


def seen_by_a_command(path: Path) -> list[str]:
    """The recipients that another process finds, which closes the database afterwards."""
    done = subprocess.run([sys.executable, "-c", _COMMAND, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def put(store: SqliteStore, name: str) -> None:
    store.write(lambda writer: writer.put_recipient(make_recipient(recipient_id=name)))


def erase(store: SqliteStore) -> None:
    put(store, "who-leaves")
    store.write(lambda writer: writer.forget_recipient(WORKSPACE, "who-leaves"))
    assert store.scrub(["who-leaves"])


def scrub_as_the_scheduler_does(store: SqliteStore) -> None:
    assert store.scrub()


def open_it_again(store: SqliteStore) -> None:
    SqliteStore(store._path).close()


@pytest.mark.parametrize("action", [erase, scrub_as_the_scheduler_does, open_it_again])
def test_what_is_committed_after_it_is_still_there_when_a_command_has_closed_the_database(
    path: Path, opener: Opener, action: Callable[[SqliteStore], None]
) -> None:
    store = opener()
    put(store, "before")
    action(store)
    assert seen_by_a_command(path) == ["before"]
    put(store, "later")
    assert seen_by_a_command(path) == ["before", "later"]


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_a_file_that_cannot_be_looked_through_is_told_so(
    path: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    store = opener()
    put(store, "somebody")
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(StoreUnavailable, match=f"database {path}: .*look"):
        store.scrub(["somebody"])
