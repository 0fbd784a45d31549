"""What goes by its own age: messages of other systems, and events that no decision takes along."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

#: In PostgreSQL's words too.
INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS messages_others ON messages (workspace_id, at) WHERE decision_id IS NULL",
    """
    CREATE INDEX IF NOT EXISTS events_loose ON events (workspace_id, occurred_at)
    WHERE decision_id IS NULL OR matched = 0
    """,
)


def retention(db: Database) -> None:
    """Adds the indexes. Runs inside the caller's transaction."""
    for index in INDEXES:
        db.execute(index)
