"""The store of one process on one PostgreSQL database."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import psycopg
from psycopg import errors

from storage.errors import StoreUnavailable
from storage.port import Reader, Writer
from storage.postgres.connect import connect, meaning, place, told
from storage.postgres.locks import Locks, Plan, RunAgain
from storage.postgres.migrate import prepare
from storage.postgres.pool import Pool
from storage.postgres.scrub import scrub
from storage.postgres.statements import HIDDEN, Noted, Statements
from storage.postgres.transaction import PostgresReader, PostgresWriter

T = TypeVar("T")

#: Longest wait for a connection and for a lock.
WAIT_SECONDS: Final = 5.0
#: A statement that takes longer is ended; a write whose process says nothing for so long is undone.
STATEMENT_SECONDS: Final = 60.0
#: Transactions at a time. A write may read on another connection, so the two never wait for each other's.
_READERS: Final = 12
_WRITERS: Final = 6
#: How often a write is run: it meets a rival, or learns that it needs more locks.
_RUNS: Final = 20
_STEP_ASIDE_SECONDS: Final = 0.02

_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
#: For this transaction alone. A statement is planned once and not for its values: every one goes by an index that is
#: known beforehand, and planning took longer than running (what streams is planned for its values all the same).
_SETTINGS: Final = """
  set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true),
  set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)
"""
_READ_SETTINGS: Final = "SELECT " + _SETTINGS
#: The first column is the transaction's number.
_WRITE_SETTINGS: Final = f"""
SELECT pg_current_xact_id()::text, set_config('synchronous_commit', 'off', true),
  set_config('idle_in_transaction_session_timeout', $2, true), {_SETTINGS}
