"""The rivals: linear bandits against mabwiser and closed forms, Vowpal Wabbit's vectors, simple ways of counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mabwiser.mab import MAB, LearningPolicy

from simulations.baselines import tuned
from simulations.baselines.features import (
    ROOM,
    Columns,
    EncodedFeatures,
    Encoding,
    RawFeatures,
    Running,
    make_features,
)
from simulations.baselines.linear import Crossed, Disjoint, Linear, LinearOptions
from simulations.baselines.network import Network, gap_weights
from simulations.baselines.simple import Rates, Simple, SimpleOptions
from simulations.baselines.vw import ALGORITHMS, Algorithm, Cost, Learner, VowpalWabbit, VwOptions, make_workspace
from simulations.game import Game
from simulations.play import Play
from simulations.policies import FAMILIES, parse
from simulations.scenarios import scenario
from simulations.standings import share_of
from simulations.world.memory import Memory
from simulations.world.spec import Personal, WorldSpec
from storage.records import Attribute

NOBODY = Personal(0.0, 0.0, 0.0, 0.0)
EASY = replace(
    scenario("stationary"),
    world=WorldSpec(recipients=40, variants=3, personal=NOBODY),
    decisions=120,
    slot_minutes=1440,
)


def test_disjoint_arms_expect_what_mabwiser_does() -> None:
    rng = np.random.default_rng(1)
    x, arms, reward = rng.standard_normal((60, 4)), rng.integers(3, size=60), rng.random(60)
    alpha = 0.7
    theirs = MAB([0, 1, 2], LearningPolicy.LinUCB(alpha=alpha, l2_lambda=2.0))
    theirs.fit(arms.tolist(), reward.tolist(), x.tolist())
    ours = Disjoint(4, 2.0)
    places = ours.places([0, 1, 2])
    for arm, row, value in zip(arms.tolist(), x, reward.tolist(), strict=True):
        ours.update(arm, row, value)
    probe = rng.standard_normal(4)
    mean, deviation = ours.expected(places, probe)
    expected = theirs.predict_expectations([probe.tolist()])
    np.testing.assert_allclose(mean + alpha * deviation, [expected[a] for a in (0, 1, 2)], atol=1e-8)


def test_crossed_features_are_one_ridge_regression() -> None:
    rng = np.random.default_rng(2)
    x, reward = rng.standard_normal((40, 5)), rng.random(40)
    ours = Crossed(3.0)
    for row, value in zip(x, reward.tolist(), strict=True):
        ours.update(row, value)
    gram = x.T @ x + 3.0 * np.eye(5)
    probe = rng.standard_normal((2, 5))
    mean, deviation = ours.expected(probe)
    np.testing.assert_allclose(mean, probe @ np.linalg.solve(gram, x.T @ reward), atol=1e-10)
    np.testing.assert_allclose(deviation**2, np.diag(probe @ np.linalg.solve(gram, probe.T)), atol=1e-10)


def test_draws_of_a_linear_model_have_its_mean_and_deviation() -> None:
    """4,000 draws; within 4.5 standard errors."""
    rng = np.random.default_rng(3)
    model = Crossed(1.0)
    for _ in range(10):
        model.update(rng.standard_normal(3), 1.0)
    rows = rng.standard_normal((2, 3))
    mean, deviation = model.expected(rows)
    drawn = np.array([model.sampled(rows, 0.5, rng) for _ in range(4000)])
    assert float((np.abs(drawn.mean(axis=0) - mean) / (0.5 * deviation / np.sqrt(4000))).max()) < 4.5
    np.testing.assert_allclose(drawn.std(axis=0), 0.5 * deviation, rtol=0.06)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("cost", ["zero_one", "negative"])
def test_vowpal_wabbit_gives_a_vector_over_the_eligible_and_learns(algorithm: Algorithm, cost: Cost) -> None:
    game = Game(EASY, 1)
    options = replace(VwOptions(algorithm=algorithm), cost=cost)
    score = Play(game, VowpalWabbit(game, options)).run(algorithm)
    assert np.isfinite(score.numbers["value"]).all()
    assert (score.numbers["propensity"] > 0).all()
    assert (score.numbers["propensity"] <= 1).all()


def test_vowpal_wabbit_chooses_among_the_eligible_only() -> None:
    game = Game(EASY, 1)
    player = VowpalWabbit(game, VwOptions(epsilon=1.0, algorithm="egreedy"))
    turn = game.turn(game.arrivals[0], Memory(), [])
    mask = np.zeros(turn.space.size, np.bool_)
    mask[[3, 11]] = True
    drawn = player.choose(replace(turn, plan=replace(turn.plan, mask=mask)))
    assert drawn.action in (3, 11)
    assert drawn.propensity == pytest.approx(0.5)


def test_the_second_crossing_and_encoded_features_run() -> None:
    game = Game(replace(EASY, decisions=210), 1)
    options = VwOptions(features="encoded", crossing="second")
    assert np.isfinite(Play(game, VowpalWabbit(game, options)).run("vw").numbers["value"]).all()


@pytest.mark.parametrize(
    "policy",
    [
        "histogram:epsilon=0.1",
        "shrunk-histogram:epsilon=0.1",
        "segment-best:epsilon=0.1",
        "static-ab:test=300",
        "linucb:alpha=0.05",
        "lints:alpha=0.05",
        "linucb-crossed:alpha=0.1",
        "network:scale=300,steps=4",
    ],
)
def test_every_rival_finds_the_hours_of_people_who_differ_in_nothing_else(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """800 decisions, 168 actions, options as given and by default: what a grid found best elsewhere is not at stake. In
    the last half each goes a quarter of the way at least; chance goes none of it, and its share varies by about .03."""
    monkeypatch.setattr(tuned, "options", lambda *_: {})
    spec = WorldSpec(40, 2, look=-2.5, like=3.0, content=0.0, channel=0.0, rhythm=2.5, personal=NOBODY)
    game = Game(replace(scenario("stationary"), world=spec, decisions=800), 2)
    score = Play(game, parse(policy, "stationary").player(game)).run(policy)
    assert share_of(score, slice(400, 800)) > 0.25


def test_static_ab_waits_for_outcomes_that_come_late() -> None:
    """Its test is over long before the first is known: it goes on until then, and learns from those alone. A share by
    chance varies by about .03 around none."""
    spec = WorldSpec(40, 2, look=-2.5, like=3.0, content=0.0, channel=0.0, rhythm=2.5, personal=NOBODY)
    game = Game(replace(scenario("delays"), world=spec, decisions=800), 2)
    player = Simple(game, SimpleOptions(kind="ab", test=50))
    score = Play(game, player).run("static-ab")
    assert share_of(score, slice(400, 800)) > 0.12


def test_inverse_gap_weights_are_a_distribution_that_falls_with_the_gap() -> None:
    weights = gap_weights(np.array([0.1, 0.5, 0.4]), 10.0)
    np.testing.assert_allclose(weights[[0, 2]], [1 / (3 + 4), 1 / (3 + 1)], atol=1e-12)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(gap_weights(np.array([0.1, 0.5]), 0.0), [0.5, 0.5], atol=1e-12)


def test_linear_bandits_and_the_network_can_decide_not_to_send() -> None:
    game = Game(replace(EASY, allow_no_send=True), 1)
    assert np.isfinite(Play(game, Network(game)).run("network").numbers["value"]).all()
    for options in (LinearOptions(), LinearOptions(shape="crossed"), LinearOptions(rule="ts")):
        assert np.isfinite(Play(game, Linear(game, options)).run("linear").numbers["value"]).all()
    simple = Play(game, Simple(game, SimpleOptions(epsilon=1.0))).run("simple")
    assert (simple.places["variant"] < 0).any()


def test_rates_are_drawn_towards_the_wider_rate() -> None:
    rates = Rates()
    assert rates.rate("a", 0.3, 10.0) == pytest.approx(0.3)
    for reward in (1.0, 1.0, 0.0):
        rates.add("a", reward)
    assert rates.rate("a", 0.3, 10.0) == pytest.approx((2 + 3) / 13)


def test_raw_features_are_standardised_as_they_come() -> None:
    registry = (Attribute("w", "age", "number"), Attribute("w", "plan", "category"))
    features = RawFeatures(registry)
    assert features.of({"age": 10, "plan": "pro"}) == {"age": 0.0, "plan=pro": 1.0}
    assert features.of({"age": 20}) == {"age": pytest.approx(1.0), "plan_missing": 1.0}
    running = Running()
    values = [1.0, 4.0, 7.0, 8.0]
    last = [running.standardised(v) for v in values][-1]
    assert last == pytest.approx((8.0 - np.mean(values)) / np.std(values))


def test_encoded_features_are_the_services_own_from_the_200th_context_on() -> None:
    features = EncodedFeatures((Attribute("w", "age", "number"),))
    rng = np.random.default_rng(1)
    rows = [features.of({"age": float(v)}) for v in rng.random(200)]
    assert rows[:199] == [{}] * 199
    assert features.spec is not None
    assert list(rows[199]) == list(features.spec.labels)


def test_columns_have_a_constant_and_a_width() -> None:
    columns = Columns(3)
    assert columns.vector({"a": 2.0, "b": 3.0}).tolist() == [1.0, 2.0, 3.0]
    assert columns.vector({"b": 5.0}).tolist() == [1.0, 0.0, 5.0]
    with pytest.raises(ValueError, match="3 features, and room for 2: 'c' would be left out"):
        columns.vector({"c": 9.0})


@pytest.mark.parametrize("encoding", ["raw", "encoded"])
def test_there_is_room_for_all_that_people_are_known_by(encoding: Encoding) -> None:
    game = Game(replace(scenario("cross-sell"), decisions=250), 1)
    features, columns = make_features(encoding, game.attributes), Columns(ROOM[encoding])
    names: set[str] = set()
    for recipient in game.recipients:
        named = features.of({**recipient.attributes, "bought_last": "culture"})
        columns.vector(named)
        names |= named.keys()
    assert any("morningness" in name for name in names)
    assert any("work" in name for name in names)


def test_what_was_tuned_is_used_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    found = {"options": {"scale": 77.0}, "tried": [], "regret": 1.0, "seeds": 1, "decisions": 10}
    monkeypatch.setattr(tuned, "stored", lambda: {"stationary": {"vw-squarecb": found}})
    assert parse("vw-squarecb", "drift").options.scale == 77.0
    assert parse("vw-squarecb:scale=5", "drift").options.scale == 5.0
    record = tuned.record("vw-squarecb", "drift")
    assert record is not None
    assert record["scenario"] == "stationary"
    assert tuned.record("vw-bag", "drift") is None
    assert FAMILIES["vw-squarecb"].options.scale != 77.0


def test_vowpal_wabbit_told_line_by_line_says_what_its_package_says() -> None:
    rng = np.random.default_rng(7)
    arguments = VwOptions(scale=100.0).arguments(1)
    ours, theirs = Learner(arguments), make_workspace(arguments)
    for _ in range(30):
        lines = [f"shared |u a:{rng.random():.4g}", *(f"|v v{i % 3} |s hour{i // 3}" for i in range(12))]
        expected = theirs.predict(lines)
        np.testing.assert_array_equal(ours.predict(lines), np.asarray(expected, dtype=np.float64))
        taken = int(rng.integers(12))
        lines[1 + taken] = f"0:{rng.integers(2)}:{expected[taken]:.8g} {lines[1 + taken]}"
        ours.learn(lines)
        theirs.learn(lines)
