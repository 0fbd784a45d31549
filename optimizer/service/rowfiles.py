"""Files of rows: CSV, NDJSON and Parquet, told apart by suffix, read and written one row at a time.

Reading (``rowparts``) gives every row with its place (line of a text file, number of a Parquet row), and an ``Invalid``
in the stead of a row that can't be read: one bad line never ends the file. Writing goes to a file beside the target
that takes its name only once it is whole, so that a killed export leaves no half file behind.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, cast

import orjson

from optimizer.errors import Invalid
from optimizer.service.rowparts import (
    NumberedRow,
    Part,
    Table,
    csv_header,
    csv_parts,
    ndjson_parts,
    open_parquet,
    parquet_columns,
)

#: What a file may end with, to be read.
READABLE = (".csv", ".csv.gz", ".ndjson", ".ndjson.gz", ".jsonl", ".jsonl.gz", ".parquet")
#: What a file may end with, to be written.
WRITABLE = (".ndjson", ".jsonl", ".parquet")
#: pyarrow's ArrowInvalid is a ValueError; times beyond the year 9999 overflow.
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, ValueError, OverflowError)
#: Rows that are made columns of together, and rows of a row group of a Parquet file that is written.
_ROWS, _GROUP = 1_000, 50_000


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
    """A name for a file's content that a move doesn't change: hash of all of it, its size and ``more``.

    All of it, since a file that was corrected near its end is another one. That reads about 0.8 GB a second, which is
    little beside storing its rows.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16))
        size = file.tell()
    for part in (str(size), *more):
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
                self._parquet = open_parquet(self._raw, path)
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

    def header(self) -> tuple[str, ...] | None:
        """The columns of all rows; None where each row names its own (NDJSON).

        Raises:
            Invalid: the file has none, or is not what its suffix says.
        """
        if self._parquet is not None:
            return tuple(self._parquet.schema_arrow.names)
        if self.typed:
            return None
        try:
            with self.path.open("rb") as raw:
                return csv_header(self._plain(raw))
        except _BROKEN as fault:
            raise Invalid.field("file", f"{self.path.name}: {fault}", code="unreadable_file") from None

    def rows(self) -> Iterator[NumberedRow]:
        """Every row in order; otherwise as ``parts``."""
        for part in self.parts(_ROWS):
            yield from part.rows()

    def parts(self, size: int) -> Iterator[Part]:
        """All rows in order, in parts of at most ``size``. For one pass only.

        Raises:
            Invalid: the file as a whole is broken from here on (not just a row): cut short, not what its suffix says.
        """
        try:
            yield from self._parts(size)
        except _BROKEN as fault:
            raise Invalid.field("file", f"{self.path.name}: {fault}", code="unreadable_file") from None

    def _parts(self, size: int) -> Iterator[Part]:
        if self._parquet is not None:
            return self._parquet_parts(size)
        plain = self._plain(self._raw)
        return csv_parts(plain, size) if self._suffix.startswith(".csv") else ndjson_parts(plain, size)

    def _plain(self, raw: IO[bytes]) -> IO[bytes]:
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self._suffix.endswith(".gz") else raw

    def _parquet_parts(self, size: int) -> Iterator[Part]:
        for batch in self._parquet.iter_batches(batch_size=size):
            first = self._rows_done + 1
            self._rows_done += batch.num_rows
            yield Table(range(first, self._rows_done + 1), parquet_columns(batch))


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
        try:
            self.file: IO[bytes] = self._draft.open("wb")
        except OSError as error:
            error.filename = str(path)  # what was asked for: nobody knows the draft
            raise

    def settle(self, *, keep: bool) -> None:
        """Closes the draft and gives it the target's name; removes it where it isn't kept, or can't be."""
        try:
            if keep:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                self._draft.replace(self._path)
        finally:
            # What can't be written any more, to a full disk for instance, is not wanted any more.
            with suppress(OSError):
                self.file.close()
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
        self._tables: list[Any] = []
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(self._draft.file, self._schema, compression="zstd")

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = False
        try:
            if kind is None:
                self._gather()
                self._flush()
            self._writer.close()
            whole = kind is None
        finally:
            self._writer.is_open = False  # else, when it is collected, it would end the draft that is closed by then
            self._draft.settle(keep=whole)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row; a cell left out is null."""
        self._rows.append({name: _cell(row.get(name), kind) for name, kind in self._columns.items()})
        if len(self._rows) >= _ROWS:
            self._gather()
        if len(self._tables) * _ROWS >= _GROUP:
            self._flush()

    def _gather(self) -> None:
        """Makes columns of the rows, which take a twentieth of the room."""
        if self._rows:
            self._tables.append(self._pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def _flush(self) -> None:
        """Writes what is gathered as one row group: what is known of each is held until the file ends."""
        if self._tables:
            self._writer.write_table(self._pyarrow.concat_tables(self._tables))
            self._tables = []


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
