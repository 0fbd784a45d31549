"""Rows that are stored as they come, many at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from storage.bulk import NewEvents, NewLogged
from storage.codec import GROUP_CODES, MODE_CODES, STATUS_CODES, STATUSES, maybe_time, zone_of_recipient
from storage.decision_codec import zone_of_decision
from storage.errors import OneByOne
from storage.log import Named, Reply
from storage.rhythm import RHYTHM_KINDS, RhythmKind
from storage.sql.decision_rows import INTO_DECISIONS, INTO_MESSAGES
from storage.sql.decision_tables import COUNT_USE
from storage.sql.event_tables import INTO_EVENTS
from storage.sql.manyrows import Column, Insertion, Same, column, insert
from storage.sql.rhythm_tables import INTO_RHYTHMS
from storage.sql.tables import Tables
from storage.sql.usage_tables import UsageWriter

_NEW_RECIPIENTS: Final = Insertion(
    "recipients", ("workspace_id", "recipient_id", "version", "document", "changed_after"), "ON CONFLICT DO NOTHING"
)
_NOTHING: Final = Same(None)
_NAMED: Final = """
SELECT decision_id, recipient_id, campaign_id, status, coalesce(sent_at, send_at), detail FROM decisions
WHERE workspace_id = ? AND decision_id IN ({marks})
"""
_REPLIES: Final = """
SELECT decision_id, type, automated, words IS NOT NULL FROM events INDEXED BY events_decision
WHERE workspace_id = ? AND decision_id IN ({marks})
"""
_OPEN: Final = """
SELECT DISTINCT recipient_id FROM decisions INDEXED BY decisions_open
WHERE workspace_id = ? AND recipient_id IN ({marks}) AND status IN (0, 1)
"""
_CLEAR: Final = """
DELETE FROM engagement WHERE workspace_id = ? AND recipient_id IN ({marks}) RETURNING recipient_id
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

    def with_open_decisions(self, workspace_id: str, recipient_ids: Sequence[str]) -> set[str]:
        """See ``storage.bulk``."""
        return {row[0] for row in self._rows_in(_OPEN, (workspace_id,), recipient_ids)}

    def named(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Named]:
        """See ``storage.bulk``."""
        found = {}
        for decision_id, recipient_id, campaign_id, status, at, detail in self._rows_in(
            _NAMED, (workspace_id,), decision_ids
        ):
            zone, erased = zone_of_decision(detail)
            found[decision_id] = Named(
                workspace_id, decision_id, recipient_id, campaign_id, STATUSES[status], maybe_time(at), zone, erased
            )
        return found

    def replies(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, list[Reply]]:
        """See ``storage.bulk``."""
        found: dict[str, list[Reply]] = {}
        for decision_id, kind, automated, told in self._rows_in(_REPLIES, (workspace_id,), decision_ids):
            found.setdefault(decision_id, []).append(Reply(kind, bool(automated), bool(told)))
        return found

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

    def add_new_recipients(self, workspace_id: str, recipient_ids: Sequence[str], documents: Sequence[bytes]) -> None:
        """See ``storage.bulk``."""
        columns = (Same(workspace_id), recipient_ids, Same(1), documents, Same(self._position(workspace_id)))
        self._insert_new(_NEW_RECIPIENTS, columns, len(recipient_ids))

    def add_new_events(self, workspace_id: str, events: NewEvents) -> None:
        """See ``storage.bulk``."""
        named = events.matched is not None
        columns = (
            Same(workspace_id),
            events.ids,
            events.types,
            events.occurred_at,
            Same(events.received_at),
            column(events.matched) if events.matched is not None else Same(1),
            column(events.decisions) if named else _NOTHING,
            column(events.recipients),
            column(events.campaigns),
            column(events.providers) if named else _NOTHING,
            column(events.messages) if named else _NOTHING,
            column(events.values),
            column(events.automated),
            column(events.properties),
            Same(self._position(workspace_id)),
            _NOTHING,
            Same(""),
            _NOTHING,
        )
        self._insert_new(INTO_EVENTS, columns, len(events.ids))

    def add_new_logged(self, workspace_id: str, logged: NewLogged) -> None:
        """See ``storage.bulk``."""
        if self._summed_rules(workspace_id):
            raise OneByOne("a rule counts messages")
        positions = self._next_positions(workspace_id, len(logged.ids))
        self._insert_new(INTO_DECISIONS, _decision_columns(workspace_id, logged, positions), len(logged.ids))
        self._query(COUNT_USE, (workspace_id, logged.policy_id, len(logged.ids)))
        sent = [i for i, variant in enumerate(logged.variants) if variant is not None]
        self._insert_new(INTO_MESSAGES, _message_columns(workspace_id, logged, sent, self.SAME), len(sent))
        outcomes = _outcome_columns(workspace_id, logged, self._position(workspace_id))
        self._insert_new(INTO_EVENTS, outcomes, len(logged.outcomes.ids))

    def _insert_new(self, into: Insertion, columns: Sequence[Column], rows: int) -> None:
        """Inserts so many rows; ``OneByOne`` when the key of one is taken."""
        if rows and insert(self._query, into, columns) < rows:
            raise OneByOne(f"{into.table}: one of these rows is stored already, or is named twice")

    def clear_all_unanswered(self, workspace_id: str, recipient_ids: Sequence[str]) -> None:
        """See ``storage.bulk``."""
        for _ in self._rows_in(_CLEAR, (workspace_id,), recipient_ids):
            pass  # each row that comes is one that is gone

    def add_to_rhythms(self, workspace_id: str, kind: RhythmKind, added: Sequence[tuple[str, int, float]]) -> None:
        """See ``storage.bulk``."""
        number = Same(RHYTHM_KINDS.index(kind))
        for turn in _turns(added):
            recipients, hours = zip(*turn, strict=True)
            insert(self._query, INTO_RHYTHMS, (Same(workspace_id), recipients, number, hours, list(turn.values())))


