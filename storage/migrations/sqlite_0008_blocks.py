"""Counts how often rows of each block of the log were rewritten or deleted: see ``storage.blocks``.

Who changes a row counts it. Triggers would forget nothing, but inside a savepoint each statement with a trigger keeps
an undo log of its own, in a list that is walked from its start: 10,000 updates took 8 s where they take .4 s.
"""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_TABLE: Final = """
CREATE TABLE rewrites (
  workspace_id TEXT NOT NULL, log TEXT NOT NULL, block INTEGER NOT NULL, times INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, log, block)
) STRICT, WITHOUT ROWID
"""


def blocks(db: Database) -> None:
    """Adds the table. Runs inside the caller's transaction."""
    db.execute(_TABLE)
