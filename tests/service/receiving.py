"""A receiver of webhooks, and a service that may push to it; for the tests that use them as fixtures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from optimizer.config import Settings
from optimizer.service import endpoints, pushing, setup
from optimizer.service.endpoints import EndpointInput, State
from optimizer.service.wiring import Services, open_services
from storage.log import ChangeKind
from tests.service.conftest import WORKSPACE, FakeClock

ALL: tuple[ChangeKind, ...] = ("revoked", "displaced", "expired", "promoted", "rolled_back")


@dataclass
class Receiver:
    """A real HTTP server that keeps what it is sent and answers with the next of ``answers``, then 204."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None

    def details(self) -> list[str]:
        return [orjson.loads(body)["data"]["detail"] for _, body in self.got]

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            told.before_answer()
            self.send_response(told.answers.pop(0) if told.answers else 204)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/hook?from=sendtide"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def opened(tmp_path: Path, clock: FakeClock) -> Services:
    settings = Settings(database=f"sqlite:///{tmp_path}/push.db", private_webhooks=True)
    return open_services(settings, clock, seed="push", watch=False)


@pytest.fixture
def services(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    made = opened(tmp_path, clock)
    setup.ensure_workspace(made, WORKSPACE)
    yield made
    made.close()


def put(services: Services, url: str, **told: Any) -> tuple[State, str | None]:
    return endpoints.put_endpoint(services, WORKSPACE, "e", EndpointInput(url, told.pop("kinds", ALL), **told))[:2]


def change(services: Services, *details: str, kind: ChangeKind = "displaced", workspace: str = WORKSPACE) -> None:
    for detail in details:
        services.store.write(
            lambda writer, detail=detail: writer.add_change(  # type: ignore[misc]  # a default binds the loop's variable
                workspace, kind, services.clock(), decision_id=f"dec_{detail}", campaign_id="c", detail=detail
            )
        )


def push(services: Services, holder: str = "me") -> int:
    """Pushes to every endpoint that is due; how many changes were taken."""
    with services.store.read() as reader:
        due = pushing.due(reader, WORKSPACE, services.clock())
    return sum(pushing.push(services, endpoint, holder) for endpoint in due)


def state(services: Services) -> State:
    return endpoints.read_endpoint(services, WORKSPACE, "e")
