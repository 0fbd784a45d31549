"""The K-way learner learns; its gradient is autograd's, its propensities are exact, its artifact scores the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits

from optimizer.bandit.exploration import sample
from optimizer.bandit.schedules import inverse_gap_gamma
from optimizer.errors import BadArtifact, ConfigError
from optimizer.model.artifact import pack, unpack
from optimizer.model.kway import KwayModel, distribution, hope
from optimizer.model.training.kway import KwayLearner, KwayOptions
from optimizer.model.training.kwaynet import AdamW, KwayNetwork
from storage.records import JsonObject

SMALL = KwayOptions(width=32, batch=64, decay=0.1, rate=0.02)
ROUNDS = 600


def three_classes(count: int, seed: int) -> tuple[list[JsonObject], np.ndarray]:
    """Contexts with a number and a category; the class is the sum of both, modulo 3."""
    rng = np.random.default_rng(seed)
    number, level = rng.uniform(0, 3, count), rng.integers(3, size=count)
    contexts: list[JsonObject] = [
        {"number": float(x), "level": "abc"[v]} for x, v in zip(number, level.tolist(), strict=True)
    ]
    return contexts, (number.astype(np.int64) + level) % 3


def played(rounds: int, seed: int, block: int = 10) -> tuple[KwayLearner, np.ndarray]:
    """A learner after so many rounds, and which of them were wrong."""
    contexts, right = three_classes(rounds, seed)
    learner = KwayLearner(3, seed=seed, options=SMALL)
    rng = np.random.default_rng(seed)
    wrong = np.ones(rounds, np.bool_)
    for start in range(0, rounds, block):
        now = slice(start, start + block)
        vectors = [distribution(score, None, learner.gamma, learner.hope) for score in learner.scores(contexts[now])]
        action = np.array([sample(vector, float(rng.random())) for vector in vectors])
        wrong[now] = action != right[now]
        learner.learn(contexts[now], action, (~wrong[now]).astype(np.float64))
    return learner, wrong


@pytest.fixture(scope="module")
def trained() -> tuple[KwayLearner, np.ndarray]:
    return played(ROUNDS, seed=1)


def test_three_classes_are_learned_from_right_and_wrong_alone(trained: tuple[KwayLearner, np.ndarray]) -> None:
    learner, wrong = trained
    assert wrong[:60].mean() > 0.4  # chance is 2/3
    assert wrong[-200:].mean() < 0.2
    contexts, right = three_classes(500, seed=99)
    assert (learner.scores(contexts).argmax(axis=1) != right).mean() < 0.2


def test_the_same_rows_give_the_same_artifact() -> None:
    first, second, other = (played(150, seed)[0].export() for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_the_artifact_scores_like_the_learner(trained: tuple[KwayLearner, np.ndarray]) -> None:
    learner, _ = trained
    model = KwayModel.load(learner.export())
    contexts, _ = three_classes(50, seed=5)
    odd: list[JsonObject] = [{}, {"number": None, "level": "never seen"}, {"number": 1e9, "unknown": [1]}]
    np.testing.assert_allclose(model.scores(contexts + odd), learner.scores(contexts + odd), rtol=0, atol=1e-5)
    assert (model.actions, model.rows, model.gamma) == (3, ROUNDS, learner.gamma)
    assert len(model.feature_hash) == 32


def test_propensities_are_inverse_gap_weights_of_optimistic_scores(trained: tuple[KwayLearner, np.ndarray]) -> None:
    learner, _ = trained
    model = KwayModel.load(learner.export())
    context: JsonObject = {"number": 1.5, "level": "b"}
    score, p = model.scores([context])[0], model.distribution(context)
    np.testing.assert_array_equal(model.hope, learner.hope)
    hoped = score + score.max() * (1 - score.max()) * model.hope
    best = int(hoped.argmax())
    others = [a for a in range(3) if a != best]
    by_hand = [1 / (3 + 10_000 * np.sqrt(ROUNDS) * (hoped[best] - hoped[a])) for a in others]
    np.testing.assert_allclose(p[others], by_hand, rtol=1e-12)
    assert p[best] == pytest.approx(1 - sum(by_hand), abs=1e-12)


def test_hope_falls_with_rewards_and_hardly_with_tries() -> None:
    tried, earned = np.array([0.0, 100.0, 100.0, 1_600.0]), np.array([0.0, 99.0, 0.0, 0.0])
    by_hand = [2.0, 2 / np.sqrt(1 + 99 + 100 / 16), 2 / np.sqrt(1 + 100 / 16), 2 / np.sqrt(1 + 100)]
    np.testing.assert_allclose(hope(tried, earned, 2.0), by_hand)


def test_an_action_that_seldom_earned_is_tried_where_the_best_is_unsure_only() -> None:
    hoped = hope(np.array([500.0, 300.0, 20.0]), np.array([300.0, 150.0, 0.0]), 2.0)
    unsure = distribution(np.array([0.4, 0.35, 0.2]), None, 1e5, hoped)
    sure = distribution(np.array([0.99, 0.0, 0.0]), None, 1e5, hoped)
    assert unsure.argmax() == 2
    assert sure[0] > 0.999
    # Of the eligible alone: how sure an ineligible one is doesn't matter.
    np.testing.assert_array_equal(
        distribution(np.array([0.99, 0.35, 0.05]), np.array([False, True, True]), 1e5, hoped)[1:],
        distribution(np.array([0.35, 0.05]), None, 1e5, hoped[1:]),
    )


def test_what_an_action_earned_is_counted() -> None:
    learner = KwayLearner(3, seed=1, options=SMALL)
    np.testing.assert_array_equal(learner.hope, [2.0, 2.0, 2.0])
    learner.learn([{"number": 1.0}] * 4, np.array([0, 0, 2, 0]), np.array([1.0, 0.5, 0.25, 0.0]))
    np.testing.assert_allclose(learner.hope, hope(np.array([3.0, 0.0, 1.0]), np.array([1.5, 0.0, 0.25]), 2.0))


@given(st.lists(st.booleans(), min_size=3, max_size=3).filter(any))
@settings(deadline=None)
def test_a_masked_action_is_never_drawn(trained: tuple[KwayLearner, np.ndarray], allowed: list[bool]) -> None:
    learner, _ = trained
    mask = np.array(allowed)
    for score in learner.scores(three_classes(5, seed=6)[0]):
        p = distribution(score, mask, learner.gamma, learner.hope)
        assert (p[~mask] == 0).all()
        assert (p[mask] > 0).all()
        assert p.sum() == pytest.approx(1)


def test_masks_that_leave_nothing_or_have_another_length_are_refused(
    trained: tuple[KwayLearner, np.ndarray],
) -> None:
    model = KwayModel.load(trained[0].export())
    with pytest.raises(ValueError, match="no action is eligible"):
        model.distribution({}, np.zeros(3, np.bool_))
    with pytest.raises(ValueError, match="mask has shape"):
        model.distribution({}, np.ones(4, np.bool_))


def test_before_the_first_row_every_action_is_as_likely() -> None:
    learner = KwayLearner(4, seed=1, options=SMALL)
    score = learner.scores([{"number": 1.0}])[0]
    np.testing.assert_array_equal(distribution(score, None, learner.gamma, learner.hope), np.full(4, 0.25))
    model = KwayModel.load(learner.export())
    np.testing.assert_allclose(model.distribution({"number": 1.0}), 0.25)
    np.testing.assert_allclose(model.scores([{}]), 0.25, atol=1e-6)


def test_the_gradient_is_that_of_autograd() -> None:
    rng = np.random.default_rng(7)
    network = KwayNetwork(5, 8, 4, rng)
    network.weights["w2"] = rng.standard_normal((8, 4)).astype(np.float32)
    encoded = rng.standard_normal((20, 5)).astype(np.float32)
    action, reward = rng.integers(4, size=20), rng.random(20).astype(np.float32)
    weights = {name: torch.tensor(weight, requires_grad=True) for name, weight in network.weights.items()}
    hidden = torch.relu(torch.from_numpy(encoded) @ weights["w1"] + weights["b1"])
    logits = (hidden @ weights["w2"] + weights["b2"])[torch.arange(20), torch.from_numpy(action)]
    binary_cross_entropy_with_logits(logits, torch.from_numpy(reward)).backward()  # type: ignore[no-untyped-call]
    for name, ours in network.gradient(encoded, action, reward).items():
        theirs = weights[name].grad
        assert theirs is not None
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-6)


def test_the_steps_are_those_of_torchs_adamw() -> None:
    rng = np.random.default_rng(8)
    weights = {"w": rng.standard_normal((3, 4)).astype(np.float32)}
    theirs = torch.tensor(weights["w"], requires_grad=True)
    ours, reference = AdamW(weights, 0.3), torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.3)
    for _ in range(20):
        slope = rng.standard_normal((3, 4)).astype(np.float32)
        theirs.grad = torch.from_numpy(slope)
        reference.step()
        ours.step(weights, {"w": slope}, 0.01)
    np.testing.assert_allclose(weights["w"], theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_was_learned_is_carried_over_to_another_encoding() -> None:
    rng = np.random.default_rng(9)
    before = rng.standard_normal((200, 6)).astype(np.float32)
    turned = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    after = (2.0 * before @ turned + 3.0).astype(np.float32)
    network = KwayNetwork(6, 16, 3, rng)
    network.weights["w2"] = rng.standard_normal((16, 3)).astype(np.float32)
    known = network.rewards(before)
    network.carry(before, np.concatenate([after, np.zeros((200, 2), np.float32)], axis=1))
    kept = network.rewards(np.concatenate([after, np.zeros((200, 2), np.float32)], axis=1))
    assert network.weights["w1"].shape == (8, 16)
    np.testing.assert_allclose(kept, known, atol=0.005)


def test_gamma_grows_with_the_root_of_the_rows() -> None:
    assert [inverse_gap_gamma(rows, 100.0) for rows in (0, 1, 10_000)] == [0.0, 100.0, 10_000.0]
    with pytest.raises(ValueError, match="rows -1"):
        inverse_gap_gamma(-1, 100.0)
    with pytest.raises(ValueError, match="scale 0"):
        inverse_gap_gamma(1, 0.0)


@pytest.mark.parametrize(
    ("action", "reward", "told"),
    [
        ([0, 3], [0.0, 1.0], r"must be in \[0, 3\)"),
        ([-1, 0], [0.0, 1.0], r"must be in \[0, 3\)"),
        ([0, 1], [0.0, 1.5], "rewards must be"),
        ([0, 1], [0.0, float("nan")], "rewards must be"),
        ([0], [0.0, 1.0], "expected as many"),
    ],
)
def test_rows_that_cant_be_are_refused(action: list[int], reward: list[float], told: str) -> None:
    learner = KwayLearner(3, seed=1, options=SMALL)
    with pytest.raises(ValueError, match=told):
        learner.learn([{"number": 1.0}, {"number": 2.0}], np.array(action), np.array(reward))
    assert learner.rows == 0


def test_options_that_cant_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="rate 0"):
        KwayOptions(rate=0.0)
    with pytest.raises(ConfigError, match="decay -1"):
        KwayOptions(decay=-1.0)
    with pytest.raises(ConfigError, match="optimism inf"):
        KwayOptions(optimism=float("inf"))
    with pytest.raises(ConfigError, match="actions 1"):
        KwayLearner(1, seed=1)


def test_an_artifact_of_another_kind_or_with_parts_that_dont_fit_is_refused(
    trained: tuple[KwayLearner, np.ndarray],
) -> None:
    graph, arrays, meta = unpack(trained[0].export())
    wrong = [{**meta, "kind": "messages"}, {**meta, "format": 1}, {**meta, "actions": 4}, {"kind": "kway", "format": 2}]
    wrong.append({**meta, "tried": [1.0, 2.0], "earned": [0.0, 0.0]})
    for one in wrong:
        with pytest.raises(BadArtifact):
            KwayModel.load(pack(graph, arrays, one))
    with pytest.raises(BadArtifact):
        KwayModel.load(pack(b"no graph", arrays, meta))
