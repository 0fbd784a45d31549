"""The recipient's past in a decision: what was known then, stored with it, replayed from it, and learned from."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from optimizer.config import Settings
from optimizer.model.artifact import pack
from optimizer.model.history import HISTORY, LENGTH, Past, Wanted, read
from optimizer.service import setup
from optimizer.service.fitting import wanted_encoder
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.log import Event
from storage.policies import Component
from storage.records import Campaign
from tests.service.asking import ask, ask_all, stored
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign


def happened(services: Services, name: str, minutes: float, kind: str = "viewed", **fields: object) -> None:
    """Something that the recipient did so many minutes ago."""
    now = services.clock()
    event = Event(WORKSPACE, name, kind, now - timedelta(minutes=minutes), now, matched=True, recipient_id="u1")
    services.store.write(lambda writer: writer.add_event(replace(event, **fields)))  # type: ignore[arg-type]


def test_a_decision_stores_what_happened_before_it(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, campaign(allow_no_send=False))
    first = ask(services, immediate=True, channels=("email",))
    assert HISTORY not in first.snapshot.context
    clock.forward(hours=2)
    happened(services, "view", 15, properties={"topic": "shoes"})
    happened(services, "click", 60, "clicked", decision_id=first.decision_id)
    happened(services, "later", -1)
    message = ("", "email", f"spring/{first.variant_id}")
    expected = [Past(120, "sent", *message), Past(60, "clicked", *message), Past(15, "viewed", "shoes")]
    assert read(stored(services, ask(services)).snapshot.context) == expected
    assert HISTORY not in ask(services, "u2").snapshot.context


def test_only_the_last_events_are_kept(services: Services, spring: Campaign) -> None:
    for i in range(LENGTH + 8):
        happened(services, f"e{i}", 1 + i)
    told = ask(services).snapshot.context
    assert [event.minutes for event in read(told)] == list(range(LENGTH, 0, -1))


def test_what_a_caller_says_of_the_past_is_not_believed(services: Services, spring: Campaign) -> None:
    decision = ask(services, context={HISTORY: [[1, 2]], "cart": 3})
    assert dict(decision.snapshot.context) == {"cart": 3}


def test_a_batch_tells_each_row_its_own_past(services: Services, spring: Campaign) -> None:
    happened(services, "view", 5, properties={"page": "/shoes"})
    decisions = ask_all(services, [DecisionRequest("spring", name) for name in ("u1", "u2", "u1")])
    view = [Past(5, "viewed", "/shoes")]
    assert [read(d.snapshot.context) for d in decisions] == [view, [], view]


def test_the_past_of_then_is_replayed(services: Services, spring: Campaign, clock: FakeClock) -> None:
    happened(services, "view", 5)
    decision = ask(services)
    clock.forward(hours=1)
    happened(services, "more", 1)
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        assert replayer.draw(stored(services, decision)) == decision.action


@pytest.mark.parametrize(("days", "kind"), [(6.0, "cnn"), (7.5, "auto")])
def test_auto_keeps_what_it_took_for_a_week(
    services: Services, spring: Campaign, clock: FakeClock, days: float, kind: str
) -> None:
    blob = pack(b"", {}, {"encoder": {"kind": "cnn", "since": START.timestamp()}})
    artifact = artifact_of(WORKSPACE, blob, "0" * 32, START)
    parts = (Component(1.0, artifact.artifact_id),)
    policy = new_policy(WORKSPACE, "spring", START, parts, parent=None, exploration={}, verdict={}, run_id=None)
    publish(services, [artifact], policy, None, START)
    clock.forward(days=days)
    now = services.clock()
    with services.store.read() as reader:
        assert wanted_encoder(reader, WORKSPACE, Settings(), now).kind == kind
        fixed = wanted_encoder(reader, WORKSPACE, Settings(encoder="gru"), now)
    assert fixed == Wanted("gru", now.timestamp())
