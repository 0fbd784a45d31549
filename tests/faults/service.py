"""A real server of this test, asked over HTTP, that remembers what it acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import orjson
import psutil

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.wiring import open_services
from simulations.audit import audit
from simulations.server import Server, free_port
from storage.log import Decision
from storage.open import open_store
from storage.records import Campaign, Channel, GroupShares, Variant
from storage.rules import Cap, Rule

WORKSPACE = "default"
#: Longest wait for anything that must happen; generous, for loaded machines.
PATIENCE = 60.0
#: So many good answers in a row, and all is well: every worker has had its turn.
WELL = 30


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 = the connection broke before an answer."""

    status: int
    retry_after: str | None = None
    body: Any = None
    seconds: float = 0.0


@dataclass
class Service:
    """A running server, and what callers were told: ``acknowledged`` holds decision ids by request id."""

    settings: Settings
    secret: str
    main: psutil.Process
    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """One request on a connection of its own."""
        began = time.monotonic()
        connection = HTTPConnection(self.settings.bind, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else orjson.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, HTTPException):
            return Answer(0)
        finally:
            connection.close()
        return Answer(answer.status, answer.headers["Retry-After"], orjson.loads(raw), time.monotonic() - began)

    def decide(self, name: str) -> Answer:
        """Asks for a decision about a person of its own, who is stored with it, and notes the answer."""
        person = {"attributes": {"plan": "pro", "note": name * 20}}
        answer = self.call(
            "POST",
            "/v1/decisions",
            {"campaign_id": "c", "recipient_id": f"p-{name}", "request_id": name, "recipient": person},
        )
        if answer.status in (200, 201):
            known = self.acknowledged.setdefault(name, answer.body["decision_id"])
            assert known == answer.body["decision_id"], "the same request, another decision"
        elif answer.status == 0:
            self.broken.add(name)
        else:
            assert_refused(answer)
            self.refused.add(name)
        return answer

    def refuses(self, name: str) -> None:
        """Everything that writes is refused, and says when to come again; the processes live. ``first`` was decided."""
        # On a full disk there may be room for the one page that this writes, until it has written that.
        until("it says that it isn't ready", lambda: self.call("GET", "/readyz").status == 503)
        assert_refused(self.call("GET", "/readyz"))
        event = {"event_id": f"e-{name}", "request_id": "first", "type": "clicked", "occurred_at": _now()}
        assert self.decide(name).status == 503
        assert_refused(self.call("POST", "/v1/events", {"events": [event]}))
        assert_refused(self.call("PUT", "/v1/recipients/p-new", {"timezone": "Europe/Berlin"}))
        assert self.call("GET", "/healthz").status == 200

    def refuses_much_at_once(self) -> None:
        """A large batch is refused as all is, and the connection that it came on is good for the next request."""
        rows = [{"recipient_id": f"p-{number}", "context": {"note": "x" * 200}} for number in range(1000)]
        body = orjson.dumps({"campaign_id": "c", "recipients": rows})
        connection = HTTPConnection(self.settings.bind, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/decisions/batch", body, headers)
        answer = connection.getresponse()
        assert_refused(Answer(answer.status, answer.headers["Retry-After"], orjson.loads(answer.read())))
        kept = connection.sock
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        assert connection.sock is kept is not None
        connection.close()

    def is_well(self) -> bool:
        """Whether it takes everything, whichever worker is asked."""
        return all(self.call("GET", "/readyz").status == 200 for _ in range(WELL))

    def recovers(self) -> None:
        """By itself; then what was acknowledged is answered the same, and what was refused is taken."""
        until("it is ready again", self.is_well)
        refused = sorted(self.refused)
        for name in sorted(self.acknowledged):
            assert self.decide(name).status == 200
        for name in refused:
            assert self.decide(name).status in (200, 201)
        for name in sorted(self.broken):
            assert self.decide(name).status in (200, 201)

    def holds_whole_decisions(self) -> dict[str, Decision]:
        """What is stored, by request id: with the person that came with each, nothing twice, and the audit clean."""
        store = open_store(self.settings.database)
        try:
            with store.read() as reader:
                stored = [row.decision for row in reader.feedback(WORKSPACE)]
                by_name = {str(one.request_id): one for one in stored}
                assert len(by_name) == len(stored)
                people = reader.recipients(WORKSPACE, [one.recipient_id for one in stored])
                assert {one.recipient_id for one in stored} == set(people)
                report = audit(reader, WORKSPACE)
                assert report.clean
        finally:
            store.close()
        assert {name: by_name[name].decision_id for name in self.acknowledged} == self.acknowledged
        return by_name


def assert_refused(answer: Answer) -> None:
    """503 with the seconds to wait, and a code for programs."""
    assert answer.status == 503, answer
    assert int(answer.retry_after or 0) >= 1
    assert answer.body["code"] == "store_unavailable"


def until(what: str, found: Callable[[], bool]) -> None:
    """Returns once ``found`` says so; fails when that takes too long."""
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.05)


@contextmanager
def callers(service: Service, count: int, *, most: int | None = None) -> Iterator[list[Answer]]:
    """Clients that ask for one decision after the other until the block ends; gives what they were answered.

    With ``most``, each makes exactly so many, and the block's end waits for them.
    """
    ended, answers = threading.Event(), list[Answer]()

    def ask(number: int) -> None:
        turn = 0
        while not ended.is_set() and turn != most:
            answers.append(service.decide(f"{number}-{turn}"))
            turn += 1

    with ThreadPoolExecutor(count) as pool:
        working = [pool.submit(ask, number) for number in range(count)]
        try:
            yield answers
            if most is not None:
                wait(working)
        finally:
            ended.set()
        for one in working:
            one.result()


@contextmanager
def serving(database: str, folder: Path) -> Iterator[Service]:
    """``sendtide serve`` with two workers and a scheduler on a new database; its log lies in ``folder``."""
    settings = Settings(
        database=database, bind=f"127.0.0.1:{free_port()}", workers=2, log_level="warning", expire_seconds=1.0
    )
    secret = _prepared(settings)
    with Server(settings, folder) as server:
        yield Service(settings, secret, psutil.Process(server.pid))


def _prepared(settings: Settings) -> str:
    services = open_services(settings, seed=1, watch=False)
    try:
        setup.ensure_workspace(services, WORKSPACE)
        now = services.clock()
        setup.put_campaign(
            services,
            Campaign(
                workspace_id=WORKSPACE,
                campaign_id="c",
                variants=(Variant("a"), Variant("b")),
                channels=(Channel("email"),),
                created_at=now,
                updated_at=now,
                groups=GroupShares(),
            ),
        )
        setup.put_rule(services, Rule(WORKSPACE, "cap", "cap", Cap(1, rolling_hours=24.0)))
        return setup.create_key(services, WORKSPACE, "faults", ["admin"])[1]
    finally:
        services.close()


def _now() -> str:
    return datetime.now(UTC).isoformat()
