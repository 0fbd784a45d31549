"""A whole installation from one database to another, and proof that all of it arrived.

Rows go by the table, in the order of the source's key, in transactions that also note how far the copy is: so one that
was interrupted goes on where it was. At the end both sides are read again and compared, each table by the number of its
rows and a sum of their hashes, which no order can hide anything from. The source must not be written meanwhile: what
changes behind the copy is not copied, and the comparison says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Final

import msgspec

from storage.errors import StoreError
from storage.port import Reader
from storage.sql.rows import ARCHIVE_OWNER, COPYING, TABLES, RowReader, RowStore, is_own
from storage.sql.tables import Row

#: A transaction carries at most so many rows, and about so many bytes.
_ROWS: Final = 1_000
_BYTES: Final = 4_000_000
_SALT: Final = "salt"

#: What is told to whoever opens a database into which a copy has not come to its end.
UNFINISHED: Final = "database: a copy into it is unfinished; run it again to its end"

#: Told as a copy goes on: the table, and how many of its rows have been handled in this run.
Note = Callable[[str, int], None]


def unfinished(reader: Reader) -> bool:
    """Whether a copy into this database has not come to its end."""
    return reader.meta(COPYING) is not None


class CopyRefused(StoreError):
    """The target holds something else, or the copy is not what the source is."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A table that is the same on both sides: its rows, and the sum of their hashes (64 bits, hexadecimal)."""

    table: str
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class _Place:
    """How far a copy is: of which installation, in which table, behind which key (None = before its first row)."""

    source: str
    table: str
    after: tuple[Any, ...] | None = None


def transfer(source: RowStore, target: RowStore, note: Note = lambda *_: None) -> tuple[Compared, ...]:
    """Copies everything, or the rest of it, and compares.

    Args:
        source: read on one snapshot.
        target: empty, or one that an interrupted copy of the same installation left.
        note: is told how it goes.

    Raises:
        CopyRefused: the target is not such a one, or what arrived is not what the source holds.
        StoreUnavailable: one of the two failed; run it again to go on.
    """
    with source.reading() as reader:
        start = _begin(reader, target)
        for table in TABLES[TABLES.index(start.table) :]:
            _copy(reader, target, start if table == start.table else _Place(start.source, table), note)
        with target.reading() as copied:
            compared = tuple(_compared(reader, copied, table, note) for table in TABLES)
    with target.writing() as writer:
        writer.settle()
        writer.put_fact(ARCHIVE_OWNER, new_owner())
        writer.put_fact(COPYING, None)
    return compared


def new_owner() -> str:
    """A name for a copy, by which the archive's folder tells it from what it was copied from: see ``ARCHIVE_OWNER``."""
    return token_hex(16)


def _begin(reader: RowReader, target: RowStore) -> _Place:
    """Where to go on."""
    salt = _fact(reader, _SALT)
    if salt is None:
        raise CopyRefused("copy: the source holds no installation")
    if _fact(reader, COPYING) is not None:
        raise CopyRefused("copy: a copy into the source is unfinished; run that one again to its end first")
    source = blake2b(salt.encode(), digest_size=8).hexdigest()
    with target.writing() as writer:
        noted = writer.fact(COPYING)
        if noted is not None:
            place = msgspec.json.decode(noted, type=_Place)
            if place.source != source:
                raise CopyRefused("copy: the target holds the beginning of another installation's copy")
            return place
        if not writer.empty():
            held = ": it is the source itself, or a copy of it" if writer.fact(_SALT) == salt else ""
            raise CopyRefused(f"copy: the target is not empty{held}; name a new database")
        place = _Place(source, TABLES[0])
        writer.put_fact(COPYING, _encoded(place))
    return place


def _fact(reader: RowReader, name: str) -> str | None:
    return next((str(row[1]) for row in reader.rows("meta", ("name", "value")) if row[0] == name), None)


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(asdict(place)).decode()


def _copy(reader: RowReader, target: RowStore, start: _Place, note: Note) -> None:
    table = start.table
    columns = reader.columns(table)
    places = [columns.index(name) for name in reader.key(table)]
    done = 0
    for rows in _chunks(reader.rows(table, columns, start.after)):
        last = _Place(start.source, table, tuple(rows[-1][place] for place in places))
        with target.writing() as writer:
            writer.put(table, columns, [row for row in rows if not is_own(table, columns, row)])
            writer.put_fact(COPYING, _encoded(last))
        done += len(rows)
        note(table, done)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(chunk) >= _ROWS or size >= _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _compared(source: RowReader, target: RowReader, table: str, note: Note) -> Compared:
    columns = source.columns(table)
    ours, theirs = (_summed(side, table, columns) for side in (source, target))
    if ours != theirs:
        raise CopyRefused(
            f"copy: table {table} has {ours[0]} rows in the source and {theirs[0]} in the target, with checksums "
            f"{ours[1]} and {theirs[1]}; if the source was written meanwhile, stop it and copy into a new database"
        )
    note(f"{table}: compared", ours[0])
    return Compared(table, *ours)


def _summed(side: RowReader, table: str, columns: Sequence[str]) -> tuple[int, str]:
    encode = msgspec.msgpack.encode
    count = total = 0
    for row in side.rows(table, columns):
        if not is_own(table, columns, row):
            total += int.from_bytes(blake2b(encode(row), digest_size=8).digest(), "big")
            count += 1
    return count, f"{total % 2**64:016x}"
