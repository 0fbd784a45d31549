"""Taking a person out of the log."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from storage import codec
from storage.decision_codec import pack_detail
from storage.errors import VersionConflict
from storage.log import Decision, Event
from storage.records import JsonObject
from storage.sql.block_tables import RewriteWriter
from storage.sql.event_tables import EVENT_COLUMNS, event_from
from storage.sql.tables import Tables

_NAMING: Final = """
SELECT COLUMNS, words FROM events INDEXED BY events_past WHERE workspace_id = ? AND recipient_id = ?
""".replace("COLUMNS", EVENT_COLUMNS)
_OF_DECISIONS: Final = """
SELECT COLUMNS, words FROM events INDEXED BY events_decision
WHERE workspace_id = ?1 AND decision_id IN (
  SELECT decision_id FROM decisions INDEXED BY decisions_recipient WHERE workspace_id = ?1 AND recipient_id = ?2
)
""".replace("COLUMNS", EVENT_COLUMNS)
_DECISION: Final = """
UPDATE decisions SET recipient_id = ?, request_id = ?, request_hash = ?, message_id = ?, close_reason = ?, detail = ?
WHERE workspace_id = ? AND decision_id = ?
RETURNING seq
"""
_EVENT: Final = """
UPDATE events SET event_id = ?, recipient_id = ?, provider = ?, message_id = ?, value = ?, properties = ?, reason = ?,
  words = NULL
WHERE workspace_id = ? AND event_id = ?
"""
#: Of the newest event its number stays, in a row that nothing reads: SQLite gives the next one the highest + 1, and
#: numbers of events, which archived ones keep, must not come twice. It is loose, so retention takes it in its time.
_KEEP_NUMBER: Final = """
UPDATE events SET event_id = ?, decision_id = NULL, recipient_id = NULL, campaign_id = NULL, provider = NULL,
  message_id = NULL, value = NULL, properties = NULL, reason = '', words = NULL, matched = 1
WHERE seq = (SELECT max(seq) FROM events) AND workspace_id = ? AND event_id = ?
"""
_DROP_EVENT: Final = "DELETE FROM events WHERE workspace_id = ? AND event_id = ?"
_PERSONAL: Final = ("recipients", "rhythms", "engagement")
#: The key under which a vendor's words are stored beside the vendor's name.
_SAID: Final = "event"


class ErasureReader(Tables):
    """Queries on everything about one person."""

    def events_about(self, workspace_id: str, recipient_id: str) -> tuple[tuple[Event, JsonObject], ...]:
        """See ``storage.erasure``."""
        found = {
            row[0]: (event_from(workspace_id, row), codec.unpack_object(row[-1]).get(_SAID, {}))
            for statement in (_NAMING, _OF_DECISIONS)
            for row in self._rows(statement, (workspace_id, recipient_id))
        }
        return tuple(sorted(found.values(), key=lambda one: (one[0].occurred_at, one[0].event_id)))


class ErasureWriter(ErasureReader, RewriteWriter):
    """Changes that take a person out of the log."""

    def erase_decision(self, decision: Decision) -> None:
        """See ``storage.erasure``."""
        d = decision
        changed = self._rows(
            _DECISION,
            (
                d.recipient_id,
                d.request_id,
                d.request_hash,
                d.message_id,
                d.close_reason,
                pack_detail(d.snapshot, d.reasons, d.metadata),
                d.workspace_id,
                d.decision_id,
            ),
        )
        if not changed:
            raise VersionConflict(f"decision {d.decision_id} is not stored")
        self._count_rewrite(d.workspace_id, "decisions", changed[0][0])

    def erase_event(self, event_id: str, event: Event) -> None:
        """See ``storage.erasure``."""
        named = (event.event_id, event.recipient_id, event.provider, event.message_id)
        told = (event.value, codec.pack_object(event.properties), event.reason)
        self._query(_EVENT, (*named, *told, event.workspace_id, event_id))
        self._count_rewritten_events(event.workspace_id, [event.event_id])

    def drop_events(self, workspace_id: str, event_ids: Sequence[str]) -> None:
        """See ``storage.erasure``."""
        self._count_rewritten_events(workspace_id, event_ids)
        self._query_many(_KEEP_NUMBER, [(secrets.token_hex(16), workspace_id, one) for one in event_ids])
        self._query_many(_DROP_EVENT, [(workspace_id, one) for one in event_ids])

    def hand_over_messages(self, workspace_id: str, recipient_id: str, heir: str, refs: Mapping[str, str]) -> None:
        """See ``storage.erasure``."""
        for ref, other in refs.items():
            self._query(
                """
                UPDATE messages SET message_ref = ?
                WHERE workspace_id = ? AND recipient_id = ? AND message_ref = ? AND decision_id IS NULL
                """,
                (other, workspace_id, recipient_id, ref),
            )
        self._query(
            "UPDATE messages SET recipient_id = ? WHERE workspace_id = ? AND recipient_id = ?",
            (heir, workspace_id, recipient_id),
        )

    def erase_changes(self, workspace_id: str, details: Mapping[str, str]) -> None:
        """See ``storage.erasure``."""
        self._query_many(
            "UPDATE changes SET detail = ? WHERE workspace_id = ? AND decision_id = ? AND kind = 'revoked'",
            [(detail, workspace_id, decision_id) for decision_id, detail in details.items()],
        )

    def forget_recipient(self, workspace_id: str, recipient_id: str) -> None:
        """See ``storage.erasure``."""
        for table in _PERSONAL:
            self._query(
                f"DELETE FROM {table} WHERE workspace_id = ? AND recipient_id = ?",  # noqa: S608 - constants
                (workspace_id, recipient_id),
            )
