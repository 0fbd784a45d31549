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
from typing import Any

import psycopg
from psycopg import Cursor
from psycopg.pq import TransactionStatus

from storage.errors import StoreUnavailable
from storage.postgres.connect import Connected

Begun = tuple[Connected, Cursor[tuple[Any, ...]]]


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

    def begin(self, statement: str) -> Begun:
        """A connection on which ``statement`` has begun a transaction, and what it answered; ``end`` must follow.

        Raises:
            StoreUnavailable: all are in use and none came free in time, or the pool is closed.
            psycopg.Error: the server can't be reached or refuses.
        """
        if not self._free.acquire(timeout=self._wait_seconds):
            raise StoreUnavailable(f"all {self._size} connections were in use for {self._wait_seconds} s")
        try:
            while (connection := self._taken()) is not None:
                try:
                    return connection, connection.execute(statement)
                except psycopg.Error:
                    cut = connection.closed  # while it was idle: nothing was done on it
                    connection.close()
                    if not cut:
                        raise
            connection = self._connect()
            try:
                return connection, connection.execute(statement)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._free.release()
            raise

    def end(self, connection: Connected) -> None:
        """Takes a connection back; one whose transaction is not over is closed, which undoes that."""
        if connection.info.transaction_status != TransactionStatus.IDLE:
            connection.close()
        with self._gate:
            kept = not self._closed and not connection.closed
            if kept:
                self._idle.append(connection)
        if not kept:
            connection.close()
        self._free.release()

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
            if self._closed:
                raise StoreUnavailable("the store is closed")
            return self._idle.pop() if self._idle else None
