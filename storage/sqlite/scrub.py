"""Taking what was deleted or overwritten out of the files of a SQLite database.

``secure_delete`` overwrites content as it goes, and a checkpoint cuts off old pages in the WAL. One place is left: when
SQLite moves rows from page to page, their old bytes stay in the unallocated space between a page's cell pointers and
its cells, until something else is written there (of 2,000 deleted records whole ones of two were found). ``VACUUM``
clears it by writing the whole file anew, which is much for one person, so it is done only where a word about them is
really there, or could not be looked for when they were erased.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from sqlite_utils import Database

from storage.errors import StoreUnavailable
from storage.file_lock import FileLock
from storage.sql.rows import REWRITE_WANTED
from storage.sqlite import pages
from storage.sqlite.connect import connect

#: Shorter words are no sign of one person: they stand in every file.
_SHORTEST: Final = 5


def scrub(path: Path, lock_path: Path, timeout_seconds: float, words: Collection[str]) -> bool:
    """Cleans the files; False while a reader needs the old pages.

    Args:
        path: the database.
        lock_path: the lock among those who write to it.
        timeout_seconds: how long readers and writers are waited for.
        words: what must not be found any more.

    Raises:
        sqlite3.Error: the database can't be used.
        StoreUnavailable: another process writes for longer than that, or the file can't be looked through.
    """
    told = [word for word in words if len(word) >= _SHORTEST]
    lock, done = FileLock(lock_path), False
    db = connect(path, "rw", timeout_seconds)
    try:
        try:
            done = _cleaned(db, path, lock, timeout_seconds, told)
        finally:
            if told and not done:  # who asks again doesn't know all the words any more
                lock.acquire_within(timeout_seconds)
                db.execute("INSERT INTO meta (name, value) VALUES (?, '') ON CONFLICT DO NOTHING", (REWRITE_WANTED,))
    finally:
        lock.close()
        db.close()
    return done


def _cleaned(db: Database, path: Path, lock: FileLock, timeout_seconds: float, words: Collection[str]) -> bool:
    if not _checkpoint(db):
        return False
    if not _rewrite_wanted(db) and not (words and _linger(path, words)):
        return True
    lock.acquire_within(timeout_seconds)
    try:
        db.execute("PRAGMA temp_store = FILE")  # where the new file is built: memory need not have room for it
        db.execute("VACUUM")
        db.execute("DELETE FROM meta WHERE name = ?", (REWRITE_WANTED,))
    finally:
        lock.release()
    return _checkpoint(db)


def _rewrite_wanted(db: Database) -> bool:
    return bool(db.execute("SELECT 1 FROM meta WHERE name = ?", (REWRITE_WANTED,)).fetchall())


def _checkpoint(db: Database) -> bool:
    busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _linger(path: Path, words: Collection[str]) -> bool:
    """Whether a word is left of somebody who is gone: a process of its own looks (``storage.sqlite.pages``)."""
    command = [sys.executable, "-I", "-S", pages.__file__, str(path)]
    try:
        looked = subprocess.run(command, input=json.dumps(sorted(words)).encode(), capture_output=True, check=True)  # noqa: S603  our own command
    except OSError as error:
        raise StoreUnavailable(f"database {path}: {command[0]} can't be run to look through it: {error}") from error
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {error.returncode}"
        raise StoreUnavailable(f"database {path}: it can't be looked through: {told}") from error
    return bool(json.loads(looked.stdout))
