"""What the rules need: positions in the order of commits, every version of a rule, sums of capacities and budgets.

A position is ``decisions.seq``. Columns that note one are NULL or 0 in rows of before: nothing was noted then.
"""

from __future__ import annotations

from typing import Final

from sqlite_utils import Database

_STATEMENTS: Final = (
    "ALTER TABLE messages ADD COLUMN cost INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE messages ADD COLUMN known_after INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE decisions ADD COLUMN sent_after INTEGER",
    "ALTER TABLE decisions ADD COLUMN closed_after INTEGER",
    "ALTER TABLE recipients ADD COLUMN changed_after INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE events ADD COLUMN known_after INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE rules ADD COLUMN changed_after INTEGER NOT NULL DEFAULT 0",
    # summed: 1 = a capacity or budget rule that is not archived. No rule was one before this migration.
    "ALTER TABLE rules ADD COLUMN summed INTEGER NOT NULL DEFAULT 0",
    """
    CREATE TABLE rule_versions (
      workspace_id TEXT NOT NULL, rule_id TEXT NOT NULL, version INTEGER NOT NULL,
      changed_after INTEGER NOT NULL, document BLOB NOT NULL,
      PRIMARY KEY (workspace_id, rule_id, version)
    ) STRICT
    """,
    """
    INSERT INTO rule_versions (workspace_id, rule_id, version, changed_after, document)
    SELECT workspace_id, rule_id, version, changed_after, document FROM rules
    """,
    """
    CREATE TABLE usage (
      workspace_id TEXT NOT NULL, rule_id TEXT NOT NULL, period INTEGER NOT NULL, used INTEGER NOT NULL,
      PRIMARY KEY (workspace_id, rule_id, period)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE engagement (
      workspace_id TEXT NOT NULL, recipient_id TEXT NOT NULL, unanswered INTEGER NOT NULL,
      PRIMARY KEY (workspace_id, recipient_id)
    ) STRICT, WITHOUT ROWID
    """,
    # From where on the order of commits is noted; a database without such a fact has noted it from its first decision.
    """
    INSERT INTO meta (name, value) SELECT 'marked_after', CAST(seq AS TEXT) FROM decisions ORDER BY seq DESC LIMIT 1
    """,
)


def rules(db: Database) -> None:
    """Adds the columns and tables. Runs inside the caller's transaction."""
    for statement in _STATEMENTS:
        db.execute(statement)
