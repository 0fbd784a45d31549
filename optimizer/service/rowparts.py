"""The formats of row files, read in parts: as columns where every row has the same ones, else row by row."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import IO, Any, Final

from optimizer.errors import Invalid
from optimizer.service.jsontext import parsed

#: One row: its line (from 1; a CSV's header counts), and its cells or what is wrong with it.
NumberedRow = tuple[int, "Mapping[str, Any] | Invalid"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: A quote begins a cell that may go on in the next line; what else ends a line for ``str.splitlines`` is no end here.
_NOT_PLAIN = tuple(bytes((code,)) for code in b'"\x00\x0b\x0c\x1c\x1d\x1e')


@dataclass(frozen=True)
class Table:
    """Rows that have the same columns: their lines, and the cells by column."""

    lines: Sequence[int]
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(self.lines)

    def dicts(self) -> list[dict[str, Any]]:
        """The rows' cells by column, row by row."""
        names = tuple(self.columns)
        return [dict(zip(names, cells)) for cells in zip(*self.columns.values(), strict=True)]  # noqa: B905  as long

    def rows(self) -> list[NumberedRow]:
        """The rows one by one."""
        return list(zip(self.lines, self.dicts(), strict=True))

    def behind(self, skipped: int) -> Table:
        """Without the first rows."""
        return Table(self.lines[skipped:], {name: cells[skipped:] for name, cells in self.columns.items()})

    def table(self) -> Table | None:
        """Itself."""
        return self


@dataclass(frozen=True)
class Rows:
    """Rows as they come."""

    numbered: Sequence[NumberedRow]

    def __len__(self) -> int:
        return len(self.numbered)

    def rows(self) -> list[NumberedRow]:
        """The rows one by one."""
        return list(self.numbered)

    def behind(self, skipped: int) -> Rows:
        """Without the first rows."""
        return Rows(self.numbered[skipped:])

    def table(self) -> Table | None:
        """The rows as columns; None = they have different ones, or one can't be read."""
        found = [row for _, row in self.numbered if not isinstance(row, Invalid)]
        names = tuple(found[0]) if found else ()
        if len(found) < len(self.numbered) or not names or any(tuple(row) != names for row in found):
            return None
        columns = zip(*[row.values() for row in found], strict=True)
        return Table([line for line, _ in self.numbered], dict(zip(names, columns, strict=True)))


Part = Table | Rows


def open_parquet(raw: IO[bytes], path: Path) -> Any:
    """A Parquet file, its footer read.

    Raises:
        Invalid: it is none.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(raw)
    except pyarrow.ArrowException as fault:
        raise Invalid.field(
            "file", f"{path.name} is no readable Parquet file: {fault}", code="unreadable_file"
        ) from None


def parquet_columns(batch: Any) -> dict[str, Sequence[Any]]:
    """The cells of a record batch by column.

    A time is one object wherever it occurs in a column: making one takes longer than all else that is done to a cell.
    """
    import pyarrow

    return {
        name: _times(column) if pyarrow.types.is_timestamp(column.type) else column.to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def _times(column: Any) -> list[datetime | None]:
    encoded = column.dictionary_encode()
    found = [*_different_times(encoded.dictionary), None]
    return list(map(found.__getitem__, encoded.indices.fill_null(len(found) - 1).to_pylist()))


def _different_times(column: Any) -> list[Any]:
    if column.type.tz != "UTC" or column.type.unit == "ns":
        return list(column.to_pylist())
    return [_EPOCH + timedelta(microseconds=one) for one in column.cast(_micros()).cast("int64").to_pylist()]


@cache
def _micros() -> Any:
    import pyarrow

    return pyarrow.timestamp("us", tz="UTC")


def csv_header(raw: IO[bytes]) -> tuple[str, ...]:
    """The columns of a CSV.

    Raises:
        Invalid: its first line doesn't name every column once.
    """
    return tuple(_header(csv.reader(_Lines(raw), strict=True)))


def _header(reader: Any) -> list[str]:
    try:
        header: list[str] | None = next(reader, None)
    except csv.Error as fault:
        raise Invalid.field("file", f"line 1: {fault}", code="unreadable_file") from None
    if header is None:
        raise Invalid.field("file", "is empty; line 1 must name every column once", code="unreadable_file")
    if not header or len(set(header)) != len(header):
        raise Invalid.field("file", "line 1 must name every column once", code="unreadable_file")
    return header


def csv_parts(raw: IO[bytes], size: int) -> Iterator[Part]:
    """Rows of a CSV with a header; a row's line is that of its end, which matters only for quoted line breaks."""
    lines = _Lines(raw)
    reader = csv.reader(lines, strict=True)
    header = _header(reader)
    lines.broken = False
    while True:
        for first, block in lines.plain_blocks(size):
            yield _plain_part(first, block, header)
        rows = list(itertools.islice(_careful_rows(reader, lines, header), size))
        if not rows:
            return
        yield Rows(rows)


