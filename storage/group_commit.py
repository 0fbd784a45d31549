"""Group commit: one writer thread runs the requests of many threads, as many in one physical commit as are waiting.

A flush to disk costs .1 to 4 ms, whatever it carries; so requests that arrive together share one. Each can be undone by
itself: one that fails is undone alone, and only its caller hears of it. Nobody gets an answer before the
commit is durable, and when the commit fails everybody in it is told that nothing was recorded.

Where nobody else writes, the caller does it itself: handing a request to another thread and its result back took a
quarter of the time of a decision.

Nothing here knows a database: that is the ``Transaction`` given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar, cast

from storage.errors import StoreUnavailable

W = TypeVar("W")
W_co = TypeVar("W_co", covariant=True)
T = TypeVar("T")

#: A commit takes at most this many requests, and no new ones after this long, so that other processes get their turn.
MAX_REQUESTS = 256
MAX_SECONDS = 0.1


class TransactionLostError(Exception):
    """The database itself rolled the whole transaction back (a full disk can do that): nothing of it is left."""


class Transaction(Protocol[W_co]):
    """A physical transaction of one connection, used by one thread at a time."""

    def begin(self) -> None:
        """Waits for its turn among processes, then starts a transaction."""

    def begin_at_once(self) -> bool:
        """The same where no other process has its turn or waits for it; else False, and nothing is begun."""

    def run(self, work: Callable[[W_co], Any]) -> Any:
        """Runs one request, or undoes it and raises what it raised, or raises ``TransactionLostError``."""

    def commit(self) -> None:
        """Makes it durable and ends the turn. When it raises, nothing was recorded."""

    def abort(self) -> None:
        """Undoes everything and ends the turn. Never raises."""

    def close(self) -> None:
        """Closes the connection."""


class _Request(Generic[W]):
    """One caller's work and where its outcome goes.

    Whoever takes ``fate`` first decides: the writer thread, that the work runs (then its caller waits to the end), or
    the caller, that it has waited long enough (then it never runs).
    """

    __slots__ = ("done", "error", "fate", "value", "work")

    def __init__(self, work: Callable[[W], Any]) -> None:
        self.work = work
        self.fate = threading.Lock()
        self.done = threading.Lock()
        self.done.acquire()
        self.value: Any = None
        self.error: BaseException | None = None


class GroupCommit(Generic[W]):
    """The writer thread and its queue."""

    def __init__(self, transaction: Transaction[W], *, wait_seconds: float, name: str) -> None:
        """Starts the thread.

        Args:
            transaction: used by the thread, or by a caller.
            wait_seconds: how long a request may wait for its turn before it is given up.
            name: the thread's name.
        """
        self._transaction = transaction
        self._wait_seconds = wait_seconds
        self._queue: SimpleQueue[_Request[W] | None] = SimpleQueue()
        self._gate = threading.Lock()
        #: Held by whoever uses the transaction; which thread that is; and whether the writer thread does or waits to.
        self._turn = threading.Lock()
        self._writing: int | None = None
        self._serving = False
        self._closed = False
        # A daemon, because a rival that is stopped while it holds the lock must not keep this process from ending.
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests are queued now."""
        return self._queue.qsize()

    def submit(self, work: Callable[[W], T]) -> T:
        """Runs ``work`` in the next commit; returns its result once that is durable.

        Raises:
            StoreUnavailable: no turn in time, no commit, or closed; nothing was recorded.
        """
        if threading.get_ident() == self._writing:
            raise RuntimeError("a write was started inside a write; do all of it in one function")
        request = _Request[W](work)
        if not self._alone(request):
            self._queued(request)
        if request.error is not None:
            try:
                raise request.error
            finally:
                del request  # breaks the cycle exception -> traceback -> frame -> request -> exception
        return cast(T, request.value)

    def _alone(self, request: _Request[W]) -> bool:
        """Runs a request in this thread if nobody else writes or waits for it."""
        if self._serving or not self._queue.empty() or not self._turn.acquire(blocking=False):
            return False
        try:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            try:
                begun = self._transaction.begin_at_once()
            except BaseException:
                self._transaction.abort()
                raise
            if begun:
                self._commit_group(iter((request,)), begun=True)
            return begun
        finally:
            self._turn.release()

    def _queued(self, request: _Request[W]) -> None:
        """Has the writer thread run a request."""
        with self._gate:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            self._queue.put(request)
        if not request.done.acquire(timeout=self._wait_seconds):
            if request.fate.acquire(blocking=False):
                raise StoreUnavailable(f"no turn to write within {self._wait_seconds} s")
            request.done.acquire()

    def close(self, timeout: float) -> bool:
        """Runs what is queued, then ends the thread and its connection; False if that was not done in time."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        try:
            while (request := self._queue.get()) is not None:
                self._serving = True
                with self._turn:
                    self._commit_group(self._waiting(request))
                self._serving = False
        finally:
            with self._turn:
                self._transaction.close()

    def _waiting(self, first: _Request[W]) -> Iterator[_Request[W]]:
        """The first request, then those that wait by the time it has run, within the limits of one commit."""
        yield first
        started = time.monotonic()
        for _ in range(MAX_REQUESTS - 1):
            if time.monotonic() - started >= MAX_SECONDS:
                return
            try:
                request = self._queue.get_nowait()
            except Empty:
                return
            if request is None:  # nothing follows it: ``close`` shut the gate first
                self._queue.put(None)
                return
            yield request

    def _commit_group(self, group: Iterator[_Request[W]], *, begun: bool = False) -> None:
        self._writing = threading.get_ident()
        taken: list[_Request[W]] = []
        try:
            if not begun:
                self._transaction.begin()
            for request in group:
                if request.fate.acquire(blocking=False):
                    taken.append(request)
                    self._run(request)
            if all(request.error is not None for request in taken):
                self._transaction.abort()
            else:
                self._transaction.commit()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the callers', and the thread must go on
            self._transaction.abort()
            taken.extend(request for request in group if request.fate.acquire(blocking=False))
            for request in taken:
                request.error = request.error or _own_copy(error)
        self._writing = None
        for request in taken:
            request.done.release()

    def _run(self, request: _Request[W]) -> None:
        try:
            request.value = self._transaction.run(request.work)
        except TransactionLostError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            request.error = error


def _own_copy(error: BaseException) -> BaseException:
    """The same failure for one caller of several: tracebacks grow on raising, so none may share an exception."""
    if isinstance(error, StoreUnavailable | TransactionLostError):
        return StoreUnavailable(str(error))
    return error
