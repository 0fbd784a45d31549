"""The sender's loop against the real service; only SendGrid is a fake, which checks what SendGrid would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from examples.sendgrid_sender import Sender, main
from optimizer.service import upkeep
from tests.examples.conftest import running, service
from tests.web.conftest import Caller, StillClock, key

SPRING: dict[str, Any] = {
    "variants": [{"id": "mens"}, {"id": "womens"}],
    "channels": ["email"],
    "groups": {"holdout": 0, "random": 0, "baseline": 0},
    "allow_no_send": False,
}
PEOPLE = [{"recipient_id": f"u{n}", "email": f"u{n}@example.org"} for n in range(4)]


@dataclass
class SendGrid:
    """``POST /v3/mail/send``: 202 with ``X-Message-Id``, or the next of ``answers``."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)

    def to(self) -> list[str]:
        return [one["personalizations"][0]["to"][0]["email"] for one in self.sent]


@pytest.fixture
def sendgrid() -> Iterator[SendGrid]:
    told = SendGrid()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            good = self.path == "/v3/mail/send" and self.headers["Authorization"] == "Bearer SG.x"
            arguments = [value for one in body["personalizations"] for value in one.get("custom_args", {}).values()]
            good = good and all(isinstance(value, str) for value in arguments) and body["template_id"].startswith("d-")
            status = (told.answers.pop(0) if told.answers else 202) if good else 400
            if status == 202:
                told.sent.append(body)
            answer = b"" if status == 202 else b'{"errors": [{"message": "no"}]}'
            self.send_response(status)
            self.send_header("X-Message-Id", f"sg{len(told.sent)}")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        told.url = url
        yield told


@pytest.fixture
def ready(admin: Caller) -> Caller:
    assert admin("PUT", "/v1/campaigns/spring", SPRING).status_code == 201
    return admin


def sender(app: Flask, url: str, sendgrid: SendGrid, folder: Path) -> Sender:
    return Sender(url, key(app, "decide", "feedback"), sendgrid.url, "SG.x", folder / "state.json")


def statuses(admin: Caller) -> dict[str, str]:
    return {d["recipient_id"]: d["status"] for d in admin("GET", "/v1/decisions").get_json()["decisions"]}


def over_a_day(loop: Sender, clock: StillClock) -> None:
    """The loop looks every half hour."""
    for _ in range(48):
        clock.forward(hours=0.5)
        loop.tick(clock.now)


def test_messages_go_out_when_they_are_due_and_are_confirmed(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path
) -> None:
    with running(service(app)) as url:
        loop = sender(app, url, sendgrid, tmp_path)
        loop.plan(PEOPLE, "run", clock.now)
        loop.tick(clock.now - timedelta(hours=1))
        assert sendgrid.sent == []
        over_a_day(loop, clock)
    assert sorted(sendgrid.to()) == [one["email"] for one in PEOPLE]
    assert statuses(ready) == {one["recipient_id"]: "sent" for one in PEOPLE}
    decisions = {d["decision_id"]: d for d in ready("GET", "/v1/decisions").get_json()["decisions"]}
    for number, body in enumerate(sendgrid.sent, start=1):
        decision_id = body["personalizations"][0]["custom_args"]["sendtide_decision_id"]
        record = ready("GET", f"/v1/decisions/{decision_id}").get_json()
        assert (record["provider"], record["message_id"]) == ("sendgrid", f"sg{number}")
        variant = {"d-0001": "mens", "d-0002": "womens"}[body["template_id"]]
        assert decisions[decision_id]["action"]["variant_id"] == variant
    assert (loop.planned, loop.unreported) == ([], [])


def test_what_was_revoked_is_not_sent_and_what_sendgrid_refuses_is_released(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path
) -> None:
    with running(service(app)) as url:
        loop = sender(app, url, sendgrid, tmp_path)
        loop.plan(PEOPLE, "run", clock.now)
        event = {"event_id": "e", "type": "unsubscribed", "recipient_id": "u1", "occurred_at": clock.now.isoformat()}
        ready("POST", "/v1/events", {"events": [event]})
        sendgrid.answers = [400]
        over_a_day(loop, clock)
    assert "u1@example.org" not in sendgrid.to()
    assert len(sendgrid.sent) == 2
    assert sorted(statuses(ready).values()) == ["released", "revoked", "sent", "sent"]
    assert statuses(ready)["u1"] == "revoked"


