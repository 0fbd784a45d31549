"""Training runs by what they did: the last retrain is found without reading the thousands of refreshes since.

The column follows from the document, so that what was stored before, or by an earlier version, has it as well.
"""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_COLUMN: Final = """
ALTER TABLE training_runs ADD COLUMN kind TEXT
GENERATED ALWAYS AS (json_extract(CAST(document AS TEXT), '$.kind')) VIRTUAL
"""
_INDEX: Final = "CREATE INDEX training_runs_kind ON training_runs (workspace_id, kind, created_at)"


def run_kinds(db: Database) -> None:
    """Adds column and index. Runs inside the caller's transaction."""
    db.execute(_COLUMN)
    db.execute(_INDEX)
