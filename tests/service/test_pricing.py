"""Prices of scarce things: from the log to a policy's revision, to decisions that replay exactly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.tolls import Price, prices_of
from optimizer.config import Settings
from optimizer.scheduler import Scheduler
from optimizer.service import pricing, questions, setup
from optimizer.service.gains import Memory, Scores, score_all
from optimizer.service.ingest import ingest
from optimizer.service.pricing import moved, priceable, reprice, taking, work_out
from optimizer.service.questions import Watched, watched
from optimizer.service.refreshing import refresh
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services, open_services
from storage.log import Decision
from storage.records import Channel, GroupShares, OutcomeWeight
from storage.rules import MICROS, Budget, Cap, Capacity, Rule, Selector
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

PEOPLE = 300
HOURLY = Rule(WORKSPACE, "hourly", "capacity", Capacity(15, 60))


def spring(**changes: Any) -> Any:
    values = {
        "channels": (Channel("email", 0.01),),
        "objective": {"clicked": OutcomeWeight(1.0)},
        "spread_within_slot": False,
    }
    return campaign(**values | changes)


def ask(services: Services, people: int, run: str, *, to: str = "spring", hours: float = 6.0) -> list[Decision]:
    """One question each; every third person is keen."""
    now = services.clock()
    rows = [
        DecisionRequest(
            to,
            f"p{i}",
            context={"keen": i % 3 == 0},
            window=(now, now + timedelta(hours=hours)),
            request_id=f"{run}/{i}",
        )
        for i in range(people)
    ]
    return [d for d in services.decider.decide_batch(WORKSPACE, rows, run) if isinstance(d, Decision)]


def respond(services: Services, decided: list[Decision], seed: int) -> None:
    """Keen people click on .6 of their messages, the others on .15."""
    rng = np.random.default_rng(seed)
    events = [
        EventInput(type="clicked", occurred_at=d.send_at + timedelta(minutes=1), decision_id=d.decision_id)
        for d in decided
        if d.send_at is not None and rng.random() < (0.6 if d.snapshot.context["keen"] else 0.15)
    ]
    ingest(services, WORKSPACE, events)


@contextmanager
def opened(folder: Path, clock: FakeClock) -> Iterator[Services]:
    settings = Settings(database=f"sqlite:///{folder}/test.db", gate=False)
    services = open_services(settings, clock, seed=7, watch=False)
    try:
        yield services
    finally:
        services.close()


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


def test_demand_counts_withheld_questions_and_leaves_control_groups_out(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SAMPLE", 50)
    setup.put_campaign(services, spring(groups=GroupShares(random=0.5), allow_no_send=False))
    rule = replace(HOURLY, parameters=Capacity(20, 60))
    setup.put_rule(services, rule)
    decided = ask(services, 200, "one")
    clock.forward(hours=7)
    with services.store.read() as reader:
        past = Watched(frozenset({"spring"}), (rule,), whole=True).read(reader, WORKSPACE, clock.now)
    treated = [d for d in decided if d.group == "treated"]
    assert any(d.status == "withheld" for d in treated)
    assert past.typical == len(treated)
    assert len(past.sample) == 50
    assert {d.decision_id for d in past.sample} <= {d.decision_id for d in treated}
    sent = [d for d in decided if d.send_at is not None]
    assert past.taken["hourly"] == (sum(d.group == "treated" for d in sent), len(sent))
    assert 0 < len(past.whole) <= 50


def test_a_week_with_one_busy_day_has_busy_days(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, spring())
    ask(services, 7, "first")
    clock.forward(days=6, hours=1)
    ask(services, 63, "busy")
    clock.forward(hours=1)
    with services.store.read() as reader:
        past = Watched(frozenset({"spring"}), (), whole=False).read(reader, WORKSPACE, clock.now)
    assert past.typical == pytest.approx(63.0)
    assert past.busy == pytest.approx(6.0)


def test_reading_on_tells_what_reading_anew_tells(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SAMPLE", 40)
    setup.put_campaign(services, spring())
    setup.put_rule(services, HOURLY)
    on = Watched(frozenset({"spring"}), (HOURLY,), whole=True)
    for step in range(20):
        ask(services, 10 + step, f"step{step}")
        with services.store.read() as reader:
            read_on = on.read(reader, WORKSPACE, clock.now)
            anew = Watched(frozenset({"spring"}), (HOURLY,), whole=True).read(reader, WORKSPACE, clock.now)
        assert (read_on.typical, read_on.busy, read_on.taken) == (anew.typical, anew.busy, anew.taken)
        assert len(read_on.sample) == min(40, sum(10 + s for s in range(max(0, step - 13), step + 1)))
        assert {d.decision_id for d in read_on.sample} == {d.decision_id for d in anew.sample}
        clock.forward(hours=12)
    assert not on.thin


def test_a_sample_that_became_thin_is_drawn_anew(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SAMPLE", 20)
    setup.put_campaign(services, spring())
    known: dict[str, Watched] = {}
    ask(services, 200, "many")
    with services.store.read() as reader:
        watched(known, WORKSPACE, {"spring"}, (), whole=False).read(reader, WORKSPACE, clock.now)
    clock.forward(days=4)
    ask(services, 30, "few")
    clock.forward(days=5)
    for expected in (None, 20):
        with services.store.read() as reader:
            past = watched(known, WORKSPACE, {"spring"}, (), whole=False).read(reader, WORKSPACE, clock.now)
        assert expected in (None, len(past.sample))


def test_only_prices_that_moved_are_worth_a_revision() -> None:
    old = Price("r", "capacity", ("email",), (1.0,) * 24)
    assert not moved((old,), (replace(old, usual=(1.04,) * 24),), START)
    assert moved((old,), (replace(old, usual=(1.07,) * 24),), START)
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
