"""The format of archive files: Parquet, one row a decision with its events nested, compressed by zstd.

Columns have the names of the tables' columns; times are timestamps in UTC, what was decided by is the JSON of
``detail``. An empty row (no decision id) is one that was taken out. Files are written beside their name, flushed to
disk and renamed; they are never changed. pyarrow is imported by whoever has an archive.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any, Final

from storage.archive import Archived, Contents, Group, Row
from storage.blocks import BLOCK
from storage.errors import ArchiveUnreadable, StoreUnavailable
from storage.sql.decision_rows import SEQ, STORED_COLUMNS
from storage.sql.event_tables import EVENT_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of a row group: what is read for one decision, in 9 ms. With 4,096 it takes 34 ms, and a row 182 bytes, not 188.
GROUP: Final = 1_024
#: Row groups that are kept in memory: a report reads the blocks of a log one after the other.
_KEPT: Final = 16
_PART: Final = ".part"


def _names(columns: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in columns.split(","))


#: The values of ``Archived.decision`` and of each of ``Archived.events``.
DECISION: Final = (*_names(STORED_COLUMNS), "shadow_policy_id", "message_at")
EVENT: Final = (*_names(EVENT_COLUMNS), "words", "seq")
RECIPIENT, MESSAGE, CAMPAIGN, DECIDED, IMPORTED = (
    DECISION.index(name) for name in ("recipient_id", "message_id", "campaign_id", "decided_at", "imported")
)
PROVIDER, STATUS = DECISION.index("provider"), DECISION.index("status")
EVENT_SEQ: Final = EVENT.index("seq")
#: Columns that files of earlier versions lack.
_ADDED: Final = frozenset({"counted_at", "joined_at", "joined_after"})
_BYTES: Final = frozenset({"request_hash", "eligible", "detail", "properties", "words", "flips"})
_REALS: Final = frozenset({"propensity", "value", "confidence"})
_WHOLE: Final = frozenset(
    {
        *("campaign_version", "status", "control_group", "mode", "action", "actions", "eligible_actions", "imported"),
        *("seq", "sent_after", "closed_after", "joined_after", "matched", "automated", "known_after"),
    }
)


def _type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name.endswith("_at"):
        return pa.timestamp("us", tz="UTC")
    if name in _WHOLE:
        return pa.int64()
    if name in _REALS:
        return pa.float64()
    return pa.binary() if name in _BYTES else pa.string()


def _columns(names: Sequence[str], rows: Sequence[Row | None]) -> list[pa.Array]:
    import pyarrow as pa

    empty = (None,) * len(names)
    values = zip(*(empty if row is None else row for row in rows), strict=True) if rows else ((),) * len(names)
    return [pa.array(column, _type(name)) for name, column in zip(names, values, strict=True)]


def _table(rows: Sequence[Archived | None]) -> pa.Table:
    import pyarrow as pa

    events = [event for row in rows if row is not None for event in row.events]
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + (0 if row is None else len(row.events)))
    nested = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(_columns(EVENT, events), names=list(EVENT))
    )
    decisions = _columns(DECISION, [None if row is None else row.decision for row in rows])
    return pa.table([*decisions, nested], names=[*DECISION, "events"])


def write(path: Path, groups: Iterable[Sequence[Archived | None]]) -> bytes:
    """Writes a file, durably; returns its SHA-256.

    Args:
        path: its name, which no file has had (``named``, ``next_path``).
        groups: rows by row group, each of ``GROUP`` rows but the last.

    Raises:
        StoreUnavailable: it can't be written.
    """
    import pyarrow.parquet as pq

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        schema = _table(()).schema
        with _beside(path) as part:
            with (
                part.open("wb") as out,
                pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer,
            ):
                for rows in groups:
                    writer.write_table(_table(rows), row_group_size=GROUP)
            checksum = checksum_of(part)
            flush(part, os.O_RDONLY)
            part.replace(path)
            for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
                flush(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StoreUnavailable(f"archive {path}: {error.strerror}") from error
    return checksum


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty file beside another, of a name that nobody else writes to, for its owner alone; removed afterwards."""
    descriptor, name = mkstemp(_PART, f"{path.name}.", path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):  # a leftover goes with the next run
            Path(name).unlink(missing_ok=True)


