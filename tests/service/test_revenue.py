"""A campaign that counts revenue sends what brings the most of it, which need not be what most people buy."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from optimizer.service import setup
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Channel, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign

#: The chance of an order and its size: mens brings 3 a message, womens 12.
ORDERS = {None: (0.05, 20.0), "mens": (0.30, 10.0), "womens": (0.12, 100.0)}


@pytest.fixture
def shop(services: Services) -> Services:
    worth = {"converted": OutcomeWeight(per_value=1.0, max_value=500.0)}
    hours = {"converted": 1.0}
    setup.put_campaign(services, campaign(channels=(Channel("email"),), objective=worth, attribution_hours=hours))
    return services


def shopped(services: Services, clock: FakeClock, people: int, seed: int) -> list[Decision]:
    """One decision each; "pro" people buy more than others."""
    rng = np.random.default_rng(seed)
    plans = rng.choice(["pro", "free"], people).tolist()
    rows = [
        DecisionRequest("spring", f"p{seed}-{i}", context={"plan": plan}, immediate=True)
        for i, plan in enumerate(plans)
    ]
    made = [d for d in services.decider.decide_batch(WORKSPACE, rows, f"run{seed}") if isinstance(d, Decision)]
    at, events = clock.now + timedelta(minutes=1), []
    for decision, plan in zip(made, plans, strict=True):
        chance, basket = ORDERS[decision.variant_id]
        if rng.random() < chance * (1.4 if plan == "pro" else 0.6):
            value = basket * float(rng.uniform(0.5, 1.5))
            events.append(EventInput("converted", at, decision_id=decision.decision_id, value=value))
    clock.forward(hours=2)
    ingest(services, WORKSPACE, events)
    return made


def test_few_dear_orders_beat_many_cheap_ones(shop: Services, clock: FakeClock) -> None:
    shopped(shop, clock, 900, seed=1)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    shop.policies.refresh_now()
    sent = [d.variant_id for d in shopped(shop, clock, 200, seed=2)]
    assert sent.count("womens") > 0.8 * len(sent)


def test_one_refund_without_measure_turns_no_policy_round(shop: Services, clock: FakeClock) -> None:
    """A typing error of −100,000 counts as the most that an order does."""
    made = shopped(shop, clock, 900, seed=1)
    typo = next(d for d in made if d.variant_id == "womens")
    told = EventInput("converted", typo.decided_at + timedelta(minutes=2), decision_id=typo.decision_id, value=-1e5)
    ingest(shop, WORKSPACE, [told])
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    shop.policies.refresh_now()
    sent = [d.variant_id for d in shopped(shop, clock, 200, seed=2)]
    assert sent.count("womens") > 0.8 * len(sent)
