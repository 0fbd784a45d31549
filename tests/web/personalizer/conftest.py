"""A real server on localhost for SDKs, and short ways to ask and to learn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from flask import Flask

from optimizer.service.personalizer import evaluating, importances
from optimizer.service.personalizer.learning import LoopLearner
from optimizer.service.wiring import Services
from tests.web.conftest import Caller, StillClock, key

LATER = "?api-version=2022-09-01-preview"


class Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@dataclass
class Loop:
    """A Personalizer client in process, with the scheduler's part in its hands."""

    app: Flask
    clock: StillClock
    secret: str
    learner: LoopLearner = field(default_factory=LoopLearner)

    @property
    def services(self) -> Services:
        found: Services = self.app.extensions["sendtide"].get()
        return found

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        headers = {"Ocp-Apim-Subscription-Key": self.secret, **options.pop("headers", {})}
        return Caller(self.app, None, headers)(method, f"/personalizer{path}", body, **options)

    def rank(self, event_id: str | None = None, status: int = 201, **changes: Any) -> Any:
        answer = self.call("POST", "/v1.0/rank", rank_body(event_id, **changes))
        assert answer.status_code == status, answer.json
        return answer.json

    def reward(self, event_id: str, value: float) -> None:
        assert self.call("POST", f"/v1.0/events/{event_id}/reward", {"value": value}).status_code == 204

    def configure(self, **changes: Any) -> Any:
        answer = self.call("PUT", f"/configurations/service{LATER}", changes)
        assert answer.status_code == 200, answer.json
        return answer.json

    def learn(self) -> bool:
        return self.learner.refresh(self.services, "default")

    @property
    def learned_rows(self) -> int:
        with self.services.store.read() as reader:
            model = self.services.loops.current(reader, "default").model
        return 0 if model is None else model.rows

    def work(self) -> None:
        """What the scheduler does for evaluations and feature importances."""
        for job in (evaluating.queue_due, evaluating.run_waiting, importances.run_waiting):
            job(self.services, "default")


def rank_body(event_id: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "contextFeatures": [{"user": {"plan": "pro", "age": 33}}, {"device": {"mobile": True}}],
        "actions": [
            {"id": name, "features": [{"topic": topic}]} for name, topic in (("a", "x"), ("b", "y"), ("c", "z"))
        ],
        "eventId": event_id,
        "deferActivation": False,
        **changes,
    }


@pytest.fixture
def loop(app: Flask, clock: StillClock) -> Loop:
    return Loop(app, clock, key(app, "admin"))


@pytest.fixture
def endpoint(app: Flask) -> Iterator[str]:
    """The address of a server on localhost, in front of the app."""
    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
