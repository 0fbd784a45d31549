"""Recipients' weekly rhythms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from storage.codec import to_micros
from storage.rhythm import RHYTHM_KINDS, RhythmSum
from storage.sql.manyrows import Insertion
from storage.sql.tables import Tables

_SUMS: Final = """
SELECT recipient_id, kind, hour, weight FROM rhythms
WHERE workspace_id = ? AND recipient_id IN ({marks}) AND weight > 0 ORDER BY recipient_id, kind, hour
"""
_ADD: Final = (
    "ON CONFLICT (workspace_id, recipient_id, kind, hour) DO UPDATE SET weight = rhythms.weight + excluded.weight"
)
INTO_RHYTHMS: Final = Insertion("rhythms", ("workspace_id", "recipient_id", "kind", "hour", "weight"), _ADD)
_UNPROMPTED: Final = """
SELECT type FROM events INDEXED BY events_recipient
WHERE workspace_id = ? AND recipient_id = ? AND decision_id IS NULL AND message_id IS NULL AND automated = 0
  AND occurred_at >= ? AND occurred_at < ?
ORDER BY type
"""
_ADD_TO_RHYTHM: Final = INTO_RHYTHMS.statement((False,) * 5, 1)


class RhythmReader(Tables):
    """Queries on rhythms."""

    def rhythms(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, tuple[RhythmSum, ...]]:
        """See ``storage.port``."""
        found: dict[str, list[RhythmSum]] = {}
        for recipient_id, kind, hour, weight in self._rows_in(_SUMS, (workspace_id,), recipient_ids):
            found.setdefault(recipient_id, []).append(RhythmSum(RHYTHM_KINDS[kind], hour, weight))
        return {recipient_id: tuple(sums) for recipient_id, sums in found.items()}

    def unprompted_types(
        self, workspace_id: str, recipient_id: str, since: datetime, until: datetime
    ) -> tuple[str, ...]:
        """See ``storage.port``."""
        span = (workspace_id, recipient_id, to_micros(since), to_micros(until))
        return tuple(row[0] for row in self._rows(_UNPROMPTED, span))


class RhythmWriter(RhythmReader):
    """Changes of rhythms."""

    def add_to_rhythm(self, workspace_id: str, recipient_id: str, added: Sequence[RhythmSum]) -> None:
        """See ``storage.port``."""
        for one in added:
            row = (workspace_id, recipient_id, RHYTHM_KINDS.index(one.kind), one.hour, one.weight)
            self._query(_ADD_TO_RHYTHM, row)
