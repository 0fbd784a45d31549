"""A canary on the real path: planted bad ones are taken back by themselves, with numbers; harmless ones stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest

from optimizer.model.training.train import train
from optimizer.service import setup
from optimizer.service.annealing import exploration_numbers
from optimizer.service.canary import Watch, not_watched_enough, watch
from optimizer.service.feedback import closes, examples, load
from optimizer.service.ids import COLD_POLICY
from optimizer.service.ingest import ingest
from optimizer.service.learning import promote
from optimizer.service.pricing import publish_prices
from optimizer.service.publish import artifact_of, mixture, new_policy, publish
from optimizer.service.refreshing import refresh
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.retrain import retrain
from optimizer.service.runs import Ended
from optimizer.service.served import line_of, policy_of
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.policies import Pointer, Policy, TrainingRun
from storage.port import Writer
from storage.records import Channel, Guardrail, OutcomeWeight
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.test_retrain import audience

Looks = Callable[[Services, str], list[dict[str, Any]]]
SHOP = campaign(channels=(Channel("email"),), allow_no_send=False)


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, SHOP)
    return services


def pointer_of(services: Services) -> Pointer:
    with services.store.read() as reader:
        pointer = reader.pointer(WORKSPACE, "spring")
    assert pointer is not None
    return pointer


def plant(
    services: Services, clock: FakeClock, *, bad: bool, parent: str | None = None, revises: str | None = None
) -> Policy:
    """Publishes a tenth of a model beside the incumbent: one that has learned the opposite, or the same. ``parent`` is
    what it says to have replaced, if not what it did; ``revises``: the gated policy that it is a revision of."""
    pointer, incumbent = pointer_of(services), serving(services)
    with services.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    data = examples(log.rows, log.campaigns)
    if bad:
        data = replace(data, outcome={name: 1.0 - column for name, column in data.outcome.items()})
    trained = train(data, attributes=(), seed=3, network=False)
    artifact = artifact_of(WORKSPACE, trained.blob, trained.feature_hash, clock.now)
    policy = new_policy(
        WORKSPACE,
        "spring",
        clock.now,
        mixture(incumbent.mixture, artifact.artifact_id, 0.1),
        parent=pointer if parent is None else replace(pointer, policy_id=parent),
        exploration=exploration_numbers(log.of("spring")),
        verdict={"decision": "publish", "alpha": 0.1},
        run_id=None,
        gated_id=revises,
    )
    published = publish(services, [artifact], policy, pointer, clock.now)
    services.policies.refresh_now()
    return published


def serving(services: Services) -> Policy:
    """The policy that the campaign's pointer names."""
    with services.store.read() as reader:
        policy = policy_of(reader, pointer_of(services))
    assert policy is not None
    return policy


def lift(services: Services, clock: FakeClock, alpha: float) -> Policy:
    """Gives the newest part of what serves this share, as a look at shared traffic does."""
    before = serving(services)
    policy = new_policy(
        WORKSPACE,
        "spring",
        clock.now,
        mixture(before.mixture[:-1], before.mixture[-1].artifact_id or "", alpha),
        parent=pointer_of(services),
        exploration=before.exploration,
        verdict={"decision": "publish", "alpha": alpha, "shared": 500},
        run_id=None,
    )
    published = publish(services, [], policy, pointer_of(services), clock.now)
    services.policies.refresh_now()
    return published


def repriced(services: Services) -> Policy:
    """Publishes a revision of what serves, as new prices do: the model stays."""
    publish_prices(services, pointer_of(services), serving(services), ())
    services.policies.refresh_now()
    return serving(services)


def convicted(services: Services, clock: FakeClock, *, seed: int) -> dict[str, Any]:
    """The look that takes a canary back."""
    for step in range(4):
        audience(services, clock, 500, seed=seed + step)
        told = look(services, f"run_{seed + step}")
        if told["decision"] == "rolled_back":
            services.policies.refresh_now()
            return told
    raise AssertionError(told["reason"])


