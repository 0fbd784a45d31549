"""A small archive run, for the tests of stores: what ``optimizer.service.archiving`` does with care."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from storage import parquet
from storage.archive import Archived, ArchiveFile, Place
from storage.archive_folder import claim
from storage.log import Decision
from storage.port import Store
from tests.storage.builders import WORKSPACE


def anything(_: Decision) -> bool:
    return True


def candidates(store: Store, before: datetime, limit: int = 1000) -> list[Archived]:
    """What may go."""
    found: list[Archived] = []
    after: Place | None = None
    while True:
        with store.read() as reader:
            rows, after = reader.archivable(WORKSPACE, before, anything, after=after, limit=limit)
        found += rows
        if after is None:
            return found


def write_file(store: Store, rows: list[Archived], number: int = 1) -> ArchiveFile:
    """A file that is noted, with nothing moved."""
    assert claim(store.archive, "tests")
    path = f"w/{number}/{parquet.named(number, 1)}"
    groups = (rows[start : start + parquet.GROUP] for start in range(0, len(rows), parquet.GROUP))
    checksum = parquet.write(store.archive / path, groups)
    first, last = (rows[i].decision[parquet.DECIDED] for i in (0, -1))
    contents = parquet.contents_of(rows)
    file = ArchiveFile(WORKSPACE, number, path, len(rows), 0, first, last, checksum, contents)
    store.write(lambda writer: writer.put_archive_file(file))
    return file


def move(store: Store, file: ArchiveFile, rows: list[Archived]) -> int:
    people = [(WORKSPACE, row.decision[parquet.RECIPIENT]) for row in rows]
    return store.write(lambda writer: writer.move_to_archive(file, rows), recipients=people)


def archive_all(store: Store, before: datetime, number: int = 1) -> int:
    """Moves everything that may go into one file; returns how many decisions went."""
    rows = candidates(store, before)
    return move(store, write_file(store, rows, number), rows) if rows else 0


def take_out(store: Store, number: int = 1) -> None:
    """A copy of the file without the bytes of rows that are gone."""
    with store.read() as reader:
        file = next(one for one in reader.archive_files(WORKSPACE) if one.number == number)
        gone = reader.archive_gone(WORKSPACE).get(number, frozenset())
    old = store.archive / file.path
    rows = [row for group in parquet.read_groups(old, file.rows) for row in group]
    left = [None if place in gone else row for place, row in enumerate(rows)]
    path = parquet.next_path(file.path)
    clean = replace(file, path=path, checksum=parquet.write(store.archive / path, [left]))
    store.write(lambda writer: writer.put_clean_file(file, clean, sorted(gone)))
    old.unlink()
