"""Cells of a row file as values of our records: whatever the file's format, the same row means the same thing.

CSV knows only text, so its cells are read by JSON's grammar where a value may be of any type (``33`` is a number,
``01234`` is not, and stays text). Parquet and NDJSON bring types along. NaN, null and empty text all mean "not there".
The bounds are those of the API, so that what came in by file can also be sent over HTTP.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from optimizer.bandit.rewards import LARGEST_VALUE
from optimizer.errors import Invalid
from optimizer.service import moments
from optimizer.service.jsontext import parsed

#: Characters of an id or a name.
ID_LENGTH = 256
#: Values in one object (those in lists and objects below it counted), levels of nesting, bytes of a string.
OBJECT_VALUES, OBJECT_DEPTH, TEXT_BYTES = 200, 5, 8192
#: Channels and refusals of one recipient, at most.
CHANNELS, SUPPRESSIONS = 50, 200
NAME_ALLOWED = f"1 to {ID_LENGTH} characters, no control characters"
_ID = re.compile(r"[^\u0000-\u001f\u007f-\u009f\ufffd]+")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
#: What ``plain_value`` doesn't tell.
LookClosely = object()
#: Stands for a text that has to be looked at closely.
_ODD = object()
_TIME_ALLOWED = "an RFC 3339 time with an offset such as 2026-11-24T09:00:00Z, from 1970 to 2200"
_SWITCHES = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


class Cells:
    """One row, read by column name. Methods raise ``Invalid`` that names the column, its value and what is allowed."""

    def __init__(self, row: Mapping[str, Any], *, typed: bool) -> None:
        """``typed`` is False for CSV, whose cells are all text."""
        self.row = row
        self._typed = typed
        self._columns = tuple(row)

    def refuse_unknown(self, names: frozenset[str], nested: frozenset[str]) -> None:
        """Refuses columns that are neither in ``names`` nor ``nested`` nor ``nested.NAME``."""
        refuse_unknown(self._columns, names, nested)

    def value(self, name: str) -> Any:
        """The cell as it is; None when it is missing, empty or NaN."""
        value = self.row.get(name)
        # Only NaN differs from itself.
        return None if value == "" or value != value else value

    def id(self, name: str) -> str | None:
        """An id: text of 1 to 256 characters without control characters. A whole number is taken as its text."""
        value = self.row.get(name)
        if type(value) is str and 0 < len(value) <= ID_LENGTH and value.isascii() and value.isprintable():
            return value  # what nearly every id is, told apart fastest
        value = self.value(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not is_name(value):
            raise Invalid.field(
                name, f"{value!r:.80} must be text of 1 to {ID_LENGTH} characters without control characters"
            )
        return None if value is None else str(value)

    def required_id(self, name: str) -> str:
        """As ``id``, but it must be there."""
        value = self.id(name)
        if value is None:
            raise Invalid.field(name, "missing; it is required", code="required")
        return value

    def instant(self, name: str) -> datetime | None:
        """A time, RFC 3339 with an offset, as UTC."""
        value = self.value(name)
        return None if value is None else instant(name, value)

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self.value(name)
        if value is None:
            return None
        number = _as_number(value)
        if number is None:
            raise Invalid.field(name, f"{value!r:.80} must be a finite number")
        return number

    def worth(self, name: str) -> float | None:
        """What an event was worth."""
        number = self.number(name)
        return None if number is None else _within(name, number)

    def switch(self, name: str) -> bool | None:
        """True or false."""
        value = self.value(name)
        return None if value is None else _as_switch(name, value)

    def required_switch(self, name: str) -> bool:
        """As ``switch``, but it must be there."""
        value = self.switch(name)
        if value is None:
            raise Invalid.field(name, "missing; it is required", code="required")
        return value

    def listed(self, name: str) -> list[Any]:
        """A list, or its JSON text; empty when missing."""
        value = self.value(name)
        if value is None:
            return []
        if isinstance(value, str):
            value = _parse_json(name, value)
        if not isinstance(value, list):
            raise Invalid.field(name, f"{value!r:.80} must be a JSON list")
        _check_values(name, value, 1)
        return value

    def nested(self, name: str) -> dict[str, Any]:
        """The object ``name``: its JSON column overlaid with the ``name.PART`` columns. Missing cells are left out."""
        columns = _parts_of(self._columns, name)
        if name not in self.row and not self._typed and len(columns) <= OBJECT_VALUES:
            row = self.row
            found = {part: value for column, part in columns if (value := _of_text(row[column])) is not None}
            if _ODD not in found.values():
                return found
        return self._nested_closely(name, columns)

    def _nested_closely(self, name: str, columns: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        """As ``nested``, for every kind of row, and with every bound checked."""
        whole = self.value(name)
        if isinstance(whole, str):
            whole = _parse_json(name, whole)
        if whole is not None and not isinstance(whole, Mapping):
            raise Invalid.field(name, f"{whole!r:.80} must be a JSON object")
        parts = dict(whole or {})
        for column, part in columns:
            parts[part] = self._guessed(column)
        parts = {part: value for part, value in parts.items() if value is not None}
        if len(parts) <= OBJECT_VALUES and all(map(_is_plain, parts, parts.values())):
            return parts
        told = {part: _as_json(f"{name}.{part}", value) for part, value in parts.items()}
        told = {part: value for part, value in told.items() if value == value}  # only NaN differs from itself
        if _check_values(name, told, 1) > OBJECT_VALUES:
            raise Invalid.field(name, f"must hold at most {OBJECT_VALUES} values")
        return told

    def switches(self, name: str) -> dict[str, bool]:
        """As ``nested``, of true or false only."""
        return {part: _as_switch(f"{name}.{part}", value) for part, value in self.nested(name).items()}

    def _guessed(self, column: str) -> Any:
        value = self.value(column)
        if self._typed or not isinstance(value, str):
            return _as_json(column, value)
        return value if _guess(value) is _ODD else _guess(value)


def refuse_unknown(columns: tuple[str, ...], names: frozenset[str], nested: frozenset[str], *, where: str = "") -> None:
    """Refuses columns that are neither in ``names`` nor ``nested`` nor ``nested.NAME``; ``where`` they are named is
    told before the column."""
    column = _unknown(columns, names, nested)
    if column is not None:
        allowed = [*sorted(names), *(f"{name}.NAME" for name in sorted(nested))]
        raise Invalid.field(where + column, f"unknown column; known: {', '.join(allowed)}", code="unknown_field")


@lru_cache(maxsize=256)
def _unknown(columns: tuple[str, ...], names: frozenset[str], nested: frozenset[str]) -> str | None:
    """The first column that is neither in ``names`` nor belongs to one of ``nested``. Files have few sets of columns,
    so it is looked for once."""
    for column in columns:
        if column not in names and column not in nested and column.partition(".")[0] not in nested:
            return column
    return None


@lru_cache(maxsize=256)
def _parts_of(columns: tuple[str, ...], name: str) -> tuple[tuple[str, str], ...]:
    """The columns ``name.PART``, each with its part.

    Raises:
        Invalid: a part is no name.
    """
    prefix = name + "."
    found = tuple((column, column.removeprefix(prefix)) for column in columns if column.startswith(prefix))
    for column, part in found:
        if not is_name(part):
            raise Invalid.field(column, f"the part {part!r:.80} must be {NAME_ALLOWED}")
    return found


def _of_text(cell: Any) -> Any:
    """As ``_guess``; a cell that a mapping made something else than text is looked at closely."""
    return _guess(cell) if type(cell) is str else _ODD


@lru_cache(maxsize=4096)
def _guess(text: str) -> Any:
    """What a cell that is only text means, by JSON's grammar; None = not there. ``_ODD``: it breaks a bound, or may."""
    if _NUMBER.fullmatch(text):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:  # beyond what a double holds
            return _ODD
    if len(text) > TEXT_BYTES // 4 or "\0" in text:
        return _ODD
    return {"true": True, "false": False, "": None}.get(text.lower(), text)


