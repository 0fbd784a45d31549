"""The log by the block: see ``storage.blocks``."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Final, Literal

from storage.blocks import BLOCK, EventBlock, Stamps
from storage.codec import unpack_object
from storage.columns import DecisionColumns
from storage.sql.column_tables import DECISION_VALUES, named, turned
from storage.sql.tables import Row, Tables

Log = Literal["decisions", "events"]

_HAS: Final = """
SELECT count(*) FROM (
  SELECT 1 FROM decisions AS d INDEXED BY decisions_campaign WHERE d.workspace_id = ? AND d.campaign_id = ? LIMIT ?
) AS found
"""
#: In the index's order, so that a planner that takes no hints goes by it as well.
_ANSWERED: Final = """
SELECT 1 FROM events INDEXED BY events_decision
WHERE workspace_id = ? AND decision_id IS NOT NULL AND matched = 1 ORDER BY decision_id LIMIT 1
"""
#: The last row of a block tells one database from another that went a different way from the same backup.
#: SQLite takes that of any workspace, which costs nothing to find. Where workspaces commit side by side, it has to be
#: one's own, or a row of theirs would hide that one of ours came later: ``?2 IS NOT NULL`` does so there.
_LAST_DECISION: Final = """
SELECT seq, decision_id, decided_at FROM decisions WHERE seq < ?1 AND ?2 IS NOT NULL ORDER BY seq DESC LIMIT 1
"""
_LAST_EVENT: Final = """
SELECT seq, event_id, received_at FROM events WHERE seq < ?1 AND ?2 IS NOT NULL ORDER BY seq DESC LIMIT 1
"""
_REWRITES: Final = "SELECT block, times FROM rewrites WHERE workspace_id = ? AND log = ?"
_BEYOND: Final = 2**62
_LONGEST_STEP: Final = 2**32
_COUNT: Final = """
INSERT INTO rewrites (workspace_id, log, block, times) VALUES (?, ?, ?, ?)
ON CONFLICT (workspace_id, log, block) DO UPDATE SET times = rewrites.times + excluded.times
"""
_COUNT_ALL: Final = """
INSERT INTO rewrites (workspace_id, log, block, times)
SELECT ?1, 'LOG', seq / BLOCK_, 1 ROWS_ GROUP BY seq / BLOCK_
ON CONFLICT (workspace_id, log, block) DO UPDATE SET times = rewrites.times + 1
""".replace("BLOCK_", str(BLOCK))
_BLOCKS_OF: Final = "SELECT seq FROM events INDEXED BY events_id WHERE workspace_id = ? AND event_id IN ({marks})"
_DECISIONS: Final = (
    "SELECT "
    + DECISION_VALUES
    + """
FROM decisions AS d NOT INDEXED
WHERE d.seq >= :first AND d.seq < :past AND d.workspace_id = :workspace AND d.campaign_id = :campaign AND d.imported = 0
ORDER BY d.seq
"""
)
_EVENTS: Final = """
SELECT e.seq, d.seq, e.recipient_id, e.type, e.occurred_at, e.value,
  CASE WHEN e.type IN ({told}) THEN e.properties END, e.decision_id IS NOT NULL AND d.seq IS NULL
FROM events AS e NOT INDEXED
LEFT JOIN decisions AS d ON d.workspace_id = e.workspace_id AND d.decision_id = e.decision_id
WHERE e.seq >= :first AND e.seq < :past AND e.workspace_id = :workspace AND e.automated = 0 AND e.type IN ({types})
  AND CASE WHEN e.decision_id IS NOT NULL THEN d.seq IS NULL OR d.campaign_id = :campaign AND d.imported = 0
    ELSE e.recipient_id IS NOT NULL AND e.message_id IS NULL
      AND (e.campaign_id IS NULL OR e.campaign_id = :campaign) END
