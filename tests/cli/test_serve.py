"""``sendtide serve`` as processes: it answers, heals, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from optimizer.config import Settings
from optimizer.first_start import EXAMPLE
from optimizer.service import setup
from optimizer.service.ids import COLD_POLICY
from optimizer.service.retrain import retrain
from optimizer.service.wiring import open_services
from simulations.server import free_port
from storage.records import Channel
from tests.cli.conftest import Sendtide
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_retrain import audience

#: Longest wait for anything that must happen; generous, for loaded machines.
DEADLINE_SECONDS = 40.0
#: Between looks.
LOOK_SECONDS = 0.05


def until(what: str, found: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """The first true answer of ``found``; fails at the deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(LOOK_SECONDS)
    return pytest.fail(f"not within {seconds} s: {what}")


@dataclass
class Server:
    """A running ``sendtide serve``."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path

    def log(self) -> str:
        return (self.folder / "serve.log").read_text(encoding="utf-8")

    def get(self, path: str) -> int:
        """The status; 0 while nothing answers."""
        with contextlib.suppress(OSError, HTTPException):
            return self.call("GET", path)[0]
        return 0

    def call(self, method: str, path: str, body: bytes | None = None, key: str = "") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} if key else {}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def chunked(self, path: str, chunks: bytes, key: str = "", kind: str = "application/json") -> bytes:
        """What comes back, until the server closes, for a body in chunks that is written by hand."""
        head = f"POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key else ""
        return self.raw(f"{head}\r\n".encode() + chunks)

    def raw(self, sent: bytes) -> bytes:
        """What comes back for these bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS) as raw:
            raw.sendall(sent)
            return b"".join(iter(lambda: raw.recv(1 << 16), b""))

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        return self.get("/readyz") == 200

    def children(self, command: str) -> list[psutil.Process]:
        """The live children that run ``command``; ``gunicorn`` ones are the workers."""
        found = psutil.Process(self.process.pid).children()
        return [child for child in found if _alive(child) and command in " ".join(_words(child))]

    def family(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def server(sendtide: Sendtide) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-P", "-m", "optimizer.cli", "serve", "--bind", f"127.0.0.1:{port}", "--workers", "2"]
    command += ["--first-start", "--database", sendtide.database]
    # A killed arbiter can't remove its folder of metrics: let it lie where pytest clears up.
    environment = {**os.environ, "TMPDIR": str(sendtide.folder)}
    with (sendtide.folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=sendtide.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    running = Server(process, port, sendtide.folder)
    family: list[psutil.Process] = []
    try:
        until("ready", running.ready)
        family = running.family()
        yield running
    finally:
        for one in [*family, *(running.family() if process.poll() is None else [])]:
            if _alive(one):
                one.kill()
        process.wait()


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["people", "programs"])
def test_an_address_in_use_is_told_at_once_and_nothing_is_made(
    sendtide: Sendtide, monkeypatch: pytest.MonkeyPatch, json: list[str]
) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("the service was started"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = sendtide("serve", "--bind", address, *json)
    assert (result.exit_code, result.stdout) == (1, "")
    told = orjson.loads(result.stderr)["detail"] if json else result.stderr.removeprefix("Error: ").rstrip()
    assert told == f"--bind {address}: already in use"
    assert list(sendtide.folder.iterdir()) == []


def test_a_folder_of_metrics_in_which_the_database_lies_is_refused_and_the_database_stays(
    sendtide: Sendtide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("the service was started"))
    result = sendtide("serve", "--bind", f"127.0.0.1:{free_port()}", "--metrics-dir", str(sendtide.folder))
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--metrics-dir {sendtide.folder}: test.db there is no file of metrics" in result.stderr
    assert sendtide.json("keys", "list") == {"keys": []}


def test_serve_answers_heals_and_stops_without_leaving_a_process(server: Server, sendtide: Sendtide) -> None:
    _first_start_answers_with_a_decision(server, sendtide)

    (scheduler,) = until("a scheduler", lambda: server.children("schedule"))
    scheduler.send_signal(signal.SIGKILL)
    until("another scheduler", lambda: [c for c in server.children("schedule") if c.pid != scheduler.pid])

    killed = until("two workers", lambda: len(w := server.children("optimizer.gunicorn")) == 2 and w)[0]
    killed.send_signal(signal.SIGKILL)
    until("a worker in its stead", lambda: _replaced(server, killed.pid))
    until("ready again", server.ready)
    assert server.get("/healthz") == 200

    family = server.family()
    assert len(family) >= 4
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert time.monotonic() - began < 10
    until("no process left", lambda: not [one for one in family if _alive(one)], seconds=5)
    assert not list(sendtide.folder.glob("sendtide-metrics-*"))


def _first_start_answers_with_a_decision(server: Server, sendtide: Sendtide) -> None:
    key_file = sendtide.folder / "first-key"
    until("the greeting", lambda: "curl -s -X POST" in server.log())
    assert str(key_file) in server.log()
    assert key_file.stat().st_mode & 0o777 == 0o600
    secret = key_file.read_text(encoding="utf-8").strip()
    assert secret not in server.log()
    asked = orjson.dumps({"campaign_id": EXAMPLE, "recipient_id": "ada"})
    status, body = server.call("POST", "/v1/decisions", asked, secret)
    assert status == 201
    assert orjson.loads(body)["status"] in ("reserved", "no_send")


def _replaced(server: Server, pid: int) -> bool:
    workers = server.children("optimizer.gunicorn")
    return len(workers) == 2 and pid not in [worker.pid for worker in workers]


def test_a_body_in_malformed_chunks_is_unreadable_for_everybody_and_no_error_of_ours(
    server: Server, sendtide: Sendtide
) -> None:
    secret = (sendtide.folder / "first-key").read_text(encoding="utf-8").strip()
    form = "application/x-www-form-urlencoded"
    for chunks in (b"ZZ\r\n{}\r\n0\r\n\r\n", b"-5\r\n{}\r\n", b"2\r\n{}XX0\r\n\r\n", b"2;\x00\r\n{}\r\n0\r\n\r\n"):
        told = server.chunked("/v1/events", chunks, secret)
        assert told.startswith(b"HTTP/1.1 400"), told
        assert orjson.loads(told.partition(b"\r\n\r\n")[2])["code"] == "unreadable"
        for path in ("/v1/webhooks/sendgrid/any", "/segment/v1/track"):
            assert server.chunked(path, chunks).startswith(b"HTTP/1.1 400"), (path, chunks)
        assert server.chunked("/console/sign-in", chunks, kind=form).startswith(b"HTTP/1.1 400"), chunks
    assert "Traceback" not in server.log()


#: What gunicorn refuses before there is a request: what is sent, the status and the code that come back.
NO_HTTP = (
    (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "unreadable"),
    (b"GET /healthz HTTP/9.9\r\n\r\n", 400, "unreadable"),
    (b"GET /healthz HTTP/1.1\r\nna me: x\r\n\r\n", 400, "unreadable"),
    (b"GET /\xff\xed\xa0\x80\x00 HTTP\r\n\r\n", 400, "unreadable"),
    (b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
    (b"GET /healthz HTTP/1.1\r\nlong: " + b"a" * 9_000 + b"\r\n\r\n", 431, "headers_too_large"),
    (b"POST /v1/events HTTP/1.1\r\nexpect: pay\r\n\r\n", 417, "expectation_failed"),
    (b"POST /v1/events HTTP/1.1\r\ntransfer-encoding: zip\r\n\r\n", 501, "unsupported_transfer_coding"),
)


def test_what_is_no_http_is_refused_with_a_problem(server: Server) -> None:
    for sent, status, code in NO_HTTP:
        head, _, body = server.raw(sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), (sent[:40], head)
        assert b"Content-Type: application/problem+json" in head
        problem = orjson.loads(body)
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem["detail"].startswith("this can't be read as HTTP/1.1: ")
        assert b"\r\nX-Request-Id: %s\r\n" % problem["request_id"].encode() in head
        assert problem["request_id"] in server.log()
    assert "Traceback" not in server.log()


def test_workers_and_scheduler_end_when_the_arbiter_is_killed(server: Server) -> None:
    until("a scheduler", lambda: server.children("schedule"))
    family = server.family()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    until("no process left", lambda: not [one for one in family if _alive(one)])


def test_every_worker_serves_a_new_policy_without_a_failed_request(server: Server, sendtide: Sendtide) -> None:
    clock = FakeClock()
    services = open_services(Settings(database=sendtide.database), clock, watch=False)
    setup.ensure_workspace(services, WORKSPACE)
    setup.put_campaign(services, campaign(channels=(Channel("email"),)))
    secret = setup.create_key(services, WORKSPACE, "test", ["decide"])[1]
    audience(services, clock, 600, seed=31)
    asked = orjson.dumps({"campaign_id": "spring", "recipient_id": "ada"})

    def served() -> str:
        status, body = server.call("POST", "/v1/decisions", asked, secret)
        assert status == 201, body
        return str(orjson.loads(body)["policy_id"])

    assert served() == COLD_POLICY
    published = retrain(services, WORKSPACE)[0]["policy_id"]
    services.close()
    # Each call is a connection of its own, so forty in a row come from both workers.
    until("the new policy from every worker", lambda: all(served() == published for _ in range(40)))