def plain_value(cell: Any, *, typed: bool) -> Any:
    """What a cell of ``nested`` means, as long as that takes no close look: text, a number, true, false, or None = not
    there. ``LookClosely`` otherwise."""
    kind = type(cell)
    if kind is str and not typed:
        found = _guess(cell)
        return LookClosely if found is _ODD else found
    if kind is str:
        good = len(cell) <= TEXT_BYTES // 4 and "\0" not in cell
        return (cell or None) if good else LookClosely
    return cell if kind is int or kind is bool or cell is None else LookClosely


def _is_plain(name: str, value: Any) -> bool:
    """Whether a name and its value are within every bound at first glance; what isn't is looked at closely."""
    kind = type(value)
    if kind is str:
        good = len(value) <= TEXT_BYTES // 4 and "\0" not in value
    elif kind is float:
        good = math.isfinite(value)
    else:
        good = kind is int or kind is bool
    return good and 0 < len(name) <= ID_LENGTH and name.isascii() and name.isprintable()


def instant(name: str, value: Any) -> datetime:
    """A time as UTC; ``Invalid`` when it is none or says no offset."""
    try:
        return moments.within(value)
    except ValueError:
        raise Invalid.field(name, f"{str(value)!r:.80} must be {_TIME_ALLOWED}") from None


