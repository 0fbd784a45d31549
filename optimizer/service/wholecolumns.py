"""A chunk of rows read column by column: the quick way through an import, for rows in which nothing is unusual.

What a cell means is asked of the same functions that read single rows (``cells``, ``importrows``), once for each
different cell, and remembered. Where anything is out of the ordinary (rows with different columns, a cell that is
refused, lists and objects in cells, types that are mixed) there is no quick way, and the chunk is read row by row: so
both ways accept, refuse and mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeVar

from optimizer.errors import Invalid
from optimizer.service.cells import ID_LENGTH, Cells, LookClosely, plain_value
from optimizer.service.recipients import attribute_type
from storage.codec import pack_member
from storage.records import Attribute

T = TypeVar("T")
#: Different cells of a column that are remembered.
REMEMBERED = 50_000
#: Types of a column's cells, as long as they have but one of them, whose values can be told apart by equality.
_TOLD_APART = frozenset({str, int, bool, float, datetime})


class Unusual(Exception):
    """There is no quick way."""


class _Memo(Generic[T]):
    """What the cells of one column mean, as far as they have been met."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self._known: dict[type, _Known[T]] = {}  # by type, since 1, 1.0 and true are equal

    def of(self, column: Sequence[Any]) -> list[T]:
        """See ``Memos.of``."""
        kinds = set(map(type, column)) - {type(None)}
        require(len(kinds) <= 1 and kinds <= _TOLD_APART)
        try:
            if not kinds:
                return [self._read(None)] * len(column)
            kind = kinds.pop()
            if kind is float and 0.0 in column and any(cell == 0 and str(cell) == "-0.0" for cell in column):
                return list(map(self._read, column))
            return list(map(self._known.setdefault(kind, _Known(self._read)).__getitem__, column))
        except Invalid:
            raise Unusual from None


class Memos(Generic[T]):
    """What the cells of each column mean, as far as they have been met. ``read`` takes a column's name and a cell."""

    def __init__(self, read: Callable[[str, Any], T]) -> None:
        self._read = read
        self._columns: dict[str, _Memo[T]] = {}

    def of(self, name: str, column: Sequence[Any]) -> list[T]:
        """The meanings of a column's cells.

        Raises:
            Unusual: one of them is refused, or types are mixed.
        """
        if name not in self._columns:
            self._columns[name] = _Memo(partial(self._read, name))
        return self._columns[name].of(column)


class _Known(dict[Any, T], Generic[T]):
    """Meanings by cell; those that are missing are read."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, cell: Any) -> T:
        if len(self) >= REMEMBERED:
            self.clear()
        found = self[cell] = self._read(cell)
        return found


def plain_ids(column: Iterable[Any]) -> list[str]:
    """A column of ids, each there and of printable ASCII.

    Raises:
        Unusual: not all of them are.
    """
    ids = list(column)
    if set(map(type, ids)) != {str}:
        raise Unusual
    together = "".join(ids)
    lengths = set(map(len, ids))
    if not (together.isascii() and together.isprintable() and min(lengths) > 0 and max(lengths) <= ID_LENGTH):
        raise Unusual
    return ids


def joined(columns: Sequence[Sequence[str]], rows: int) -> Sequence[str]:
    """The members of each row together."""
    if not columns:
        return [""] * rows
    return columns[0] if len(columns) == 1 else list(map("".join, zip(*columns, strict=True)))


def member(column: str, cell: Any, *, typed: bool) -> str:
    """What a cell of a column ``GROUP.NAME`` adds to the members of the object GROUP, in JSON ("" = nothing).

    Raises:
        Invalid: it is refused.
        Unusual: it holds a list or an object.
    """
    group, _, name = column.partition(".")
    value = plain_value(cell, typed=typed)
    if value is LookClosely:
        value = Cells({column: cell}, typed=typed).nested(group).get(name)
        require(not isinstance(value, Mapping | list))
    return "" if value is None else pack_member(value, name)


def first_seen(
    known: Mapping[str, Attribute], columns: Mapping[str, Sequence[Any]], group: str, *, typed: bool
) -> list[Mapping[str, Any]]:
    """Of the columns ``group.NAME`` whose NAME the registry hasn't seen, the first cell that shows a type."""
    told: list[Mapping[str, Any]] = []
    for column, cells in columns.items():
        name = column.removeprefix(f"{group}.")
        if name in known or name == column:
            continue
        for cell in cells:
            one = Cells({column: cell}, typed=typed).nested(group)
            if attribute_type(one.get(name)) is not None:
                told.append(one)
                break
    return told


def require_names(columns: Iterable[str]) -> None:
    """Raises ``Unusual`` unless what stands behind a point in each column's name is the name of a part."""
    for column in columns:
        group, _, _ = column.partition(".")
        try:
            Cells({column: None}, typed=True).nested(group)
        except Invalid:
            raise Unusual from None


def require(good: bool) -> None:
    """Raises ``Unusual`` unless it is."""
    if not good:
        raise Unusual
