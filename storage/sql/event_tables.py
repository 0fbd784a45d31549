"""Events, and the stream of decisions with their events."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from storage.codec import from_micros, pack_object, pack_positions, to_micros, unpack_object, unpack_positions
from storage.log import Decision, Event, FeedbackRow
from storage.sql.block_tables import RewriteWriter
from storage.sql.decision_rows import DECIDED_AT, RECIPIENT, STORED_COLUMNS, decision_from
from storage.sql.manyrows import Insertion
from storage.sql.tables import Row, Tables

_Fetch = Callable[[int], list[Row]]

#: Decisions that are joined with their events at a time.
CHUNK = 2_000

#: The columns of ``event_from``, in its order.
EVENT_COLUMNS: Final = """
  event_id, type, occurred_at, received_at, matched, decision_id, recipient_id, campaign_id, provider, message_id,
  value, automated, properties, known_after, confidence, reason, flips
"""


def _select(rest: str) -> str:
    return "SELECT " + EVENT_COLUMNS + " FROM events " + rest  # noqa: S608 - constants of this module


_NAMING: Final = _select("INDEXED BY events_decision WHERE workspace_id = ? AND decision_id IN ({marks})")
_OF_RECIPIENT: Final = _select(
    """
    INDEXED BY events_recipient
    WHERE workspace_id = ? AND recipient_id IN ({marks}) AND decision_id IS NULL AND occurred_at >= ?
    """
)
_KNOWN: Final = """
SELECT event_id, type FROM events INDEXED BY events_id WHERE workspace_id = ? AND event_id IN ({marks})
"""
_AWAITING: Final = _select("INDEXED BY events_decision WHERE workspace_id = ? AND decision_id = ? AND matched = 0")
_AWAITED: Final = """
SELECT decision_id FROM events INDEXED BY events_decision
WHERE workspace_id = ? AND decision_id IN ({marks}) AND matched = 0
"""
# What a vendor hands back as a decision's id may be no id of ours; then the message says whose event it is.
_BY_MESSAGE: Final = _select(
    """
    INDEXED BY events_unmatched
    WHERE workspace_id = ? AND provider = ? AND message_id = ? AND matched = 0
      AND (decision_id IS NULL OR (words IS NOT NULL AND decision_id <> ?))
      AND (recipient_id IS NULL OR recipient_id = ?)
    """
)
INSERT_EVENT: Final = """
INSERT INTO events (workspace_id, COLUMNS) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (workspace_id, event_id) DO NOTHING
""".replace("COLUMNS", EVENT_COLUMNS)
INTO_EVENTS: Final = Insertion(
    "events",
    ("workspace_id", *(name.strip() for name in EVENT_COLUMNS.split(","))),
    "ON CONFLICT (workspace_id, event_id) DO NOTHING",
)
_MATCH: Final = """
UPDATE events SET matched = 1, decision_id = ?, recipient_id = ?, campaign_id = ?
WHERE workspace_id = ? AND event_id = ?
"""


class EventReader(Tables):
    """Queries on events."""

    def events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """See ``storage.port``."""
        rows = [
            *self._rows_in(_NAMING, (workspace_id,), (decision.decision_id,)),
            *self._rows_in(_OF_RECIPIENT, (workspace_id,), (decision.recipient_id,), (to_micros(decision.decided_at),)),
        ]
        return tuple(event_from(workspace_id, row) for row in sorted(rows, key=_place))

    def known_events(self, workspace_id: str, event_ids: Sequence[str]) -> dict[str, str]:
        """See ``storage.port``."""
        return dict(self._rows_in(_KNOWN, (workspace_id,), event_ids))

    def unmatched_events(self, workspace_id: str) -> int:
        """See ``storage.port``."""
        row = self._row(
            "SELECT count(*) FROM events INDEXED BY events_unmatched WHERE workspace_id = ? AND matched = 0",
            (workspace_id,),
        )
        return 0 if row is None else int(row[0])

    def feedback(
        self,
        workspace_id: str,
        *,
        campaign_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        imported: bool | None = None,
    ) -> Iterator[FeedbackRow]:
        """See ``storage.port``. A writer ends the stream before it changes decisions or events."""
        conditions = "INDEXED BY decisions_time WHERE workspace_id = ? "
        parameters: list[object] = [workspace_id]
        if campaign_id is not None:
            conditions = "INDEXED BY decisions_campaign WHERE workspace_id = ? AND campaign_id = ? "
            parameters.append(campaign_id)
        for condition, value in (
            ("AND decided_at >= ? ", None if since is None else to_micros(since)),
            ("AND decided_at < ? ", None if until is None else to_micros(until)),
            ("AND imported = ? ", imported),
        ):
            if value is not None:
                conditions += condition
                parameters.append(value)
        statement = "SELECT " + STORED_COLUMNS + " FROM decisions " + conditions  # noqa: S608 - constants only
        # The index gives the order of times; the database sorts those of one time by id, on disk if they are many.
        stream = self._stream(statement + "ORDER BY decided_at, decision_id", parameters)
        return self._joined(workspace_id, stream.fetchmany)

    def _joined(self, workspace_id: str, fetch: _Fetch) -> Iterator[FeedbackRow]:
        while rows := fetch(CHUNK):
            naming: dict[str, list[Row]] = {}
            for row in self._rows_in(_NAMING, (workspace_id,), [row[0] for row in rows]):
                naming.setdefault(row[5], []).append(row)
            yield from self._with_events(workspace_id, rows, naming)

    def _with_events(
        self, workspace_id: str, rows: Sequence[Row], naming: Mapping[str, Sequence[Row]]
    ) -> Iterator[FeedbackRow]:
        """Decisions, by time, with the events that name them (by decision) and those that name their recipients.

        Each is read when its turn comes: who packs it on the spot, as training does, leaves its room to the next.
        """
        organic: dict[str, list[Row]] = {}
        first, recipients = rows[0][DECIDED_AT], [row[RECIPIENT] for row in rows]
        for row in self._rows_in(_OF_RECIPIENT, (workspace_id,), recipients, (first,)):
            organic.setdefault(row[6], []).append(row)
        for of_one in organic.values():
            of_one.sort(key=_place)
        for row in rows:
            decision = decision_from(workspace_id, row)
            events = list(naming.get(decision.decision_id, ()))
            later = organic.get(decision.recipient_id)
            if later:
                start = bisect_left(later, row[DECIDED_AT], key=_occurred_at)
                events += later[start:]
            events.sort(key=_place)
            yield FeedbackRow(decision, tuple(event_from(workspace_id, event) for event in events))


class EventWriter(EventReader, RewriteWriter):
    """Changes of events."""

    def add_event(self, event: Event) -> bool:
        """See ``storage.port``."""
        return self._query(INSERT_EVENT, event_row(event, self._position(event.workspace_id))).rowcount > 0

    def add_events(self, events: Sequence[Event]) -> int:
        """See ``storage.port``."""
        if not events:
            return 0
        rows = [event_row(event, self._position(event.workspace_id)) for event in events]
        return self._query_many(INSERT_EVENT, rows).rowcount

    def awaited(self, workspace_id: str, decision_ids: Sequence[str]) -> set[str]:
        """See ``storage.port``."""
        return {row[0] for row in self._rows_in(_AWAITED, (workspace_id,), decision_ids)}

    def match_events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """See ``storage.port``; by occurrence, then id."""
        rows = self._rows(_AWAITING, (workspace_id, decision.decision_id))
        if decision.message_id is not None:
            which = (decision.provider, decision.message_id, decision.decision_id, decision.recipient_id)
            by_message = (workspace_id, *which)
            rows += self._rows(_BY_MESSAGE, by_message)
        if not rows:
            return ()
        rows.sort(key=_place)
        named = (decision.decision_id, decision.recipient_id, decision.campaign_id)
        self._query_many(_MATCH, [(*named, workspace_id, row[0]) for row in rows])
        self._count_rewritten_events(workspace_id, [row[0] for row in rows])
        return tuple(event_from(workspace_id, (*row[:4], True, *named, *row[8:])) for row in rows)


def _place(row: Row) -> tuple[int, str]:
    """The order of events: occurrence, then id."""
    return row[2], row[0]


def _occurred_at(row: Row) -> int:
    at: int = row[2]
    return at


def event_row(event: Event, known_after: int) -> Row:
    """The workspace and the columns of an event that is reported now."""
    return (
        event.workspace_id,
        event.event_id,
        event.type,
        to_micros(event.occurred_at),
        to_micros(event.received_at),
        event.matched,
        event.decision_id,
        event.recipient_id,
        event.campaign_id,
        event.provider,
        event.message_id,
        event.value,
        event.automated,
        pack_object(event.properties),
        known_after,
        event.confidence,
        event.reason,
        pack_positions(event.flipped_after),
    )


def event_from(workspace_id: str, row: Row) -> Event:
    """The event of a row that begins with ``EVENT_COLUMNS``."""
    return Event(
        workspace_id=workspace_id,
        event_id=row[0],
        type=row[1],
        occurred_at=from_micros(row[2]),
        received_at=from_micros(row[3]),
        matched=bool(row[4]),
        decision_id=row[5],
        recipient_id=row[6],
        campaign_id=row[7],
        provider=row[8],
        message_id=row[9],
        value=row[10],
        automated=bool(row[11]),
        properties=unpack_object(row[12]),
        known_after=row[13],
        confidence=row[14],
        reason=row[15],
        flipped_after=unpack_positions(row[16]),
    )
