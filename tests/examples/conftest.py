"""The service on a real port, for programs that speak HTTP to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any
from wsgiref.simple_server import WSGIServer

import pytest
from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from optimizer.config import Settings
from optimizer.web import create_app
from tests.web.conftest import Caller, StillClock, key

Server = BaseWSGIServer | ThreadingHTTPServer | WSGIServer


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def running(server: Server) -> Iterator[str]:
    """The address of a server for as long as the block runs."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def service(app: Flask, port: int = 0) -> BaseWSGIServer:
    return make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def app(database: str, clock: StillClock) -> Iterator[Flask]:
    made = create_app(Settings(database=database), clock=clock, seed="examples")
    yield made
    made.extensions["sendtide"].close()


@pytest.fixture
def admin(app: Flask) -> Caller:
    return Caller(app, key(app, "admin"))
