"""Events in batches of 500, beside a bare ``executemany`` of as many rows with the same durability."""

from __future__ import annotations

import http.client
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count

import orjson

from simulations.bench.batches import AT_ONCE
from simulations.bench.figure import Figure, at_least, medians
from simulations.bench.served import Shop, serving

ROWS, ENVELOPES = 500, 20


def measure(stocked: Shop) -> list[Figure]:
    """Events about messages that went out, one caller."""
    with serving(stocked) as bind:
        decided = _decisions(bind, stocked)
        numbers = count()

        def ours() -> float:
            number = next(numbers)
            bodies = [_envelope(decided, number * ENVELOPES + i) for i in range(ENVELOPES)]
            started = time.perf_counter()
            for body in bodies:
                _post(bind, stocked, "/v1/events", body)
            return ROWS * ENVELOPES / (time.perf_counter() - started)

        rate, bare = medians([ours, _bare(stocked)])
    return [
        at_least(
            "POST /v1/events, 500 at a time", f"{rate:,.0f}/s", f"bare executemany: {bare:,.0f}/s", rate / bare, 0.5
        )
    ]


def _decisions(bind: str, stocked: Shop) -> list[str]:
    """Ids of decisions about the last stored recipients."""
    rows = [{"recipient_id": f"p{i}"} for i in range(390_000, 390_000 + ROWS * AT_ONCE)]
    told = orjson.loads(
        _post(bind, stocked, "/v1/decisions/batch", orjson.dumps({"campaign_id": "c", "recipients": rows}))
    )
    return [row["decision_id"] for row in told["decisions"] if row["status"] == "reserved"]


def _envelope(decided: list[str], number: int) -> bytes:
    at = datetime.now(UTC).isoformat()
    kinds = ("delivered", "opened", "clicked")
    events = [
        {
            "event_id": f"e{number}-{i}",
            "type": kinds[i % 3],
            "occurred_at": at,
            "decision_id": decided[(number * ROWS + i) % len(decided)],
        }
        for i in range(ROWS)
    ]
    return orjson.dumps({"events": events})


def _post(bind: str, stocked: Shop, path: str, body: bytes) -> bytes:
    connection = http.client.HTTPConnection(bind, timeout=60)
    try:
        connection.request("POST", path, body, stocked.headers)
        answer = connection.getresponse()
        raw = answer.read()
        if answer.status not in (200, 202):
            raise ValueError(f"{answer.status}: {raw[:500]!r}")
        return raw
    finally:
        connection.close()


def _bare(stocked: Shop) -> Callable[[], float]:
    path = stocked.folder / "bare-events.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE events (id INTEGER PRIMARY KEY, event_id TEXT, type TEXT, occurred_at TEXT, decision_id TEXT)"
    )
    at = datetime.now(UTC).isoformat()
    rows = [(f"e{i}", "opened", at, f"dec_{i:026d}") for i in range(ROWS)]

    def work() -> float:
        started = time.perf_counter()
        for _ in range(ENVELOPES):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO events (event_id, type, occurred_at, decision_id) VALUES (?, ?, ?, ?)", rows
            )
            connection.execute("COMMIT")
        return ROWS * ENVELOPES / (time.perf_counter() - started)

    return work