"""
#: Makes everything durable that was committed before, as the server's own ``synchronous_commit`` says.
_FLUSH: Final = "SELECT pg_logical_emit_message(true, 'sendtide', '')"
_COMMIT: Final = "COMMIT"
_FATE: Final = "SELECT pg_xact_status($1::text::xid8)"
_ASK_AGAIN_SECONDS: Final = 0.05


class PostgresStore:
    """``storage.port.Store`` on one database that any number of processes share: reads on snapshots, writes side by
    side as far as their locks allow."""

    names_recipients = True

    def __init__(
        self,
        url: str,
        archive: Path = Path("var/archive"),
        *,
        wait_seconds: float = WAIT_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
    ) -> None:
        """Opens the database and migrates it if need be; ``archive`` is the folder that all hosts share.

        Raises:
            ValueError: the URL can't be read.
            SchemaMismatch: not a database of Sendtide's, or one of a newer version.
            StoreUnavailable: the server can't be reached.
        """
        self.archive = archive.absolute()
        self._place = place(url)
        self._wait_seconds = wait_seconds
        self._pid = os.getpid()
        self._writing = threading.local()
        self._opener = opener = partial(connect, url, wait_seconds)
        self._limits = [str(round(1000 * seconds)) for seconds in (wait_seconds, statement_seconds)]
        self._readers = Pool(opener, _READERS, wait_seconds)
        self._writers = Pool(opener, _WRITERS, wait_seconds)
        prepare(opener, self._place)

    def read(self) -> _Read:
        """See ``storage.port``."""
        return _Read(self)

    def write(self, work: Callable[[Writer], T], *, recipients: Sequence[tuple[str, str]] = ()) -> T:
        """See ``storage.port``."""
        return self._run(work, Plan.of(recipients))

    def check(self) -> None:
        """See ``storage.port``. It really writes: a full disk and a read-only server are only found that way. It waits
        for no write of ours: a long one, such as retention's, is no trouble of the server's."""
        with self.read() as reader:
            reader.meta("write_check")
        self._run(PostgresWriter.touch, Plan(frozenset(), aside=True))

    def scrub(self, words: Collection[str] = ()) -> bool:  # noqa: ARG002 - the server's files are not ours to read
        """See ``storage.erasure`` and ``storage.postgres.scrub``."""
        self._require_own_process()
        try:
            with closing(self._opener()) as connection:
                return scrub(connection, self._wait_seconds)
        except psycopg.Error as error:
            raise meaning(error, self._place) from error

    def close(self) -> None:
        """See ``storage.port``. Writes under way end first; a read that is under way ends undisturbed."""
        self._readers.close()
        self._writers.close(wait_seconds=2 * self._wait_seconds)

    def _run(self, work: Callable[[PostgresWriter], T], plan: Plan) -> T:
        self._require_own_process()
        if getattr(self._writing, "now", False):
            raise RuntimeError("a write was started inside a write; do all of it in one function")
        self._writing.now = True
        try:
            for _ in range(_RUNS):
                try:
                    return self._run_once(work, plan)
                except RunAgain as again:
                    plan = again.plan
                except (errors.DeadlockDetected, errors.SerializationFailure):
                    time.sleep(_STEP_ASIDE_SECONDS)  # else it takes again at once what the rival waits for
            raise StoreUnavailable(f"database {self._place}: a write met rivals {_RUNS} times")
        except psycopg.Error as error:
            raise meaning(error, self._place) from error
        finally:
            self._writing.now = False

    def _run_once(self, work: Callable[[PostgresWriter], T], plan: Plan) -> T:
        locks = Locks(plan)
        begun = Noted(_WRITE_SETTINGS, self._limits)
        statements = Statements(self._writers, [Noted(_WRITE), begun, Noted(*locks.first)])
        try:
            writer = PostgresWriter(statements, locks)
            writer.folder = self.archive
            value = work(writer)
            writer.finish()
            self._commit(statements, begun)
        except BaseException:
            with suppress(psycopg.Error):  # a connection that can't even do this is closed
                statements.undo()
            raise
        finally:
            statements.end()
        return value

    def _commit(self, statements: Statements, begun: Noted) -> None:
        """Commits the transaction and returns once that is durable.

        Locks end with the commit and the flush comes after it: so writes that follow each other on one workspace's log
        share flushes. Nobody is answered before theirs, and none can be on disk without those before it.

        PostgreSQL answers ROLLBACK, and no error, where a statement had failed and the work hid that. Where the
        connection is lost, it knows whether the commit came through.
        """
        if begun.answer is None:
            statements.send()  # the number must be known before the commit
        number = str(begun.answer.fetchone()[0])  # type: ignore[union-attr, index]  # a function's value is one row
        committed = Noted(_COMMIT)
        try:
            statements.close(committed, Noted(_FLUSH))
        except psycopg.OperationalError as error:
            if not statements.cut or not self._came_through(number, error):
                raise
        else:
            if committed.answer is None or committed.answer.statusmessage != _COMMIT:
                raise errors.InFailedSqlTransaction(HIDDEN)

    def _came_through(self, number: str, error: psycopg.Error) -> bool:
        """Whether a transaction was committed whose connection was lost meanwhile.

        Raises:
            StoreUnavailable: nobody can tell.
        """
        latest = time.monotonic() + self._wait_seconds
        try:
            with self._opener() as connection:
                while time.monotonic() < latest:
                    row = connection.execute(_FATE, (number,)).fetchone()
                    if row is not None and row[0] != "in progress":
                        connection.execute(_FLUSH)
                        return bool(row[0] == "committed")
                    time.sleep(_ASK_AGAIN_SECONDS)
        except psycopg.Error:
            pass  # it can't be reached: what is told is the error of the commit
        raise StoreUnavailable(f"database {self._place}: {told(error)}", fate_unknown=True) from error

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("this store was opened before the fork; open one in every process, after it")


class _Read:
    """One read transaction, as a context manager."""

    __slots__ = ("_reader", "_statements", "_store")

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._statements: Statements | None = None
        self._reader: PostgresReader | None = None

    def __enter__(self) -> Reader:
        store = self._store
        store._require_own_process()
        self._statements = Statements(store._readers, [Noted(_READ), Noted(_READ_SETTINGS, store._limits)])
        self._reader = PostgresReader(self._statements)
        self._reader.folder = store.archive
        return self._reader

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        statements, reader = self._statements, self._reader
        if statements is None or reader is None:
            return
        self._statements = self._reader = None
        try:
            with suppress(psycopg.Error):  # what was read is read; a connection that is lost is given up
                reader.finish()
                statements.close(Noted(_COMMIT))
        finally:
            statements.end()
        if isinstance(error, psycopg.Error):
            raise meaning(error, self._store._place) from error
