"""Counts of reported events: see ``storage.intake``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from storage.intake import Intake
from storage.sql.tables import Tables

_COUNT: Final = """
INSERT INTO intake (workspace_id, day, source, result, count) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (workspace_id, day, source, result) DO UPDATE SET count = intake.count + excluded.count
"""
_SINCE: Final = """
SELECT day, source, result, count FROM intake WHERE workspace_id = ? AND day >= ? ORDER BY day, source, result
"""
_EPOCH: Final = date(1970, 1, 1)


class IntakeReader(Tables):
    """Queries on counts."""

    def intake(self, workspace_id: str, since: date) -> tuple[Intake, ...]:
        """See ``storage.intake``."""
        return tuple(
            Intake(workspace_id, _EPOCH + timedelta(days=day), source, result, count)
            for day, source, result, count in self._rows(_SINCE, (workspace_id, _days(since)))
        )


class IntakeWriter(IntakeReader):
    """Changes of counts."""

    def count_intake(self, added: Sequence[Intake]) -> None:
        """See ``storage.intake``."""
        # In one order, so that two writers never wait for each other's rows.
        rows = sorted((one.workspace_id, _days(one.day), one.source, one.result, one.count) for one in added)
        if rows:
            self._query_many(_COUNT, rows)

    def drop_intake(self, before: date) -> None:
        """See ``storage.intake``."""
        self._query("DELETE FROM intake WHERE day < ?", (_days(before),))


def _days(day: date) -> int:
    return (day - _EPOCH).days
