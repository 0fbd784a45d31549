"""The connections of one process: as many as are needed at a time, up to a limit.

psycopg-pool connects in threads of its own and tries again with growing pauses: a caller waits the whole timeout to
learn that the server is down, and some of that again once it is back. Here the caller connects, so both are known at
once. A connection that the server cut while it was idle is found at its first statement, before anything was done on
it, and the next one is taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
from psycopg.pq import TransactionStatus

from storage.errors import StoreUnavailable
from storage.postgres.connect import Connected


class Pool:
    """Connections that are each used by one transaction at a time."""

    def __init__(self, connect: Callable[[], Connected], size: int, wait_seconds: float) -> None:
        """Opens nothing yet.

        Args:
            connect: opens one.
            size: how many transactions may run at a time.
            wait_seconds: how long a transaction may wait for its connection.
        """
        self._connect = connect
        self._size = size
        self._wait_seconds = wait_seconds
        self._free = threading.BoundedSemaphore(size)
        self._gate = threading.Lock()
        self._idle: list[Connected] = []
        self._closed = False

    def enter(self) -> None:
        """Waits for a place; ``end`` must follow.

        Raises:
            StoreUnavailable: all are in use and none came free in time, or the pool is closed.
        """
        if not self._free.acquire(timeout=self._wait_seconds):
            raise StoreUnavailable(f"all {self._size} connections were in use for {self._wait_seconds} s")
        if self._closed:
            self._free.release()
            raise StoreUnavailable("the store is closed")

    def begin(self, first: Callable[[Connected], None]) -> Connected:
        """A connection on which ``first`` has begun a transaction, and done no more than can be undone. Who has entered
        gets one even when the pool is closed meanwhile.

        Raises:
            psycopg.Error: the server can't be reached or refuses.
        """
        while (connection := self._taken()) is not None:
            try:
                first(connection)
            except psycopg.Error:
                cut = connection.closed  # while it was idle: nothing was done on it
                connection.close()
                if not cut:
                    raise
            else:
                return connection
        connection = self._connect()
        try:
            first(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def end(self, connection: Connected | None) -> None:
        """Takes a place back, and its connection if it had come to one; where a transaction is not over, that is
        closed, which undoes it."""
        if connection is not None:
            self._keep(connection)
        self._free.release()

    def _keep(self, connection: Connected) -> None:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
        with self._gate:
            kept = not self._closed and not connection.closed
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()

    def close(self, wait_seconds: float = 0.0) -> None:
        """Closes what is idle, and after it what is given back; waits so long for transactions under way to end."""
        with self._gate:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        latest = time.monotonic() + wait_seconds
        ended = 0
        while ended < self._size and self._free.acquire(timeout=max(0.0, latest - time.monotonic())):
            ended += 1
        for _ in range(ended):
            self._free.release()

    def _taken(self) -> Connected | None:
        """An idle connection, the one that was used last; None = there is none."""
        with self._gate:
            return self._idle.pop() if self._idle else None
