"""Files of rows: CSV, NDJSON and Parquet, told apart by suffix, read and written one row at a time.

Reading gives every row with its place (line of a text file, number of a Parquet row), and an ``Invalid`` in the stead
of a row that can't be read: one bad line never ends the file. Writing goes to a file beside the target that takes its
name only once it is whole, so that a killed export leaves no half file behind.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, cast

import orjson

from optimizer.errors import Invalid

#: What a file may end with, to be read.
READABLE = (".csv", ".csv.gz", ".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", ".parquet")
#: What a file may end with, to be written.
WRITABLE = (".ndjson", ".jsonl", ".parquet")
_HEAD_BYTES = 1 << 20
_PARQUET_ROWS = 1000
#: One row: its line (from 1; a CSV's header counts), and its cells or what is wrong with it.
NumberedRow = tuple[int, "Mapping[str, Any] | Invalid"]


def suffix_of(path: Path, allowed: Sequence[str]) -> str:
    """The one of ``allowed`` that the file's name ends with.

    Raises:
        Invalid: none of them.
    """
    for suffix in sorted(allowed, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise Invalid.field("file", f"{path.name} must end with one of {', '.join(allowed)}", code="unknown_file_format")


def fingerprint(path: Path, *more: str) -> str:
    """A name for a file's content that a move doesn't change: hash of its first MiB, its size and ``more``."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
    for part in (str(path.stat().st_size), *more):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


class RowFile:
    """An open file of rows. ``total`` and ``done()`` count bytes (rows, for Parquet): good for a progress bar.

    ``typed`` is False where all cells are text (CSV).
    """

    def __init__(self, path: Path) -> None:
        """Opens the file and reads its columns.

        Raises:
            Invalid: the suffix is unknown or the file is empty or broken at its very start.
            OSError: it can't be opened.
        """
        self.path = path
        self._suffix = suffix_of(path, READABLE)
        self.typed = not self._suffix.startswith(".csv")
        self._raw: IO[bytes] = path.open("rb")
        self._rows_done = 0
        self._parquet: Any = None
        self.total = path.stat().st_size
        if self._suffix == ".parquet":
            try:
                self._parquet = _open_parquet(self._raw, path)
            except BaseException:
                self._raw.close()
                raise
            self.total = int(self._parquet.metadata.num_rows)

    def __enter__(self) -> RowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def done(self) -> int:
        """How much of ``total`` has been read."""
        if self._parquet is not None:
            return self._rows_done
        return self.total if self._raw.closed else self._raw.tell()

    def rows(self) -> Iterator[NumberedRow]:
        """Every row in order. For one pass only.

        Raises:
            Invalid: the file as a whole is broken from here on (not just a row): cut short, not what its suffix says.
        """
        try:
            yield from self._rows()
        except (EOFError, gzip.BadGzipFile, zlib.error, ValueError) as fault:  # pyarrow's ArrowInvalid is a ValueError
            raise Invalid.field("file", f"{self.path.name}: {fault}", code="unreadable_file") from None

    def _rows(self) -> Iterator[NumberedRow]:
        if self._parquet is not None:
            return self._parquet_rows()
        plain = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw)) if self._suffix.endswith(".gz") else self._raw
        return _csv_rows(plain) if self._suffix.startswith(".csv") else _ndjson_rows(plain)

    def _parquet_rows(self) -> Iterator[NumberedRow]:
        for batch in self._parquet.iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                self._rows_done += 1
                yield self._rows_done, row


