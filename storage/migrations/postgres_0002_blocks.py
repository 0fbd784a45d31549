"""Counts how often rows of each block of the log were rewritten or deleted, as ``sqlite_0008_blocks`` does."""

from __future__ import annotations

from typing import Final

STATEMENTS: Final = (
    """
    CREATE TABLE rewrites (
      workspace_id TEXT NOT NULL, log TEXT NOT NULL, block BIGINT NOT NULL, times BIGINT NOT NULL,
      PRIMARY KEY (workspace_id, log, block)
    )
    """,
)
