"""The model of actions with features: tokens, scales, weights, their posterior, their file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optimizer.errors import BadArtifact
from optimizer.model import adf
from optimizer.model.adf import Action, AdfModel, GroupNames, bucket, crossed, encode
from optimizer.model.artifact import pack, unpack
from optimizer.model.hashing import hashed
from optimizer.model.scales import Scales
from optimizer.model.tokens import MAX_TOKENS, tokens
from optimizer.model.training.adf import AdfOptions, AdfRow, AdfTrainer
from optimizer.model.training.importance import importance

ACTIONS = [Action(str(n), [{"color": "red" if n % 2 else "blue", "size": n}]) for n in range(6)]


def row(context: dict[str, Any], action: Action, reward: float, weight: float = 1.0) -> AdfRow:
    return AdfRow(tokens([context], "c"), tokens(action.features, "a", action.id), reward, weight)


def rows(count: int, seed: int = 0, noise: float = 0.1) -> list[AdfRow]:
    """Readers who like their own color; other numbers say nothing."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        likes = str(rng.choice(["red", "blue"]))
        action = ACTIONS[int(rng.integers(len(ACTIONS)))]
        reward = float(action.features[0]["color"] == likes) + noise * float(rng.normal())
        made.append(row({"likes": likes, "age": int(rng.integers(90)), "noise": str(rng.integers(9))}, action, reward))
    return made


def trained(made: Sequence[AdfRow], **options: Any) -> AdfModel:
    trainer = AdfTrainer(AdfOptions(**options))
    trainer.add(made)
    return trainer.fit()


def test_nested_features_become_named_tokens() -> None:
    told = tokens([{"user": {"age": 33, "tags": ["a", "b"], "at": {"x": None}}, "new": True}, {"v": [0.5, 1]}], "c")
    assert told.texts == ("c:user.age", "c:user.tags", "c:user.tags", "c:new", "c:v[0]", "c:v[1]")
    assert told.number.tolist() == [True, False, False, False, True, True]
    assert told.value.tolist() == [33, 1, 1, 1, 0.5, 1]
    assert told.key[1] == hashed("c:user.tags=a") != told.key[2]
    assert tokens([{"a": 1}], "a", "id7").texts == ("a:@id", "a:a")
    assert len(tokens([{str(n): "x" for n in range(2000)}], "c").key) == MAX_TOKENS


def test_numbers_are_standardised_and_binned() -> None:
    told = tokens([{"n": 5.0, "k": 7.0, "new": -2.0}], "c")
    scales = Scales.fit({hashed("c:n"): np.arange(100.0).tolist(), hashed("c:k"): [7.0, 7.0]})
    keys, values, names = scales.apply(told)
    assert len(keys) == len(values) == len(names) == 4, "the number that varies has a bin beside its value"
    assert values[:3] == pytest.approx([(5 - 49.5) / np.arange(100).std(), 1.0, -1.0])
    bins = {int(scales.apply(tokens([{"n": float(n)}], "c"))[0][1]) for n in range(100)}
    assert len(bins) == 8
    huge = scales.apply(tokens([{"n": 1e300}], "c"))
    assert huge[1][0] == 3.0


def test_products_are_of_every_two_features_across_and_within() -> None:
    scales = Scales.none()
    context = encode(tokens([{"a": "1", "b": "2"}], "c"), scales, products=True)
    action = encode(tokens([{"p": "1", "q": "2", "r": "3"}], "a"), scales, products=True)
    assert (len(context.column), len(action.column)) == (2 + 1, 3 + 3)
    columns, values, groups = crossed(context, action)
    assert len(columns) == len(values) == len(set(groups.tolist())) == 6
    assert len(encode(tokens([{"p": "1", "q": "2"}], "a"), scales, products=False).column) == 2


def test_the_score_is_that_of_the_trainers_rows() -> None:
    """The serving code multiplies in another order; both must be the same linear model, up to what actions share."""
    made = rows(200)
    model = trained(made)
    context = {"likes": "red", "age": 40, "noise": "3"}
    score = model.score([context], ACTIONS)
    expected = []
    for action in ACTIONS:
        told = encode(tokens([context], "c"), model.scales, products=True)
        own = encode(tokens(action.features, "a", action.id), model.scales, products=True)
        columns, values, _ = crossed(told, own)
        both = np.concatenate([own.column, columns]), np.concatenate([own.weight, values])
        places = np.searchsorted(model.columns, both[0]).clip(max=len(model.columns) - 1)
        known = model.columns[places] == both[0]
        expected.append((both[1] * known) @ model.weights[places].astype(float))
    assert score == pytest.approx(np.array(expected), abs=1e-4)
    assert model.score([context], [Action(a.id, a.features, a.id.encode()) for a in ACTIONS]) == pytest.approx(score)