def _turns(added: Sequence[tuple[str, int, float]]) -> list[dict[tuple[str, int], float]]:
    """The same in parts, in none of which a row is named twice: one statement may change a row only once."""
    whole = {(recipient_id, hour): weight for recipient_id, hour, weight in added}
    if len(whole) == len(added):
        return [whole] if added else []
    turns: list[dict[tuple[str, int], float]] = []
    times: Counter[tuple[str, int]] = Counter()
    for recipient_id, hour, weight in added:
        key = (recipient_id, hour)
        if times[key] == len(turns):
            turns.append({})
        turns[times[key]][key] = weight
        times[key] += 1
    return turns


def _decision_columns(workspace_id: str, d: NewLogged, positions: Sequence[int | None]) -> Sequence[Column]:
    """The position, the workspace, ``DECISION_COLUMNS``, and what ``INSERT_DECISION`` adds."""
    sent, silent = STATUS_CODES["sent"], STATUS_CODES["no_send"]
    out = [None if variant is None else at for variant, at in zip(d.variants, d.send_at, strict=True)]
    return (
        column(positions),
        Same(workspace_id),
        d.ids,
        d.request_ids,
        list(map(str.encode, d.request_ids)),
        Same(d.campaign_id),
        Same(d.campaign_version),
        d.recipients,
        column([silent if variant is None else sent for variant in d.variants]),
        Same(GROUP_CODES["treated"]),
        Same(MODE_CODES["live"]),
        d.decided_at,
        column(d.propensities),
        Same(d.policy_id),
        d.action,
        Same(d.actions),
        Same(d.actions),
        Same(d.eligible),
        column(d.variants),
        column(d.channels),
        Same(d.category),
        out,
        _NOTHING,
        out,
        _NOTHING,
        _NOTHING,
        _NOTHING,
        _NOTHING,
        Same(1),
        d.details,
        _NOTHING,
        out,
    )


def _message_columns(workspace_id: str, d: NewLogged, sent: Sequence[int], same: int | str) -> Sequence[Column]:
    """The workspace and ``MESSAGE_COLUMNS`` of the decisions in these places."""

    def of(values: Sequence[object]) -> Sequence[object]:
        return values if len(sent) == len(values) else [values[i] for i in sent]

    return (
        Same(workspace_id),
        of(d.recipients),
        of(d.send_at),
        of(d.ids),
        column(of(d.channels)),
        Same(d.category),
        Same(d.campaign_id),
        of(d.variants),
        Same(same),
        column(of(d.costs)),
        Same(0),
    )


def _outcome_columns(workspace_id: str, d: NewLogged, known_after: int) -> Sequence[Column]:
    """The workspace and ``EVENT_COLUMNS`` of what came of the decisions."""
    o = d.outcomes
    return (
        Same(workspace_id),
        o.ids,
        o.types,
        o.occurred_at,
        Same(o.received_at),
        Same(1),
        [d.ids[i] for i in o.places],
        [d.recipients[i] for i in o.places],
        Same(d.campaign_id),
        _NOTHING,
        _NOTHING,
        column(o.values),
        Same(0),
        _NOTHING,
        Same(known_after),
        _NOTHING,
        Same(""),
        _NOTHING,
    )