def _careful_rows(reader: Any, lines: _Lines, header: list[str]) -> Iterator[NumberedRow]:
    """Rows one by one, up to the end of the lines that were looked at together."""
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as fault:
            lines.broken = False
            yield lines.number, Invalid(f"not CSV: {fault}", code="unreadable")
            continue
        if cells is None:
            return
        if lines.broken and cells:
            lines.broken = False
            yield lines.number, Invalid("not UTF-8", code="unreadable")
        elif cells:
            yield lines.number, _row(cells, header)
        if lines.none_ahead:
            return


def _plain_part(first: int, block: list[str], header: list[str]) -> Part:
    """Rows of lines without a quote, each of which is a row."""
    width = len(header)
    even = set(map(str.count, block, itertools.repeat(","))) == {width - 1} and all(block)
    if even and max(map(len, block)) <= csv.field_size_limit():
        cells = ",".join(block).split(",")
        columns = {name: cells[place::width] for place, name in enumerate(header)}
        return Table(range(first, first + len(block)), columns)
    return Rows([(line, _plain_row(text, header)) for line, text in enumerate(block, start=first) if text])


def _plain_row(text: str, header: list[str]) -> Mapping[str, Any] | Invalid:
    try:
        return _row(next(csv.reader((text,), strict=True)), header)
    except csv.Error as fault:  # a cell over ``csv.field_size_limit``
        return Invalid(f"not CSV: {fault}", code="unreadable")


def _row(cells: list[str], header: list[str]) -> Mapping[str, Any] | Invalid:
    if len(cells) != len(header):
        return Invalid(f"{len(cells)} cells under {len(header)} columns", code="unreadable")
    return dict(zip(header, cells))  # noqa: B905  the lengths are compared above


class _Lines:
    """Lines as text, a byte order mark left out. Bytes that are no UTF-8 are replaced and noted in ``broken``, which
    the reader of rows takes back: a row is known to be whole only when it ends, maybe some lines later.

    Between two rows, ``plain_blocks`` gives many lines at once, in which there is nothing that a row could hang on over
    the end of its line. ``number`` is that of the last line that was given.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decode = _without_mark
        self._ahead: list[bytes] = []  # the next line is the last one
        self.broken = False
        self.number = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._ahead.pop() if self._ahead else next(self._raw)
        self.number += 1
        decode, self._decode = self._decode, _as_utf8
        try:
            return decode(line)
        except UnicodeDecodeError:
            self.broken = True
            return line.decode("utf-8", "replace")

    @property
    def none_ahead(self) -> bool:
        """Whether the next line has not been looked at."""
        return not self._ahead

    def plain_blocks(self, size: int) -> Iterator[tuple[int, list[str]]]:
        """Blocks of lines up to the first one that isn't plain, each with the number of its first line."""
        while not self._ahead:
            block = list(itertools.islice(self._raw, size))
            text = _plain_text(block)
            if not text:
                self._ahead = block[::-1]
                return
            first, self.number = self.number + 1, self.number + len(block)
            yield first, text.removesuffix("\n").split("\n")


def _plain_text(block: list[bytes]) -> str:
    """The text of lines that each are a row: whole UTF-8, no quote, no other end of a line in them. Else nothing.
    They end with ``\\n`` alone."""
    together = b"".join(block)
    if any(byte in together for byte in _NOT_PLAIN) or together.count(b"\r") != together.count(b"\r\n"):
        return ""
    try:
        return together.replace(b"\r\n", b"\n").decode()
    except UnicodeDecodeError:
        return ""


def _without_mark(line: bytes) -> str:
    return line.decode("utf-8-sig")


def _as_utf8(line: bytes) -> str:
    return line.decode()


def ndjson_parts(raw: IO[bytes], size: int) -> Iterator[Part]:
    """Rows of a JSON object a line; empty lines are none."""
    first = 1
    while block := list(itertools.islice(raw, size)):
        numbered = enumerate(block, start=first)
        part = _even_part(first, block) or Rows([(line, _of_json(text)) for line, text in numbered if text.strip()])
        if len(part):
            yield part
        first += len(block)


def _even_part(first: int, block: list[bytes]) -> Table | None:
    """Lines that all are objects with the same columns in the same order; None = they aren't."""
    try:
        rows = list(map(parsed, block))
    except ValueError:
        return None
    if set(map(type, rows)) != {dict} or len(names := set(map(tuple, rows))) != 1 or names == {()}:
        return None
    columns = zip(*map(dict.values, rows), strict=True)
    return Table(range(first, first + len(block)), dict(zip(names.pop(), columns, strict=True)))


def _of_json(text: bytes) -> Mapping[str, Any] | Invalid:
    try:
        row = parsed(text)
    except ValueError as fault:
        return Invalid(f"not JSON: {fault}", code="unreadable")
    return row if isinstance(row, dict) else Invalid("must be a JSON object", code="unreadable")
