"""Files of old decisions, which of their rows count no more, and where a decision's row is: see ``storage.archive``."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_TABLES: Final = (
    """
    CREATE TABLE archive_files (
      workspace_id TEXT NOT NULL, number INTEGER NOT NULL, path TEXT NOT NULL, rows INTEGER NOT NULL,
      moved INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, checksum BLOB NOT NULL,
      contents BLOB NOT NULL,
      PRIMARY KEY (workspace_id, number)
    ) STRICT
    """,
    """
    CREATE TABLE archive_gone (
      workspace_id TEXT NOT NULL, number INTEGER NOT NULL, place INTEGER NOT NULL, cleaned INTEGER NOT NULL,
      PRIMARY KEY (workspace_id, number, place)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE archive_keys (
      workspace_id TEXT NOT NULL, name INTEGER NOT NULL, number INTEGER NOT NULL, place INTEGER NOT NULL,
      PRIMARY KEY (workspace_id, name, number, place)
    ) STRICT, WITHOUT ROWID
    """,
)


def archive(db: Database) -> None:
    """Adds the tables. Runs inside the caller's transaction."""
    for table in _TABLES:
        db.execute(table)