def look(services: Services, name: str, of: Looks = watch) -> dict[str, Any]:
    """A look whose answer is kept with a training run, as the scheduler does."""
    (told,) = of(services, WORKSPACE)
    run = TrainingRun(
        WORKSPACE, name, "refresh", "rejected", services.clock(), verdict=Ended("rejected", [told]).verdict
    )
    services.store.write(lambda writer: writer.put_training_run(run))
    return told


@pytest.fixture
def learned(shop: Services, clock: FakeClock) -> Services:
    """A shop whose first policy serves."""
    audience(shop, clock, 800, seed=31)
    assert retrain(shop, WORKSPACE)[0]["decision"] == "publish"
    shop.policies.refresh_now()
    return shop


class TestRollBack:
    def test_a_bad_canary_is_taken_back_with_its_numbers(self, learned: Services, clock: FakeClock) -> None:
        before = pointer_of(learned)
        canary = plant(learned, clock, bad=True)
        for step in range(4):
            audience(learned, clock, 500, seed=40 + step)
            told = look(learned, f"run_{step}")
            if told["decision"] == "rolled_back":
                break
        assert told["decision"] == "rolled_back", told["reason"]
        after = pointer_of(learned)
        assert (after.policy_id, after.generation) == (before.policy_id, before.generation + 2)
        with learned.store.read() as reader:
            statuses = {p.policy_id: p.status for p in reader.policies(WORKSPACE, limit=9).items}
            change = reader.changes(WORKSPACE, after=0, limit=9)[-1]
        assert statuses[canary.policy_id] == "retired"
        assert statuses[before.policy_id] == "live"
        assert (change.kind, change.policy_id, change.replaced_id) == (
            "rolled_back",
            before.policy_id,
            canary.policy_id,
        )
        assert canary.policy_id in change.detail
        assert "canary.reward" in change.detail
        learned.policies.refresh_now()
        assert learned.policies.current(WORKSPACE, "spring").policy_id == before.policy_id
        assert watch(learned, WORKSPACE) == []

    def test_one_that_somebody_puts_back_is_judged_on_what_comes_since(
        self, learned: Services, clock: FakeClock
    ) -> None:
        canary = plant(learned, clock, bad=True)
        audience(learned, clock, 2000, seed=40)
        assert look(learned, "run_1")["decision"] == "rolled_back"
        clock.forward(days=3)
        promote(learned, WORKSPACE, canary.policy_id, by="anna")
        learned.policies.refresh_now()
        clock.forward(minutes=1)
        told = look(learned, "run_2")
        assert (told["decision"], told["rows"]) == ("watched", 0)
        audience(learned, clock, 30, seed=41)
        told = look(learned, "run_3")
        assert (told["decision"], told["rows"]) == ("watched", 30), "what is remembered goes on"
        audience(learned, clock, 2000, seed=42)
        assert look(learned, "run_4")["decision"] == "rolled_back"

    @pytest.mark.parametrize("first", ["look", "prices", "refresh"])
    def test_a_revision_of_one_that_somebody_puts_back_is_judged_on_what_comes_since(
        self, learned: Services, clock: FakeClock, first: str
    ) -> None:
        """Whatever becomes of it before the next look, and however much of other campaigns' policies."""
        plant(learned, clock, bad=True)
        audience(learned, clock, 100, seed=39)
        canary = repriced(learned)
        convicted(learned, clock, seed=40)
        clock.forward(days=3)
        promote(learned, WORKSPACE, canary.policy_id, by="anna")
        clock.forward(minutes=1)
        for _ in range(101):
            learned.store.write(
                lambda writer: writer.add_change(WORKSPACE, "promoted", clock(), campaign_id="other", policy_id="p")
            )
        if first == "prices":
            repriced(learned)
        elif first == "refresh":
            assert refresh(learned, WORKSPACE)[0]["decision"] == "publish"
        assert (pointer_of(learned).policy_id == canary.policy_id) == (first == "look")
        learned.policies.refresh_now()
        told = look(learned, "run_50")
        assert (told["decision"], told["rows"]) == ("watched", 0)
        audience(learned, clock, 30, seed=51)
        told = look(learned, "run_51")
        assert (told["decision"], told["rows"]) == ("watched", 30), "what is remembered goes on"
        if first != "refresh":  # which teaches it what the others know
            convicted(learned, clock, seed=52)

    def test_one_that_has_climbed_is_taken_back_to_what_served_before_it(
        self, learned: Services, clock: FakeClock
    ) -> None:
        before = pointer_of(learned)
        plant(learned, clock, bad=True)
        for alpha in (0.3, 0.6):
            audience(learned, clock, 40, seed=int(100 * alpha))
            repriced(learned)
            lift(learned, clock, alpha)
        told = convicted(learned, clock, seed=40)
        assert f"at 0.6 is clearly worse, back to {before.policy_id}: " in told["reason"]
        assert serving(learned).policy_id == before.policy_id
        assert watch(learned, WORKSPACE) == []

    def test_a_refitted_model_that_has_climbed_is_taken_back_to_its_gated_policy(
        self, learned: Services, clock: FakeClock
    ) -> None:
        gated = pointer_of(learned)
        plant(learned, clock, bad=True, revises=gated.policy_id)
        lift(learned, clock, 0.6)
        convicted(learned, clock, seed=40)
        assert serving(learned).policy_id == gated.policy_id

    def test_one_that_came_beside_another_canary_leaves_that_one_in_service(
        self, learned: Services, clock: FakeClock
    ) -> None:
        other = plant(learned, clock, bad=False)
        audience(learned, clock, 40, seed=39)
        lift(learned, clock, 0.3)
        rung = serving(learned)
        plant(learned, clock, bad=True)
        convicted(learned, clock, seed=40)
        assert serving(learned).policy_id == rung.policy_id
        assert rung.mixture[-1].artifact_id == other.mixture[-1].artifact_id

    def test_it_is_taken_back_also_when_what_served_before_is_not_kept(
        self, learned: Services, clock: FakeClock
    ) -> None:
        """As when retention deleted it meanwhile."""
        plant(learned, clock, bad=True, parent="pol_gone")
        audience(learned, clock, 2000, seed=40)
        told = look(learned, "run_1")
        assert told["decision"] == "rolled_back", told["reason"]
        assert pointer_of(learned).policy_id == COLD_POLICY

    def test_a_harmless_canary_stays(self, learned: Services, clock: FakeClock) -> None:
        canary = plant(learned, clock, bad=False)
        audience(learned, clock, 1500, seed=50)
        told = look(learned, "run_1")
        assert told["decision"] == "watched", told["reason"]
        assert told["rows"] == 1500
        assert pointer_of(learned).policy_id == canary.policy_id

    def test_a_canary_that_does_harm_is_taken_back(self, services: Services, clock: FakeClock) -> None:
        """Unsubscribes weigh nothing in the objective, but have a limit: what people don't like makes them leave."""
        harm = campaign(
            channels=(Channel("email"),),
            allow_no_send=False,
            objective={"clicked": OutcomeWeight(0.001), "unsubscribed": OutcomeWeight(0.0)},
            attribution_hours={"clicked": 1.0, "unsubscribed": 1.0},
            guardrails={"unsubscribed": Guardrail(max_rate=0.15, max_increase=0.05)},
        )
        setup.put_campaign(services, harm)
        leave(services, clock, 800, (0.0, 0.5), (0.1, 0.1), seed=31)
        assert retrain(services, WORKSPACE)[0]["decision"] == "publish"
        services.policies.refresh_now()
        plant(services, clock, bad=True)
        leave(services, clock, 2000, (0.0, 0.5), (0.1, 0.1), seed=32)
        (told,) = watch(services, WORKSPACE)
        assert told["decision"] == "rolled_back"
        failed = {c["name"] for c in told["conditions"] if not c["passed"]}
        assert failed >= {"canary.unsubscribed.rate", "canary.unsubscribed.increase"}
        assert {c["limit"] for c in told["conditions"]} == {0.05 / len(told["conditions"])}


