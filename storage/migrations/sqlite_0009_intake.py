"""Counts by day of what became of reported events, and console sessions that were ended before their time."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_TABLES: Final = (
    """
    CREATE TABLE intake (
      workspace_id TEXT NOT NULL, day INTEGER NOT NULL, source TEXT NOT NULL, result TEXT NOT NULL,
      count INTEGER NOT NULL,
      PRIMARY KEY (workspace_id, day, source, result)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE TABLE ended_sessions (session TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID",
)


def intake(db: Database) -> None:
    """Adds the tables. Runs inside the caller's transaction."""
    for table in _TABLES:
        db.execute(table)