def test_interactions_are_learned() -> None:
    model = trained(rows(600))
    for likes in ("red", "blue"):
        score = model.score([{"likes": likes, "age": 20, "noise": "1"}], ACTIONS)[:, 0]
        mine = [score[n] for n, a in enumerate(ACTIONS) if a.features[0]["color"] == likes]
        other = [score[n] for n, a in enumerate(ACTIONS) if a.features[0]["color"] != likes]
        assert min(mine) - max(other) > 0.6
    flat = trained(rows(600), products=False)
    spread = flat.score([{"likes": "red", "age": 20, "noise": "1"}], ACTIONS)[:, 0]
    assert np.ptp(spread) < 0.3, "without products nothing tells one reader from another"


def test_the_mean_and_the_draws_are_those_of_the_exact_posterior() -> None:
    """Ridge regression solved densely: the same mean, and draws of the same covariance (400 of them; the largest of so
    many relative errors of a variance stays below a half in all but one of 10,000 runs)."""
    made = rows(50, noise=0.5)  # fewer than relevance is learned from: every prior precision is what it was
    trainer = AdfTrainer(AdfOptions(draws=400, steps=400, tolerance=1e-6, products=False))
    trainer.add(made)
    model = trainer.fit()
    matrix = trainer._matrix().toarray()[:, np.argsort(trainer._weights.columns)]
    unit = np.array([r.reward for r in made]).std()
    prior = np.where(model.columns == bucket(np.array([hashed("@intercept")], np.uint64))[0], 1e-3, 40.0)
    covariance = np.linalg.inv(matrix.T @ matrix + np.diag(prior))
    mean = covariance @ matrix.T @ np.array([r.reward for r in made])
    assert model.weights[:, 0] == pytest.approx(mean, abs=1e-3)
    found = (model.weights[:, 1:] - model.weights[:, :1]).var(axis=1) / unit**2
    assert found / np.diag(covariance) == pytest.approx(np.ones(len(found)), abs=0.5)


def test_features_that_say_nothing_are_shrunk() -> None:
    trainer = AdfTrainer(AdfOptions())
    for part in range(4):
        trainer.add(rows(300, seed=part))
        trainer.fit()
    found = trainer.importance()
    assert found["c:likes"] > 20 * max(found["c:age"], found["c:noise"])
    assert found["a:color"] > 20 * found["a:size"]


def test_importances_are_variances_of_what_groups_add_also_where_names_are_data() -> None:
    rng = np.random.default_rng(0)
    trainer = AdfTrainer()
    for part in range(2):
        made = rows(150, seed=part)
        for one in range(0, 150, 2):
            viewed = {f"sku{n}": bool(n % 2) for n in rng.integers(60, size=4).tolist()}
            told = tokens([{"viewed": viewed, "hour": one % 24}], "c")
            made[one] = replace(made[one], context=told)
        trainer.add(made)
        trainer.fit()
    names_of = GroupNames(told for row in trainer._kept.source for told in (row.context, row.action))
    matrix, weights = trainer._matrix().toarray().astype(float), trainer._weights
    expected: dict[str, float] = {}
    for key, group in weights.groups.items():
        columns = weights.group == group
        added = float((matrix[:, columns] @ weights.solution[columns, 0]).var())
        for name in names_of.of(key):
            expected[name] = expected.get(name, 0.0) + added / len(names_of.of(key))
    assert len(expected) > 60
    found = trainer.importance()
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_names_of_features_are_looked_for_in_rows_until_all_are_known() -> None:
    trainer = AdfTrainer()
    made = rows(200)
    trainer.add(made)
    trainer.fit()
    left = iter([(one.context, one.action) for one in made])
    assert importance(trainer._matrix(), trainer._weights, left, trainer._scales) == trainer.importance()
    assert len(list(left)) == 199


def test_learning_goes_on_from_a_model_and_from_folded_rows() -> None:
    whole = trained(rows(1200))
    for trainer in (AdfTrainer(AdfOptions(rows=300)), AdfTrainer(AdfOptions(), trained(rows(1200)[:600]))):
        made = rows(1200)
        begun = trainer.rows
        for start in range(begun, 1200, 200):
            trainer.add(made[start : start + 200])
            model = trainer.fit()
        assert not trainer.whole
        assert model.rows == 1200
        told, expected = (m.score([{"likes": "red", "age": 20, "noise": "1"}], ACTIONS)[:, 0] for m in (model, whole))
        assert told - told.mean() == pytest.approx(expected - expected.mean(), abs=0.2)


