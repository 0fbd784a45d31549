"""Many new rows by few statements.

A row costs what is passed for it and what each statement costs by itself; so what all rows share is passed once, and
many rows go by one statement. ``OR FAIL`` says that rows before a faulty one needn't be undone with it (its write is,
as a whole), which saves the database a copy of every page that the statement touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Final

from storage.sql.tables import Cursor, Row

#: So many rows go by one statement; few lengths, so that few statements are prepared.
_LENGTHS: Final = (64, 8, 1)


@dataclass(frozen=True, slots=True)
class Same:
    """A column with one value for all rows."""

    value: object


Column = Same | Sequence[object]
#: Runs one statement.
Query = Callable[[str, Sequence[object]], Cursor]


def column(values: Sequence[object]) -> Column:
    """The values, passed once where they are all the same."""
    first = values[0] if values else None
    # Of all values that equal each other, only 0.0 and -0.0 are stored as different ones.
    return Same(first) if first != 0.0 and values.count(first) == len(values) else values


@dataclass(frozen=True, slots=True)
class Insertion:
    """Where rows go: a table, its columns in order, and what becomes of one whose key is taken (``ON CONFLICT …``)."""

    table: str
    columns: tuple[str, ...]
    clash: str

    def statement(self, shared: tuple[bool, ...], rows: int) -> str:
        """The statement for so many rows. Its parameters: the shared columns, then the others row by row."""
        return _statement(self, shared, rows)


@lru_cache(maxsize=256)
def _statement(into: Insertion, shared: tuple[bool, ...], rows: int) -> str:
    first = iter(range(1, len(shared) + 1))
    fixed = [f"?{next(first)}" if one else "" for one in shared]
    number = sum(shared)
    marks = []
    for _ in range(rows):
        row = []
        for mark in fixed:
            number += not mark
            row.append(mark or f"?{number}")
        marks.append(f"({', '.join(row)})")
    names = ", ".join(into.columns)
    return f"INSERT OR FAIL INTO {into.table} ({names}) VALUES {', '.join(marks)} {into.clash}"  # noqa: S608 - names of this package


def insert(query: Query, into: Insertion, columns: Sequence[Column]) -> int:
    """Inserts rows, of which at least one column differs from row to row; returns how many were stored.

    When a row is refused, those before it may be stored: the write is to be given up.
    """
    return sum([query(*one).rowcount for one in _insertions(into, columns)])


def insert_rows(query: Query, into: Insertion, rows: Sequence[Row]) -> int:
    """``insert`` of rows as they are."""
    return sum([query(*one).rowcount for one in _insertions_of(into, rows)])


def send_rows(send: Callable[[str, Sequence[object]], object], into: Insertion, rows: Sequence[Row]) -> None:
    """``insert_rows`` where nobody asks how many were stored."""
    for one in _insertions_of(into, rows):
        send(*one)


def _insertions(into: Insertion, columns: Sequence[Column]) -> Iterator[tuple[str, Sequence[object]]]:
    """The statements, with their parameters."""
    shared = tuple([isinstance(one, Same) for one in columns])
    front = [one.value for one in columns if isinstance(one, Same)]
    others = [one for one in columns if not isinstance(one, Same)]
    values = list(chain.from_iterable(zip(*others, strict=True)))
    width, start = len(others), 0
    for rows in _pieces(len(values) // width):
        end = start + rows * width
        yield into.statement(shared, rows), [*front, *values[start:end]]
        start = end


def _insertions_of(into: Insertion, rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[object]]]:
    if not rows:
        return
    if len(rows) == 1:
        yield into.statement((False,) * len(rows[0]), 1), rows[0]
        return
    columns = [column(one) for one in zip(*rows, strict=True)]
    if all(isinstance(one, Same) for one in columns):
        columns[0] = [row[0] for row in rows]
    yield from _insertions(into, columns)


def _pieces(rows: int) -> Iterator[int]:
    """Lengths that add up to so many rows."""
    for length in _LENGTHS:
        whole, rows = divmod(rows, length)
        yield from (length,) * whole
