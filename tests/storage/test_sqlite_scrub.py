"""What was deleted or overwritten is in no file of the database any more once the store says so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from storage.port import Writer
from storage.records import Recipient
from storage.sqlite.connect import connect
from tests.storage.builders import WORKSPACE, make_recipient
from tests.storage.conftest import Opener


def in_files(path: Path, word: str) -> bool:
    return any(word.encode() in file.read_bytes() for file in path.parent.iterdir())


def person(number: int, version: int = 1) -> Recipient:
    """A record of some length under an id that lies somewhere among the others."""
    name = f"{number * 7919 % 10_007:05d}-somebody"
    attributes = {"mail": f"mail-{number}-v{version}@example.org", "padding": "x" * (number % 97 * 2)}
    return replace(make_recipient(), recipient_id=name, version=version, attributes=attributes)


def drop(writer: Writer, numbers: range) -> None:
    for i in numbers:
        writer.forget_recipient(WORKSPACE, person(i).recipient_id)


def temporary_files() -> set[str]:
    """Those of SQLite's that this process has open, which have no name any more."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that listed them
            found.add(str(one.readlink()))
    return {name for name in found if "/etilqs_" in name}


def test_deleted_records_leave_no_trace(path: Path, opener: Opener) -> None:
    store = opener()
    gone = range(0, 1_500, 2)

    for start in range(0, 1_500, 500):  # pages split and merge on the way
        store.write(lambda writer, start=start: writer.put_recipients([person(i) for i in range(start, start + 500)]))  # type: ignore[misc]  # a default binds the loop's variable
    store.write(lambda writer: drop(writer, gone))
    words = {word for i in gone for word in (person(i).recipient_id, f"mail-{i}-v1@")}
    assert store.scrub()
    left = path.read_bytes()
    assert 0 < sum(word.encode() in left for word in words) < 30  # where rows moved; else this shows nothing
    assert store.scrub(words)
    clean = path.read_bytes()
    assert not any(word.encode() in clean for word in words)
    assert all(person(i).recipient_id.encode() in clean for i in range(1, 1_500, 2))


def test_the_file_is_not_written_anew_for_words_that_others_use_too(path: Path, opener: Opener) -> None:
    store = opener()
    store.write(lambda writer: writer.put_recipients([person(i) for i in range(1_000)]))
    store.write(lambda writer: drop(writer, range(0, 1_000, 2)))
    assert store.scrub()
    before = path.stat().st_size
    assert store.scrub(["padding", "example.org"])
    assert path.stat().st_size == before  # VACUUM would give back half of it


def test_while_somebody_reads_the_files_are_not_clean(path: Path, opener: Opener) -> None:
    store = opener()
    store.write(lambda writer: writer.put_recipient(make_recipient(recipient_id="who-leaves")))
    with store.read() as reader:
        assert reader.recipient(WORKSPACE, "who-leaves") is not None
        store.write(lambda writer: writer.forget_recipient(WORKSPACE, "who-leaves"))
        assert not store.scrub()
        assert in_files(path, "who-leaves")
    assert store.scrub()
    assert not in_files(path, "who-leaves")


def test_what_a_reader_kept_an_erasure_from_looking_for_goes_with_the_next_cleaning_that_names_nobody(
    path: Path, opener: Opener
) -> None:
    store = opener()
    gone = range(0, 1_500, 2)
    words = {word for i in gone for word in (person(i).recipient_id, f"mail-{i}-v1@")}
    for start in range(0, 1_500, 500):
        store.write(lambda writer, start=start: writer.put_recipients([person(i) for i in range(start, start + 500)]))  # type: ignore[misc]  # a default binds the loop's variable
    with store.read() as reader:
        assert reader.recipient(WORKSPACE, person(1).recipient_id) is not None
        store.write(lambda writer: drop(writer, gone))
        assert not store.scrub(words)
    assert store.scrub()
    clean = path.read_bytes()
    assert not any(word.encode() in clean for word in words)
    assert all(person(i).recipient_id.encode() in clean for i in range(1, 1_500, 2))
    store.write(lambda writer: drop(writer, range(1, 1_500, 2)))
    assert store.scrub()
    assert path.stat().st_size == len(clean)  # and once is enough


def test_a_file_is_written_anew_by_way_of_the_disk_and_not_of_memory(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def watched(*arguments: Any) -> Database:
        db = connect(*arguments)
        db.execute("PRAGMA cache_size = 10")  # of a larger file no more than a part fits into the usual one
        db.conn.set_progress_handler(lambda: seen.update(temporary_files()), 1_000)
        return db

    monkeypatch.setattr("storage.sqlite.scrub.connect", watched)
    store = opener()
    store.write(lambda writer: writer.put_recipients([person(i) for i in range(1_000)]))
    store.write(lambda writer: drop(writer, range(0, 1_000, 2)))
    assert store.scrub([person(i).recipient_id for i in range(0, 1_000, 2)])
    assert seen
