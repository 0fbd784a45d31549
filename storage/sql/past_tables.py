"""A recipient's past: messages and events together, newest first in the indexes, oldest first as given."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from storage.codec import from_micros, to_micros, unpack_object
from storage.log import Happening
from storage.sql.tables import Row, Tables

#: Each half reads at most as many rows as are asked for, off the end of its index.
PAST: Final = """
SELECT * FROM (
  SELECT at, message_ref AS ref, 'sent', channel, campaign_id, variant_id, CAST(NULL AS BLOB)
  FROM messages WHERE workspace_id = ?1 AND recipient_id = ?2 AND at < ?3
  ORDER BY at DESC, message_ref DESC LIMIT ?4
) AS sent
UNION ALL
SELECT * FROM (
  SELECT e.occurred_at, e.event_id, e.type, d.channel, d.campaign_id, d.variant_id, e.properties
  FROM events AS e INDEXED BY events_past
  LEFT JOIN decisions AS d ON d.workspace_id = e.workspace_id AND d.decision_id = e.decision_id
  WHERE e.workspace_id = ?1 AND e.recipient_id = ?2 AND e.occurred_at < ?3
    AND e.automated = 0 AND e.type <> 'delivered'
  ORDER BY e.occurred_at DESC, e.event_id DESC LIMIT ?4
) AS told
ORDER BY 1 DESC, 2 DESC LIMIT ?4
"""


class PastReader(Tables):
    """Queries on what happened to one recipient."""

    def past(self, workspace_id: str, recipient_id: str, before: datetime, *, limit: int) -> tuple[Happening, ...]:
        """See ``storage.port``."""
        rows = self._rows(PAST, (workspace_id, recipient_id, to_micros(before), limit))
        return tuple(map(happening_from, reversed(rows)))


def happening_from(row: Row) -> Happening:
    """What a row of ``PAST`` tells."""
    at, ref, kind, channel, campaign_id, variant_id, properties = row
    return Happening(from_micros(at), ref, kind, channel, campaign_id, variant_id, unpack_object(properties))
