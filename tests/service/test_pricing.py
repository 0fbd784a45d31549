"""Prices of scarce things: from the log to a policy's revision, to decisions that replay exactly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.tolls import Price, prices_of
from optimizer.scheduler import Scheduler
from optimizer.service import pricing, setup, upkeep
from optimizer.service import retrain as retraining
from optimizer.service.annealing import exploration_numbers
from optimizer.service.gains import Memory, Scores, score_all
from optimizer.service.learning import promote, rollback
from optimizer.service.priceable import priceable, taking
from optimizer.service.pricing import moved, reprice, work_out
from optimizer.service.publish import publish
from optimizer.service.refreshing import refresh
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.log import Decision
from storage.records import JsonObject
from storage.rules import MICROS, Adapt, Budget, Cap, Capacity, Rule, Selector
from tests.service.conftest import START, WORKSPACE, FakeClock
from tests.service.scarce_shop import HOURLY, PEOPLE, ask, opened, respond, spring


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a campaign that people have asked for two days, a learned policy, and no rule yet."""
    folder, clock = tmp_path_factory.mktemp("template"), FakeClock()
    with opened(folder, clock) as services:
        setup.ensure_workspace(services, WORKSPACE)
        setup.put_campaign(services, spring())
        for day in range(2):
            decided = ask(services, PEOPLE, f"day{day}")
            clock.forward(hours=24)
            respond(services, decided, day)
        assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
    return folder


