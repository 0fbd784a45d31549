"""Scheduled retrains judge a campaign once there is clearly more to go by, and refreshes publish what is worth it;
whoever asks for a verdict gets one."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optimizer.bandit.evidence import Verdict
from optimizer.service import retrain as retraining
from optimizer.service import setup
from optimizer.service.annealing import exploration_numbers
from optimizer.service.feedback import judgeable, load
from optimizer.service.ids import COLD_POLICY
from optimizer.service.judging import later_verdict
from optimizer.service.learning import rollback
from optimizer.service.pacing import GROWN, KNOWN_AT, judged, next_try, too_soon, worth_revising
from optimizer.service.pricing import publish_prices
from optimizer.service.publish import new_policy
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.policies import Policy, TrainingRun
from storage.records import Baseline, Channel
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_retrain import audience, shop
from tests.service.trained import publish_model

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


def test_tries_are_counted_on_where_retention_takes_verdicts_away(shop: Services, clock: FakeClock) -> None:
    audience(shop, clock, 400, seed=1, effect=0.0)
    for number in range(1, 5):
        with shop.store.read() as reader:
            made = reader.campaign(WORKSPACE, "spring")
            assert made is not None
            assert next_try(reader, made) == number
        assert scheduled(shop, clock, trigger="api")["decision"] == "reject"
        clock.forward(days=20)
        before = clock.now - timedelta(days=30)
        shop.store.write(lambda writer, before=before: writer.prune(WORKSPACE, before))  # type: ignore[misc]
    assert tries(shop) == 1
    clock.forward(days=500)
    shop.store.write(lambda writer: writer.prune(WORKSPACE, clock.now))
    assert tries(shop) == 1
    with shop.store.read() as reader:
        made = reader.campaign(WORKSPACE, "spring")
        assert made is not None
        assert next_try(reader, made) == 5


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
    setup.put_campaign(refused, found)
    assert scheduled(refused, clock)["decision"] == "waits", "the same PUT is no change"
    clock.forward(hours=1)
    setup.put_campaign(refused, replace(found, name="Spring again"))
    assert scheduled(refused, clock)["decision"] == "reject"


@pytest.fixture
def taken_back(shop: Services, clock: FakeClock) -> Services:
    """A shop whose first policy a person took back; twice as much is known since."""
    audience(shop, clock, 800, seed=1)
    assert scheduled(shop, clock)["decision"] == "publish"
    rollback(shop, WORKSPACE, "spring", "anna")
    shop.policies.refresh_now()
    audience(shop, clock, 800, seed=2)
    clock.forward(days=2)
    return shop


@pytest.mark.parametrize("gate", [True, False])
def test_what_was_taken_back_to_the_cold_start_stays_back_until_somebody_asks_for_a_retrain(
    taken_back: Services, clock: FakeClock, gate: bool
) -> None:
    free = replace(taken_back, settings=replace(taken_back.settings, gate=gate))
    told = scheduled(free, clock)
    assert told["decision"] == "waits"
    assert told["reason"] == (
        "its policy was taken back to the cold start at 2026-03-02 11:00 UTC, which stays until a retrain is asked "
        "for, a policy is promoted or the campaign is changed"
    )
    with free.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    assert pointer is not None
    assert pointer.policy_id == COLD_POLICY
    assert scheduled(free, clock, "console, anna")["decision"] == "publish"
    audience(free, clock, 400, seed=3)
    assert scheduled(free, clock)["decision"] != "waits", "from there on the schedule learns again"


def test_a_campaign_that_is_changed_after_its_policy_was_taken_back_learns_again(
    taken_back: Services, clock: FakeClock
) -> None:
    with taken_back.store.read() as reader:
        found = reader.campaign(WORKSPACE, "spring")
    assert found is not None
    for _ in range(2):
        setup.put_campaign(taken_back, found)
        assert scheduled(taken_back, clock)["decision"] == "waits", "the same PUT every night is no change"
    setup.put_campaign(taken_back, replace(found, name="Spring again"))
    assert scheduled(taken_back, clock)["decision"] == "publish"


def test_what_was_taken_back_to_a_baseline_comes_again_as_a_canary(services: Services, clock: FakeClock) -> None:
    baseline, channels = Baseline("mens", "email", "10:00"), (Channel("email"),)
    made = campaign(channels=channels, cold_start="around_baseline", baseline=baseline, exploration_rate=0.5)
    setup.put_campaign(services, made)
    audience(services, clock, 1_500, seed=1)
    publish_model(services, made)
    rollback(services, WORKSPACE, "spring", "anna")
    services.policies.refresh_now()
    audience(services, clock, 3_000, seed=2)
    told = scheduled(services, clock)
    assert (told["decision"], told["alpha"]) == ("publish", 0.1), told["reason"]


def test_a_day_after_the_last_verdict_a_campaign_is_judged(refused: Services, clock: FakeClock) -> None:
    clock.forward(hours=23.9)
    assert scheduled(refused, clock)["decision"] == "waits"
    clock.forward(hours=0.2)
    assert scheduled(refused, clock)["decision"] == "reject"


def test_a_verdict_dated_ahead_of_the_clock_puts_no_judgement_off(refused: Services, clock: FakeClock) -> None:
    """The clock was a year ahead when the last one was given."""
    clock.forward(days=-365)
    with refused.store.read() as reader:
        found = reader.campaign(WORKSPACE, "spring")
        assert found is not None
        assert too_soon(reader, found, (), clock.now) is None


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


def reprice(shop: Services) -> None:
    """Publishes the serving policy with other prices."""
    with shop.store.read() as reader:
        (pointer,) = reader.pointers()
        policy = reader.policy(WORKSPACE, pointer.policy_id)
    assert policy is not None
    assert publish_prices(shop, pointer, policy, ())["decision"] == "publish"


@pytest.mark.parametrize("revised", [True, False])
def test_new_prices_do_not_put_off_what_was_learned(shop: Services, clock: FakeClock, revised: bool) -> None:
    audience(shop, clock, 800, seed=1)
    assert scheduled(shop, clock)["decision"] == "publish"
    if revised:
        a_few(shop, clock, 30, "more")
        clock.forward(hours=2)
        assert refreshed(shop) == "publish"
    a_few(shop, clock, 1, "one")
    clock.forward(minutes=30)
    reprice(shop)
    assert refreshed(shop) == "unchanged"
    clock.forward(minutes=20)
    reprice(shop)
    clock.forward(minutes=8)
    assert refreshed(shop) == "unchanged"
    clock.forward(minutes=1)
    assert refreshed(shop) == "publish"


def test_the_rows_that_a_candidate_was_judged_on_are_taught_by_the_next_refresh(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passed(*args: Any, **kwargs: Any) -> Verdict:
        return replace(later_verdict(*args, **kwargs), decision="publish", alpha=0.1)

    audience(shop, clock, 600, seed=1)
    assert scheduled(shop, clock)["decision"] == "publish"
    shop.policies.refresh_now()
    audience(shop, clock, 3_400, seed=2)
    monkeypatch.setattr(retraining, "later_verdict", passed)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    taught = known(shop)
    assert refreshed(shop) == "publish", "though nothing has arrived"
    assert known(shop) > 1.2 * taught
    assert refreshed(shop) == "unchanged"


NUMBERS = {"told": 100_000, "matured_rows": {"mens": 20_000, "kids": 100}, "rows": 20_100}
AT = datetime(2026, 3, 2, tzinfo=UTC)


def alarm(what: str, latest: int = 10) -> dict[str, Any]:
    """What the numbers say of an alarm that stands."""
    return {"drift": {"alarms": [{"what": what, "latest": latest}], "changed": None}}


@pytest.mark.parametrize(
    ("changed", "worth"),
    [
        ({}, False),
        ({"told": 100_001}, False),
        ({"told": 100_999}, False),
        ({"told": 101_000}, True),
        ({"told": 99_000}, True),
        ({"told": 100_099, "matured_rows": {"mens": 20_024, "kids": 124}}, False),
        ({"told": 100_100, "matured_rows": {"mens": 20_000, "kids": 125}}, True),
        ({"told": 100_100, "matured_rows": {"mens": 20_000, "kids": 100, "new": 24}}, False),
        ({"told": 100_100, "matured_rows": {"mens": 20_000, "kids": 100, "new": 25}}, True),
        (alarm("propensities.replay"), True),
    ],
)
def test_more_of_a_variant_or_an_alarm_is_worth_a_revision(changed: dict[str, Any], worth: bool) -> None:
    policy = replace(gated_at(AT), exploration=NUMBERS)
    assert worth_revising(policy, {**NUMBERS, **changed}, campaign(updated_at=AT), AT) == worth


def test_an_alarm_that_is_heard_again_is_no_news_and_one_that_ends_is() -> None:
    policy = replace(gated_at(AT), exploration={**NUMBERS, **alarm("features.plan")})
    unchanged = campaign(updated_at=AT)
    assert not worth_revising(policy, {**NUMBERS, **alarm("features.plan", 99)}, unchanged, AT)
    assert worth_revising(policy, NUMBERS, unchanged, AT)
    assert worth_revising(policy, {**NUMBERS, **alarm("features.city")}, unchanged, AT)


def test_what_a_changed_campaign_tells_is_learned_at_once() -> None:
    policy, news = replace(gated_at(AT), exploration=NUMBERS), {**NUMBERS, "told": 100_001}
    changed = campaign(updated_at=AT + timedelta(minutes=1))
    assert worth_revising(policy, news, changed, AT + timedelta(minutes=2))
    assert not worth_revising(policy, NUMBERS, changed, AT + timedelta(minutes=2)), "nothing is new"
    later = replace(policy, verdict={KNOWN_AT: (AT + timedelta(minutes=1)).timestamp()})
    assert not worth_revising(later, news, changed, AT + timedelta(minutes=2))


def test_a_policy_that_does_not_say_what_it_knows_is_revised() -> None:
    assert worth_revising(gated_at(AT), exploration_numbers(()), campaign(updated_at=AT), AT)


def gated_at(at: datetime) -> Policy:
    """A policy that says nothing of what it knows."""
    return new_policy(WORKSPACE, "spring", at, (), parent=None, exploration={}, verdict={}, run_id=None)
