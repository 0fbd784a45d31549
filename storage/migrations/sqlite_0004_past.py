"""What a recipient's history needs: their newest events, whether or not these name a decision."""

from __future__ import annotations

from sqlite_utils import Database


def past(db: Database) -> None:
    """Adds the index. Runs inside the caller's transaction."""
    db.execute(
        "CREATE INDEX events_past ON events (workspace_id, recipient_id, occurred_at) WHERE recipient_id IS NOT NULL"
    )