@pytest.mark.parametrize("few", [1, 2, 31])
def test_a_few_rewards_dont_change_how_noisy_a_model_was(few: int) -> None:
    """One reward has no spread, and those of two readers of one mind have none either."""
    start = trained(rows(600))
    alike = [replace(one, reward=1.0) for one in rows(few, seed=1)]
    trainer = AdfTrainer(AdfOptions(), start)
    trainer.add(alike)
    assert trainer.fit().noise == pytest.approx(start.noise, rel=0.05)
    trainer.add([replace(one, reward=50.0 * one.reward) for one in rows(400, seed=2)])
    assert trainer.fit().noise > 9.0 * start.noise, "many tell of a spread"


def test_the_first_rewards_after_none_but_zeros_say_how_far_they_lie_apart() -> None:
    start = trained([replace(one, reward=0.0) for one in rows(80)])
    trainer = AdfTrainer(AdfOptions(), start)
    trainer.add(rows(20, seed=1))
    assert trainer.fit().noise > 0.01


def test_what_was_learned_to_say_nothing_stays_so_when_all_of_it_is_folded() -> None:
    trainer = AdfTrainer(AdfOptions(rows=300))
    trainer.add(rows(290))
    for _ in range(20):
        trainer.fit()
    weights = trainer._weights
    idle = weights.groups[hashed("c:noise")]
    learned = weights.precision[idle]
    assert learned > 3 * trainer.options.precision
    trainer.add(rows(20, seed=1))
    assert (weights.folded[weights.group == idle] > 0).all(), "each of its levels was in the rows that were folded"
    for _ in range(20):
        trainer.fit()
    assert weights.precision[idle] == learned
    assert (weights.precision != learned).any()


@pytest.mark.parametrize("begun", ["folded", "from a model"])
def test_a_number_that_comes_late_is_read_by_its_size(begun: str) -> None:
    """Scales of what was folded are kept as they were; a new number has nothing that was."""

    def late(rng: np.random.Generator, known: bool) -> AdfRow:
        size, action = float(rng.uniform(1.0, 100.0)), ACTIONS[int(rng.integers(2))]
        context = {"page": str(rng.integers(3)), **({"basket": size} if known else {})}
        return row(context, action, float((size > 50.0) == (action is ACTIONS[0])))

    rng = np.random.default_rng(5)
    trainer = AdfTrainer(AdfOptions(rows=500))
    trainer.add([late(rng, known=False) for _ in range(800)])
    if begun == "from a model":
        trainer = AdfTrainer(start=trainer.fit())
    assert not trainer.whole
    for _ in range(15):
        trainer.add([late(rng, known=True) for _ in range(60)])
    model = trainer.fit()
    for size in (10.0, 30.0, 70.0, 90.0):
        first, second = model.score([{"page": "1", "basket": size}], ACTIONS[:2])[:, 0]
        assert (first > second) == (size > 50.0), size


@pytest.mark.parametrize("together", [1, 400, 6_000])
def test_scales_follow_the_newest_values_however_rows_are_added(together: int) -> None:
    values = np.concatenate((np.full(1_000, 1.0), 1_000.0 + np.arange(5_000.0) % 100))
    made = [row({"n": value}, ACTIONS[0], 1.0) for value in values.tolist()]
    trainer = AdfTrainer(AdfOptions(draws=2))
    for start in range(0, len(made), together):
        trainer.add(made[start : start + together])
    scales = trainer.fit().scales
    assert scales.mean[scales.name == hashed("c:n")] == pytest.approx(1_049.5, abs=1.0)


def test_ids_that_come_and_go_make_room() -> None:
    trainer = AdfTrainer(AdfOptions(rows=200, columns=2_000, draws=3))
    rng = np.random.default_rng(0)
    for n in range(1_500):
        likes = str(rng.choice(["red", "blue"]))
        action = Action(f"article-{n}", [{"color": str(rng.choice(["red", "blue"])), "size": 1}])
        trainer.add([row({"likes": likes}, action, float(action.features[0]["color"] == likes))])
        if n % 100 == 99:
            model = trainer.fit()
    assert len(model.columns) < 4_000 < 1_500 * 4, "each article has some four columns of its own"
    assert np.ptp(model.score([{"likes": "red"}], ACTIONS)[:, 0]) > 0.6, "what is seen all the time stays"


def test_many_rows_at_once_take_little_more_memory_than_may_be_kept() -> None:
    """A million entries are offered, a tenth of them may be kept; all at once they took 80 MB."""
    rng = np.random.default_rng(0)

    def numbers() -> list[dict[str, float]]:
        return [{str(n): float(x) for n, x in enumerate(rng.random(20))}]

    made = [AdfRow(tokens(numbers(), "c"), tokens(numbers(), "a"), float(rng.random())) for _ in range(300)]
    options = AdfOptions(entries=100_000, draws=1)
    assert sum(one.entries(products=True) for one in made) > 9 * options.entries
    trainer = AdfTrainer(options)
    tracemalloc.start()
    try:
        trainer.add(made)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 10_000_000
    assert most < 20_000_000
    assert trainer.fit().rows == 300


