"""A real app on a real store, with a clock that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.record import message_of
from optimizer.web import create_app

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)


@dataclass
class StillClock:
    """A clock that tests move by hand."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Caller:
    """Speaks to an app with one key."""

    app: Flask
    secret: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {**self.headers, **options.pop("headers", {})}
        if self.secret is not None:
            headers.setdefault("Authorization", f"Bearer {self.secret}")
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            options["data"] = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.app.test_client().open(path, method=method, headers=headers, buffered=True, **options)


CAMPAIGN: dict[str, Any] = {
    "variants": [{"id": "a"}, {"id": "b"}],
    "channels": ["email"],
    "groups": {"holdout": 0, "random": 0, "baseline": 0},
    "allow_no_send": False,
}


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def app(database: str, clock: StillClock) -> Iterator[Flask]:
    made = create_app(Settings(database=database), clock=clock, seed="web-tests")
    yield made
    made.extensions["sendtide"].close()


def key(app: Flask, *scopes: str, workspace: str = "default") -> str:
    return setup.create_key(app.extensions["sendtide"].get(), workspace, "test", scopes)[1]


@pytest.fixture
def admin(app: Flask) -> Caller:
    return Caller(app, key(app, "admin"))


@pytest.fixture
def nobody(app: Flask) -> Caller:
    return Caller(app, None)


@pytest.fixture
def ready(admin: Caller) -> Caller:
    """An admin's key, and a campaign ``c`` of two variants on email."""
    assert admin("PUT", "/v1/campaigns/c", CAMPAIGN).status_code == 201
    return admin


def moved_afar(ready: Caller, decision_id: str) -> str:
    """Stores a decision again, as if another host had made it in a zone that this one doesn't know; its id."""
    services = ready.app.extensions["sendtide"].get()
    with services.store.read() as reader:
        made = reader.decision("default", decision_id)
    snapshot = replace(made.snapshot, timezone="America/Nowhere")
    afar = replace(made, decision_id="dec_afar", request_id="afar", snapshot=snapshot)
    services.store.write(lambda writer: writer.add_decision(afar, message_of(afar)))
    return "dec_afar"
