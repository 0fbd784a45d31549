"""How the shared queries reach PostgreSQL: translated statements, lists as arrays, server-side cursors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from psycopg import RawServerCursor

from storage.errors import StoreUnavailable
from storage.postgres.dialect import SAME, translated
from storage.postgres.statements import Noted, Statements
from storage.sql.tables import Cursor, Row, Tables

T = TypeVar("T")

#: Rows that a stream fetches at a time when it is iterated.
_FETCHED = 500


class PostgresTables(Tables):
    """A connection to PostgreSQL inside one transaction."""

    SAME: ClassVar[int | str] = SAME

    def __init__(self, statements: Statements) -> None:
        super().__init__(statements)
        self._statements = statements
        self._query = self._execute
        self._query_many = self._execute_many
        self._send = self._note

    def ask(self, question: Callable[[], T]) -> Callable[[], T]:
        """See ``storage.port``."""
        return self._statements.ask(question)

    def finish(self) -> None:
        """See ``storage.sql.tables``."""
        super().finish()
        self._query = self._query_many = self._send = _ended

    def _execute(self, statement: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> Cursor:
        return self._statements.run(*_ready(statement, parameters))

    def _note(self, statement: str, parameters: Sequence[object] = ()) -> Noted:
        return self._statements.later(*_ready(statement, parameters))

    def _send_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        for row in rows:
            self._note(statement, row)

    def _execute_many(self, statement: str, rows: Sequence[Sequence[object]]) -> Cursor:
        if len(rows) == 1:
            return self._execute(statement, rows[0])
        return self._statements.many(translated(statement)[0], rows)

    def _stream(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> Cursor:
        text, values = _ready(statement, parameters)
        cursor: RawServerCursor[Any] = RawServerCursor(self._statements.streaming(), f"stream_{len(self._streams)}")
        cursor.itersize = _FETCHED
        cursor.execute(text, values, binary=True)
        self._streams.append(cursor)
        return cursor

    def _rows_in(
        self,
        statement: str,
        before: Sequence[object],
        values: Sequence[str] | Sequence[int],
        after: Sequence[object] = (),
    ) -> Iterator[Row]:
        if values:
            yield from self._rows(statement, (*before, list(values), *after))

    def _position(self, workspace_id: str) -> int:
        """See ``storage.sql.tables``; a reader never asks, and a writer has its own answer."""
        raise NotImplementedError

    def _next_positions(self, workspace_id: str, count: int) -> Sequence[int | None]:
        """As ``_position``."""
        raise NotImplementedError

    def _take_back_positions(self, workspace_id: str) -> None:
        """As ``_position``."""
        raise NotImplementedError

    def _hold_log(self, workspace_id: str) -> None:
        """As ``_position``."""
        raise NotImplementedError


def _ready(statement: str, parameters: Sequence[object] | Mapping[str, object]) -> tuple[str, Sequence[object] | None]:
    text, names = translated(statement)
    if isinstance(parameters, Mapping):
        return text, [parameters[name] for name in names]
    return text, parameters or None


def _ended(*_: object) -> Cursor:
    raise StoreUnavailable("this reader's transaction has ended; use it inside its `with` block or write function")