ORDER BY e.seq
"""


class BlockReader(Tables):
    """Queries on blocks of decisions and events."""

    def has_decisions(self, workspace_id: str, campaign_id: str, count: int) -> bool:
        """See ``storage.blocks``."""
        row = self._row(_HAS, (workspace_id, campaign_id, count))
        return row is not None and row[0] >= count

    def has_answers(self, workspace_id: str) -> bool:
        """See ``storage.blocks``."""
        return self._row(_ANSWERED, (workspace_id,)) is not None

    def block_stamps(self, workspace_id: str) -> Stamps:
        """See ``storage.blocks``."""
        return Stamps(
            self._stamps(workspace_id, "decisions", _LAST_DECISION), self._stamps(workspace_id, "events", _LAST_EVENT)
        )

    def _stamps(self, workspace_id: str, log: Log, last: str) -> dict[int, str]:
        times: dict[int, int] = dict(self._rows(_REWRITES, (workspace_id, log)))
        found: dict[int, str] = {}
        for block, row in self._last_rows(workspace_id, log, last).items():
            told = f"{times.get(block, 0)} {row[0]} {row[1]} {row[2]}"
            found[block] = blake2b(told.encode(), digest_size=12).hexdigest()
        return found

    def _last_rows(self, workspace_id: str, log: Log, last: str) -> dict[int, Row]:  # noqa: ARG002 - for who overrides
        """The last row of each block: its number, its id and its time."""
        found: dict[int, Row] = {}
        below = _BEYOND
        while row := self._row(last, (below, workspace_id)):
            block = row[0] // BLOCK
            found[block] = row
            below = block * BLOCK
        return found

    def decision_block(self, workspace_id: str, campaign_id: str, block: int) -> DecisionColumns | None:
        """See ``storage.blocks``."""
        rows = self._decisions_in_block(workspace_id, campaign_id, block)
        return turned(rows) if rows else None

    def _decisions_in_block(self, workspace_id: str, campaign_id: str, block: int) -> list[Row]:
        """A block's rows of ``DECISION_VALUES``, by number."""
        return self._query(_DECISIONS, _of_block(workspace_id, campaign_id, block)).fetchall()

    def event_block(
        self, workspace_id: str, campaign_id: str, block: int, types: Collection[str], properties_of: Collection[str]
    ) -> EventBlock:
        """See ``storage.blocks``."""
        rows = self._events_in_block(workspace_id, campaign_id, block, types, properties_of)
        known = [row for row in rows if not row[7]]
        number, position, recipient, kind, occurred, value, properties, _ = (
            zip(*known, strict=True) if known else ((),) * 8
        )
        told = tuple(map(unpack_object, properties))
        return EventBlock(number, position, recipient, kind, occurred, value, told, complete=len(known) == len(rows))

    def _events_in_block(
        self, workspace_id: str, campaign_id: str, block: int, types: Collection[str], properties_of: Collection[str]
    ) -> list[Row]:
        """A block's events, by number; the last value says whether the decision that one names is not stored."""
        given = _of_block(workspace_id, campaign_id, block)
        filled = _EVENTS.format(types=named(given, "type", types), told=named(given, "told", properties_of))
        return self._query(filled, given).fetchall()


class RewriteWriter(Tables):
    """Counts what is rewritten and deleted, so that stamps change; every change of a stored row has to say so here."""

    def _count_rewrite(self, workspace_id: str, log: Log, seq: int) -> None:
        """One row; a block is counted once in a transaction."""
        key = (workspace_id, log, seq // BLOCK)
        if key not in self._counted:
            # By a step of chance: what was rewritten before a restore is not what is rewritten after it.
            self._query(_COUNT, (*key, 1 + secrets.randbelow(_LONGEST_STEP)))
            self._counted.add(key)

    def _count_rewritten_events(self, workspace_id: str, event_ids: Sequence[str]) -> None:
        """Events by their ids."""
        for row in self._rows_in(_BLOCKS_OF, (workspace_id,), event_ids):
            self._count_rewrite(workspace_id, "events", row[0])

    def _count_all(self, log: Log, rows: str, parameters: Sequence[object]) -> None:
        """All rows that a ``FROM … WHERE …`` finds; its first parameter is the workspace."""
        self._query(_COUNT_ALL.replace("LOG", log).replace("ROWS_", rows), parameters)


def _of_block(workspace_id: str, campaign_id: str, block: int) -> dict[str, object]:
    return {
        "workspace": workspace_id,
        "campaign": campaign_id,
        "first": block * BLOCK,
        "past": (block + 1) * BLOCK,
    }