def _open_parquet(raw: IO[bytes], path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(raw)
    except pyarrow.ArrowException as fault:
        raise Invalid.field(
            "file", f"{path.name} is no readable Parquet file: {fault}", code="unreadable_file"
        ) from None


def _csv_rows(raw: IO[bytes]) -> Iterator[NumberedRow]:
    """Rows of a CSV with a header; a row's line is that of its end, which matters only for quoted line breaks."""
    lines = _Lines(raw)
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as fault:
        raise Invalid.field("file", f"line 1: {fault}", code="unreadable_file") from None
    if not header or len(set(header)) != len(header):
        raise Invalid.field("file", "line 1 must name every column once", code="unreadable_file")
    lines.broken = False
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as fault:
            lines.broken = False
            yield reader.line_num, Invalid(f"not CSV: {fault}", code="unreadable")
            continue
        if cells is None:
            return
        if not cells:
            continue
        if lines.broken:
            lines.broken = False
            yield reader.line_num, Invalid("not UTF-8", code="unreadable")
        elif len(cells) != len(header):
            told = f"{len(cells)} cells under {len(header)} columns"
            yield reader.line_num, Invalid(told, code="unreadable")
        else:
            yield reader.line_num, dict(zip(header, cells))  # noqa: B905  the lengths are compared above


class _Lines:
    """Lines as text, a byte order mark left out. Bytes that are no UTF-8 are replaced and noted in ``broken``, which
    the reader of rows takes back: a row is known to be whole only when it ends, maybe some lines later."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decode = _without_mark
        self.broken = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._raw)
        decode, self._decode = self._decode, _as_utf8
        try:
            return decode(line)
        except UnicodeDecodeError:
            self.broken = True
            return line.decode("utf-8", "replace")


def _without_mark(line: bytes) -> str:
    return line.decode("utf-8-sig")


def _as_utf8(line: bytes) -> str:
    return line.decode()


def _ndjson_rows(raw: IO[bytes]) -> Iterator[NumberedRow]:
    for line, text in enumerate(raw, start=1):
        if not text.strip():
            continue
        try:
            row = orjson.loads(text)
        except orjson.JSONDecodeError as fault:
            yield line, Invalid(f"not JSON: {fault}", code="unreadable")
            continue
        yield line, row if isinstance(row, dict) else Invalid("must be a JSON object", code="unreadable")


class RowWriter(Protocol):
    """Takes rows; the file appears under its name when the ``with`` block ends without an error."""

    def __enter__(self) -> RowWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row. Cells must be JSON values or aware datetimes."""


class _Draft:
    """The file beside the target, and its fate."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        self.file: IO[bytes] = self._draft.open("wb")

    def settle(self, *, keep: bool) -> None:
        """Closes the draft and gives it the target's name, or removes it."""
        if keep:
            self.file.flush()
            os.fsync(self.file.fileno())
        self.file.close()
        if keep:
            self._draft.replace(self._path)
        else:
            self._draft.unlink(missing_ok=True)


class NdjsonWriter:
    """One JSON object a line; times in RFC 3339."""

    def __init__(self, path: Path) -> None:
        self._draft = _Draft(path)

    def __enter__(self) -> NdjsonWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draft.settle(keep=kind is None)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row."""
        self._draft.file.write(orjson.dumps(dict(row), option=orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY) + b"\n")


class ParquetWriter:
    """Typed columns; an object or a list in a column of strings is stored as its JSON text."""

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        """``columns`` gives each column's type in order: string, double, bigint, bool, time, doubles, bigints."""
        import pyarrow
        from pyarrow import parquet

        self._columns = dict(columns)
        self._draft = _Draft(path)
        self._rows: list[Mapping[str, Any]] = []
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(self._draft.file, self._schema, compression="zstd")

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
        finally:
            self._draft.settle(keep=kind is None)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row; a cell left out is null."""
        self._rows.append({name: _cell(row.get(name), kind) for name, kind in self._columns.items()})
        if len(self._rows) >= _PARQUET_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _cell(value: Any, kind: str) -> Any:
    if kind == "string" and value is not None and not isinstance(value, str):
        return orjson.dumps(value, option=orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY).decode()
    return value


def _arrow_type(kind: str) -> Any:
    import pyarrow

    return {
        "string": pyarrow.string(),
        "double": pyarrow.float64(),
        "bigint": pyarrow.int64(),
        "bool": pyarrow.bool_(),
        "time": pyarrow.timestamp("us", tz="UTC"),
        "doubles": pyarrow.list_(pyarrow.float64()),
        "bigints": pyarrow.list_(pyarrow.int64()),
    }[kind]


def open_writer(path: Path, columns: Mapping[str, str]) -> RowWriter:
    """A writer for the file's suffix.

    Raises:
        Invalid: the suffix is none of ``WRITABLE``.
        OSError: the folder can't be written to.
    """
    if suffix_of(path, WRITABLE) == ".parquet":
        return ParquetWriter(path, columns)
    return NdjsonWriter(path)
