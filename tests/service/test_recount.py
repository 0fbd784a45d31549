"""The count of unanswered messages that is kept step by step is the one that the log says, whatever happens in which
order: what is counted anew on occasion must not differ from what was counted as it came."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer.errors import Conflict
from optimizer.service import settle, setup, upkeep
from optimizer.service.engagement import _Course
from optimizer.service.ingest import ingest
from optimizer.service.labels import judge_stored
from optimizer.service.requests import EventInput, VendorEvent
from optimizer.service.webhooks import machines
from optimizer.service.wiring import Services
from storage.webhooks import WebhookSource
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import reserve, stored, unanswered

#: What a message that nobody confirmed is taken for, by its campaign.
CAMPAIGNS = {"spring": "assume_sent", "autumn": "release"}
AGENTS = ("Firefox", "curl/8", "NewFilter/1.0")
PROVIDER = "sendgrid"
#: Each example has a recipient of its own.
PEOPLE = itertools.count()

Type = Literal["delivered", "opened", "clicked", "failed"]


@dataclass(frozen=True)
class Told:
    """An event: of which message, so many seconds ago, by whom. ``agent`` None = the sender's own report. ``by_id``:
    it names the decision alone; else the provider's id, and of every other message the decision as well."""

    type: Type
    message: int
    ago: int
    agent: str | None
    automated: bool
    by_id: bool


def message_id(decision_id: str) -> str:
    """What the provider calls its message."""
    return f"message of {decision_id}"


@dataclass
class Past:
    """One recipient with all that has happened to their messages."""

    services: Services
    clock: FakeClock
    recipient_id: str
    names: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    def reserved(self, campaign_id: str, minutes: int) -> None:
        """A new message, planned so many minutes from now."""
        self.names.append(f"{self.recipient_id}-{len(self.names)}")
        now, of = self.clock(), {"campaign_id": campaign_id, "recipient_id": self.recipient_id}
        planned = now + timedelta(minutes=minutes)
        reserve(self.services, self.names[-1], decided_at=now, send_at=planned, **of)  # type: ignore[arg-type]

    def confirmed(self, message: int, minutes: int, named: bool) -> None:
        """The sender says that it went out so many minutes ago, and maybe what the provider calls it."""
        decision = stored(self.services, self.name(message))
        sent_at = max(decision.decided_at, self.clock() - timedelta(minutes=minutes))
        told = (PROVIDER, message_id(decision.decision_id)) if named else (None, None)
        settle.confirm(self.services, WORKSPACE, decision.decision_id, sent_at, *told)

    def claimed(self, message: int) -> None:
        """Where it can be."""
        with suppress(Conflict):
            settle.claim(self.services, WORKSPACE, self.name(message))

    def released(self, message: int) -> None:
        """Where it can be."""
        with suppress(Conflict):
            settle.release(self.services, WORKSPACE, self.name(message), None)

    def time_passed(self, minutes: int) -> None:
        """What is overdue by now is settled."""
        self.clock.forward(minutes=minutes)
        upkeep.expire(self.services, WORKSPACE)

    def reported(self, events: list[Told]) -> None:
        """These events come in one envelope."""
        ingest(self.services, WORKSPACE, [self._input(event) for event in events])

    def rules_changed(self, scanners: str) -> None:
        """Other user agents are taken for machines' from now on, and what is stored is judged anew."""
        machines._SCANNERS = re.compile(scanners, re.IGNORECASE)
        found = [stored(self.services, name) for name in self.names]
        self.services.store.write(lambda writer: [judge_stored(writer, one) for one in found])

    def name(self, message: int) -> str:
        """One of the latest three messages."""
        recent = self.names[-3:]
        return recent[message % len(recent)]

    def _input(self, told: Told) -> EventInput:
        name = self.name(told.message)
        by_message = {} if told.by_id else {"provider": PROVIDER, "message_id": message_id(name)}
        by_both = told.by_id or self.names.index(name) % 2 == 0
        of = {
            "type": told.type,
            "occurred_at": self.clock() - timedelta(seconds=told.ago),
            "event_id": f"{self.recipient_id}-event-{next(self.numbers)}",
            "decision_id": name if by_both else None,
            **by_message,
        }
        if told.agent is None:
            return EventInput(**of, automated=told.automated)  # type: ignore[arg-type]
        words = {"useragent": told.agent, "url": f"https://shop.example/{next(self.numbers)}"}
        return VendorEvent(**of, vendor="sendgrid", words=words)  # type: ignore[arg-type]


MESSAGE = st.integers(0, 2)
MINUTES = st.integers(-90, 30)
TOLD = st.builds(
    Told,
    st.sampled_from(["delivered", "opened", "clicked", "clicked", "failed"]),
    MESSAGE,
    st.integers(0, 3),
    st.sampled_from([None, *AGENTS]),
    st.booleans(),
    st.sampled_from([True, True, False]),
)
#: What may happen: a method of the past, with its arguments.
STEP = st.one_of(
    st.tuples(st.just("reserved"), st.sampled_from(sorted(CAMPAIGNS)), MINUTES),
    st.tuples(st.just("confirmed"), MESSAGE, st.integers(0, 60), st.booleans()),
    st.tuples(st.just("confirmed"), MESSAGE, st.just(0), st.booleans()),
    st.tuples(st.just("claimed"), MESSAGE),
    st.tuples(st.just("released"), MESSAGE),
    st.tuples(st.just("time_passed"), st.integers(0, 90)),
    st.tuples(st.just("reported"), st.lists(TOLD, min_size=1, max_size=3)),
    st.tuples(st.just("reported"), st.lists(TOLD, min_size=1, max_size=1)),
    st.tuples(st.just("rules_changed"), st.sampled_from(["curl", "curl|newfilter"])),
)


@pytest.fixture
def service(services: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    for name, unconfirmed in CAMPAIGNS.items():
        setup.put_campaign(services, campaign(campaign_id=name, unconfirmed=unconfirmed))
    services.store.write(lambda writer: writer.put_webhook_source(WebhookSource(WORKSPACE, "hook", "sendgrid")))
    monkeypatch.setattr(machines, "_SCANNERS", machines._SCANNERS)  # what the examples put there goes at the end
    return services


@given(steps=st.lists(STEP, min_size=3, max_size=14))
@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_what_is_counted_step_by_step_is_what_the_log_says(
    service: Services, clock: FakeClock, steps: list[tuple[Any, ...]]
) -> None:
    past = Past(service, clock, f"u{next(PEOPLE)}")
    past.rules_changed("curl")
    past.reserved("spring", -30)
    past.reserved("spring", 0)
    for step, *how in steps:
        clock.forward(seconds=1)
        getattr(past, step)(*how)
        with service.store.read() as reader:
            said = _Course.of(reader, WORKSPACE, past.recipient_id).unanswered()
        assert unanswered(service, past.recipient_id) == said, step
