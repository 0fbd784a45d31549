"""Backups: one SQLite file each, whichever store they are of, taken while the service runs.

Of an embedded database SQLite's own backup makes an image, of a server's a copy row by row on one snapshot; either is
a database of Sendtide's as it stood at one moment.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Literal

from storage.archive import beside
from storage.archive_folder import claim, copy_files, own_copies
from storage.errors import StoreUnavailable
from storage.open import archive_folder, embedded, open_rows
from storage.sql.rows import ARCHIVE_OWNER
from storage.sqlite.connect import connect, create_file, meaning
from storage.sqlite.migrate import require_ours
from storage.sqlite.rows import WAIT_SECONDS, SqliteRows
from storage.transfer import CopyRefused, Note, new_owner, transfer

#: Beside a file that is being written; it becomes the file once it is whole and on disk.
_PART: Final = ".part"
#: What SQLite keeps beside a database until it is closed in order, and plays into whatever file has its name.
_JOURNALS: Final = ("-wal", "-shm", "-journal")


def backup(url: str, path: Path, note: Note = lambda *_: None, *, archive: Path | None = None) -> None:
    """Writes a backup of the database ``url`` to a new file, readable by its owner only; files of its archive are
    copied to a folder beside that file. ``archive`` is the archive's folder (None = the database's own).

    Raises:
        CopyRefused: the file is there already, or journals of one that was; or there is no such database.
        StoreUnavailable: the database or the file can't be read or written; no file is left.
    """
    _fill(path, url, note, archive or archive_folder(url), beside(path))


def restore(path: Path, url: str, note: Note = lambda *_: None, *, archive: Path | None = None) -> None:
    """Makes a new database of a backup, which stays as it was; ``archive`` is the folder of the database's archive
    (None = its own).

    Raises:
        CopyRefused: the database holds something already, or journals of one lie there; or the file is not there.
        StoreUnavailable: one of the two can't be read or written.
    """
    file, folder = embedded(url), archive or archive_folder(url)
    if file is not None:
        _fill(file, f"sqlite:///{path.absolute()}", note, beside(path), folder, mode="rw")
        return
    _require(path)
    part = path.with_name(path.name + _PART)
    _remove(part)
    try:
        create_file(part)
        _image(path, part, "rw")
        source = SqliteRows(part)  # which migrates the copy, not the backup
        with source.reading() as reader:
            copy_files(reader, beside(path), folder, note)
        target = open_rows(url)
        transfer(source, target, note)
        with target.reading() as reader:
            own_copies(reader, folder)
    finally:
        _remove(part)


def _fill(path: Path, url: str, note: Note, archive: Path, target: Path, *, mode: Literal["ro", "rw"] = "ro") -> None:
    if path.exists():
        raise CopyRefused(f"file {path} is there already; name a new one")
    _require_no_journals(path)
    part = path.with_name(path.name + _PART)
    _remove(part)
    try:
        source = embedded(url)
        if source is None:
            transfer(open_rows(url), SqliteRows(part), note)
        else:
            _require(source)
            create_file(part)
            _image(source, part, mode)
        made = SqliteRows(part)
        owner = new_owner()
        with made.writing() as writer:
            writer.put_fact(ARCHIVE_OWNER, owner)
        with made.reading() as reader:
            copied = copy_files(reader, archive, target, note)
        _publish(part, path)
        if copied:
            claim(target, owner)
    except OSError as error:
        raise StoreUnavailable(f"file {path}: {error.strerror}") from error
    finally:
        _remove(part)


def _require(source: Path) -> None:
    if not source.exists():
        raise CopyRefused(f"file {source} is not there")


def _require_no_journals(path: Path) -> None:
    """A journal that a killed process left would be played into the new file, which is then neither of the two."""
    left = [path.name + ending for ending in _JOURNALS if path.with_name(path.name + ending).exists()]
    if left:
        raise CopyRefused(
            f"file {path} is not there, but what belonged to one of its name: {', '.join(left)}; SQLite would mix that "
            f"into the new file, so stop whoever still uses it and move it away, or name a new file"
        )


def _image(source: Path, part: Path, mode: Literal["ro", "rw"]) -> None:
    """One image of the whole file: writers go on, and what they commit meanwhile is not in it.

    Nothing is written to it, but only a connection that may write takes its ``-wal`` and ``-shm`` away when it is the
    last one to close: so ``rw`` for a file that nobody else uses.
    """
    try:
        with closing(connect(source, mode, WAIT_SECONDS)) as db, closing(sqlite3.connect(part)) as copy:
            require_ours(db, source)
            db.conn.backup(copy)
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreUnavailable(f"database {source}: the copy is damaged ({verdict})")
    except sqlite3.Error as error:
        raise meaning(error, source) from error


def _publish(part: Path, path: Path) -> None:
    """Gives a file that is whole its name, durably."""
    for place, flags in ((part, os.O_RDONLY), (part.parent, os.O_RDONLY | os.O_DIRECTORY)):
        if place == part.parent:
            part.rename(path)
        descriptor = os.open(place, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(part: Path) -> None:
    """Removes an unfinished file and what lies beside it."""
    for ending in ("", "-wal", "-shm", ".lock", ".queue"):
        with suppress(FileNotFoundError):
            part.with_name(part.name + ending).unlink()
