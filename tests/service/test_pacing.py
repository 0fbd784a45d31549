"""Scheduled retrains judge a campaign once there is clearly more to go by, and refreshes publish what is worth it;
whoever asks for a verdict gets one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from optimizer.service import setup
from optimizer.service.feedback import judgeable, load
from optimizer.service.pacing import GROWN, judged, too_soon, worth_revising
from optimizer.service.pricing import publish_prices
from optimizer.service.publish import new_policy
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from tests.service.conftest import WORKSPACE, FakeClock
from tests.service.test_retrain import audience, shop

__all__ = ["shop"]


def scheduled(shop: Services, clock: FakeClock, trigger: str = "schedule") -> dict[str, Any]:
    """What a retrain by the schedule (or by whoever asks) answers for the one campaign."""
    run = TrainingRun(WORKSPACE, f"run_{clock.now.timestamp()}", "retrain", "running", clock.now, trigger=trigger)
    (told,) = retrain(shop, WORKSPACE, run=run)
    return told


def tries(shop: Services) -> int:
    """How many candidates of the campaign the gate has judged."""
    with shop.store.read() as reader:
        found = reader.campaign(WORKSPACE, "spring")
        assert found is not None
        return sum(1 for _ in judged(reader, found))


@pytest.fixture
def refused(shop: Services, clock: FakeClock) -> Services:
    """A shop of 400 outcomes without a pattern, judged once."""
    audience(shop, clock, 400, seed=1, effect=0.0)
    assert scheduled(shop, clock)["decision"] == "reject"
    return shop


def test_the_schedule_waits_for_a_tenth_more_and_spends_no_error_meanwhile(refused: Services, clock: FakeClock) -> None:
    audience(refused, clock, 39, seed=2, effect=0.0)
    told = scheduled(refused, clock)
    assert told["decision"] == "waits"
    assert told["reason"] == "39 outcomes more than at the last verdict; the next comes after 40, or a day"
    assert (told["rows"], tries(refused)) == (439, 1)
    audience(refused, clock, 1, seed=3, effect=0.0)
    assert scheduled(refused, clock)["decision"] == "reject"
    assert tries(refused) == 2


def test_who_asks_gets_a_verdict(refused: Services, clock: FakeClock) -> None:
    assert scheduled(refused, clock, "cli")["decision"] == "reject"
    assert retrain(refused, WORKSPACE)[0]["decision"] == "reject"
    assert tries(refused) == 3


def test_a_campaign_that_was_changed_is_judged(refused: Services, clock: FakeClock) -> None:
    clock.forward(hours=1)
    with refused.store.read() as reader:
        found = reader.campaign(WORKSPACE, "spring")
    assert found is not None
    setup.put_campaign(refused, replace(found, name="Spring again"))
    assert scheduled(refused, clock)["decision"] == "reject"


def test_a_day_after_the_last_verdict_a_campaign_is_judged(refused: Services, clock: FakeClock) -> None:
    clock.forward(hours=23.9)
    assert scheduled(refused, clock)["decision"] == "waits"
    clock.forward(hours=0.2)
    assert scheduled(refused, clock)["decision"] == "reject"


def test_what_counts_as_new(refused: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that became final since, also where retention has taken others; and older rows that an import brought."""
    audience(refused, clock, 50, seed=4, effect=0.0)
    with refused.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
        spring = log.campaigns["spring"]
        rows = [r for r in judgeable(log.of("spring"), spring) if r.matured]
        assert len(rows) == 450
        assert too_soon(reader, spring, rows[100:], clock.now) is None, (
            "50 are new, though there are fewer than there were"
        )
        assert too_soon(reader, spring, rows[:430], clock.now) is not None, "30 are new"
        assert too_soon(reader, spring, [*rows[:400], *rows[:40]], clock.now) is None, (
            "40 more, all from before the verdict"
        )
        snapshots = [replace(r.decision.snapshot, immediate=False, window_end=clock.now) for r in rows[:400]]
        early = [replace(r, decision=replace(r.decision, snapshot=s)) for r, s in zip(rows, snapshots, strict=False)]
        assert too_soon(reader, spring, early, clock.now) is not None, "final at the verdict, if others could be later"
        monkeypatch.setattr("optimizer.service.pacing.ENOUGH", 30)
        assert too_soon(reader, spring, rows[:430], clock.now) is None, "so many are enough for any campaign"


def a_few(shop: Services, clock: FakeClock, people: int, name: str) -> None:
    """Decisions whose clocks run a minute later."""
    rows = [DecisionRequest("spring", f"{name}-{i}", context={"plan": "pro"}, immediate=True) for i in range(people)]
    shop.decider.decide_batch(WORKSPACE, rows, name)
    clock.forward(minutes=1)


def refreshed(shop: Services) -> str:
    """What a refresh makes of the one campaign."""
    (told,) = refresh(shop, WORKSPACE)
    return str(told["decision"])


def known(shop: Services) -> int:
    """What the serving policy was told."""
    with shop.store.read() as reader:
        (pointer,) = reader.pointers()
        policy = reader.policy(WORKSPACE, pointer.policy_id)
        assert policy is not None
        return int(policy.exploration["told"])


def test_a_refresh_publishes_once_a_hundredth_more_is_known_or_an_hour_has_passed(
    shop: Services, clock: FakeClock
) -> None:
    audience(shop, clock, 800, seed=1)
    assert scheduled(shop, clock)["decision"] == "publish"
    before = known(shop)
    a_few(shop, clock, 5, "few")
    assert refreshed(shop) == "unchanged"
    assert known(shop) == before
    a_few(shop, clock, math.ceil(GROWN * before) - 5, "more")
    assert refreshed(shop) == "publish"
    assert known(shop) == before + math.ceil(GROWN * before)

    clock.forward(hours=2)
    assert refreshed(shop) == "publish", "that nobody clicks has become final"
    a_few(shop, clock, 1, "one")
    clock.forward(minutes=58)
    assert refreshed(shop) == "unchanged"
    clock.forward(minutes=1)
    assert refreshed(shop) == "publish"
    assert refreshed(shop) == "unchanged", "nothing is new"


def test_new_prices_do_not_put_off_what_was_learned(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 800, seed=1)
    assert scheduled(shop, clock)["decision"] == "publish"
    a_few(shop, clock, 30, "more")
    assert refreshed(shop) == "publish"
    a_few(shop, clock, 1, "one")
    clock.forward(minutes=30)
    with shop.store.read() as reader:
        (pointer,) = reader.pointers()
        policy = reader.policy(WORKSPACE, pointer.policy_id)
    assert policy is not None
    assert publish_prices(shop, pointer, policy, ())["decision"] == "publish"
    assert refreshed(shop) == "unchanged"
    clock.forward(minutes=30)
    assert refreshed(shop) == "publish"


def test_a_policy_that_does_not_say_what_it_knows_is_revised(clock: FakeClock) -> None:
    policy = new_policy(WORKSPACE, "spring", clock.now, (), parent=None, exploration={}, verdict={}, run_id=None)
    assert worth_revising(policy, 0, clock.now)
