"""Two ways to call the API with one face: Flask's test client in this process, or HTTP to a server.

Both send and read the same bytes, so what a simulation shows through one holds for the other.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from flask import Flask

from optimizer.errors import SendtideError

#: Calls that a client has in flight at once. The service groups the commits of requests that arrive together.
PARALLEL = 16
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request: method, path and JSON body (None = none)."""

    method: str
    path: str
    body: Any = None


class RefusedError(SendtideError):
    """The service answered with an error. A simulation asks nothing that may be refused, so it stops."""

    code = "refused"

    def __init__(self, call: Call, status: int, answer: bytes) -> None:
        super().__init__(f"{call.method} {call.path} was answered {status}: {answer[:2000].decode('utf-8', 'replace')}")
        self.status = status


class Client(Protocol):
    """Calls the API with one key."""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON (None for an empty one).

        Raises:
            RefusedError: the status was 400 or above.
        """

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """The answers of independent calls, in their order; at once where the client can."""


class AppClient:
    """Drives a WSGI app in this process, one call after the other."""

    def __init__(self, app: Flask, secret: str) -> None:
        self._client = app.test_client()
        self._headers = {"Authorization": f"Bearer {secret}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """See ``Client``."""
        answer = self._client.open(
            path,
            method=method,
            headers=self._headers,
            data=None if body is None else orjson.dumps(body),
            content_type=None if body is None else "application/json",
        )
        return _read(Call(method, path, body), answer.status_code, answer.data)

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """See ``Client``."""
        return [self.call(one.method, one.path, one.body) for one in calls]


class HttpClient:
    """Talks HTTP to a server, with a kept connection for each of its threads. Close it after use."""

    def __init__(self, host: str, port: int, secret: str) -> None:
        self._address = (host, port)
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._own = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="simulation")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """See ``Client``; raises ``OSError`` when the server can't be reached."""
        call = Call(method, path, body)
        data = None if body is None else orjson.dumps(body)
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        try:
            status, answer = self._send(call, data, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept connection may have been closed by the server in between. Every call of a simulation is
            # idempotent or names a request id, so asking again on a new connection is safe.
            self._connection().close()
            status, answer = self._send(call, data, headers)
        return _read(call, status, answer)

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """See ``Client``."""
        return list(self._pool.map(lambda one: self.call(one.method, one.path, one.body), calls))

    def close(self) -> None:
        """Ends the threads and their connections."""
        self._pool.shutdown()
        for connection in self._opened:
            connection.close()

    def _send(self, call: Call, data: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = self._connection()
        connection.request(call.method, call.path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
            self._own.connection = connection
            self._opened.append(connection)
        return connection


def _read(call: Call, status: int, answer: bytes) -> Any:
    if status >= 400:
        raise RefusedError(call, status, answer)
    return orjson.loads(answer) if answer else None
