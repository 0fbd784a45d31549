"""The statements of one transaction, sent together as far as nobody waits for an answer in between.

A way to the server and back takes longer than most statements. So a statement whose answer nobody looks at is only
noted, and travels with the next one that is waited for; several questions can be asked before the first is answered;
and what begins a transaction travels with its first statement.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import Cursor, Pipeline, errors
from psycopg.pq.abc import PGconn

from storage.postgres.connect import Connected
from storage.postgres.pool import Pool

T = TypeVar("T")
Values = Sequence[object] | None
Answer = Cursor[tuple[Any, ...]]

HIDDEN = "a statement of this transaction failed and its error was not passed on"


class Noted:
    """A statement that is on its way, or will be; ``answer`` is there once it was sent and answered."""

    __slots__ = ("answer", "text", "values")

    def __init__(self, text: str, values: Values = None) -> None:
        self.text = text
        self.values = values
        self.answer: Answer | None = None


class _Asked(Exception):
    """A question has come to its first statement, which is noted."""

    def __init__(self, noted: Noted) -> None:
        super().__init__("a question waits for its answer")
        self.noted = noted


class Statements:
    """Runs statements in order, inside a transaction that begins with the first."""

    def __init__(self, pool: Pool, opening: Sequence[Noted]) -> None:
        """Waits for a place in the pool; ``end`` must follow.

        Args:
            pool: where the connection comes from.
            opening: what begins the transaction.

        Raises:
            StoreUnavailable: none came free in time, or the pool is closed.
        """
        pool.enter()
        self._pool = pool
        self._connection: Connected | None = None
        self._noted = list(opening)
        self._asking = False
        self._given: Noted | None = None
        self._lost = False
        self._spoiled = False
        self._pipeline: Pipeline | None = None
        self._pipelines = ExitStack()

    @property
    def cut(self) -> bool:
        """Whether the connection was lost."""
        return self._connection is not None and self._connection.closed

    def run(self, text: str, values: Values = None) -> Answer:
        """Runs a statement, after all that were noted, and waits for its answer."""
        given = self._given
        if given is None:
            return self.answer(self.later(text, values))
        if given.text != text:
            raise RuntimeError(f"a question that was asked by {given.text!r} was answered by {text!r}")
        return self.answer(given)

    def later(self, text: str, values: Values = None) -> Noted:
        """Notes a statement, which runs before any later one; its error is raised there."""
        noted = Noted(text, values)
        self._noted.append(noted)
        return noted

    def answer(self, noted: Noted) -> Answer:
        """The answer to a statement that was noted; waits for it."""
        if noted is self._given:
            self._given = None
        if noted.answer is None:
            if self._asking:
                raise _Asked(noted)
            self.send()
        assert noted.answer is not None  # noqa: S101 - it was sent
        return noted.answer

    def ask(self, question: Callable[[], T]) -> Callable[[], T]:
        """Notes the first statement that ``question`` runs; what is returned answers the question.

        The question is followed to that statement and left; to be answered it runs again, and finds the answer there.
        """
        if self._asking or self._given is not None:
            return question
        self._asking = True
        try:
            value = question()
        except _Asked as asked:
            return partial(self._resume, question, asked.noted)
        finally:
            self._asking = False
        return lambda: value

    def many(self, text: str, rows: Sequence[Sequence[object]]) -> Answer:
        """Runs a statement for each of the rows; the answer counts for all of them."""
        connection = self._connected()
        cursor = connection.cursor(binary=True)
        cursor.executemany(text, rows)
        self._sync(connection)
        return cursor

    def streaming(self) -> Connected:
        """The connection, for a cursor on the server. From now on statements go one by one, since psycopg has no such
        cursors in a pipeline."""
        connection = self._connected()
        self._pipelines.close()
        self._pipeline = None
        return connection

    def send(self) -> None:
        """Runs all that was noted."""
        if self._lost:
            raise errors.InFailedSqlTransaction(HIDDEN)
        try:
            if self._connection is None:
                self._lost = True  # without what begins a transaction nothing may run
                # A connection that was cut while it was idle is found here: the next one gets the same statements.
                self._connection = self._pool.begin(self._begin)
                self._lost = False
            else:
                self._execute(self._connection)
        finally:
            self._noted.clear()

    def close(self, *last: Noted) -> None:
        """Ends the transaction, if it has begun, by these statements after all that was noted."""
        if self._connection is None:
            return
        self._noted += last
        try:
            with self._pipelines:
                self._pipeline = None  # to leave it says what a sync says
                self._execute(self._connection)
        except psycopg.Error:
            self._spoiled = True
            raise

    def undo(self) -> None:
        """Takes the transaction back, if it has begun."""
        self._noted.clear()
        self.close(Noted("ROLLBACK"))

    def end(self) -> None:
        """Gives the connection back; a transaction that is not over is undone.

        One on which a statement failed is closed: of those that were sent behind it and never ran, psycopg (3.3) takes
        some for prepared.
        """
        connection, self._connection = self._connection, None
        if connection is not None and self._spoiled:
            connection.close()
        self._pool.end(connection)

    def _connected(self) -> Connected:
        self.send()
        assert self._connection is not None  # noqa: S101 - it has begun
        return self._connection

    def _begin(self, connection: Connected) -> None:
        with ExitStack() as stack:
            self._pipeline = stack.enter_context(connection.pipeline())
            self._execute(connection)
            self._pipelines = stack.pop_all()

    def _execute(self, connection: Connected) -> None:
        try:
            for one in self._noted:
                one.answer = connection.cursor(binary=True).execute(one.text, one.values)
        except psycopg.Error:
            self._spoiled = True
            with suppress(psycopg.Error):  # what comes of the others says less than the first error
                self._sync(connection)
            raise
        self._sync(connection)

    def _sync(self, connection: Connected) -> None:
        if self._pipeline is None:
            return
        try:
            _flush(connection.pgconn)
            self._pipeline.sync()
        except psycopg.Error:
            self._spoiled = True
            raise

    def _resume(self, question: Callable[[], T], noted: Noted) -> T:
        self._given = noted
        try:
            return question()
        finally:
            self._given = None


def _flush(pgconn: PGconn) -> None:
    """Sends what libpq still holds: psycopg leaves off with its last command, and would then wait for the answer to
    what the server never got (3.3, where a statement is longer than the socket takes)."""
    if not pgconn.flush():
        return
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        if any(ready & ~select.POLLOUT for _, ready in poll.poll()):
            pgconn.consume_input()