@pytest.fixture
def shop(template: Path, tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    """A copy of the template, two days after the start."""
    shutil.copytree(template, tmp_path / "shop")
    clock.forward(hours=48)
    with opened(tmp_path / "shop", clock) as services:
        yield services


def served(services: Services, name: str = "spring") -> tuple[Price, ...]:
    """The prices under which a campaign's decisions are made now."""
    services.policies.refresh_now()
    return services.policies.current(WORKSPACE, name).prices


def bind(services: Services, *rules: Rule) -> None:
    """Puts rules in force and lets them be felt once."""
    for rule in rules:
        setup.put_rule(services, rule)
    ask(services, 150, f"felt-{rules[0].rule_id}")


def test_nothing_has_a_price_where_nothing_is_scarce(shop: Services) -> None:
    assert reprice(shop, WORKSPACE) == []
    bind(shop, replace(HOURLY, parameters=Capacity(100_000, 60)))
    assert reprice(shop, WORKSPACE) == []
    assert served(shop) == ()


def test_a_binding_capacity_gets_a_price_as_a_revision(shop: Services) -> None:
    gated = shop.policies.current(WORKSPACE, "spring").policy_id
    bind(shop, HOURLY)
    (told,) = reprice(shop, WORKSPACE)
    assert (told["campaign_id"], told["decision"], told["prices"]) == ("spring", "publish", ["hourly"])
    with shop.store.read() as reader:
        revision = reader.policy(WORKSPACE, told["policy_id"])
        before = reader.policy(WORKSPACE, gated)
    assert revision is not None
    assert before is not None
    assert (revision.revision, revision.parent_id, revision.mixture) == (True, gated, before.mixture)
    (price,) = served(shop)
    assert (price.kind, price.channels) == ("capacity", ("email",))
    assert max(price.values) > 0.1
    assert reprice(shop, WORKSPACE) == []


def test_decisions_under_changing_prices_replay_exactly(shop: Services, clock: FakeClock) -> None:
    bind(shop, HOURLY)
    decided: list[Decision] = []
    for step in range(3):
        reprice(shop, WORKSPACE)
        assert served(shop)
        decided += ask(shop, 40, f"step{step}")
        clock.forward(minutes=70)
    assert len({d.policy_id for d in decided}) >= 2
    with shop.store.read() as reader:
        replayer = Replayer(reader, shop.salt)
        for decision in decided:
            assert replayer.draw(decision) == decision.action
            if decision.action is not None:
                assert replayer.vector(decision)[decision.action] == pytest.approx(decision.propensity, abs=1e-12)


def keen_share(decided: list[Decision]) -> float:
    sent = [bool(d.snapshot.context["keen"]) for d in decided if d.send_at is not None]
    return float(np.mean(sent))


def test_what_is_scarce_goes_to_those_who_gain_most(shop: Services, clock: FakeClock) -> None:
    setup.put_rule(shop, HOURLY)
    first = ask(shop, PEOPLE, "first come")  # 90 places, and every third is keen
    clock.forward(hours=24)
    reprice(shop, WORKSPACE)
    assert served(shop)
    priced = ask(shop, PEOPLE, "priced")
    assert keen_share(first) < 0.5
    assert keen_share(priced) > 0.85
    assert sum(d.send_at is not None for d in priced) > 70


def test_a_weekly_mailing_is_priced_at_any_time_after_it(shop: Services, clock: FakeClock) -> None:
    """All that was asked in the last week was asked in one hour."""
    clock.forward(days=8)
    setup.put_rule(shop, HOURLY)
    ask(shop, PEOPLE, "week")
    found = []
    for hours in (1, 29, 20):
        clock.forward(hours=hours)
        reprice(shop, WORKSPACE)
        found.append(served(shop)[0])
    assert all(price.usual == found[0].usual != (0.0,) * 24 for price in found)


def test_prices_go_when_the_rule_goes(shop: Services) -> None:
    bind(shop, HOURLY)
    reprice(shop, WORKSPACE)
    assert served(shop)
    setup.put_rule(shop, replace(HOURLY, archived=True))
    (told,) = reprice(shop, WORKSPACE)
    assert told["prices"] == []
    assert served(shop) == ()


def test_a_rule_that_does_not_bind_or_count_a_campaign_prices_none_of_its_messages(shop: Services) -> None:
    elsewhere = Selector(campaigns=("autumn",))
    assert taking(HOURLY, spring()) == ("email",)
    assert taking(replace(HOURLY, applies_to=elsewhere), spring()) == ()
    assert taking(replace(HOURLY, counts=elsewhere), spring()) == ()
    bind(shop, replace(HOURLY, counts=elsewhere, parameters=Capacity(1, 60)))
    assert reprice(shop, WORKSPACE) == []


def test_campaigns_that_share_a_capacity_pay_the_same(shop: Services, clock: FakeClock) -> None:
    setup.put_campaign(shop, spring(campaign_id="autumn"))
    respond(shop, ask(shop, PEOPLE, "autumn", to="autumn"), 5)
    clock.forward(hours=24)
    assert {v["decision"] for v in retrain(shop, WORKSPACE, "autumn")} == {"publish"}
    bind(shop, HOURLY)
    assert {told["campaign_id"] for told in reprice(shop, WORKSPACE)} == {"spring", "autumn"}
    assert served(shop) == served(shop, "autumn") != ()


def test_a_refresh_carries_the_prices_and_publishes_them_alone_where_the_model_stays(
    shop: Services, clock: FakeClock
) -> None:
    bind(shop, HOURLY)
    assert refresh(shop, WORKSPACE)[0]["decision"] == "repriced"
    (price,) = served(shop)
    decided = ask(shop, 60, "more")
    clock.forward(hours=8)
    respond(shop, decided, 8)
    told = refresh(shop, WORKSPACE)[0]
    assert (told["decision"], told["prices"]) == ("publish", ["hourly"])
    assert served(shop)[0].values != price.values


def test_the_scheduler_prices_by_itself_and_spends_little_of_its_time_on_it(shop: Services) -> None:
    bind(shop, HOURLY)
    scheduler = Scheduler(shop)
    (job,) = [j for j in scheduler._jobs(shop.settings).get_jobs() if j.id == "prices"]
    job.func()
    assert served(shop)
    setup.put_rule(shop, replace(HOURLY, archived=True))
    job.func()  # too early: prices took a while, and may take a tenth of the time
    assert served(shop)
    scheduler.price_after = -1e9
    job.func()
    assert not served(shop)


def test_prices_lose_a_race_for_the_pointer(shop: Services) -> None:
    bind(shop, HOURLY)
    with shop.store.read() as reader:
        old = priceable(reader, WORKSPACE, shop.clock())
    assert reprice(shop, WORKSPACE)[0]["decision"] == "publish"
    told = pricing.publish_prices(shop, old.pointers["spring"], old.policies["spring"], ())
    assert told["decision"] == "superseded"
    assert served(shop)


def test_what_takes_longer_than_prices_do_is_published_with_the_newest(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices follow what is left every minute; a retrain of a long log takes longer."""
    bind(shop, HOURLY)

    def slow(*args: Any) -> JsonObject:
        for minute in range(3):
            clock.forward(minutes=1)
            setup.put_rule(shop, replace(HOURLY, archived=minute % 2 == 1))
            assert reprice(shop, WORKSPACE)[0]["decision"] == "publish"
        told.append(served(shop))
        return exploration_numbers(*args)

    told: list[tuple[Price, ...]] = []
    monkeypatch.setattr(retraining, "exploration_numbers", slow)
    (answer,) = retrain(shop, WORKSPACE)
    assert answer["decision"] == "publish", answer["reason"]
    assert served(shop) == told[0] != ()


def test_a_policy_that_was_taken_back_is_no_matter_of_prices(shop: Services) -> None:
    bind(shop, HOURLY)
    with shop.store.read() as reader:
        before = priceable(reader, WORKSPACE, shop.clock())
    pointer, policy = before.pointers["spring"], before.policies["spring"]
    assert reprice(shop, WORKSPACE)[0]["decision"] == "publish"
    rollback(shop, WORKSPACE, "spring")
    with pytest.raises(VersionConflict):
        publish(shop, [], replace(policy, policy_id="pol_late"), pointer, shop.clock())
    promote(shop, WORKSPACE, policy.policy_id)
    with pytest.raises(VersionConflict):
        publish(shop, [], replace(policy, policy_id="pol_late"), pointer, shop.clock())


def test_a_budget_that_is_spent_too_fast_gets_a_price_before_it_is_gone(shop: Services) -> None:
    setup.put_rule(shop, Rule(WORKSPACE, "money", "budget", Budget(round(1.5 * MICROS), "day")))
    ask(shop, 60, "some")  # .6 of 1.5 a tenth into the day
    (told,) = reprice(shop, WORKSPACE)
    assert told["prices"] == ["money"]
    (price,) = served(shop)
    assert price.kind == "budget"
    assert price.values[0] > 1.0  # reward for a unit of money, of which a message takes a hundredth


def test_a_cap_gets_a_price_where_waiting_pays(shop: Services, clock: FakeClock) -> None:
    # Keenness comes and goes, so a place that is taken now may be missing for a better moment.
    setup.put_rule(shop, Rule(WORKSPACE, "weekly", "cap", Cap(1, rolling_hours=72.0)))
    for day in range(4):
        now = clock.now
        rows = [
            DecisionRequest(
                "spring", f"q{i}", context={"keen": (i + day) % 3 == 0}, window=(now, now + timedelta(hours=2))
            )
            for i in range(120)
        ]
        shop.decider.decide_batch(WORKSPACE, rows, f"wait{day}")
        clock.forward(hours=24)
    (told,) = reprice(shop, WORKSPACE)
    assert told["prices"] == ["weekly"]
    assert 0.1 < served(shop)[0].usual[0] < 0.6


def test_what_a_rule_closed_is_open_again_when_it_is_priced(shop: Services) -> None:
    free = {d.recipient_id: d for d in ask(shop, 100, "free")}
    setup.put_rule(shop, replace(HOURLY, parameters=Capacity(1, 60)))
    closed = ask(shop, 100, "closed")
    assert sum(d.eligible_actions < free[d.recipient_id].eligible_actions for d in closed) > 90
    with shop.store.read() as reader:
        at = priceable(reader, WORKSPACE, shop.clock())
        live = {"spring": (at.campaigns["spring"], shop.policies.current(WORKSPACE, "spring"))}
        one, other = (
            score_all(reader, shop.salt, rows, live, at.rules, frozenset({"hourly"}), Scores())
            for rows in (closed, [free[d.recipient_id] for d in closed])
        )
    for mine, twin in zip(one, other, strict=True):
        assert np.allclose(mine.gain, twin.gain)
        assert len(mine.gain) == 6


def test_an_adaptive_cap_put_since_closes_for_whom_it_would_have_closed(shop: Services) -> None:
    upkeep.expire(shop, WORKSPACE)
    setup.put_rule(shop, replace(HOURLY, parameters=Capacity(1, 60)))
    closed = [d for d in ask(shop, 100, "closed") if d.eligible_actions == 1]
    setup.put_rule(shop, Rule(WORKSPACE, "tired", "cap", Cap(9, rolling_hours=24.0, adapt=Adapt(2, 0))))
    with shop.store.read() as reader:
        asked = [one for d in closed if (one := reader.decision(WORKSPACE, d.decision_id)) is not None]
        at = priceable(reader, WORKSPACE, shop.clock())
        live = {"spring": (at.campaigns["spring"], shop.policies.current(WORKSPACE, "spring"))}
        scored = score_all(reader, shop.salt, asked, live, at.rules, frozenset({"hourly"}), Scores())
        unanswered = reader.unanswered(WORKSPACE, [d.recipient_id for d in closed])
    tired = [unanswered.get(d.recipient_id, 0) >= 2 for d in closed]
    assert 10 < sum(tired) < len(tired) - 10
    assert [len(one.gain) == 0 for one in scored] == tired


def test_questions_asked_in_a_zone_that_this_host_lacks_are_left_out(shop: Services) -> None:
    decided = ask(shop, 4, "free")
    afar = [replace(d, snapshot=replace(d.snapshot, timezone="America/Nowhere")) for d in decided[:2]]
    with shop.store.read() as reader:
        at = priceable(reader, WORKSPACE, shop.clock())
        live = {"spring": (at.campaigns["spring"], shop.policies.current(WORKSPACE, "spring"))}
        scored = score_all(reader, shop.salt, [*afar, *decided[2:]], live, at.rules, frozenset(), Scores())
    assert [one.decision for one in scored] == decided[2:]


def test_questions_can_be_scored_by_the_draws_that_the_policy_chooses_by(shop: Services) -> None:
    decided = ask(shop, 100, "free")
    with shop.store.read() as reader:
        at = priceable(reader, WORKSPACE, shop.clock())
        live = {"spring": (at.campaigns["spring"], shop.policies.current(WORKSPACE, "spring"))}
        means, draws, again = (
            [
                float(one.gain.max(initial=0.0))
                for one in score_all(reader, shop.salt, decided, live, at.rules, frozenset(), Scores(), drawn=drawn)
            ]
            for drawn in (False, True, True)
        )
    assert draws == again
    # The best of noisy values is above the best of their means; two standard errors.
    more = np.array(draws) - np.array(means)
    assert more.mean() > 2 * more.std() / np.sqrt(len(more))


def test_scored_questions_are_remembered_until_the_model_or_the_rules_change(shop: Services) -> None:
    bind(shop, HOURLY)
    memory = Memory()
    reprice(shop, WORKSPACE, memory=memory)
    first = dict(memory.scores.known)
    assert len(first) == 2 * PEOPLE + 150
    ask(shop, 10, "new")
    reprice(shop, WORKSPACE, memory=memory)
    assert all(memory.scores.known[key] is scored for key, scored in first.items())
    assert len(memory.scores.known) == len(first) + 10


def test_only_prices_that_moved_are_worth_a_revision() -> None:
    old = Price("r", "capacity", ("email",), (1.0,) * 24)
    assert not moved((old,), (replace(old, usual=(1.04,) * 24),), START)
    assert moved((old,), (replace(old, usual=(1.07,) * 24),), START)
    assert moved((old,), (replace(old, usual=(1.0,) * 23 + (0.9,)),), START)
    assert moved((old,), (), START)
    assert moved((), (old,), START)
    assert moved((old,), (replace(old, channels=("sms",)),), START)
    assert not moved((old,), (old,), START)


def test_every_campaigns_prices_are_told_by_rule(shop: Services) -> None:
    bind(shop, HOURLY)
    with shop.store.read() as reader:
        prices = work_out(shop, reader, priceable(reader, WORKSPACE, shop.clock()))
    assert {name: [p.rule_id for p in found] for name, found in prices.items()} == {"spring": ["hourly"]}
    assert prices_of({"prices": [p.as_json() for p in prices["spring"]]}) == prices["spring"]