def outcome(name: str, value: Any) -> tuple[float | None, datetime | None] | None:
    """What an ``outcome.NAME`` cell says: (its value, when), either None where it doesn't say; None = didn't happen.

    Empty, 0 and false mean that it didn't happen; a number is its value; a time is when it happened.
    """
    if value is None or value is False:
        return None
    if value is True:
        return None, None
    number = _as_number(value)
    if number is not None:
        return (_within(name, number), None) if number != 0 else None
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return (None, None) if value.lower() == "true" else None
    try:
        return None, instant(name, value)
    except Invalid:
        raise Invalid.field(
            name, f"{str(value)!r:.80} must be empty, a number, true or false, or {_TIME_ALLOWED}"
        ) from None


def _within(name: str, number: float) -> float:
    if abs(number) > LARGEST_VALUE:
        raise Invalid.field(name, f"{number:g} must be from {-LARGEST_VALUE:.0f} to {LARGEST_VALUE:.0f}")
    return number


def is_name(value: Any) -> bool:
    """Whether a value is a text that may be an id or a name."""
    return isinstance(value, str) and len(value) <= ID_LENGTH and _ID.fullmatch(value) is not None


def values_in(value: Any) -> int:
    """How many values that is, those in lists and objects counted."""
    if isinstance(value, dict):
        return 1 + sum(map(values_in, value.values()))
    return 1 + sum(map(values_in, value)) if isinstance(value, list) else 1


def _check_values(name: str, value: Any, depth: int) -> int:
    """How many values lie in and below ``value``; ``Invalid`` where one breaks a bound."""
    if isinstance(value, str) and (len(value.encode("utf-8", "replace")) > TEXT_BYTES or "\0" in value):
        raise Invalid.field(name, f"a string may have at most {TEXT_BYTES} bytes and no NUL")
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid.field(name, f"{value} must be finite")
    if not isinstance(value, Mapping | list):
        return 1
    if depth > OBJECT_DEPTH:
        raise Invalid.field(name, f"may be nested at most {OBJECT_DEPTH} levels deep")
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    count = 0
    for key, below in pairs:
        if isinstance(value, Mapping) and not is_name(key):
            raise Invalid.field(name, f"name {key!r:.80} must be {NAME_ALLOWED}")
        count += _check_values(f"{name}.{key}", below, depth + 1)
    return count


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _as_switch(name: str, value: Any) -> bool:
    known = _SWITCHES.get(str(value).lower())
    if known is None:
        raise Invalid.field(name, f"{value!r:.80} must be true or false")
    return known


def _as_json(name: str, value: Any, depth: int = 1) -> Any:
    """A typed cell as JSON has it, and what lies in it: times of Parquet become RFC 3339 text, decimals numbers. What
    lies deeper than anything may is left to ``_check_values``."""
    if isinstance(value, Mapping) and depth <= OBJECT_DEPTH:
        return {key: _as_json(f"{name}.{key}", below, depth + 1) for key, below in value.items()}
    if isinstance(value, list) and depth <= OBJECT_DEPTH:
        return [_as_json(f"{name}.{place}", below, depth + 1) for place, below in enumerate(value)]
    if isinstance(value, datetime):
        return instant(name, value).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        raise Invalid.field(name, "bytes are not a value; use text")
    return value


def _parse_json(name: str, text: str) -> Any:
    try:
        return parsed(text)
    except ValueError as fault:
        raise Invalid.field(name, f"not JSON: {fault}") from None
