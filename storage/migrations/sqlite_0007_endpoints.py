"""Outgoing webhooks: where changes are pushed to, and how far that is."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_STATEMENTS: Final = (
    """
    CREATE TABLE endpoints (
      workspace_id TEXT NOT NULL, endpoint_id TEXT NOT NULL, document BLOB NOT NULL,
      PRIMARY KEY (workspace_id, endpoint_id)
    ) STRICT, WITHOUT ROWID
    """,
    # Apart from the endpoint, since it is written with every delivery.
    """
    CREATE TABLE deliveries (
      workspace_id TEXT NOT NULL, endpoint_id TEXT NOT NULL, document BLOB NOT NULL,
      PRIMARY KEY (workspace_id, endpoint_id)
    ) STRICT, WITHOUT ROWID
    """,
)


def endpoints(db: Database) -> None:
    """Adds the tables. Runs inside the caller's transaction."""
    for statement in _STATEMENTS:
        db.execute(statement)
