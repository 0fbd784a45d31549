"""Files of old decisions, as ``sqlite_0010_archive`` has them."""

from __future__ import annotations

from typing import Final

STATEMENTS: Final = (
    """
    CREATE TABLE archive_files (
      workspace_id TEXT NOT NULL, number BIGINT NOT NULL, path TEXT NOT NULL, rows BIGINT NOT NULL,
      moved BIGINT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL, checksum BYTEA NOT NULL,
      contents BYTEA NOT NULL,
      PRIMARY KEY (workspace_id, number)
    )
    """,
    """
    CREATE TABLE archive_gone (
      workspace_id TEXT NOT NULL, number BIGINT NOT NULL, place BIGINT NOT NULL, cleaned BIGINT NOT NULL,
      PRIMARY KEY (workspace_id, number, place)
    )
    """,
    """
    CREATE TABLE archive_keys (
      workspace_id TEXT NOT NULL, name BIGINT NOT NULL, number BIGINT NOT NULL, place BIGINT NOT NULL,
      PRIMARY KEY (workspace_id, name, number, place)
    )
    """,
)