@pytest.mark.parametrize(("settled", "status"), [(True, "released"), (False, "expired")])
def test_a_sender_that_was_late_by_an_hour_gives_its_messages_back(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path, settled: bool, status: str
) -> None:
    with running(service(app)) as url:
        loop = sender(app, url, sendgrid, tmp_path)
        loop.plan(PEOPLE, "run", clock.now)
        clock.forward(hours=48)
        if settled:  # the scheduler was not late
            upkeep.expire(app.extensions["sendtide"].get(), "default")
        loop.tick(clock.now)
    assert (sendgrid.sent, loop.planned, loop.unreported) == ([], [], [])
    assert set(statuses(ready).values()) == {status}


def test_when_sendgrid_is_down_it_is_tried_again(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path
) -> None:
    with running(service(app)) as url:
        loop = sender(app, url, sendgrid, tmp_path)
        loop.plan(PEOPLE[:1], "run", clock.now)
        clock.now = datetime.fromisoformat(loop.planned[0]["send_at"])
        sendgrid.answers = [503, 429]
        for sent in (0, 0, 1):
            loop.tick(clock.now)
            assert len(sendgrid.sent) == sent
    assert statuses(ready) == {"u0": "sent"}


def test_when_nobody_decides_the_baseline_goes_out_and_is_reported_later(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path
) -> None:
    ready("PUT", "/v1/rules/once", {"kind": "cap", "limit": 1, "window": {"rolling_hours": 48}})
    loop = sender(app, "http://127.0.0.1:9", sendgrid, tmp_path)
    loop.plan(PEOPLE[:2], "run", clock.now)
    loop.tick(clock.now)
    assert sorted(sendgrid.to()) == ["u0@example.org", "u1@example.org"]
    assert {body["template_id"] for body in sendgrid.sent} == {"d-0001"}
    assert not any("custom_args" in body["personalizations"][0] for body in sendgrid.sent)
    with running(service(app)) as url:
        again = sender(app, url, sendgrid, tmp_path)
        again.tick(clock.now)
        assert again.unreported == []
        again.plan(PEOPLE[:3], "next", clock.now)
        assert [one["recipient_id"] for one in again.planned] == ["u2"]


def test_an_outage_between_plan_and_send_stops_no_mail(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path
) -> None:
    with running(service(app)) as url:
        sender(app, url, sendgrid, tmp_path).plan(PEOPLE, "run", clock.now)
    clock.forward(hours=24)
    down = sender(app, "http://127.0.0.1:9", sendgrid, tmp_path)
    down.tick(clock.now)
    assert len(sendgrid.sent) == 4
    assert len(down.unreported) == 4
    with running(service(app)) as url:
        sender(app, url, sendgrid, tmp_path).tick(clock.now)
    assert set(statuses(ready).values()) == {"sent"}


def test_after_a_crash_nothing_is_asked_twice_and_nothing_sent_twice(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(service(app)) as url:
        loop = sender(app, url, sendgrid, tmp_path)
        loop.plan(PEOPLE, "run", clock.now)
        (tmp_path / "state.json").unlink()
        again = sender(app, url, sendgrid, tmp_path)
        again.plan(PEOPLE, "run", clock.now)
        assert again.planned == loop.planned

        def dies(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(again, "_sent", dies)
        with pytest.raises(KeyboardInterrupt):
            over_a_day(again, clock)
        over_a_day(sender(app, url, sendgrid, tmp_path), clock)
    assert len(sendgrid.to()) == len(set(sendgrid.to())) == 4


def test_the_program_runs_from_a_file_to_the_end(
    ready: Caller, app: Flask, sendgrid: SendGrid, clock: StillClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("recipient_id,email\nu0,u0@example.org\nu1,u1@example.org\n")

    def later() -> Any:
        clock.forward(hours=0.5)
        return clock.now

    with running(service(app)) as url:
        told = {"DECIDE_URL": url, "DECIDE_KEY": key(app, "decide", "feedback"), "SENDGRID_KEY": "SG.x"}
        for name, value in {**told, "SENDGRID_URL": sendgrid.url, "SENDER_STATE": f"{tmp_path}/s.json"}.items():
            monkeypatch.setenv(name, value)
        main(["sendgrid_sender.py", str(file)], clock=later, pause=0)
    assert statuses(ready) == {"u0": "sent", "u1": "sent"}
