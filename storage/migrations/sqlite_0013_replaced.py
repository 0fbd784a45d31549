"""What a policy took the place of: which of a campaign's policies a change took out of service."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

#: In PostgreSQL's words too.
COLUMNS: Final = ("ALTER TABLE changes ADD COLUMN replaced_id TEXT",)


def replaced(db: Database) -> None:
    """Adds the column. Runs inside the caller's transaction."""
    for column in COLUMNS:
        db.execute(column)
