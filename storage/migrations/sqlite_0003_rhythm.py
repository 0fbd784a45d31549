"""Recipients' weekly rhythms: sums of weights by kind and local hour of the week."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

# kind: place in storage.rhythm.RHYTHM_KINDS.
_STATEMENTS: Final = (
    """
    CREATE TABLE rhythms (
      workspace_id TEXT NOT NULL, recipient_id TEXT NOT NULL, kind INTEGER NOT NULL, hour INTEGER NOT NULL,
      weight REAL NOT NULL,
      PRIMARY KEY (workspace_id, recipient_id, kind, hour)
    ) STRICT, WITHOUT ROWID
    """,
)


def rhythm(db: Database) -> None:
    """Adds the table. Runs inside the caller's transaction."""
    for statement in _STATEMENTS:
        db.execute(statement)
