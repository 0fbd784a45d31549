"""Rows that are stored as they come, many at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final

from storage.bulk import NewEvents, NewLogged
from storage.codec import GROUP_CODES, MODE_CODES, STATUS_CODES, zone_of_recipient
from storage.rhythm import RHYTHM_KINDS, RhythmKind
from storage.sql.decision_tables import COUNT_USE, INSERT_DECISION, INSERT_MESSAGE
from storage.sql.event_tables import INSERT_EVENT
from storage.sql.rhythm_tables import ADD_TO_RHYTHM
from storage.sql.tables import Row, Tables
from storage.sql.usage_tables import UsageWriter

_ADD_RECIPIENT: Final = """
INSERT INTO recipients (workspace_id, recipient_id, version, document, changed_after) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
_ZONES: Final = "SELECT recipient_id, document FROM recipients WHERE workspace_id = ? AND recipient_id IN ({marks})"
#: So many hours are looked up by one statement.
_HOURS: Final = 256
_MICROS_AN_HOUR: Final = 3_600_000_000
_UNPROMPTED: Final = """
WITH wanted (recipient_id, since) AS (VALUES {hours})
SELECT w.recipient_id, w.since FROM wanted AS w WHERE EXISTS (
  SELECT 1 FROM events AS e INDEXED BY events_recipient
  WHERE e.workspace_id = ? AND e.recipient_id = w.recipient_id AND e.decision_id IS NULL AND e.message_id IS NULL
    AND e.automated = 0 AND e.type NOT IN ({but}) AND e.occurred_at >= w.since AND e.occurred_at < w.since + ?
)
""".replace("{hours}", ", ".join(["(?, ?)"] * _HOURS))


class BulkReader(Tables):
    """Queries for many rows."""

    def timezones(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, str | None]:
        """See ``storage.bulk``."""
        return {row[0]: zone_of_recipient(row[1]) for row in self._rows_in(_ZONES, (workspace_id,), recipient_ids)}

    def unprompted_hours(
        self, workspace_id: str, hours: Sequence[tuple[str, int]], but: Collection[str]
    ) -> set[tuple[str, int]]:
        """See ``storage.bulk``."""
        statement = _UNPROMPTED.replace("{but}", ", ".join("?" * len(but)) or "''")  # no type is empty
        found: set[tuple[str, int]] = set()
        for start in range(0, len(hours), _HOURS):
            part = list(hours[start : start + _HOURS])
            part += part[-1:] * (_HOURS - len(part))
            wanted = [value for hour in part for value in hour]
            found.update(self._rows(statement, (*wanted, workspace_id, *sorted(but), _MICROS_AN_HOUR)))
        return found


class BulkWriter(BulkReader, UsageWriter):
    """Many rows at once."""

    def add_new_recipients(self, workspace_id: str, recipient_ids: Sequence[str], documents: Sequence[bytes]) -> bool:
        """See ``storage.bulk``."""
        position = repeat(self._position(workspace_id))
        rows = list(zip(repeat(workspace_id), recipient_ids, repeat(1), documents, position))
        return self._all_or_none(_ADD_RECIPIENT, rows)

    def add_new_events(self, workspace_id: str, events: NewEvents) -> bool:
        """See ``storage.bulk``."""
        nothing = repeat(None)
        columns = zip(
            repeat(workspace_id),
            events.ids,
            events.types,
            events.occurred_at,
            repeat(events.received_at),
            repeat(1),
            nothing,
            events.recipients,
            events.campaigns,
            nothing,
            nothing,
            events.values,
            events.automated,
            events.properties,
            repeat(self._position(workspace_id)),
            nothing,
            repeat(""),
            nothing,
        )
        return self._all_or_none(INSERT_EVENT, list(columns))

    def add_new_logged(self, workspace_id: str, logged: NewLogged) -> bool:
        """See ``storage.bulk``."""
        if self._summed_rules(workspace_id):
            return False
        self._query("SAVEPOINT new_logged")
        stored = self._log(workspace_id, logged)
        if not stored:
            self._query("ROLLBACK TO new_logged")
            self._take_back_positions(workspace_id)
        self._query("RELEASE new_logged")
        return stored

    def _log(self, workspace_id: str, logged: NewLogged) -> bool:
        positions = self._next_positions(workspace_id, len(logged.ids))
        if not self._all_or_none(INSERT_DECISION, list(_decision_rows(workspace_id, logged, positions))):
            return False
        self._query(COUNT_USE, (workspace_id, logged.policy_id, len(logged.ids)))
        messages = list(_message_rows(workspace_id, logged, self.SAME))
        events = list(_outcome_rows(workspace_id, logged, self._position(workspace_id)))
        both = ((INSERT_MESSAGE, messages), (INSERT_EVENT, events))
        return all(self._all_or_none(statement, rows) for statement, rows in both if rows)

    def add_to_rhythms(self, workspace_id: str, kind: RhythmKind, added: Sequence[tuple[str, int, float]]) -> None:
        """See ``storage.bulk``."""
        number = RHYTHM_KINDS.index(kind)
        rows = [(workspace_id, recipient_id, number, hour, weight) for recipient_id, hour, weight in added]
        self._query_many(ADD_TO_RHYTHM, rows)


def _decision_rows(workspace_id: str, d: NewLogged, positions: Sequence[int | None]) -> Iterator[Row]:
    """The position, the workspace, ``DECISION_COLUMNS``, and what ``INSERT_DECISION`` adds."""
    sent, silent = STATUS_CODES["sent"], STATUS_CODES["no_send"]
    out = [None if variant is None else at for variant, at in zip(d.variants, d.send_at, strict=True)]
    nothing = repeat(None)
    return zip(
        positions,
        repeat(workspace_id),
        d.ids,
        d.request_ids,
        map(str.encode, d.request_ids),
        repeat(d.campaign_id),
        repeat(d.campaign_version),
        d.recipients,
        [silent if variant is None else sent for variant in d.variants],
        repeat(GROUP_CODES["treated"]),
        repeat(MODE_CODES["live"]),
        d.decided_at,
        d.propensities,
        repeat(d.policy_id),
        d.action,
        repeat(d.actions),
        repeat(d.actions),
        repeat(d.eligible),
        d.variants,
        d.channels,
        repeat(d.category),
        out,
        nothing,
        out,
        nothing,
        nothing,
        nothing,
        nothing,
        repeat(1),
        d.details,
        nothing,
        out,
    )


def _message_rows(workspace_id: str, d: NewLogged, same: int | str) -> Iterable[Row]:
    columns: Iterable[Row] = zip(
        repeat(workspace_id),
        d.recipients,
        d.send_at,
        d.ids,
        d.channels,
        repeat(d.category),
        repeat(d.campaign_id),
        d.variants,
        repeat(same),
        d.costs,
        repeat(0),
    )
    return columns if None not in d.variants else (row for row in columns if row[7] is not None)


def _outcome_rows(workspace_id: str, d: NewLogged, known_after: int) -> Iterator[Row]:
    o = d.outcomes
    for i, event_id, kind, at, value in zip(o.places, o.ids, o.types, o.occurred_at, o.values, strict=True):
        named = (d.ids[i], d.recipients[i], d.campaign_id, None, None)
        yield (workspace_id, event_id, kind, at, o.received_at, 1, *named, value, 0, None, known_after, None, "", None)