def test_a_row_takes_as_many_entries_as_it_says() -> None:
    trainers = {products: AdfTrainer(AdfOptions(products=products)) for products in (True, False)}
    made = rows(200)
    for products, trainer in trainers.items():
        trainer.add(made)
        told = sum(one.entries(products=products) for one in made)
        assert 0.7 * told < trainer._kept.entries <= told


def test_tastes_that_change_are_unlearned() -> None:
    trainer = AdfTrainer(AdfOptions(rows=200))
    for part in range(16):
        made = rows(100, seed=part)
        trainer.add(made if part < 8 else [AdfRow(r.context, r.action, 1.0 - r.reward) for r in made])
        model = trainer.fit()
    score = model.score([{"likes": "red", "age": 20, "noise": "1"}], ACTIONS)[:, 0]
    assert score[0] > score[1] + 0.3, "red readers want blue by now"


def test_rewards_of_any_size_are_learned() -> None:
    for scale in (1e-6, 1e6):
        made = [AdfRow(r.context, r.action, scale * r.reward, r.weight) for r in rows(400)]
        score = trained(made).score([{"likes": "red"}], ACTIONS)[:, 0] / scale
        assert score[1] - score[0] > 0.5


def test_rewards_of_any_size_are_learned_where_rows_are_folded_before_the_first_model() -> None:
    for scale in (1e-6, 1e6):
        made = [AdfRow(r.context, r.action, scale * r.reward, r.weight) for r in rows(400)]
        model = trained(made, entries=6_000)
        score = model.score([{"likes": "red"}], ACTIONS) / scale
        assert score[1, 0] - score[0, 0] > 0.5
        assert np.ptp(score[1, 1:] - score[0, 1:]) < 3.0, "draws lie apart in the size of the rewards"


def test_constant_rewards_and_an_empty_log_make_a_model() -> None:
    assert np.isfinite(trained([]).weights).all()
    model = trained([AdfRow(r.context, r.action, 1.0) for r in rows(80)])
    assert np.isfinite(model.score([{}], ACTIONS)).all()
    assert model.noise > 0


def test_actions_that_are_never_the_same_twice_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adf, "REMEMBERED", 200_000)
    model = trained(rows(100))
    context = [{"likes": "red", "age": 3}]
    held, worth = [], []
    for price in range(1_000):
        action = Action("one", [{"color": "red", "price": price}], b"one %d" % price)
        (again, known), (new, _) = (
            model.score(context, [action, action]),
            model.score(context, [replace(action, raw=None)] * 2),
        )
        held.append(sum(len(raw) + encoded.nbytes for raw, encoded in model._known.items()))
        worth.append(again.tolist() == known.tolist() == new.tolist())
    assert all(worth)
    assert max(held) <= 200_000
    assert min(held[100:]) < 100_000 < held[99]  # it was full, and began anew


def test_a_model_survives_its_file() -> None:
    model = trained(rows(100))
    model.facts = {"upto": 7}
    again = AdfModel.from_blob(model.to_blob())
    context = [{"likes": "red", "age": 3}]
    assert again.score(context, ACTIONS) == pytest.approx(model.score(context, ACTIONS))
    assert (again.rows, again.products, again.facts) == (100, True, {"upto": 7})
    assert again.to_blob() == model.to_blob()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("columns", np.array([5, 5], np.int64)),
        ("columns", np.array([-1, 5], np.int64)),
        ("columns", np.array([1, 1 << 20], np.int64)),
        ("weights", np.full((2, 3), np.nan, np.float32)),
        ("weights", np.full((2, 3), 1e30, np.float32)),
        ("weights", np.zeros((3, 3), np.float32)),
        ("precision", np.full(2, 1e35, np.float32)),
        ("weights", np.zeros((2, 3))),
        ("precision", np.zeros(2, np.float32)),
        ("scale_mean", np.zeros(9)),
        ("scale_edges", np.zeros((0, 3))),
    ],
)
def test_a_file_whose_parts_dont_fit_is_refused(part: str, value: Any) -> None:
    blob = trained(rows(3)).to_blob()
    _, arrays, meta = unpack(blob)
    good = {
        **arrays,
        "columns": np.array([1, 5], np.int64),
        "weights": np.zeros((2, 3), np.float32),
        "precision": np.ones(2, np.float32),
    }
    AdfModel.from_blob(pack(b"", good, meta))
    with pytest.raises(BadArtifact):
        AdfModel.from_blob(pack(b"", {**good, part: value}, meta))
    with pytest.raises(BadArtifact):
        AdfModel.from_blob(pack(b"", good, {**meta, "kind": "kway"}))
    with pytest.raises(BadArtifact):
        AdfModel.from_blob(pack(b"", good, {**meta, "rows": -1}))
