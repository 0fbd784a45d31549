"""A line of revisions that predicts better what comes than its gated policy is free of the bound that keeps it near."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from optimizer.bandit.clusters import Floats
from optimizer.service import learning, setup
from optimizer.service.ingest import ingest
from optimizer.service.pricing import publish_prices
from optimizer.service.progress import ERROR, LEAST_REWARDED, LEAST_ROWS, Progress
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Guardrail, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock
from tests.service.test_drifting import SHOP, audience, served


@pytest.fixture
def learned(services: Services, clock: FakeClock) -> Services:
    """A shop whose first policy serves."""
    setup.put_campaign(services, SHOP)
    audience(services, clock, 1_600, seed=1)
    assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    services.policies.refresh_now()
    return services


def follow(services: Services, clock: FakeClock, steps: range, *, swapped: bool, people: int = 150) -> list[Decision]:
    """Goes on with a refresh after every so many people; the decisions made."""
    decided = []
    for seed in steps:
        decided += audience(services, clock, people, seed=seed, swapped=swapped)
        refresh(services, WORKSPACE)
        services.policies.refresh_now()
    return decided


def told(services: Services) -> Progress:
    """What the served revision's verdict says of its line."""
    found = Progress.from_json(served(services).verdict["progress"])
    assert found is not None
    return found


NOTHING = Progress("gated", "asked", 0.0, 0.0, 0.0)


def after(gains: Floats, brought: int = 100) -> Progress:
    """What is known after one look at these gains."""
    return NOTHING.followed(gains, brought)


def test_nothing_is_said_of_few_decisions_and_much_of_a_clear_gain() -> None:
    gains = np.random.default_rng(1).normal(0.1, 0.3, LEAST_ROWS)
    assert not after(gains[:-1]).better
    assert after(gains).better
    assert not after(-gains).better


def test_who_expects_nothing_isn_t_better_where_nothing_has_come_yet() -> None:
    gains = np.full(1_000, 0.002)
    assert not after(gains, LEAST_REWARDED - 1).better
    assert after(gains, LEAST_REWARDED).better


def test_what_was_clear_stands_until_the_newest_decisions_deny_it() -> None:
    gains = np.random.default_rng(1).normal(0.1, 0.3, 2_000)
    hardly = after(gains).followed(np.full(2_000, -0.01), 100)
    assert hardly.better
    worse = hardly.followed(np.full(1_500, -0.05), 100)
    assert worse.gain > 0, "on the whole it is better still"
    assert not worse.better


def test_where_nothing_is_gained_it_is_seldom_said_however_often_it_is_looked_at() -> None:
    rng, wrong = np.random.default_rng(2), 0
    looks = np.unique(np.geomspace(LEAST_ROWS, 4_000, 25).astype(int))
    for _ in range(400):
        gains = rng.standard_t(5, 4_000)
        wrong += any(after(gains[:n]).better for n in looks)
    assert wrong <= 400 * ERROR / 2 + 3 * np.sqrt(400 * ERROR / 2)


def test_a_verdict_of_another_version_is_no_error() -> None:
    assert Progress.from_json(NOTHING.to_json()) == NOTHING
    assert Progress.from_json({**NOTHING.to_json(), "more": 1}) is None
    assert Progress.from_json({"rows": 3}) is None


def test_a_line_that_follows_new_tastes_is_free_of_the_bound(learned: Services, clock: FakeClock) -> None:
    gated = served(learned)
    follow(learned, clock, range(20, 26), swapped=True)
    last = served(learned)
    assert told(learned).better
    assert last.verdict["limit"] == 1.0
    assert len(last.mixture) == 1, "the refitted model has all of the traffic"
    assert last.verdict["refitted"] > 0.5, "though it chooses otherwise"
    assert last.mixture[0].artifact_id != gated.mixture[0].artifact_id


def test_a_line_that_predicts_no_better_stays_near(learned: Services, clock: FakeClock) -> None:
    follow(learned, clock, range(30, 35), swapped=False)
    assert told(learned).rows >= LEAST_ROWS
    assert not told(learned).better
    assert served(learned).verdict["limit"] == pytest.approx(1 - 1_600 / 2_350)


