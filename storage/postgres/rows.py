"""Whole tables of a PostgreSQL database as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import RawServerCursor

from storage.postgres.connect import Connected, connect, meaning, place
from storage.postgres.migrate import ARCHIVED, STEPS, prepare
from storage.sql.rows import OWN_FACTS, TABLES, RowReader, RowWriter
from storage.sql.tables import Row

WAIT_SECONDS: Final = 5.0
_FETCHED: Final = 500
_COLUMNS: Final = """
SELECT attname FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
_KEY: Final = """
SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
WHERE indrelid = $1::text::regclass AND indisprimary ORDER BY array_position(indkey::int2[], attnum)
"""
#: Tables whose rows the database numbers.
_NUMBERED: Final = ("api_keys", "artifacts", "events", "policies", "rank_rewards", "ranks", "training_runs")
#: The newest decision of all is in the tables whatever was archived; a workspace's own may lie in files alone.
_POSITIONS: Final = """
INSERT INTO counters (workspace_id, name, value)
SELECT workspace_id, 'position', newest FROM (SELECT max(seq) FROM decisions) AS log (newest), (
  SELECT workspace_id FROM workspaces
  UNION SELECT workspace_id FROM decisions
  UNION SELECT workspace_id FROM archive_files
) AS known
WHERE newest IS NOT NULL
"""


class PostgresRows:
    """``storage.sql.rows.RowStore`` on one database, which is migrated if need be."""

    def __init__(self, url: str) -> None:
        self._place = place(url)
        self._opener = partial(connect, url, WAIT_SECONDS)
        prepare(self._opener, self._place)

    @property
    def schema(self) -> str:
        """See ``storage.sql.rows``."""
        return STEPS[-1][0]

    @contextmanager
    def reading(self) -> Iterator[RowReader]:
        """See ``storage.sql.rows``."""
        with self._connected("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
            yield _Reader(connection)

    @contextmanager
    def writing(self) -> Iterator[RowWriter]:
        """See ``storage.sql.rows``."""
        with self._connected("BEGIN") as connection:
            yield _Writer(connection)

    @contextmanager
    def _connected(self, begin: str) -> Iterator[Connected]:
        try:
            connection = self._opener()
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()
        except psycopg.Error as error:
            raise meaning(error, self._place) from error


class _Reader:
    def __init__(self, connection: Connected) -> None:
        self._connection = connection
        self._streams = 0

    def columns(self, table: str) -> tuple[str, ...]:
        return self._names(_COLUMNS, table)

    def key(self, table: str) -> tuple[str, ...]:
        return self._names(_KEY, table)

    def rows(self, table: str, columns: Sequence[str], after: Sequence[Any] | None = None) -> Iterator[Row]:
        key = ", ".join(self.key(table))
        where = "" if after is None else f"WHERE ({key}) > ({', '.join(f'${i + 1}' for i in range(len(after)))})"
        self._streams += 1
        with RawServerCursor(self._connection, f"rows_{self._streams}") as cursor:
            cursor.itersize = _FETCHED
            statement = f"SELECT {', '.join(columns)} FROM {table} {where} ORDER BY {key}"  # noqa: S608 - names of ours
            cursor.execute(statement, list(after or ()) or None, binary=True)
            yield from cursor

    def _names(self, statement: str, table: str) -> tuple[str, ...]:
        return tuple(row[0] for row in self._connection.execute(statement, (table,)))


class _Writer:
    def __init__(self, connection: Connected) -> None:
        self._connection = connection

    def fact(self, name: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE name = $1", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put_fact(self, name: str, value: str | None) -> None:
        self._connection.execute("DELETE FROM meta WHERE name = $1", (name,))
        if value is not None:
            self._connection.execute("INSERT INTO meta (name, value) VALUES ($1, $2)", (name, value))

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        names = ", ".join(columns)
        with self._connection.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def empty(self) -> bool:
        facts = self._connection.execute("SELECT 1 FROM meta WHERE name <> ALL ($1) LIMIT 1", (list(OWN_FACTS),))
        if facts.fetchone():
            return False
        others = [table for table in TABLES if table != "meta"]
        return not any(self._connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in others)  # noqa: S608 - names of ours

    def settle(self) -> None:
        self._connection.execute(ARCHIVED)
        self._connection.execute(_POSITIONS)
        newest = "SELECT max(seq) FROM decisions"
        self._connection.execute(f"SELECT setval('decision_positions', seq) FROM ({newest}) AS t (seq) WHERE seq > 0")  # noqa: S608 - ours
        for table in _NUMBERED:
            newest = f"SELECT max(seq) FROM {table}"  # noqa: S608 - names of ours
            if table == "ranks":  # positions that were deleted must not come again
                newest = f"SELECT greatest(({newest}), (SELECT max(position) FROM rank_positions))"  # noqa: S608 - as above
            sequence = f"pg_get_serial_sequence('{table}', 'seq')"
            self._connection.execute(f"SELECT setval({sequence}, seq) FROM ({newest}) AS t (seq) WHERE seq IS NOT NULL")  # noqa: S608 - ours
