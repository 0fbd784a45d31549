"""A line of revisions that predicts better what comes than its gated policy is free of the bound that keeps it near."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from optimizer.bandit.clusters import Floats
from optimizer.service import learning, setup
from optimizer.service.progress import ERROR, LEAST_ROWS, Progress
from optimizer.service.refreshing import refresh
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Guardrail
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
    return Progress(**served(services).verdict["progress"])


def after(gains: Floats) -> Progress:
    """What is known after one look at these gains."""
    return Progress().followed(gains, 0.0, 0.0)


def test_nothing_is_said_of_few_decisions_and_much_of_a_clear_gain() -> None:
    gains = np.random.default_rng(1).normal(0.1, 0.3, LEAST_ROWS)
    assert not after(gains[:-1]).better
    assert after(gains).better
    assert not after(-gains).better


def test_what_was_clear_stands_until_all_of_it_is_lost_again() -> None:
    gains = np.random.default_rng(1).normal(0.1, 0.3, LEAST_ROWS)
    hardly = after(gains).followed(-0.9 * gains, 0.0, 0.0)
    assert hardly.better
    assert not after(np.concatenate([gains, -0.9 * gains])).better
    assert not hardly.followed(-0.2 * gains, 0.0, 0.0).better


def test_where_nothing_is_gained_it_is_seldom_said_however_often_it_is_looked_at() -> None:
    rng, wrong = np.random.default_rng(2), 0
    looks = np.unique(np.geomspace(LEAST_ROWS, 4_000, 25).astype(int))
    for _ in range(400):
        gains = rng.standard_t(5, 4_000)
        wrong += any(after(gains[:n]).better for n in looks)
    assert wrong <= 400 * ERROR / 2 + 3 * np.sqrt(400 * ERROR / 2)


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