def test_every_decision_of_the_line_is_counted_once_it_is_known(learned: Services, clock: FakeClock) -> None:
    follow(learned, clock, range(40, 41), swapped=False)
    assert told(learned).rows == 0, "the gated policy made them all"
    follow(learned, clock, range(41, 42), swapped=False)
    assert told(learned).rows == 150
    audience(learned, clock, 10, seed=43)
    refresh(learned, WORKSPACE)
    assert told(learned).rows == 160
    refresh(learned, WORKSPACE)
    assert told(learned).rows == 160


def test_what_is_not_final_is_counted_later(learned: Services, clock: FakeClock) -> None:
    follow(learned, clock, range(44, 45), swapped=False)
    audience(learned, clock, 10, seed=45)
    late, clock.now = clock.now, clock.now - timedelta(days=7) + timedelta(minutes=30)
    refresh(learned, WORKSPACE)
    assert told(learned).rows < 10, "clicks count for an hour"
    clock.now = late
    audience(learned, clock, 10, seed=46)
    refresh(learned, WORKSPACE)
    assert told(learned).rows == 20


def test_what_is_put_back_is_stayed_near_until_a_line_from_there_is_better(learned: Services, clock: FakeClock) -> None:
    follow(learned, clock, range(50, 56), swapped=True)
    before = served(learned)
    assert before.verdict["limit"] == 1.0
    follow(learned, clock, range(57, 58), swapped=True)
    clock.forward(hours=1)
    learning.promote(learned, WORKSPACE, before.policy_id)
    learned.policies.refresh_now()
    follow(learned, clock, range(58, 59), swapped=True)
    assert told(learned).rows <= 150
    assert served(learned).verdict["limit"] == 0.25


def test_where_harm_is_guarded_against_the_bound_stays(learned: Services, clock: FakeClock) -> None:
    setup.put_campaign(learned, replace(SHOP, guardrails={"unsubscribed": Guardrail(max_rate=0.5)}))
    follow(learned, clock, range(60, 66), swapped=True)
    assert served(learned).verdict["limit"] < 1.0


def test_a_message_is_counted_once_its_purchases_are_final_and_only_once(learned: Services, clock: FakeClock) -> None:
    """Purchases are looked for until the same moment, whenever a message goes out."""
    bought = {"clicked": OutcomeWeight(fixed=1.0), "converted": OutcomeWeight(fixed=1.0)}
    hours = {"clicked": 1.0, "converted": 72.0}
    setup.put_campaign(learned, replace(SHOP, objective=bought, attribution_hours=hours, allow_no_send=True))
    follow(learned, clock, range(70, 71), swapped=False)
    assert told(learned).rows == 0
    rows = [DecisionRequest("spring", f"later-{i}", context={"plan": "pro"}) for i in range(150)]
    made = [d for d in learned.decider.decide_batch(WORKSPACE, rows, "later") if isinstance(d, Decision)]
    assert {d.send_at for d in made if d.send_at} != {clock.now}, "some go out later"
    counted = []
    for decision in made[:10]:
        clock.forward(hours=12)
        event = EventInput(type="converted", occurred_at=clock.now, recipient_id=decision.recipient_id)
        ingest(learned, WORKSPACE, [event])
        refresh(learned, WORKSPACE)
        counted.append(told(learned).rows)
    assert counted[5] == 0, "72 hours after the last moment at which one may go out"
    assert counted[-1] == sum(d.variant_id is not None for d in made) > 100, "of not sending nothing was learned"


def test_new_prices_don_t_bring_back_what_a_person_took_away(learned: Services, clock: FakeClock) -> None:
    follow(learned, clock, range(80, 86), swapped=True)
    free = served(learned)
    assert free.verdict["limit"] == 1.0
    follow(learned, clock, range(86, 87), swapped=True)
    clock.forward(hours=1)
    learning.promote(learned, WORKSPACE, free.policy_id)
    with learned.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    assert pointer is not None
    publish_prices(learned, pointer, free, ())
    learned.policies.refresh_now()
    follow(learned, clock, range(87, 88), swapped=True)
    assert told(learned).rows == 0
    assert served(learned).verdict["limit"] == 0.25


def test_another_question_begins_anew(learned: Services, clock: FakeClock) -> None:
    follow(learned, clock, range(90, 92), swapped=False)
    assert told(learned).rows == 150
    setup.put_campaign(learned, replace(SHOP, attribution_hours={"clicked": 2.0}))
    follow(learned, clock, range(92, 93), swapped=False)
    assert told(learned).rows == 0
    follow(learned, clock, range(93, 94), swapped=False)
    assert told(learned).rows == 150, "what had been counted by the other is not counted again"
