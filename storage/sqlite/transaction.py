"""The physical write transaction of one process, and all queries and changes in one object."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from storage.codec import to_micros
from storage.file_lock import FileLock
from storage.group_commit import TransactionLostError
from storage.log import Happening
from storage.sql.archive_changes import ArchiveWriter
from storage.sql.archive_columns import ArchiveColumnReader
from storage.sql.endpoint_tables import EndpointReader, EndpointWriter
from storage.sql.intake_tables import IntakeReader, IntakeWriter
from storage.sql.past_tables import PastReader
from storage.sql.rank_tables import RankReader, RankWriter
from storage.sql.rhythm_tables import RhythmReader, RhythmWriter
from storage.sql.session_tables import SessionReader, SessionWriter
from storage.sqlite.connect import connect, identity, meaning
from storage.sqlite.migrate import require_ours
from storage.sqlite.tables import SqliteTables

_TOUCH = """
INSERT INTO meta (name, value) VALUES ('write_check', hex(randomblob(8)))
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_WITH_PAST = """
SELECT who.value FROM json_each(?1) AS who
WHERE EXISTS (SELECT 1 FROM messages WHERE workspace_id = ?2 AND recipient_id = who.value AND at < ?3)
  OR EXISTS (
    SELECT 1 FROM events INDEXED BY events_past
    WHERE workspace_id = ?2 AND recipient_id = who.value AND occurred_at < ?3
  )
"""
_UNDO_ONE = ("ROLLBACK TO request", "RELEASE request")


class SqliteReader(
    SqliteTables,
    ArchiveColumnReader,
    EndpointReader,
    IntakeReader,
    PastReader,
    RankReader,
    RhythmReader,
    SessionReader,
):
    """``storage.port.Reader`` on one connection."""

    def pasts(
        self, workspace_id: str, recipient_ids: Sequence[str], before: datetime, *, limit: int
    ) -> dict[str, tuple[Happening, ...]]:
        """See ``storage.port``; who has none is told by one statement, since a batch may be about many such."""
        known = self._query(_WITH_PAST, (json.dumps(list(recipient_ids)), workspace_id, to_micros(before))).fetchall()
        found = {one: self.past(workspace_id, one, before, limit=limit) for (one,) in known}
        return {one: past for one, past in found.items() if past}

    def pasts_before(
        self, workspace_id: str, asked: Sequence[tuple[str, datetime]], *, limit: int
    ) -> dict[tuple[str, datetime], tuple[Happening, ...]]:
        """See ``storage.port``; as ``pasts``."""
        if not asked:
            return {}
        people, last = sorted({who for who, _ in asked}), max(before for _, before in asked)
        known = {who for (who,) in self._rows(_WITH_PAST, (json.dumps(people), workspace_id, to_micros(last)))}
        found = {one: self.past(workspace_id, *one, limit=limit) for one in set(asked) if one[0] in known}
        return {one: past for one, past in found.items() if past}


class SqliteWriter(
    SqliteReader,
    ArchiveWriter,
    EndpointWriter,
    IntakeWriter,
    RankWriter,
    RhythmWriter,
    SessionWriter,
):
    """``storage.port.Writer`` on one connection."""

    def touch(self) -> None:
        """Writes a row that nobody reads, to learn whether writing works.

        Another value each time: SQLite writes nothing where a row stays as it is, and then no full disk is noticed.
        """
        self._query(_TOUCH)


class SqliteTransaction:
    """``storage.group_commit.Transaction``, and the connection that it is on."""

    def __init__(self, path: Path, lock: FileLock, timeout_seconds: float, archive: Path) -> None:
        self._path = path
        self._archive = archive
        self._lock = lock
        self._timeout_seconds = timeout_seconds
        self._db: Database | None = None
        self._file: tuple[int, int] | None = None
        self._empty = False

    def begin(self) -> None:
        """Waits for the lock among processes, opens the connection if there is none, starts the transaction."""
        self._lock.acquire()
        self._start()

    def begin_at_once(self) -> bool:
        """The same if the lock is free."""
        if not self._lock.acquire_at_once():
            return False
        self._start()
        return True

    def _start(self) -> None:
        try:
            self._drop_if_replaced()
            self._connected().conn.execute("BEGIN IMMEDIATE")
            self._empty = True
        except sqlite3.Error as error:
            self._disconnect()
            raise meaning(error, self._path) from error

    def run(self, work: Callable[[SqliteWriter], Any]) -> Any:
        """Runs one request in a savepoint; the first one in the bare transaction, since a savepoint costs a copy of
        every page that is changed behind it."""
        db = self._connected()
        execute = db.conn.execute
        first = self._empty
        if not first:
            execute("SAVEPOINT request")
        writer = SqliteWriter(db)
        writer.folder = self._archive
        try:
            value = work(writer)
            writer.finish()
            if not first:
                execute("RELEASE request")
        except BaseException as error:
            writer.finish()
            try:
                for statement in ("ROLLBACK", "BEGIN IMMEDIATE") if first else _UNDO_ONE:
                    execute(statement)
            except sqlite3.Error as lost:  # a full or failing disk made SQLite roll everything back
                self._disconnect()
                raise TransactionLostError(f"database {self._path}: {error}") from lost
            if isinstance(error, sqlite3.Error):
                raise meaning(error, self._path) from error
            raise
        self._empty = False
        return value

    def commit(self) -> None:
        """Commits; the change is on disk (``synchronous = FULL``) when this returns."""
        try:
            self._connected().conn.execute("COMMIT")
        except sqlite3.Error as error:
            self._disconnect()
            raise meaning(error, self._path) from error
        self._lock.release()

    def abort(self) -> None:
        """Rolls back what is open."""
        if self._db is not None and self._db.conn.in_transaction:
            try:
                self._db.conn.execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()
        self._lock.release()

    def close(self) -> None:
        """Closes the connection and the lock file."""
        self._disconnect()
        self._lock.close()

    def _connected(self) -> Database:
        """The connection; a new one after trouble."""
        if self._db is None:
            self._db = connect(self._path, "rw", self._timeout_seconds)
        return self._db

    def _drop_if_replaced(self) -> None:
        found = identity(self._path)
        if self._file != found:
            self._disconnect()
            require_ours(self._connected(), self._path)
            self._file = found

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):  # it is given up, whatever its state
                db.close()
