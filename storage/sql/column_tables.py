"""A campaign's decisions and events as columns: rows are turned round by the chunk, no record is made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Final

from storage.codec import GROUPS, MODES, STATUSES, to_micros, unpack_object
from storage.columns import DecisionColumns, EventColumns
from storage.decision_codec import outlines
from storage.sql.tables import Row, Tables

#: Rows that are turned round at a time: few enough for a processor's cache (10,000 took half as long again).
CHUNK: Final = 1_000

_OF_CAMPAIGN: Final = """
decisions AS d INDEXED BY decisions_campaign
WHERE d.workspace_id = :workspace AND d.campaign_id = :campaign AND d.decided_at >= :since AND d.decided_at < :until
  AND d.imported = 0
"""
#: What ``turned`` takes.
DECISION_VALUES: Final = """
  d.seq, d.recipient_id, d.campaign_version, d.status, d.control_group, d.mode, d.decided_at, d.variant_id,
  d.channel, coalesce(d.send_at, -1), coalesce(d.sent_at, -1), d.detail
"""
_DECISIONS: Final = "SELECT " + DECISION_VALUES + " FROM " + _OF_CAMPAIGN  # noqa: S608 - constants of this module
_VALUES: Final = "e.type, e.occurred_at, e.value, CASE WHEN e.type IN ({told}) THEN e.properties END"
_JOINED: Final = """
SELECT d.seq, NULL, VALUES_ FROM FROM_
WHERE d.workspace_id = :workspace AND d.campaign_id = :campaign AND d.decided_at >= :since AND d.decided_at < :until
  AND d.imported = 0 AND e.workspace_id = :workspace AND e.decision_id = d.decision_id
  AND e.automated = 0 AND e.type IN ({types})
""".replace("VALUES_", _VALUES)
#: Each decision's events are looked up; or, where events are few, each event's decision.
_NAMING: Final = _JOINED.replace(
    "FROM_", "decisions AS d INDEXED BY decisions_campaign CROSS JOIN events AS e INDEXED BY events_decision"
)
_NAMED: Final = _JOINED.replace("FROM_", "events AS e NOT INDEXED CROSS JOIN decisions AS d INDEXED BY decisions_id")
#: So many events a decision are read through as quickly as the decisions' events are looked up.
_FEW_EVENTS: Final = 4
_NEWEST: Final = "SELECT max(seq) FROM events"
_COUNT: Final = """
SELECT count(*) FROM decisions AS d INDEXED BY decisions_campaign
WHERE d.workspace_id = :workspace AND d.campaign_id = :campaign AND d.decided_at >= :since AND d.decided_at < :until
"""
_FREE: Final = """
SELECT NULL, e.recipient_id, VALUES_ FROM FROM_
WHERE e.workspace_id = :workspace AND e.decision_id IS NULL AND e.recipient_id IS NOT NULL AND e.message_id IS NULL
  AND e.occurred_at >= :since AND (e.campaign_id IS NULL OR e.campaign_id = :campaign) AND e.automated = 0
  AND e.type IN ({types}) AND OF_
""".replace("VALUES_", _VALUES)
_OF_RECIPIENTS: Final = _FREE.replace(
    "FROM_",
    "(SELECT DISTINCT d.recipient_id AS recipient_id FROM DECISIONS_) AS r "
    "CROSS JOIN events AS e INDEXED BY events_recipient".replace("DECISIONS_", _OF_CAMPAIGN),
).replace("OF_", "e.recipient_id = r.recipient_id")
_OF_ANY: Final = _FREE.replace("FROM_", "events AS e NOT INDEXED").replace(
    "OF_",
    "EXISTS (SELECT 1 FROM DECISIONS_ AND d.recipient_id = e.recipient_id)".replace("DECISIONS_", _OF_CAMPAIGN).replace(
        "decisions_campaign", "decisions_recipient"
    ),
)


_FREE_OF: Final = """
SELECT recipient_id, type, occurred_at, value, properties FROM events INDEXED BY events_recipient
WHERE workspace_id = ? AND recipient_id IN ({marks}) AND decision_id IS NULL AND message_id IS NULL
  AND occurred_at >= ? AND (campaign_id IS NULL OR campaign_id = ?) AND automated = 0 AND type IN (TYPES)
