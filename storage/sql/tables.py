"""What every group of queries stands on: statements on one connection, whichever database it leads to.

Statements are written in what SQLite and PostgreSQL have in common, with SQLite's marks for parameters (``?``, ``?1``,
``:name``) and its index hints; where a database speaks otherwise, its backend translates them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Protocol, TypeVar

T = TypeVar("T")
Row = tuple[Any, ...]


class Cursor(Protocol):
    """The rows of one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""

    def fetchone(self) -> Any:
        """The next row; None = none is left."""

    def fetchmany(self, size: int, /) -> list[Any]:
        """The next rows, at most so many."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left, one by one."""

    def close(self) -> None:
        """Ends it; no row is left."""


class Tables(ABC):
    """A connection inside one transaction. It ends with the transaction: a later query raises ``StoreUnavailable``."""

    #: In place of a message's ``decision_id`` where that equals its ``message_ref``: no decision's id is like it.
    SAME: ClassVar[int | str]

    #: Runs one statement; its parameters are a sequence or, by name, a mapping.
    _query: Callable[..., Cursor]
    #: Runs one statement for each row of parameters; ``rowcount`` is that of all together.
    _query_many: Callable[..., Cursor]
    #: Runs one statement whose answer nobody looks at, by the time of the next one at the latest.
    _send: Callable[..., object]

    def __init__(self, connection: Any) -> None:  # noqa: ARG002 - a backend's own; the groups of queries pass it on
        self._streams: list[Cursor] = []
        #: Blocks that this transaction has counted as rewritten: (workspace, log, block).
        self._counted: set[tuple[str, str, int]] = set()

    def ask(self, question: Callable[[], T]) -> Callable[[], T]:
        """See ``storage.port``; where statements go no way, it is asked when it is to be answered."""
        return question

    @abstractmethod
    def _stream(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> Cursor:
        """Runs one statement whose rows are too many to be held; ``finish`` ends it."""

    @abstractmethod
    def _rows_in(
        self,
        statement: str,
        before: Sequence[object],
        values: Sequence[str] | Sequence[int],
        after: Sequence[object] = (),
    ) -> Iterator[Row]:
        """Rows of a statement that says ``IN ({marks})``, for any number of values.

        Args:
            statement: its parameters are ``before``, the values, ``after``.
            before: parameters in front of the list.
            values: the list; repetitions do no harm.
            after: parameters behind the list.
        """

    @abstractmethod
    def _position(self, workspace_id: str) -> int:
        """The position of the newest decision (0 = none); no decision of the workspace gets between this and the commit
        unless this transaction adds it."""

    @abstractmethod
    def _next_positions(self, workspace_id: str, count: int) -> Sequence[int | None]:
        """The positions of so many decisions that are to be added now; None = the database numbers the row itself."""

    @abstractmethod
    def _take_back_positions(self, workspace_id: str) -> None:
        """What ``_next_positions`` gave last is not used: nothing was added."""

    @abstractmethod
    def _hold_log(self, workspace_id: str) -> None:
        """Shared sums are about to change: no other write of the workspace may read them before the commit."""

    def finish(self) -> None:
        """Ends what still streams, and every use of this object."""
        for stream in self._streams:
            stream.close()

    def _send_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """``_send`` for each row of parameters."""
        self._query_many(statement, rows)

    def _row(self, statement: str, parameters: Sequence[object] | Mapping[str, object]) -> Row | None:
        row: Row | None = self._query(statement, parameters).fetchone()
        return row

    def _rows(self, statement: str, parameters: Sequence[object]) -> list[Row]:
        return self._query(statement, parameters).fetchall()

    def _upsert(self, table: str, key: Mapping[str, object], rest: Mapping[str, object]) -> None:
        """Inserts a row, or replaces all but the key of the one that has this key."""
        self._query(_upsert_statement(table, tuple(key), tuple(rest)), (*key.values(), *rest.values()))


@lru_cache(maxsize=64)
def _upsert_statement(table: str, key: tuple[str, ...], rest: tuple[str, ...]) -> str:
    columns, marks = ", ".join(key + rest), ", ".join("?" * len(key + rest))
    changes = ", ".join(f"{column} = excluded.{column}" for column in rest)
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"  # noqa: S608 - names of this package
