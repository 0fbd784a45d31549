"""A log made large: the rows of a real one many times over, each copy with ids and people of its own.

Rows are copied inside SQLite, in the order of their keys: a million take seconds, where a million decisions take
minutes. Copies lie in the past, one before the other, and their messages went out.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from storage.codec import STATUS_CODES

#: What differs between copies: the columns that name a row or a person.
_KEYS = {
    "decisions": ("decision_id", "request_id", "recipient_id"),
    "messages": ("recipient_id", "message_ref", "decision_id"),
    "events": ("event_id", "decision_id", "recipient_id"),
    "recipients": ("recipient_id",),
}
_TIMES = {
    "decisions": ("decided_at", "send_at", "message_at"),
    "messages": ("at",),
    "events": ("occurred_at", "received_at"),
    "recipients": (),
}
_DAY = 86_400_000_000
#: The first copy is this long before the original, each further one a minute more.
_BEFORE, _STEP = 40 * _DAY, 60_000_000
_SENT = STATUS_CODES["sent"]


def multiply(database: Path, copies: int, people: int | None = None) -> None:
    """Adds ``copies`` copies of every decision, message, event and recipient; nobody else may use the file.

    Args:
        database: the file.
        copies: how many.
        people: copies share their people in turn, so many times the original's (None = each has its own).
    """
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-2000000")
    connection.execute("BEGIN EXCLUSIVE")
    for table in ("decisions", "messages", "events", "recipients"):
        connection.execute(f"CREATE TEMP TABLE original AS SELECT * FROM {table}")  # noqa: S608  our own names
        for copy in range(copies if table != "recipients" else min(copies, people or copies)):
            _copy(connection, table, copy, copy if people is None else copy % people)
        connection.execute("DROP TABLE original")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _copy(connection: sqlite3.Connection, table: str, copy: int, person: int) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    shift = _BEFORE + copy * _STEP
    values = []
    for column in columns:
        if column == "recipient_id":
            values.append(f"'{person:05d}.' || recipient_id")
        elif column in _KEYS[table]:
            values.append(f"CASE WHEN typeof({column}) = 'text' THEN '{copy:05d}.' || {column} ELSE {column} END")
        elif column in _TIMES[table]:
            values.append(f"{column} - {shift}")
        elif (table, column) == ("decisions", "status"):
            values.append(f"CASE WHEN status IN (0, 1) THEN {_SENT} ELSE status END")
        elif column == "seq":
            values.append("NULL")
        else:
            values.append(column)
    order = _KEYS[table][0]
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM original ORDER BY {order}"  # noqa: S608
    )
