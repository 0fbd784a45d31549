"""Files with other columns than ours: what ``sendtide import --mapping FILE`` says of them, in JSON or TOML.

``columns``: our column = theirs (a path with dots reaches into the objects of NDJSON); columns that aren't named keep
their names. ``constants``: our column = its value in every row. ``formats``: our column = how theirs is written: a time
(``"unix"``, ``"unix_ms"`` or a pattern of ``strptime``, with the ``timezone`` of times that say no offset), a number
with its ``decimal`` mark (unless told a point, or a comma where points part thousands) and ``thousands`` mark, or
``values``, theirs = ours. ``ignore``: their columns to leave out, or true: all that ``columns`` doesn't name.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from optimizer.bandit.localtime import zone
from optimizer.errors import Invalid
from optimizer.service import moments
from optimizer.service.rowparts import NumberedRow

_Format = Callable[[Any], Any]
_PARTS = frozenset({"columns", "constants", "formats", "ignore"})
_FORMAT_PARTS = frozenset({"time", "timezone", "decimal", "thousands", "values"})
#: Epochs by name, in units a second.
_EPOCHS = {"unix": 1, "unix_ms": 1000}


@dataclass(frozen=True)
class ColumnMapping:
    """How a file's columns become ours. ``digest`` names its content: another mapping is another import. ``taken`` are
    their columns that don't keep their names; with ``only_named`` none does."""

    digest: str
    columns: Mapping[str, str]
    constants: Mapping[str, Any]
    formats: Mapping[str, _Format]
    taken: frozenset[str]
    only_named: bool

    def rows(self, rows: Iterator[NumberedRow]) -> Iterator[NumberedRow]:
        """The rows under our columns; one that can't be is an ``Invalid`` in its place."""
        for line, row in rows:
            if isinstance(row, Invalid):
                yield line, row
                continue
            try:
                yield line, self._mapped(row)
            except Invalid as error:
                yield line, error

    def _mapped(self, row: Mapping[str, Any]) -> dict[str, Any]:
        mapped = {} if self.only_named else {name: value for name, value in row.items() if name not in self.taken}
        for name, source in self.columns.items():
            mapped[name] = _at(row, source)
        mapped.update(self.constants)
        for name, read in self.formats.items():
            value = mapped.get(name)
            if value is None or value == "":
                continue
            try:
                mapped[name] = read(value)
            except (TypeError, ValueError, OverflowError, OSError) as fault:
                raise Invalid.field(name, f"{value!r:.80} is not as the mapping says: {fault}") from None
        return mapped


def read_mapping(path: Path) -> ColumnMapping:
    """The mapping in a file, JSON (``.json``) or TOML.

    Raises:
        Invalid: it can't be read, or says something that is unknown; names where.
        OSError: the file can't be opened.
    """
    raw = path.read_bytes()
    try:
        told = orjson.loads(raw) if path.suffix.lower() == ".json" else tomllib.loads(raw.decode())
    except ValueError as fault:  # what both parsers, and UTF-8, raise
        raise Invalid.field("mapping", f"{path.name}: {fault}", code="unreadable_file") from None
    _refuse_unknown("mapping", told, _PARTS)
    _refuse_wide("mapping", told)
    columns, constants = _table(told, "columns"), _table(told, "constants")
    for name, source in columns.items():
        if not isinstance(source, str) or not source:
            raise Invalid.field(f"mapping.columns.{name}", f"is {source!r:.80}; allowed: the name of their column")
    formats = {name: _format(f"mapping.formats.{name}", how) for name, how in _table(told, "formats").items()}
    ignore = told.get("ignore", [])
    if ignore is not True and not (isinstance(ignore, list) and all(isinstance(one, str) for one in ignore)):
        raise Invalid.field("mapping.ignore", f"is {ignore!r:.80}; allowed: true or a list of columns")
    for name in constants.keys() & columns.keys():
        raise Invalid.field(f"mapping.constants.{name}", "is under columns, too; allowed: one of them")
    sources = {part for source in columns.values() for part in (source, source.partition(".")[0])}
    taken = frozenset(sources if ignore is True else sources.union(ignore))
    digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
    return ColumnMapping(digest, columns, constants, formats, taken, only_named=ignore is True)


