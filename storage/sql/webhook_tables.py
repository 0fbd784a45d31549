"""Webhook sources, used tokens and vendors' words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from storage import codec
from storage.errors import AlreadyExists, VersionConflict
from storage.log import Event
from storage.records import JsonObject
from storage.sql.event_tables import EVENT_COLUMNS, EventWriter, event_from, event_row
from storage.sql.tables import Tables
from storage.webhooks import Label, VendorWords, WebhookSource

_SOURCE: Final = "SELECT document FROM webhook_sources WHERE source_id = ?"
_SOURCES: Final = "SELECT document FROM webhook_sources WHERE workspace_id = ? AND deleted = 0 ORDER BY source_id"
_PUT_SOURCE: Final = """
INSERT INTO webhook_sources (workspace_id, source_id, version, deleted, document) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (workspace_id, source_id) DO UPDATE SET version = excluded.version, deleted = excluded.deleted,
  document = excluded.document
"""
# Each note that comes takes two that are over with it, so that the table stays as long as it must be and no longer.
_FORGET: Final = """
DELETE FROM webhook_tokens WHERE (workspace_id, source_id, token) IN (
  SELECT workspace_id, source_id, token FROM webhook_tokens INDEXED BY webhook_tokens_until
  WHERE workspace_id = ? AND until < ? LIMIT 2
)
"""
_USE: Final = """
INSERT INTO webhook_tokens (workspace_id, source_id, token, used_for, until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
_USED: Final = "SELECT used_for FROM webhook_tokens WHERE workspace_id = ? AND source_id = ? AND token = ?"
_ANY: Final = "SELECT 1 FROM webhook_sources WHERE workspace_id = ? LIMIT 1"
_WORDS: Final = (
    "SELECT " + EVENT_COLUMNS + ", words FROM events INDEXED BY events_decision "  # noqa: S608 - constants
    "WHERE workspace_id = ? AND decision_id = ? AND words IS NOT NULL ORDER BY occurred_at, event_id"
)
_LABELLED_OF: Final = """
SELECT count(*) FROM (
  SELECT 1 FROM events INDEXED BY events_decision
  WHERE workspace_id = ? AND decision_id = ? AND confidence IS NOT NULL LIMIT ?
) AS labelled
"""
_DECISIONS: Final = """
SELECT DISTINCT decision_id FROM events INDEXED BY events_decision
WHERE workspace_id = ? AND decision_id > ? AND words IS NOT NULL ORDER BY decision_id LIMIT ?
"""
_ADD: Final = (
    "INSERT INTO events (workspace_id, " + EVENT_COLUMNS + ", words) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, event_id) DO NOTHING"
)
_JOIN: Final = (
    "UPDATE events SET matched = 1, decision_id = ?, recipient_id = ?, campaign_id = ?, known_after = ? "  # noqa: S608 - constants
    "WHERE workspace_id = ? AND event_id = ? AND matched = 0 RETURNING " + EVENT_COLUMNS
)
_LABELLED: Final = "SELECT automated, flips FROM events WHERE workspace_id = ? AND event_id = ?"
_LABEL: Final = """
UPDATE events SET automated = ?, confidence = ?, reason = ?, flips = ? WHERE workspace_id = ? AND event_id = ?
"""
_VENDOR, _EVENT = "vendor", "event"


class WebhookReader(Tables):
    """Queries on what came in by webhooks."""

    def webhook_source(self, source_id: str) -> WebhookSource | None:
        """See ``storage.webhooks``."""
        row = self._row(_SOURCE, (source_id,))
        return None if row is None else codec.WEBHOOK_SOURCE.unpack(row[0])

    def webhook_sources(self, workspace_id: str) -> tuple[WebhookSource, ...]:
        """See ``storage.webhooks``."""
        return tuple(codec.WEBHOOK_SOURCE.unpack(row[0]) for row in self._rows(_SOURCES, (workspace_id,)))

    def heard_vendors(self, workspace_id: str) -> bool:
        """See ``storage.webhooks``."""
        return self._row(_ANY, (workspace_id,)) is not None

    def vendor_words(self, workspace_id: str, decision_id: str) -> tuple[VendorWords, ...]:
        """See ``storage.webhooks``."""
        found = []
        for row in self._rows(_WORDS, (workspace_id, decision_id)):
            said = codec.unpack_object(row[-1])
            found.append(VendorWords(event_from(workspace_id, row), said[_VENDOR], said[_EVENT]))
        return tuple(found)

    def labelled(self, workspace_id: str, decision_id: str, *, limit: int) -> int:
        """See ``storage.webhooks``."""
        row = self._row(_LABELLED_OF, (workspace_id, decision_id, limit))
        return 0 if row is None else int(row[0])

    def vendor_decisions(self, workspace_id: str, *, after: str = "", limit: int) -> tuple[str, ...]:
        """See ``storage.webhooks``."""
        return tuple(row[0] for row in self._rows(_DECISIONS, (workspace_id, after, limit)))


class WebhookWriter(EventWriter, WebhookReader):
    """Changes of what came in by webhooks."""

    def put_webhook_source(self, source: WebhookSource) -> None:
        """See ``storage.webhooks``."""
        stored = self.webhook_source(source.source_id)
        if stored is not None and stored.workspace_id != source.workspace_id:
            raise AlreadyExists(f"webhook source {source.source_id}")
        before = 0 if stored is None else stored.version
        if source.version != before + 1:
            raise VersionConflict(
                f"webhook source {source.source_id}: version {source.version} was to be stored, "
                f"but {before + 1} comes next"
            )
        document = codec.WEBHOOK_SOURCE.pack(source)
        self._query(_PUT_SOURCE, (source.workspace_id, source.source_id, source.version, source.deleted, document))

    def use_token(
        self, workspace_id: str, source_id: str, token: str, used_for: str, *, now: datetime, until: datetime
    ) -> str:
        """See ``storage.webhooks``."""
        self._query(_FORGET, (workspace_id, codec.to_micros(now)))
        if self._query(_USE, (workspace_id, source_id, token, used_for, codec.to_micros(until))).rowcount > 0:
            return used_for
        row = self._row(_USED, (workspace_id, source_id, token))
        return used_for if row is None else str(row[0])

    def add_vendor_event(self, event: Event, vendor: str, words: JsonObject) -> bool:
        """See ``storage.webhooks``."""
        said = codec.pack_object({_VENDOR: vendor, _EVENT: words})
        return self._query(_ADD, (*event_row(event, self._position(event.workspace_id)), said)).rowcount > 0

    def join_event(self, event: Event) -> Event | None:
        """See ``storage.webhooks``."""
        self._count_rewritten_events(event.workspace_id, [event.event_id])
        named = (event.decision_id, event.recipient_id, event.campaign_id, self._position(event.workspace_id))
        joined = self._rows(_JOIN, (*named, event.workspace_id, event.event_id))
        return event_from(event.workspace_id, joined[0]) if joined else None

    def label_events(self, workspace_id: str, labels: Sequence[tuple[str, Label]]) -> None:
        """See ``storage.webhooks``."""
        self._count_rewritten_events(workspace_id, [event_id for event_id, _ in labels])
        for event_id, label in labels:
            row = self._row(_LABELLED, (workspace_id, event_id))
            if row is None:
                continue
            flips = codec.unpack_positions(row[1])
            if bool(row[0]) != label.automated:
                flips = (*flips, self._position(workspace_id))
            self._query(
                _LABEL,
                (
                    label.automated,
                    label.confidence,
                    label.reason,
                    codec.pack_positions(flips),
                    workspace_id,
                    event_id,
                ),
            )
