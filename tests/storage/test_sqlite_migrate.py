"""Opening SQLite files: fresh ones, ours, newer ones, those of others."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.errors import SchemaMismatch
from tests.storage.builders import make_decision
from tests.storage.conftest import Opener


def test_opening_again_changes_nothing_in_the_file(opener: Opener, path: Path) -> None:
    store = opener()
    store.write(lambda writer: writer.add_decision(make_decision(), None))
    store.close()
    before = path.read_bytes()
    opener().close()
    assert path.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused_untouched(opener: Opener, path: Path) -> None:
    opener().close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('sendtide', '9999_future', '')"
        )
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match=r"newer.*9999_future"):
        opener()
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_untouched(opener: Opener, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="not a database of Sendtide"):
        opener()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_untouched(opener: Opener, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(SchemaMismatch, match="not a SQLite database"):
        opener()
    assert path.read_bytes() == b"dear diary, " * 1000


def test_a_migration_that_fails_leaves_an_empty_database(
    opener: Opener, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.sqlite import migrate

    def fails_late(db: object) -> None:
        raise ArithmeticError

    migrate.MIGRATIONS(name="9998_fails")(fails_late)
    monkeypatch.setattr(migrate, "_STEPS", (*migrate._STEPS, ("9998_fails", fails_late)))
    try:
        with pytest.raises(ArithmeticError):
            opener()
    finally:
        migrate.MIGRATIONS._migrations.pop()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    opener().check()