def _table(told: Mapping[str, Any], part: str) -> dict[str, Any]:
    table = told.get(part, {})
    if not isinstance(table, dict):
        raise Invalid.field(f"mapping.{part}", f"is {table!r:.80}; allowed: a table")
    return table


def _refuse_unknown(where: str, told: Any, allowed: frozenset[str]) -> None:
    if not isinstance(told, dict):
        raise Invalid.field(where, f"is {told!r:.80}; allowed: a table of {', '.join(sorted(allowed))}")
    for name in told:
        if name not in allowed:
            raise Invalid.field(f"{where}.{name}", f"unknown; known: {', '.join(sorted(allowed))}")


def _refuse_wide(where: str, told: Any) -> None:
    """TOML knows whole numbers of any length, JSON as we write it those of 64 bits."""
    pairs = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for name, value in pairs:
        _refuse_wide(f"{where}.{name}", value)
    if isinstance(told, int) and not -(2**63) <= told < 2**64:
        raise Invalid.field(where, "is a whole number of more than 64 bits; allowed: up to 64 bits")


def _at(row: Mapping[str, Any], path: str) -> Any:
    """The cell under a name, else the value at a path with dots; None = there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _format(where: str, how: Any) -> _Format:
    if isinstance(how, str):
        how = {"time": how}
    _refuse_unknown(where, how, _FORMAT_PARTS)
    if "values" in how:
        return partial(_translated, _table_of(f"{where}.values", how["values"]))
    if "decimal" in how or "thousands" in how:
        thousands = str(how.get("thousands", ""))
        return _number_format(where, str(how.get("decimal", "," if thousands == "." else ".")), thousands)
    if not isinstance(how.get("time"), str) and "timezone" not in how:
        raise Invalid.field(where, "must say time, decimal, thousands or values")
    return partial(_time, str(how.get("time", "")), _zone(f"{where}.timezone", how.get("timezone")))


def _table_of(where: str, told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise Invalid.field(where, f"is {told!r:.80}; allowed: a table, theirs = ours")
    return told


def _zone(where: str, name: Any) -> tzinfo | None:
    if name is None:
        return None
    try:
        zone(str(name))
    except ValueError as fault:
        raise Invalid.field(where, str(fault), code="unknown_zone") from None
    return ZoneInfo(str(name))


def _translated(values: Mapping[str, Any], value: Any) -> Any:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text not in values:
        raise ValueError(f"allowed: {', '.join(values)}")
    return values[text]


def _number_format(where: str, decimal: str, thousands: str) -> _Format:
    if not decimal or decimal == thousands:
        raise Invalid.field(
            where, f"decimal {decimal!r:.80}, thousands {thousands!r:.80}; allowed: two marks that differ"
        )
    point, mark = re.escape(decimal), re.escape(thousands)
    # Groups of three, or, as in India, of two before the last: 1,234,567 or 12,34,567.
    grouped = (
        f"[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+|[0-9]{{1,2}}(?:{mark}[0-9]{{2}})+{mark}[0-9]{{3}}|" if thousands else ""
    )
    digits = f"(?:{grouped}[0-9]+)(?:{point}[0-9]*)?|{point}[0-9]+"
    return partial(_number, re.compile(f"[+-]?(?:{digits})(?:[eE][+-]?[0-9]+)?"), decimal, thousands)


def _number(form: re.Pattern[str], decimal: str, thousands: str, value: Any) -> float:
    """A number in the notation told. One in another would be wrong by powers of ten, so it is none."""
    if not isinstance(value, str):
        return float(value)
    told = value.strip()
    if form.fullmatch(told) is None:
        grouped = f", in groups of three with {thousands!r} between them or in none" if thousands else ""
        raise ValueError(f"allowed: digits{grouped}, then {decimal!r} and decimals, if any, and an exponent as e-05")
    return float(told.replace(thousands, "").replace(decimal, "."))


def _time(pattern: str, where: tzinfo | None, value: Any) -> datetime:
    """A time as UTC. Of a local time that occurs twice the first is meant; one that is skipped moves forward."""
    if pattern in _EPOCHS:
        return datetime.fromtimestamp(float(value) / _EPOCHS[pattern], UTC)
    told = value if isinstance(value, datetime) or not pattern else datetime.strptime(value, pattern)  # noqa: DTZ007  below
    return moments.as_utc(told, where)
