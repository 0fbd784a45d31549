"""How the shared queries reach SQLite: the connection, lists of values in a statement, positions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from sqlite_utils import Database

from storage.errors import StoreUnavailable
from storage.sql.tables import Cursor, Row, Tables

#: Lists of values are padded to one of these lengths, so that few statements are prepared, each once.
_LENGTHS = (1, 8, 64, 512)
_MARKS = {length: ", ".join("?" * length) for length in _LENGTHS}
#: The end of a B-tree: it costs the same whatever the log's length.
_NEWEST = "SELECT max(seq) FROM decisions"


class SqliteTables(Tables):
    """A connection to SQLite inside one transaction."""

    SAME: ClassVar[int | str] = 0

    def __init__(self, connection: Database) -> None:
        super().__init__(connection)
        # The connection's own methods, with nothing in between: they are called for every statement.
        self._query = self._send = connection.conn.execute
        self._query_many = connection.conn.executemany
        self._last_position: int | None = None

    def finish(self) -> None:
        """See ``storage.sql.tables``."""
        super().finish()
        self._query = self._query_many = self._send = _ended

    def _stream(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> Cursor:
        cursor = self._query(statement, parameters)
        self._streams.append(cursor)
        return cursor

    def _position(self, workspace_id: str) -> int:  # noqa: ARG002 - one series for all
        """See ``storage.sql.tables``: positions are one series, so the newest of all workspaces is that of any as well.
        Asked once; who adds decisions forgets it."""
        if self._last_position is None:
            row = self._row(_NEWEST, ())
            self._last_position = 0 if row is None or row[0] is None else int(row[0])
        return self._last_position

    def _next_positions(self, workspace_id: str, count: int) -> Sequence[int | None]:  # noqa: ARG002 - one series
        """See ``storage.sql.tables``: SQLite numbers rows in the order of inserts, and there is one writer."""
        self._last_position = None
        return [None] * count

    def _take_back_positions(self, workspace_id: str) -> None:  # noqa: ARG002 - one series
        """See ``storage.sql.tables``: what was not inserted, or was rolled back, was not numbered."""
        self._last_position = None

    def _hold_log(self, workspace_id: str) -> None:
        """See ``storage.sql.tables``: writes take turns anyway."""

    def _rows_in(
        self,
        statement: str,
        before: Sequence[object],
        values: Sequence[str] | Sequence[int],
        after: Sequence[object] = (),
    ) -> Iterator[Row]:
        distinct = list(dict.fromkeys(values))
        for start in range(0, len(distinct), _LENGTHS[-1]):
            part = distinct[start : start + _LENGTHS[-1]]
            length = next(length for length in _LENGTHS if length >= len(part))
            part.extend(part[-1:] * (length - len(part)))
            yield from self._rows(statement.replace("{marks}", _MARKS[length]), (*before, *part, *after))


def _ended(*_: object) -> sqlite3.Cursor:
    raise StoreUnavailable("this reader's transaction has ended; use it inside its `with` block or write function")
