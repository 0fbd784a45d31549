"""The Personalizer loop: answers, rewards, models, and its documents."""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

# AUTOINCREMENT: positions must not come again when the whole log is deleted.
_STATEMENTS: Final = (
    """
    CREATE TABLE ranks (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      workspace_id TEXT NOT NULL, event_id TEXT NOT NULL, ranked_at INTEGER NOT NULL, active_at INTEGER,
      request_hash BLOB NOT NULL, model INTEGER NOT NULL, detail BLOB NOT NULL,
      UNIQUE (workspace_id, event_id)
    ) STRICT
    """,
    "CREATE INDEX ranks_position ON ranks (workspace_id, seq)",
    "CREATE INDEX ranks_time ON ranks (workspace_id, ranked_at)",
    """
    CREATE TABLE rank_rewards (
      seq INTEGER PRIMARY KEY,
      workspace_id TEXT NOT NULL, event_id TEXT NOT NULL, slot_id TEXT NOT NULL, value REAL NOT NULL,
      at INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX rank_rewards_event ON rank_rewards (workspace_id, event_id)",
    "CREATE INDEX rank_rewards_time ON rank_rewards (workspace_id, at)",
    """
    CREATE TABLE rank_models (
      workspace_id TEXT NOT NULL, generation INTEGER NOT NULL, born_at INTEGER NOT NULL, made_at INTEGER NOT NULL,
      upto INTEGER NOT NULL, blob BLOB NOT NULL,
      PRIMARY KEY (workspace_id, generation)
    ) STRICT
    """,
    """
    CREATE TABLE rank_positions (
      workspace_id TEXT NOT NULL, position INTEGER NOT NULL,
      PRIMARY KEY (workspace_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE loop_documents (
      workspace_id TEXT NOT NULL, kind TEXT NOT NULL, document_id TEXT NOT NULL, document BLOB NOT NULL,
      PRIMARY KEY (workspace_id, kind, document_id)
    ) STRICT, WITHOUT ROWID
    """,
)


def personalizer(db: Database) -> None:
    """Adds the tables. Runs inside the caller's transaction."""
    for statement in _STATEMENTS:
        db.execute(statement)
