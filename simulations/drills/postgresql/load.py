"""The clients of the drill: single decisions and batches to both hosts, repeated until they are answered."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from simulations.drills.load import Acknowledged, Client, report, use
from simulations.drills.postgresql.size import DAYS, WINDOW, Size
from simulations.drills.scene import CAMPAIGNS, CHANNELS, PLANS, VARIANTS, recipient_name
from storage.log import Decision

#: Of the single decisions that reserved a message, so many are used, and so many of the batches' are reported clicked.
USED, CLICKED = 0.2, 0.02
#: A loaded machine's batch may take long while its server starts.
ANSWER_SECONDS, GIVE_UP_SECONDS = 60.0, 300.0


@dataclass
class Heard:
    """What the clients were told, together: a mark of each decision by request id, and what they did with some.

    ``refused``: answers in place of a decision that were no decision.
    """

    marks: dict[str, int] = field(default_factory=dict)
    others: list[Acknowledged] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass
class Work:
    """What is left to do, shared by all clients."""

    size: Size
    start: datetime
    secret: str
    heard: Heard = field(default_factory=Heard)
    _taken: int = 0
    _gate: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def next(self) -> list[dict[str, Any]] | None:
        """The requests of the next unit: one, or a batch; None = all are taken."""
        with self._gate:
            number, self._taken = self._taken, self._taken + 1
        if number >= self.size.singles + self.size.batches or self.stopped.is_set():
            return None
        return self.unit(number)

    def unit(self, number: int) -> list[dict[str, Any]]:
        """A unit by its number: the same in every run of a seed. Batches lie evenly among the single requests."""
        size = self.size
        units = size.singles + size.batches
        before = number * size.batches // units
        if (number + 1) * size.batches // units == before:
            single = number - before
            return [self.request(f"one-{single}", single % size.recipients)]
        rows = min(size.rows, size.decisions - size.singles - before * size.rows)
        # Two batches in a row are for the same people, so that both hosts want the same places at the same time.
        first = before // 2 * size.rows
        return [self.request(f"many-{before}-{row}", (first + row) % size.recipients) for row in range(rows)]

    def request(self, name: str, who: int) -> dict[str, Any]:
        """A request by its name."""
        chance = random.Random(f"{self.size.seed}/{name}")
        start = self.start + timedelta(hours=chance.randrange(24 * DAYS))
        asked: dict[str, Any] = {
            "request_id": name,
            "campaign_id": chance.choice(CAMPAIGNS),
            "recipient_id": recipient_name(who),
            "context": {"plan": chance.choice(PLANS)},
            "window": {"start": start, "end": start + WINDOW},
        }
        for kind, names in (("variants", VARIANTS), ("channels", CHANNELS)):
            if chance.random() < 0.25:
                asked[kind] = [chance.choice(names)]
        return asked

    def note(self, answers: Sequence[dict[str, Any]]) -> None:
        """Notes what was answered."""
        with self._gate:
            for answer in answers:
                if "decision_id" in answer:
                    self.heard.marks[answer["request_id"]] = mark(answer)
                else:
                    self.heard.refused.append(str(answer)[:500])


def serve(work: Work, address: str, me: int) -> None:
    """One client's life: takes units until none is left."""
    heard = Acknowledged()
    client = Client(address, work.secret, heard, answer_seconds=ANSWER_SECONDS, give_up_seconds=GIVE_UP_SECONDS)
    chance = random.Random(f"{work.size.seed}/client/{me}")
    try:
        while (unit := work.next()) is not None:
            answers = ask(client, unit)
            work.note(answers)
            _follow_up(client, answers, chance)
    finally:
        client.close()
        work.heard.others.append(heard)


def ask(client: Client, unit: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to a unit's requests, in order."""
    if len(unit) == 1:
        return [client.post("/v1/decisions", unit[0])[1]]
    found: list[dict[str, Any]] = client.post("/v1/decisions/batch", unit, lines=True)[1]
    return found


def _follow_up(client: Client, answers: Sequence[dict[str, Any]], chance: random.Random) -> None:
    for answer in answers:
        if answer.get("status") != "reserved":
            continue
        if len(answers) == 1 and chance.random() < USED:
            use(client, answer["decision_id"], chance)
        if chance.random() < CLICKED:
            report(client, answer["request_id"], answer["decision_id"])


def mark(answer: dict[str, Any]) -> int:
    """64 bits over the choice that an answer tells; what becomes of the message is left out."""
    action = answer["action"] or {}
    send_at = action.get("send_at")
    return _bits(
        answer["decision_id"],
        answer["group"],
        answer["policy_id"],
        answer["propensity"],
        action.get("variant_id"),
        action.get("channel"),
        None if send_at is None else datetime.fromisoformat(send_at).timestamp(),
    )


def stored_mark(decision: Decision) -> int:
    """The same of a decision as it is stored."""
    return _bits(
        decision.decision_id,
        decision.group,
        decision.policy_id,
        decision.propensity,
        decision.variant_id,
        decision.channel,
        None if decision.send_at is None else decision.send_at.timestamp(),
    )


def _bits(*choice: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(choice).encode(), digest_size=8).digest(), "big")
