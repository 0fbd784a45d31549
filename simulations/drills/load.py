"""Clients that keep a server under load while its processes are killed, as a sending platform would behave.

Each asks for decisions, claims and confirms what was reserved or gives it back, and reports events. When a connection
breaks it makes the same request again: it can't know whether the first one was carried out.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from optimizer.errors import SendtideError
from simulations.drills.scene import CAMPAIGNS, PLANS, recipient_name

#: Seconds that a client waits for an answer, and tries to get one, before the service counts as lost.
ANSWER_SECONDS = 10.0
GIVE_UP_SECONDS = 30.0
#: Pause between tries, and between rounds: a client isn't a flood.
RETRY_SECONDS = 0.02
PAUSE_SECONDS = 0.03
#: Of so many decisions one is asked for again, although it was answered.
ASKED_AGAIN = 0.05


class ServiceLostError(SendtideError):
    """No answer for longer than a client is willing to try."""

    code = "service_lost"


@dataclass
class Acknowledged:
    """What one client was told is done. Everything in it must be in the store at the end.

    ``decisions``: answers by request id. ``closed``: decision id to ``sent`` or ``released``. ``events``: event id to
    decision id. ``contradictions``: the same request answered differently. ``errors``: answers of 500 and above that
    are not 503.
    """

    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    events: dict[str, str] = field(default_factory=dict)
    retried: set[str] = field(default_factory=set)
    contradictions: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: int = 0
    broken: int = 0
    busy: int = 0
    answers: int = 0
    slowest_seconds: float = 0.0


class Client:
    """One client with one kept connection; for one thread."""

    def __init__(
        self,
        address: str,
        secret: str,
        heard: Acknowledged,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=answer_seconds)
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        self._give_up_seconds = give_up_seconds
        self.heard = heard

    def post(self, path: str, body: Any, *, lines: bool = False) -> tuple[int, Any, bool]:
        """Posts until there is an answer.

        Args:
            path: where to.
            body: what is sent as JSON.
            lines: the body is a list and goes as NDJSON; the answer then is a list too.

        Returns:
            The status, the JSON, and whether a try before had an unknown end.
        """
        data = b"\n".join(map(orjson.dumps, body)) if lines else orjson.dumps(body)
        headers = {**self._headers, "Content-Type": "application/x-ndjson"} if lines else self._headers
        began, unknown = time.monotonic(), False
        while True:
            try:
                self._connection.request("POST", path, data, headers)
                answer = self._connection.getresponse()
                status, raw = answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                self.heard.broken += 1
                unknown = True
                status, raw = 0, b""
            if status not in (0, 503):
                break
            self.heard.busy += status == 503
            if time.monotonic() - began > self._give_up_seconds:
                raise ServiceLostError(
                    f"POST {path}: no answer within {self._give_up_seconds:g} s, the last was {status}"
                )
            time.sleep(RETRY_SECONDS)
        self.heard.answers += 1
        self.heard.slowest_seconds = max(self.heard.slowest_seconds, time.monotonic() - began)
        if status >= 500:
            self.heard.errors.append(f"POST {path}: {status} {raw[:500].decode('utf-8', 'replace')}")
        if lines and status == 200:
            return status, [orjson.loads(line) for line in raw.splitlines()], unknown
        return status, orjson.loads(raw) if raw else None, unknown

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


def decision_body(name: str, recipients: int, chance: random.Random) -> dict[str, Any]:
    """A request for one decision: now, or within the next day."""
    return {
        "request_id": name,
        "campaign_id": chance.choice(CAMPAIGNS),
        "recipient_id": recipient_name(chance.randrange(recipients)),
        "context": {"plan": chance.choice(PLANS)},
        "immediate": chance.random() < 0.5,
    }


def same_decision(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers are the same choice (its status may have moved on)."""
    parts = ("decision_id", "action", "propensity", "policy_id", "group")
    return all(one[part] == other[part] for part in parts)


def work(address: str, secret: str, me: int, recipients: int, seed: int, stop: threading.Event) -> Acknowledged:
    """One client's life until ``stop`` is set."""
    heard = Acknowledged()
    client, chance, round_ = Client(address, secret, heard), random.Random(f"{seed}/client/{me}"), 0
    try:
        while not stop.is_set():
            round_ += 1
            _round(client, f"client{me}-{round_}", recipients, chance)
            stop.wait(PAUSE_SECONDS)
    finally:
        client.close()
    return heard


def _round(client: Client, name: str, recipients: int, chance: random.Random) -> None:
    """Asks, does what was answered, reports what came of it."""
    heard, body = client.heard, decision_body(name, recipients, chance)
    status, answer, unknown = client.post("/v1/decisions", body)
    if status not in (200, 201):
        heard.refused += 1
        return
    heard.decisions[name] = answer
    if unknown:
        heard.retried.add(name)
    if unknown or chance.random() < ASKED_AGAIN:
        _, again, _ = client.post("/v1/decisions", body)
        if not same_decision(answer, again):
            heard.contradictions.append(name)
    ref = answer["decision_id"]
    if answer["status"] == "reserved":
        use(client, ref, chance)
    if answer["status"] in ("reserved", "no_send") and chance.random() < 0.5:
        report(client, name, ref)


def use(client: Client, ref: str, chance: random.Random) -> None:
    """Sends what was reserved and confirms it, gives it back, or forgets about it."""
    fate = chance.random()
    if fate < 0.6:
        if client.post(f"/v1/decisions/{ref}/claim", {})[0] != 200:
            client.heard.refused += 1
            return
        confirm = {"sent_at": _now(), "provider": "drill", "message_id": f"msg-{ref}"}
        status, _, _ = client.post(f"/v1/decisions/{ref}/confirm", confirm)
        _note(client.heard, status, ref, "sent")
    elif fate < 0.8:
        status, _, _ = client.post(f"/v1/decisions/{ref}/release", {"reason": "drill"})
        _note(client.heard, status, ref, "released")


def _note(heard: Acknowledged, status: int, ref: str, closed: str) -> None:
    if status == 200:
        heard.closed[ref] = closed
    else:
        heard.refused += 1


def report(client: Client, name: str, ref: str) -> None:
    """Reports a click on what a decision sent; the event is named after ``name``."""
    event = {"event_id": f"event-{name}", "decision_id": ref, "type": "clicked", "occurred_at": _now()}
    status, answer, _ = client.post("/v1/events", {"events": [event]})
    if status == 202 and not answer["rejected"]:
        client.heard.events[event["event_id"]] = ref
    else:
        client.heard.refused += 1


def _now() -> str:
    return datetime.now(UTC).isoformat()