class TestLooks:
    def test_only_closed_rows_count_and_each_once(self, learned: Services, clock: FakeClock) -> None:
        plant(learned, clock, bad=False)
        # One that stays open for a day: each look reads again from there on.
        learned.decider.decide(WORKSPACE, DecisionRequest("spring", "slow"))
        audience(learned, clock, 200, seed=60)
        first = look(learned, "run_1")
        assert first["rows"] == 200
        assert look(learned, "run_2")["rows"] == 200
        audience(learned, clock, 100, seed=61)
        clock.forward(hours=-1.5)  # half an hour after the decisions: their clicks may still come
        assert look(learned, "run_3")["rows"] == 200
        clock.forward(hours=1.5)
        assert look(learned, "run_4")["rows"] == 300

    def test_many_looks_know_what_one_knows(self, learned: Services, clock: FakeClock) -> None:
        plant(learned, clock, bad=True)
        for step in range(3):
            audience(learned, clock, 60, seed=70 + step)
            look(learned, f"run_{step}")
            refresh(learned, WORKSPACE)
            learned.policies.refresh_now()
        audience(learned, clock, 60, seed=73)
        (by_parts,) = watch(learned, WORKSPACE)
        assert by_parts["rows"] == 240
        for step in range(3):
            learned.store.write(partial(forget, run_id=f"run_{step}"))
        (at_once,) = watch(learned, WORKSPACE)
        one, other = Watch.from_json(by_parts["watch"]), Watch.from_json(at_once["watch"])
        assert one.rows == other.rows
        for name, wager in one.wagers.items():
            assert wager.capital == pytest.approx(other.wagers[name].capital)

    def test_a_refreshed_canary_is_the_same_canary(self, learned: Services, clock: FakeClock) -> None:
        canary = plant(learned, clock, bad=False)
        audience(learned, clock, 200, seed=80)
        assert refresh(learned, WORKSPACE)[0]["decision"] == "publish"
        learned.policies.refresh_now()
        audience(learned, clock, 100, seed=81)
        with learned.store.read() as reader:
            line = line_of(reader, serving(learned))
        assert [p.revision for p in line] == [True, False]
        told = look(learned, "run_1")
        assert (told["policy_id"], told["rows"]) == (canary.policy_id, 300)

    def test_a_whole_policy_is_no_canary(self, learned: Services, clock: FakeClock) -> None:
        audience(learned, clock, 50, seed=90)
        assert watch(learned, WORKSPACE) == []

    @pytest.mark.parametrize("factor", [0.5, 0.001])
    @pytest.mark.parametrize(("rows", "decision"), [(1, "rolled_back"), (3, "untrusted")])
    def test_a_log_that_does_not_replay_is_not_judged(
        self, learned: Services, clock: FakeClock, factor: float, rows: int, decision: str
    ) -> None:
        """One row may be off: another machine rounds otherwise. It bets on nothing then."""
        plant(learned, clock, bad=True)
        decided = audience(learned, clock, 1500, seed=40)
        with learned.store.read() as reader:
            stored = reader.decisions_by_id(WORKSPACE, [one.decision_id for one in decided[:rows]])
        for number, one in enumerate(stored.values()):
            assert one.propensity is not None
            lie = replace(one, decision_id=f"dec_{number}", request_id=f"{number}", propensity=one.propensity * factor)
            learned.store.write(partial(add, lie))
        (told,) = watch(learned, WORKSPACE)
        assert told["decision"] == decision, told["reason"]

    def test_a_watch_begun_with_a_smaller_bound_goes_on_with_todays(self, learned: Services, clock: FakeClock) -> None:
        plant(learned, clock, bad=False)
        audience(learned, clock, 50, seed=62)
        known = Watch.from_json(look(learned, "run_1")["watch"])
        small = {name: replace(wager, highest=1e-6) for name, wager in known.wagers.items()}
        stored = replace(known, wagers=small).to_json()
        learned.store.write(partial(forget, run_id="run_1", watch=stored))
        audience(learned, clock, 50, seed=63)
        found = Watch.from_json(look(learned, "run_2")["watch"])
        assert found.rows == 100
        assert {name: w.highest for name, w in found.wagers.items()} == {n: w.highest for n, w in known.wagers.items()}


