"""What every group of queries shares: the connection, and lists of values in a statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlite_utils import Database

from storage.errors import StoreUnavailable

Row = tuple[Any, ...]
#: Lists of values are padded to one of these lengths, so that few statements are prepared, each once.
_LENGTHS = (1, 8, 64, 512)
_MARKS = {length: ", ".join("?" * length) for length in _LENGTHS}
#: The end of a B-tree: it costs the same whatever the log's length.
_NEWEST = "SELECT max(seq) FROM decisions"


class Tables:
    """A connection inside one transaction. It ends with the transaction: a later query raises."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._query: Callable[..., sqlite3.Cursor] = db.conn.execute
        self._query_many: Callable[..., sqlite3.Cursor] = db.conn.executemany
        self._streams: list[sqlite3.Cursor] = []
        self._last_position: int | None = None
        #: Blocks that this transaction has counted as rewritten: (workspace, log, block).
        self._counted: set[tuple[str, str, int]] = set()

    def finish(self) -> None:
        """Ends what still streams, and every use of this object."""
        for cursor in self._streams:
            cursor.close()
        self._query = self._query_many = _ended

    def _row(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> Row | None:
        row: Row | None = self._query(statement, parameters).fetchone()
        return row

    def _rows(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        return self._query(statement, parameters).fetchall()

    def _position(self) -> int:
        """The position of the newest decision of all workspaces (0 = none): positions are one series, so it is that of
        any workspace as well. Asked once; who adds decisions forgets it."""
        if self._last_position is None:
            row = self._row(_NEWEST, ())
            self._last_position = 0 if row is None or row[0] is None else int(row[0])
        return self._last_position

    def _rows_in(
        self, statement: str, before: Sequence[object], values: Sequence[str], after: Sequence[object] = ()
    ) -> Iterator[Row]:
        """Rows of a statement that says ``IN ({marks})``, for any number of values.

        Args:
            statement: its parameters are ``before``, the values, ``after``.
            before: parameters in front of the list.
            values: the list; repetitions do no harm.
            after: parameters behind the list.
        """
        distinct = list(dict.fromkeys(values))
        for start in range(0, len(distinct), _LENGTHS[-1]):
            part = distinct[start : start + _LENGTHS[-1]]
            length = next(length for length in _LENGTHS if length >= len(part))
            part.extend(part[-1:] * (length - len(part)))
            yield from self._rows(statement.replace("{marks}", _MARKS[length]), (*before, *part, *after))


def _ended(*_: object) -> sqlite3.Cursor:
    raise StoreUnavailable("this reader's transaction has ended; use it inside its `with` block or write function")
