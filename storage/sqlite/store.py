"""The store of one process on one SQLite file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from sqlite_utils import Database

from storage.archive import beside
from storage.errors import StoreUnavailable
from storage.file_lock import FileLock
from storage.group_commit import GroupCommit
from storage.port import Reader, Writer
from storage.sqlite.connect import connect, identity, meaning
from storage.sqlite.migrate import prepare
from storage.sqlite.scrub import scrub
from storage.sqlite.transaction import SqliteReader, SqliteTransaction, SqliteWriter

T = TypeVar("T")

#: Longest wait for a turn to write, and for a rival that does not use our lock (another program).
WAIT_SECONDS = 5.0
#: Idle read connections that are kept.
_IDLE_READERS = 16


class SqliteStore:
    """``storage.port.Store`` on one file: reads side by side on snapshots, writes in turn, by group commits."""

    names_recipients = False

    def __init__(self, path: Path, archive: Path | None = None, *, wait_seconds: float = WAIT_SECONDS) -> None:
        """Opens the file, creating and migrating it if need be; ``archive`` is the archive's folder (None = beside it).

        Raises:
            SchemaMismatch: not a database of Sendtide's, or one of a newer version.
            StoreUnavailable: the file can't be read or written.
        """
        self._path = path.absolute()
        self._wait_seconds = wait_seconds
        self._pid = os.getpid()
        self._gate = threading.Lock()
        #: All of them are connected to this file.
        self._idle: list[Database] = []
        self._file: tuple[int, int] | None = None
        self._closed = False
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        prepare(self._path, self._lock_path, wait_seconds)
        self.archive = (archive or beside(self._path)).absolute()
        transaction = SqliteTransaction(self._path, FileLock(self._lock_path), wait_seconds, self.archive)
        self._group: GroupCommit[SqliteWriter] = GroupCommit(
            transaction, wait_seconds=wait_seconds, name="sqlite-writer"
        )

    def read(self) -> _Read:
        """See ``storage.port``."""
        return _Read(self)

    def write(self, work: Callable[[Writer], T], *, recipients: Sequence[tuple[str, str]] = ()) -> T:  # noqa: ARG002 - part of the port; one writer at a time needs no locks
        """See ``storage.port``. All writes run one after the other, so ``recipients`` changes nothing."""
        self._require_own_process()
        return self._group.submit(work)

    def check(self) -> None:
        """See ``storage.port``. It really writes: a full disk is only found that way."""
        with self.read() as reader:
            reader.meta("write_check")
        self._require_own_process()
        self._group.submit(SqliteWriter.touch)

    def scrub(self, words: Collection[str] = ()) -> bool:
        """See ``storage.erasure`` and ``storage.sqlite.scrub``."""
        self._require_own_process()
        try:
            return scrub(self._path, self._lock_path, self._wait_seconds, words)
        except sqlite3.Error as error:
            raise meaning(error, self._path) from error

    def close(self) -> None:
        """See ``storage.port``. What is queued is written first; a read that is under way ends undisturbed."""
        with self._gate:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()
        self._group.close(timeout=2 * self._wait_seconds)

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("this store was opened before the fork; open one in every process, after it")

    def _take(self) -> tuple[Database, tuple[int, int]]:
        """A read connection for one transaction, and the file that it is connected to."""
        self._require_own_process()
        with self._gate:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            file = identity(self._path)
            if file != self._file:
                for db in self._idle:
                    db.close()
                self._idle, self._file = [], file
            if self._idle:
                return self._idle.pop(), file
        return connect(self._path, "ro", self._wait_seconds), file

    def _give_back(self, db: Database, file: tuple[int, int]) -> None:
        with self._gate:
            if not self._closed and file == self._file and len(self._idle) < _IDLE_READERS:
                self._idle.append(db)
                return
        db.close()


class _Read:
    """One read transaction, as a context manager: a class, since a generator costs twice as much on the hot path."""

    __slots__ = ("_db", "_file", "_reader", "_store")

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._db: Database | None = None
        self._file = (0, 0)
        self._reader: SqliteReader | None = None

    def __enter__(self) -> Reader:
        try:
            db, self._file = self._store._take()
            try:
                db.conn.execute("BEGIN")
            except sqlite3.Error:
                db.close()
                raise
        except sqlite3.Error as error:
            raise meaning(error, self._store._path) from error
        self._db = db
        self._reader = SqliteReader(db)
        self._reader.folder = self._store.archive
        return self._reader

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        db, reader = self._db, self._reader
        if db is None or reader is None:
            return
        self._db = self._reader = None
        reader.finish()
        if isinstance(error, sqlite3.Error):
            db.close()
            raise meaning(error, self._store._path) from error
        try:
            db.conn.execute("COMMIT")
        except sqlite3.Error:
            db.close()
            raise
        self._store._give_back(db, self._file)
