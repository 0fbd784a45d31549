"""Which decisions of the tables may go to the archive, as the rows that go: see ``storage.archive``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from storage import codec, parquet
from storage.archive import Archived, Place
from storage.codec import to_micros
from storage.log import Decision
from storage.sql.decision_rows import STORED_COLUMNS, decision_from
from storage.sql.event_tables import EVENT_COLUMNS
from storage.sql.tables import Row, Tables

# The newest decision and whoever has the newest event stay: numbers are given by counting on from what is there.
_CANDIDATES: Final = """
SELECT COLUMNS, shadow_policy_id, message_at FROM decisions INDEXED BY decisions_time
WHERE workspace_id = ?1 AND decided_at < ?2 AND status NOT IN (0, 1) AND (decided_at, decision_id) > (?3, ?4)
  AND seq < (SELECT max(seq) FROM decisions)
ORDER BY decided_at, decision_id LIMIT ?5
""".replace("COLUMNS", STORED_COLUMNS)
_STORED: Final = (
    "SELECT " + STORED_COLUMNS + ", shadow_policy_id, message_at FROM decisions "  # noqa: S608 - constants
    "WHERE workspace_id = ? AND decision_id IN ({marks})"
)
_NAMING: Final = (
    "SELECT " + EVENT_COLUMNS + ", words, seq FROM events INDEXED BY events_decision "  # noqa: S608 - constants
    "WHERE workspace_id = ? AND decision_id IN ({marks})"
)
_NEWEST_EVENT: Final = "SELECT coalesce(max(seq), -1) FROM events"
_EARLIEST: Final = -(2**62)


class ArchiveCandidates(Tables):
    """Queries on rows of the tables alone."""

    def archivable(
        self,
        workspace_id: str,
        before: datetime,
        settled: Callable[[Decision], bool],
        *,
        after: Place | None = None,
        limit: int,
    ) -> tuple[tuple[Archived, ...], Place | None]:
        """See ``storage.archive``."""
        from_ = after or (_EARLIEST, "")
        rows = self._rows(_CANDIDATES, (workspace_id, to_micros(before), *from_, limit))
        if not rows:
            return (), None
        month = month_of(rows[0][parquet.DECIDED])
        rows = [row for row in rows if month_of(row[parquet.DECIDED]) == month]
        newest = self._rows(_NEWEST_EVENT, ())[0][0]
        going = [row for row in rows if settled(decision_from(workspace_id, row))]
        found = self._with_named(workspace_id, going)
        kept = tuple(one for one in found if all(event[parquet.EVENT_SEQ] != newest for event in one.events))
        return kept, (rows[-1][parquet.DECIDED], rows[-1][0])

    def _stored(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Archived]:
        """Those of these decisions that are in the tables."""
        rows = list(self._rows_in(_STORED, (workspace_id,), decision_ids))
        return {one.decision[0]: one for one in self._with_named(workspace_id, rows)}

    def _with_named(self, workspace_id: str, rows: Sequence[Row]) -> list[Archived]:
        naming: dict[str, list[Row]] = {}
        for event in self._rows_in(_NAMING, (workspace_id,), [row[0] for row in rows]):
            naming.setdefault(event[5], []).append(tuple(event))
        return [
            Archived(tuple(row), tuple(sorted(naming.get(row[0], ()), key=lambda event: event[parquet.EVENT_SEQ])))
            for row in rows
        ]


def month_of(micros: int) -> str:
    """The month of a time, in UTC: ``2026-03``."""
    return codec.from_micros(micros).strftime("%Y-%m")
