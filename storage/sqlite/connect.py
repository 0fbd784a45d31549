"""Files and connections of the SQLite backend, and what their errors mean.

A process that has a connection to a database opens neither its file nor ``-wal`` or ``-shm`` in any other way, be it
to read a byte. Closing any descriptor of a file ends all POSIX locks that the process holds on it
(sqlite.org/howtocorrupt.html, 2.2), SQLite's own among them: the next process that closes the database then takes
itself for the last one and deletes the WAL, into which the first one goes on committing. Whatever else is to be known
of the file is asked by ``stat``, or by a process of its own (``storage.sqlite.pages``).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

from sqlite_utils import Database

from storage.errors import StoreUnavailable

#: A WAL that grew under a long read is cut back to this by the next checkpoint.
_WAL_LIMIT_BYTES = 64 * 2**20
_WRITER_CACHE_KIB = 32 * 1024
_READER_CACHE_KIB = 8 * 1024

#: Primary result codes that speak of the file, the disk or a rival, not of a mistake in a statement of ours.
_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


def result_code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite (0 for an error of Python's own)."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def meaning(error: sqlite3.Error, path: Path) -> Exception:
    """What to raise for an error of SQLite: ``StoreUnavailable``, or the error itself where it is a bug of ours."""
    if result_code(error) in _UNAVAILABLE:
        return StoreUnavailable(f"database {path}: {error}")
    return error


def identity(path: Path) -> tuple[int, int]:
    """Which file lies at the path: a connection goes on with one that was deleted or swapped under it, and is then
    alone with what it writes or reads.

    Raises:
        StoreUnavailable: none does.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise StoreUnavailable(f"database {path}: {error.strerror}") from error
    return found.st_dev, found.st_ino


def create_file(path: Path) -> None:
    """Makes the database file (mode 0600) and the folders above it (mode 0700) where they are missing.

    Raises:
        StoreUnavailable: the file system refuses, or a file that is there may not be read and written.
    """
    try:
        missing = [folder for folder in path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)
            _flush_folder(folder.parent)
        if not path.exists():  # else this process may have it open already
            # SQLite gives the WAL and its index the mode of the database file.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"database {path}: {error.strerror}") from error
    if not os.access(path, os.R_OK | os.W_OK):  # SQLite would open it for reading alone, and tell at the first write
        raise StoreUnavailable(f"database {path}: this process may not read and write it")


def _flush_folder(folder: Path) -> None:
    """Makes the entry of a new subfolder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: Path, mode: Literal["ro", "rw"], timeout_seconds: float) -> Database:
    """A connection to an existing file, with transactions left to the caller.

    It may pass from thread to thread (never used by two at once). sqlite-utils binds a connection that it opens to the
    thread; so it is given one.

    Raises:
        sqlite3.Error: it can't be opened.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        db.execute("PRAGMA synchronous = FULL")
        if mode == "rw":
            db.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
            db.execute("PRAGMA secure_delete = ON")  # erased people must not be found in free space
            db.execute("PRAGMA temp_store = MEMORY")  # the undo log of savepoints
        else:
            db.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
    except sqlite3.Error:
        connection.close()
        raise
    return db
