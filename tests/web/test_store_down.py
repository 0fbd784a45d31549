"""What callers see while PostgreSQL is gone, and that all is well again by itself once it is back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from optimizer.config import Settings
from optimizer.web import create_app
from tests.postgresql import Server, running
from tests.web.conftest import CAMPAIGN, Caller, StillClock, key

pytestmark = pytest.mark.drill

ASKED = {"campaign_id": "c", "recipient_id": "u1", "request_id": "r1"}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as started:
        yield started


def test_a_server_that_is_killed_makes_503s_until_it_is_back_and_nothing_is_done_by_halves(server: Server) -> None:
    app = create_app(Settings(database=server.create()), clock=StillClock(), seed="down")
    admin = Caller(app, key(app, "admin"))
    assert admin("PUT", "/v1/campaigns/c", CAMPAIGN).status_code == 201
    first = admin("POST", "/v1/decisions", ASKED)
    assert first.status_code == 201
    server.kill()
    refused = [
        admin("POST", "/v1/decisions", {**ASKED, "request_id": "r2"}),
        admin("GET", "/v1/campaigns/c"),
        admin("POST", "/v1/events", [{"type": "clicked", "request_id": "r1", "event_id": "e1"}]),
        admin("GET", "/readyz"),
    ]
    assert [one.status_code for one in refused] == [503] * 4
    assert all(int(one.headers["Retry-After"]) >= 1 for one in refused)
    assert {one.get_json()["code"] for one in refused} == {"store_unavailable"}
    assert admin("GET", "/healthz").status_code == 200
    server.start()
    assert admin("GET", "/readyz").status_code == 200
    listed = admin("GET", "/v1/decisions").get_json()
    assert [one["request_id"] for one in listed["decisions"]] == ["r1"]
    again = admin("POST", "/v1/decisions", ASKED)
    assert (again.status_code, again.get_json()["decision_id"]) == (200, first.get_json()["decision_id"])
    assert admin("POST", "/v1/decisions", {**ASKED, "request_id": "r2"}).status_code == 201
    app.extensions["sendtide"].close()


def test_a_service_that_starts_before_its_server_serves_once_that_is_up(server: Server) -> None:
    url = server.create()
    server.kill()
    app = create_app(Settings(database=url), clock=StillClock(), seed="early")
    assert Caller(app, None)("GET", "/readyz").status_code == 503
    server.start()
    assert Caller(app, None)("GET", "/readyz").status_code == 200
    app.extensions["sendtide"].close()
