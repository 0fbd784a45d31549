"""Training runs by what they did, as ``sqlite_0014_run_kinds`` has them."""

from __future__ import annotations

from typing import Final

# What turns bytes into JSON isn't immutable to PostgreSQL, and fails where an error's text has a zero byte. The field
# stands before all objects within the document, and in texts its quotes are escaped: the first that is found is it.
STATEMENTS: Final = (
    """
    ALTER TABLE training_runs ADD COLUMN kind TEXT
    GENERATED ALWAYS AS (substring(encode(document, 'escape') FROM '"kind":"([a-z]+)"')) STORED
    """,
    "CREATE INDEX training_runs_kind ON training_runs (workspace_id, kind, created_at, seq)",
)