"""


class ColumnReader(Tables):
    """A campaign's log, column by column."""

    def decision_columns(
        self, workspace_id: str, campaign_id: str, since: datetime, until: datetime
    ) -> Iterator[DecisionColumns]:
        """See ``storage.port``."""
        cursor = self._stream(_DECISIONS, _span(workspace_id, campaign_id, since, until))
        while rows := cursor.fetchmany(CHUNK):
            yield turned(rows)

    def event_columns(
        self,
        workspace_id: str,
        campaign_id: str,
        since: datetime,
        until: datetime,
        *,
        types: Collection[str],
        properties_of: Collection[str] = (),
    ) -> Iterator[EventColumns]:
        """See ``storage.port``."""
        if not types:
            return
        given = _span(workspace_id, campaign_id, since, until)
        events, decisions = ((self._row(one, given) or (0,))[0] or 0 for one in (_NEWEST, _COUNT))
        few = events < _FEW_EVENTS * decisions
        for statement in (_NAMED, _OF_ANY) if few else (_NAMING, _OF_RECIPIENTS):
            yield from self._events(statement, given, types, properties_of)

    def _events(
        self, statement: str, given: dict[str, object], types: Collection[str], properties_of: Collection[str]
    ) -> Iterator[EventColumns]:
        filled = statement.format(types=named(given, "type", types), told=named(given, "told", properties_of))
        cursor = self._stream(filled, given)
        while rows := cursor.fetchmany(CHUNK):
            yield turned_events(rows)


def turned(rows: Sequence[Row]) -> DecisionColumns:
    """Rows of ``DECISION_VALUES``, at least one, as columns."""
    seq, recipient, version, status, group, mode, decided, variant, channel, planned, sent, detail = zip(
        *rows, strict=True
    )
    latest, timezone, reasons, cost = outlines(detail)
    return DecisionColumns(
        position=seq,
        recipient=recipient,
        version=version,
        status=tuple(map(STATUSES.__getitem__, status)),
        group=tuple(map(GROUPS.__getitem__, group)),
        mode=tuple(map(MODES.__getitem__, mode)),
        decided=decided,
        latest=latest,
        variant=variant,
        channel=channel,
        planned=planned,
        sent=sent,
        timezone=timezone,
        reasons=reasons,
        cost=cost,
    )


def turned_events(rows: Sequence[Row]) -> EventColumns:
    """Rows of a position, a recipient, type, time, value and properties, at least one, as columns."""
    seq, recipient, kind, occurred, value, properties = zip(*rows, strict=True)
    return EventColumns(seq, recipient, kind, occurred, value, tuple(map(unpack_object, properties)))


def free_events(campaign_id: str, since: datetime, types: Collection[str]) -> tuple[str, tuple[object, ...]]:
    """The statement for events that name some recipients and no decision, and its parameters behind theirs."""
    return _FREE_OF.replace("TYPES", ", ".join("?" * len(types))), (to_micros(since), campaign_id, *sorted(types))


def _span(workspace_id: str, campaign_id: str, since: datetime, until: datetime) -> dict[str, object]:
    return {
        "workspace": workspace_id,
        "campaign": campaign_id,
        "since": to_micros(since),
        "until": to_micros(until),
    }


def named(given: dict[str, object], name: str, values: Collection[str]) -> str:
    """Adds a parameter for each value and gives their names as a list; NULL, which nothing equals, for none."""
    marks = []
    for place, value in enumerate(sorted(values)):
        given[f"{name}{place}"] = value
        marks.append(f":{name}{place}")
    return ", ".join(marks) or "NULL"