def flush(path: Path, flags: int) -> None:
    """Makes a file, or the names in a folder, durable."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum_of(path: Path) -> bytes:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@lru_cache(maxsize=_KEPT)
def read_group(path: Path, group: int) -> tuple[Archived | None, ...]:
    """The rows of one row group; None where a row was taken out.

    A path whose file was replaced by a cleaner copy leads to that copy: a reader may have learned the path before.

    Raises:
        ArchiveUnreadable: the file is not there, or is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_newest(path), page_checksum_verification=True) as file:
            table = file.read_row_group(group)
    except (OSError, pa.ArrowException) as error:
        raise ArchiveUnreadable(
            f"archive {path}: {error}; SENDTIDE_ARCHIVE_FOLDER names the folder that all hosts share"
        ) from error
    nested = table.column("events").combine_chunks()
    offsets = nested.offsets.to_pylist()
    events = _rows([nested.values.field(name) for name in EVENT])
    decisions = _rows([_column(table, name) for name in DECISION])
    return tuple(
        None if row[0] is None else Archived(row, tuple(events[offsets[i] : offsets[i + 1]]))
        for i, row in enumerate(decisions)
    )


def _column(table: pa.Table, name: str) -> Any:
    import pyarrow as pa

    lacking = name in _ADDED and name not in table.column_names
    return pa.nulls(table.num_rows, _type(name)) if lacking else table.column(name)


def require_row(row: Archived | None, path: str) -> Archived:
    """A row that the tables name.

    Raises:
        ArchiveUnreadable: it was taken out of the file.
    """
    if row is None:
        raise ArchiveUnreadable(
            f"archive {path} was rewritten while it was read: ask again; if it stays so, this database is older than "
            f"the folder, and the file of this very name has to come back from an older copy of it"
        )
    return row


def _rows(columns: Sequence[Any]) -> list[Row]:
    import pyarrow as pa

    plain = [column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in columns]
    return list(zip(*(column.to_pylist() for column in plain), strict=True))


def read_groups(path: Path, rows: int) -> Iterator[tuple[Archived | None, ...]]:
    """All row groups of a file with so many rows."""
    return (read_group(path, group) for group in range(-(-rows // GROUP)))


def named(number: int, version: int) -> str:
    """A new name of a file; a cleaner copy of it has the next version. Two that are made of the same version differ."""
    return f"part-{number:06d}-{version:04d}-{token_hex(4)}.parquet"


def next_path(path: str) -> str:
    """The path of the next version of a file."""
    _, number, version, *_ = Path(path).stem.split("-")
    return str(Path(path).with_name(named(int(number), int(version) + 1)))


def _newest(path: Path) -> Path:
    if path.exists():
        return path
    number = path.stem.split("-")[1]
    return max(path.parent.glob(f"part-{number}-*.parquet"), default=path)


def contents_of(rows: Sequence[Archived]) -> Contents:
    """What a file of these rows holds."""
    campaigns: dict[str, int] = {}
    decisions: dict[int, tuple[int, str, int]] = {}
    events: dict[int, tuple[int, str, int]] = {}
    for row in rows:
        campaigns[row.decision[CAMPAIGN]] = campaigns.get(row.decision[CAMPAIGN], 0) + 1
        _mark(decisions, row.decision[SEQ], row.decision[0], row.decision[DECIDED])
        for event in row.events:
            _mark(events, event[EVENT_SEQ], event[0], event[3])
    groups = tuple(_group(rows[start : start + GROUP]) for start in range(0, len(rows), GROUP))
    return Contents(groups, decisions, events, campaigns)


def _mark(marks: dict[int, tuple[int, str, int]], seq: int, name: str, at: int) -> None:
    block = seq // BLOCK
    if block not in marks or marks[block][0] < seq:
        marks[block] = (seq, name, at)


def _group(rows: Sequence[Archived]) -> Group:
    numbers = [row.decision[SEQ] for row in rows]
    events = [event[EVENT_SEQ] for row in rows for event in row.events] or [-1]
    return Group(
        (rows[0].decision[DECIDED], rows[-1].decision[DECIDED]),
        (min(numbers), max(numbers)),
        (min(events), max(events)),
        tuple(sorted({row.decision[CAMPAIGN] for row in rows})),
    )
