"""Brings a SQLite file to the schema that this version of the code speaks."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from sqlite_utils import Database, Migrations

from storage.errors import SchemaMismatch, StoreUnavailable
from storage.file_lock import FileLock
from storage.migrations import (
    sqlite_0001_first,
    sqlite_0002_rules,
    sqlite_0003_rhythm,
    sqlite_0004_past,
    sqlite_0005_webhooks,
    sqlite_0006_personalizer,
    sqlite_0007_endpoints,
    sqlite_0008_blocks,
    sqlite_0009_intake,
    sqlite_0010_archive,
    sqlite_0011_retention,
    sqlite_0012_moves,
    sqlite_0013_replaced,
    sqlite_0014_run_kinds,
    sqlite_0015_counted,
)
from storage.sqlite.connect import connect, create_file, meaning, result_code

#: Needed for STRICT tables.
_OLDEST_SQLITE = (3, 37, 0)

_STEPS: Final = (
    ("0001_first", sqlite_0001_first.first),
    ("0002_rules", sqlite_0002_rules.rules),
    ("0003_rhythm", sqlite_0003_rhythm.rhythm),
    ("0004_past", sqlite_0004_past.past),
    ("0005_webhooks", sqlite_0005_webhooks.webhooks),
    ("0006_personalizer", sqlite_0006_personalizer.personalizer),
    ("0007_endpoints", sqlite_0007_endpoints.endpoints),
    ("0008_blocks", sqlite_0008_blocks.blocks),
    ("0009_intake", sqlite_0009_intake.intake),
    ("0010_archive", sqlite_0010_archive.archive),
    ("0011_retention", sqlite_0011_retention.retention),
    ("0012_moves", sqlite_0012_moves.moves),
    ("0013_replaced", sqlite_0013_replaced.replaced),
    ("0014_run_kinds", sqlite_0014_run_kinds.run_kinds),
    ("0015_counted", sqlite_0015_counted.counted),
)
NEWEST: Final = _STEPS[-1][0]
MIGRATIONS: Final = Migrations("sendtide")
for _name, _step in _STEPS:
    MIGRATIONS(name=_name)(_step)


def prepare(path: Path, lock_path: Path, timeout_seconds: float) -> None:
    """Creates the file if need be and applies the migrations that it lacks, all or none, one process at a time.

    Raises:
        SchemaMismatch: not a database of Sendtide's, or one of a newer version.
        StoreUnavailable: the file can't be read or written, or another process holds it.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise SchemaMismatch(f"SQLite {sqlite3.sqlite_version} is older than the 3.37 that the schema needs")
    create_file(path)
    try:
        db = connect(path, "rw", timeout_seconds)
        try:
            if _is_behind(db, path):
                lock = FileLock(lock_path)
                try:
                    lock.acquire_within(timeout_seconds)
                    _apply(db, path)
                finally:
                    lock.close()
        finally:
            db.close()
    except sqlite3.Error as error:
        if result_code(error) == sqlite3.SQLITE_NOTADB:
            raise SchemaMismatch(f"database {path}: the file is not a SQLite database") from error
        raise meaning(error, path) from error


def require_ours(db: Database, path: Path) -> None:
    """Raises ``SchemaMismatch`` unless the file is one of Sendtide's."""
    if _application_id(db) != sqlite_0001_first.APPLICATION_ID:
        raise SchemaMismatch(f"database {path}: it is not a database of Sendtide's")


def _application_id(db: Database) -> int:
    return int(db.execute("PRAGMA application_id").fetchone()[0])


def _is_behind(db: Database, path: Path) -> bool:
    """Whether migrations are to be applied; ``SchemaMismatch`` when they can't be."""
    if _application_id(db) == 0 and not db.table_names():
        return True
    require_ours(db, path)
    unknown = {done.name for done in MIGRATIONS.applied(db)} - {name for name, _ in _STEPS}
    if unknown:
        raise SchemaMismatch(
            f"database {path}: a newer version of Sendtide made it "
            f"(it has {', '.join(sorted(unknown))}); upgrade the code"
        )
    return bool(MIGRATIONS.pending(db))


def _apply(db: Database, path: Path) -> None:
    db.enable_wal()
    if db.journal_mode != "wal":
        raise StoreUnavailable(f"database {path}: this file system has no shared memory; use a local disk")
    db.execute("BEGIN IMMEDIATE")
    try:
        if _is_behind(db, path):  # asked again: another process may have been quicker
            MIGRATIONS.apply(db)
        db.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.execute("ROLLBACK")
        raise
