"""Inbound webhooks: sources, used tokens; of an event the vendor's words, and how sure its label is."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_STATEMENTS: Final = (
    # NULL in rows of before: nobody judged them. flips: positions, as JSON.
    "ALTER TABLE events ADD COLUMN confidence REAL",
    "ALTER TABLE events ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE events ADD COLUMN flips BLOB",
    # Last, since most queries don't want it and SQLite reads a row from its front.
    "ALTER TABLE events ADD COLUMN words BLOB",
    """
    CREATE TABLE webhook_sources (
      workspace_id TEXT NOT NULL, source_id TEXT NOT NULL, version INTEGER NOT NULL, deleted INTEGER NOT NULL,
      document BLOB NOT NULL,
      PRIMARY KEY (workspace_id, source_id)
    ) STRICT
    """,
    "CREATE UNIQUE INDEX webhook_sources_id ON webhook_sources (source_id)",
    """
    CREATE TABLE webhook_tokens (
      workspace_id TEXT NOT NULL, source_id TEXT NOT NULL, token TEXT NOT NULL, used_for TEXT NOT NULL,
      until INTEGER NOT NULL,
      PRIMARY KEY (workspace_id, source_id, token)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX webhook_tokens_until ON webhook_tokens (workspace_id, until)",
)


def webhooks(db: Database) -> None:
    """Adds the columns and tables. Runs inside the caller's transaction."""
    for statement in _STATEMENTS:
        db.execute(statement)
