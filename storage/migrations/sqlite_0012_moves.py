"""What became of policies, found among all other changes: which were put into service and taken back."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

#: In PostgreSQL's words too.
INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS changes_policies ON changes (workspace_id, position) WHERE policy_id IS NOT NULL",
)


def moves(db: Database) -> None:
    """Adds the index. Runs inside the caller's transaction."""
    for index in INDEXES:
        db.execute(index)