def add(decision: Decision, writer: Writer) -> None:
    writer.add_decision(decision, None)


def forget(writer: Writer, run_id: str, watch: Mapping[str, Any] | None = None) -> None:
    """Makes a run say nothing of its look, or this."""
    stored = writer.training_run(WORKSPACE, run_id)
    assert stored is not None
    told = {} if watch is None else Ended("rejected", [{"campaign_id": "spring", "watch": watch}]).verdict
    writer.put_training_run(replace(stored, verdict=told))


#: In which share of cases people do something after what they like and after what they don't.
Shares = tuple[float, float]


def leave(
    services: Services, clock: FakeClock, people: int, leaves: Shares, clicks: Shares, *, seed: int
) -> list[Decision]:
    """One decision each; "pro" people like mens, the others womens. Who leaves doesn't click."""
    rng = np.random.default_rng(seed)
    plans = rng.choice(["pro", "free"], people)
    rows = [
        DecisionRequest("spring", f"p{seed}-{i}", context={"plan": str(plan)}, immediate=True)
        for i, plan in enumerate(plans)
    ]
    decided = [d for d in services.decider.decide_batch(WORKSPACE, rows, f"run{seed}") if isinstance(d, Decision)]
    at = clock.now + timedelta(minutes=1)
    events = []
    for decision, plan in zip(decided, plans, strict=True):
        which = 0 if decision.variant_id == ("mens" if plan == "pro" else "womens") else 1
        left, clicked = rng.random() < leaves[which], rng.random() < clicks[which]
        kind = "unsubscribed" if left else "clicked" if clicked else None
        if kind is not None:
            events.append(EventInput(type=kind, occurred_at=at, decision_id=decision.decision_id))
    clock.forward(hours=2)
    ingest(services, WORKSPACE, events)
    return decided


