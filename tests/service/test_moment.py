"""Ages of timestamps: every way to a model tells it when the decision was made, and old models replay as they chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from optimizer.model.artifact import pack, unpack
from optimizer.model.columns import MOMENT, NumberColumn
from optimizer.model.examples import Examples
from optimizer.model.features import FeatureSpec
from optimizer.model.inference import RewardModel
from optimizer.model.moment import seen_at
from optimizer.model.training.train import train
from optimizer.service.card import card
from optimizer.service.drifting import advanced, beginning
from optimizer.service.evidence import predicted_outcomes
from optimizer.service.explain import explain
from optimizer.service.featureblocks import BLOCK_ROWS
from optimizer.service.feedback import examples, load
from optimizer.service.gains import Scored, Scores, score_all
from optimizer.service.replay import Replayer, plan_of
from optimizer.service.requests import DecisionRequest, RecipientPatch, ScoreRequest
from optimizer.service.scores import Score, Scorer
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Campaign, JsonObject
from tests.service.asking import ask, ask_all
from tests.service.conftest import START, WORKSPACE, FakeClock
from tests.service.trained import publish_blob, rows

ROWS = 2_000
MONTH = 30.0


def bought(at: datetime, days: float) -> dict[str, Any]:
    return {"bought": (at - timedelta(days=days)).isoformat()}


def aged(campaign: Campaign) -> Examples:
    """``trained.rows``, in which the "pro" people bought within 5 days of the decision, the others 5 to 10 days before
    it; they were decided upon in the two months before ``START``."""
    told = rows(campaign, ROWS, 1)
    rng = np.random.default_rng(5)
    decided = [START - timedelta(days=float(day)) for day in rng.uniform(0.0, 60.0, ROWS)]
    ages = rng.uniform(0.0, 5.0, ROWS) + [0.0 if one["plan"] == "pro" else 5.0 for one in told.contexts]
    contexts = [seen_at(bought(at, float(age)), at) for at, age in zip(decided, ages, strict=True)]
    return replace(told, contexts=contexts)


@pytest.fixture
def learned(services: Services, spring: Campaign) -> Services:
    trained = train(aged(spring), attributes=(), seed=1, network=False)
    publish_blob(services, spring, trained.blob, trained.feature_hash, ROWS)
    return services


@pytest.fixture
def learned_before(services: Services, spring: Campaign) -> Services:
    """As models are stored that were trained when timestamps were counted from the newest of the training rows."""
    told = aged(spring)
    newest = max(datetime.fromisoformat(one["bought"]) for one in told.contexts).timestamp()
    from_newest = [seen_at(one, datetime.fromtimestamp(newest).astimezone()) for one in told.contexts]
    trained = train(replace(told, contexts=from_newest), attributes=(), seed=1, network=False)
    graph, arrays, meta = unpack(trained.blob)
    (column,) = meta["spec"]["columns"]
    del column["age"]
    column["reference"] = newest
    feature_hash = FeatureSpec.from_json(meta["spec"]).hash
    publish_blob(services, spring, pack(graph, arrays, meta), feature_hash, ROWS)
    return services


def scored(services: Services, days: float) -> Score:
    patch = RecipientPatch(attributes=bought(services.clock(), days))
    (answer,) = Scorer.of(services, WORKSPACE, "spring", "converted").scores([ScoreRequest(recipient=patch)])
    assert isinstance(answer, Score)
    return answer


def vectors(services: Services, decisions: Sequence[Decision]) -> list[list[float]]:
    with services.store.read() as reader:
        replayer = Replayer(reader, services.salt)
        return [replayer.vector(decision).tolist() for decision in decisions]


def likeliest(services: Services, clock: FakeClock, days: float) -> str:
    """The variant that a decision for somebody who bought so many days ago most probably gets: the draw itself may
    explore, and some recipients are held out or get a random action."""
    asked = (ask(services, f"u{i}", context=bought(clock.now, days), immediate=True) for i in range(100))
    treated = next(decision for decision in asked if decision.group == "treated")
    (vector,) = vectors(services, [treated])
    with services.store.read() as reader:
        campaign = Replayer(reader, services.salt).campaign(treated)
    factors = plan_of(treated, campaign).space.factors(int(np.argmax(vector)))
    assert factors is not None
    return treated.snapshot.variants[factors[0]]


def test_what_counts_is_the_age_at_the_decision_long_after_training_too(learned: Services, clock: FakeClock) -> None:
    for _ in range(3):
        assert [scored(learned, days).variant_id for days in (2.0, 8.0)] == ["mens", "womens"]
        assert [likeliest(learned, clock, days) for days in (2.0, 8.0)] == ["mens", "womens"]
        clock.forward(days=MONTH)


def test_a_decision_alone_and_in_a_batch_and_its_replay_are_one(learned: Services, clock: FakeClock) -> None:
    clock.forward(days=MONTH, microseconds=123_457)
    told = [bought(clock.now, 0.25 * i) for i in range(40)]
    requests = [DecisionRequest("spring", f"b{i}", context=one, immediate=True) for i, one in enumerate(told)]
    together = ask_all(learned, requests)
    alone = [ask(learned, f"a{i}", context=one, immediate=True) for i, one in enumerate(told)]
    found = vectors(learned, [*together, *alone])
    assert len({tuple(one) for one in found}) > 2, "the age matters"
    assert found[:40] == found[40:]
    for decision, vector in zip([*together, *alone], found, strict=True):
        assert decision.action is not None
        assert vector[decision.action] == decision.propensity
        assert decision.snapshot.context.keys() == {"bought"}, "the moment is stored once"


def test_what_a_caller_says_of_the_moment_is_not_believed(learned: Services, clock: FakeClock) -> None:
    lie = bought(clock.now, 8.0) | {MOMENT: (clock.now - timedelta(days=6)).timestamp()}
    asked = (lie, bought(clock.now, 8.0), bought(clock.now, 2.0))
    decisions = [ask(learned, context=one, immediate=True) for one in asked]
    lied, honest, other = vectors(learned, decisions)
    assert lied == honest != other
    assert decisions[0].action is not None
    assert lied[decisions[0].action] == decisions[0].propensity


def test_training_rows_have_the_ages_that_decisions_had(services: Services, spring: Campaign, clock: FakeClock) -> None:
    ages = [1.0, 4.0, 2.5, 7.0]
    for i, age in enumerate(ages):
        ask(services, f"u{i}", context=bought(clock.now, age), immediate=True)
        clock.forward(days=9)
    with services.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
    told = examples(log.rows, {"spring": spring})
    column = NumberColumn("bought", 0.0, 1.0, (), (), (0.0,), None, age=True)
    assert column.parsed(told.contexts) == pytest.approx(ages)


def test_an_unchanged_audience_has_no_shifted_timestamps(learned: Services, spring: Campaign, clock: FakeClock) -> None:
    rng = np.random.default_rng(8)
    for day in range(4):
        clock.forward(days=MONTH)
        people = [bought(clock.now, float(age)) for age in rng.uniform(0.0, 10.0, BLOCK_ROWS // 4)]
        requests = [DecisionRequest("spring", f"p{day}-{i}", context=one) for i, one in enumerate(people)]
        ask_all(learned, requests, f"run{day}")
    clock.forward(days=1)  # blocks end with a day
    with learned.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
        live = learned.policies.current(WORKSPACE, "spring")
        replayer = Replayer(reader, learned.salt)
        state = advanced(beginning(spring), replayer, spring, log.rows, live, clock.now)
    assert state.block.rows == 0, "a whole block was compared"
    assert not [alarm.what for alarm in state.alarms if "bought" in alarm.what]


def test_whoever_asks_a_model_tells_it_the_moment(
    learned: Services, spring: Campaign, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.forward(days=MONTH)
    decisions = ask_all(learned, [DecisionRequest("spring", f"u{i}", context=bought(clock.now, i)) for i in range(8)])
    decided = clock.now.timestamp()
    clock.forward(days=9)
    told: list[JsonObject] = []
    real = RewardModel.embed

    def embed(self: RewardModel, contexts: Sequence[JsonObject]) -> Any:
        told.extend(contexts)
        return real(self, contexts)

    monkeypatch.setattr(RewardModel, "embed", embed)
    live = learned.policies.current(WORKSPACE, "spring")
    with learned.store.read() as reader:
        found: list[Scored] = score_all(
            reader, learned.salt, decisions, {"spring": (spring, live)}, (), frozenset(), Scores()
        )
        predicted = predicted_outcomes(Replayer(reader, learned.salt), decisions)
    assert len(found) == len(predicted) == len(decisions)
    asked = len(told)
    assert asked == 2 * len(decisions)
    explained = explain(learned, WORKSPACE, decisions[2].decision_id)
    assert explained["chosen"]["probability"] == decisions[2].propensity
    assert explained["chosen"]["outcomes"]["converted"] == pytest.approx(predicted[2]["converted"])
    asked = len(told)
    card(learned, WORKSPACE, live.policy_id)
    assert len(told) > asked
    assert {one.get(MOMENT) for one in told} == {decided}


def test_a_log_tells_its_moments_in_no_copies_and_the_store_keeps_none(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    lie = bought(clock.now, 8.0) | {MOMENT: 7.0}
    ask_all(services, [DecisionRequest("spring", f"u{i}", context=lie) for i in range(3)])
    ask_all(services, [DecisionRequest("spring", f"v{i}") for i in range(2)])
    at = clock.now.timestamp()
    clock.forward(days=MONTH)
    with services.store.read() as reader:
        log = load(reader, WORKSPACE, clock.now)
        stored = [row.decision for row in reader.feedback(WORKSPACE, until=clock.now)]
    told = examples(log.rows, log.campaigns).contexts
    assert [one[MOMENT] for one in told] == [at] * 5
    same = [one is row.decision.snapshot.context for one, row in zip(told, log.rows, strict=True)]
    assert same == [bool(row.decision.recipient_id.startswith("u")) for row in log.rows]
    assert [one.snapshot.context.get(MOMENT) for one in stored] == [
        7.0 if one.recipient_id.startswith("u") else None for one in stored
    ]
    assert all(one.metadata == {} for one in stored), "a store's one empty object is nobody's to write to"


def test_a_model_of_before_chooses_and_replays_as_it_did(learned_before: Services, clock: FakeClock) -> None:
    """It can't tell an age at the decision, only a date, and goes on to see that alone."""
    told = bought(clock.now, 2.0)
    first = ask(learned_before, "u1", context=told)
    clock.forward(days=7)
    later = ask(learned_before, "u2", context=told)
    assert vectors(learned_before, [first])[0][first.action or 0] == first.propensity
    assert vectors(learned_before, [later])[0][later.action or 0] == later.propensity
    live = learned_before.policies.current(WORKSPACE, "spring")
    (model,) = live.models
    assert model is not None
    seen = [seen_at(told, decision.decided_at) for decision in (first, later)]
    assert np.array_equal(*model.embed(seen)), "the date is the same"
    column = model.spec.columns[0]
    assert isinstance(column, NumberColumn)
    assert column.reference is not None
    newest = column.reference
    assert column.parse(seen[1]) == pytest.approx((newest - (START - timedelta(days=2)).timestamp()) / 86_400)
