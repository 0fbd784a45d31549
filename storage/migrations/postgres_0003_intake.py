"""Counts of reported events and ended sessions, as ``sqlite_0009_intake`` has them."""

from __future__ import annotations

from typing import Final

STATEMENTS: Final = (
    """
    CREATE TABLE intake (
      workspace_id TEXT NOT NULL, day BIGINT NOT NULL, source TEXT NOT NULL, result TEXT NOT NULL,
      count BIGINT NOT NULL,
      PRIMARY KEY (workspace_id, day, source, result)
    )
    """,
    "CREATE TABLE ended_sessions (session TEXT PRIMARY KEY, until BIGINT NOT NULL)",
)
