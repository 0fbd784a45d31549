"""What a decision over HTTP is measured beside: Flask routes under the same gunicorn settings.

``/bare`` parses the request and answers; ``/insert`` stores it too, one row in a FULL transaction of its own.
"""

from __future__ import annotations

import os
import sqlite3
import threading

import orjson
from flask import Flask, Response, request

DATABASE = "BENCH_DATABASE"
#: About what a decision answers.
_ANSWER = {
    "decision_id": "d" * 30,
    "status": "reserved",
    "propensity": 0.25,
    "reasons": [],
    "metadata": {},
    "pad": "x" * 400,
}
_OWN = threading.local()

app = Flask(__name__)


@app.post("/bare")
def bare() -> Response:
    """Parses and answers."""
    told = orjson.loads(request.get_data())
    return Response(
        orjson.dumps({**_ANSWER, "recipient_id": told["recipient_id"]}), 201, content_type="application/json"
    )


@app.post("/insert")
def insert() -> Response:
    """Parses, stores, answers."""
    raw = request.get_data()
    told = orjson.loads(raw)
    connection = _connection()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO rows (recipient_id, body) VALUES (?, ?)", (told["recipient_id"], raw))
    connection.execute("COMMIT")
    return Response(
        orjson.dumps({**_ANSWER, "recipient_id": told["recipient_id"]}), 201, content_type="application/json"
    )


def _connection() -> sqlite3.Connection:
    connection: sqlite3.Connection | None = getattr(_OWN, "connection", None)
    if connection is None:
        connection = _OWN.connection = sqlite3.connect(os.environ[DATABASE], timeout=60.0, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
    return connection


def create(path: str) -> None:
    """The table of ``/insert``."""
    connection = sqlite3.connect(path)
    connection.executescript(
        "PRAGMA journal_mode=WAL; CREATE TABLE rows (id INTEGER PRIMARY KEY, recipient_id TEXT, body BLOB)"
    )
    connection.close()
