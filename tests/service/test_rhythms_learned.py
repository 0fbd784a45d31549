"""The loop with recipients' own hours: tallied from what they do, learned from what they answer, served, replayed."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from optimizer.service import setup
from optimizer.service.ingest import ingest
from optimizer.service.refreshing import refresh
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Channel, OutcomeWeight, Recipient
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

#: Hours at which the two kinds of people do things.
EARLY, LATE = 8, 20


@pytest.fixture
def shop(services: Services) -> Services:
    one = campaign(
        channels=(Channel("email"),),
        objective={"clicked": OutcomeWeight(1.0)},
        slot_minutes=120,
        default_window_hours=24.0,
        allow_no_send=False,
    )
    setup.put_campaign(services, one)
    return services


def audience(services: Services, clock: FakeClock, people: int, seed: int) -> list[tuple[Decision, int]]:
    """People who were seen three times at their hour are asked for, and click near that hour, on mens above all."""
    rng = np.random.default_rng(seed)
    hours = {f"p{seed}-{i}": (EARLY, LATE)[i % 2] for i in range(people)}
    ids = list(hours)
    known = [Recipient(WORKSPACE, one, timezone="UTC", version=1) for one in ids]
    services.store.write(lambda writer: writer.put_recipients(known))
    midnight = clock.now.replace(hour=0)
    ingest(
        services,
        WORKSPACE,
        [
            EventInput(
                type="Page Viewed", occurred_at=midnight + timedelta(days=-day, hours=hours[one]), recipient_id=one
            )
            for one in ids
            for day in (1, 2, 3)
        ],
    )
    answers = services.decider.decide_batch(WORKSPACE, [DecisionRequest("spring", one) for one in ids], f"run{seed}")
    decided = [(d, hours[d.recipient_id]) for d in answers if isinstance(d, Decision)]
    events = []
    for decision, hour in decided:
        assert decision.send_at is not None
        near = np.cos(2 * np.pi * (decision.send_at.hour + decision.send_at.minute / 60 - hour) / 24)
        if rng.random() < 0.3 + 0.2 * near + 0.2 * (decision.variant_id == "mens"):
            at = decision.send_at + timedelta(minutes=1)
            events.append(EventInput(type="clicked", occurred_at=at, decision_id=decision.decision_id))
    clock.forward(hours=30)
    ingest(services, WORKSPACE, events)
    return decided


def hours_off(decided: list[tuple[Decision, int]]) -> float:
    """Mean distance on the clock between the time chosen and the recipient's own hour."""
    apart = [abs(d.send_at.hour + 1 - hour) % 24 for d, hour in decided if d.send_at is not None]
    return float(np.mean([min(one, 24 - one) for one in apart]))


def test_people_are_written_to_at_their_own_hours_and_decisions_replay(shop: Services, clock: FakeClock) -> None:
    assert clock.now == START
    chance = hours_off(audience(shop, clock, 900, seed=1))
    verdict = retrain(shop, WORKSPACE)[0]
    assert verdict["decision"] == "publish", verdict["reason"]
    shop.policies.refresh_now()
    decided = audience(shop, clock, 120, seed=2)
    assert chance == pytest.approx(6.0, abs=0.5)
    assert hours_off(decided) < 4.5
    refresh(shop, WORKSPACE)
    with shop.store.read() as reader:
        replayer = Replayer(reader, shop.salt)
        for decision, _ in decided:
            assert replayer.draw(decision) == decision.action
        live = load_policy(reader, WORKSPACE, verdict["policy_id"], {})
    model = live.models[0]
    assert model is not None
    assert model.rhythm is not None
    assert set(model.rhythm.scales) == {"clicked"}
