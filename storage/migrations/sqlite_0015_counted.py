"""When messages came to count as sent, and when what had waited for a confirm joined them: by our clock, since what the
sender says of the time tells nothing of the order in which it became known. NULL in rows of before.
"""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_COLUMNS: Final = (
    "ALTER TABLE decisions ADD COLUMN counted_at INTEGER",
    "ALTER TABLE decisions ADD COLUMN joined_at INTEGER",
    "ALTER TABLE decisions ADD COLUMN joined_after INTEGER",
)


def counted(db: Database) -> None:
    """Adds the columns. Runs inside the caller's transaction."""
    for column in _COLUMNS:
        db.execute(column)