def test_a_decision_closes_by_its_window_and_not_by_what_was_drawn(shop: Services, clock: FakeClock) -> None:
    decided, _ = zip(
        *[
            (shop.decider.decide(WORKSPACE, DecisionRequest("spring", f"u{i}", immediate=now))[0], now)
            for i, now in enumerate((False, False, True))
        ],
        strict=True,
    )
    ends = [(closes(SHOP, d) - clock.now).total_seconds() / 3600 for d in decided]
    assert ends == [25.0, 25.0, 1.0]
    assert np.unique([d.send_at for d in decided]).size > 1


class TestWhatFollows:
    def test_no_candidate_follows_before_the_canary_has_been_watched(self, learned: Services, clock: FakeClock) -> None:
        canary = plant(learned, clock, bad=False)
        for seed, known in ((60, 600), (61, 3_400)):
            audience(learned, clock, known - (seed - 60) * 600, seed=seed)
            clock.forward(hours=100)
            assert look(learned, f"run_{seed}")["rows"] == known
            told = retrain(learned, WORKSPACE)[0]
            if known < 1_000:
                assert told["decision"] == "skipped"
                assert f"the canary {canary.policy_id} is watched first: outcomes of 600 decisions" in told["reason"]
        assert told["decision"] in ("publish", "reject"), told["reason"]

    def test_a_canary_is_watched_on_after_the_clock_was_ahead(self, learned: Services, clock: FakeClock) -> None:
        plant(learned, clock, bad=False)
        audience(learned, clock, 100, seed=62)
        now = clock.now
        clock.forward(days=1200)
        told = look(learned, "run_1")
        clock.now = now
        audience(learned, clock, 100, seed=63)
        clock.forward(hours=100)
        assert look(learned, "run_2")["rows"] == 2 * told["rows"]

    def test_a_canary_whose_log_does_not_replay_holds_nothing_up(self, learned: Services, clock: FakeClock) -> None:
        canary = plant(learned, clock, bad=False)
        audience(learned, clock, 100, seed=62)
        clock.forward(hours=100)
        told = look(learned, "run_1")
        with learned.store.read() as reader:
            made = reader.campaign(WORKSPACE, "spring")
            assert made is not None
            assert not_watched_enough(reader, canary, made, clock.now) is not None
        told["watch"]["error"] = 0.1
        clock.forward(hours=1)
        off = TrainingRun(
            WORKSPACE, "run_2", "refresh", "rejected", clock.now, verdict=Ended("rejected", [told]).verdict
        )
        learned.store.write(lambda writer: writer.put_training_run(off))
        with learned.store.read() as reader:
            assert not_watched_enough(reader, canary, made, clock.now) is None
        assert canary.mixture[-1].weight == 0.1
