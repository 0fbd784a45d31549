"""The network beside a loop's linear model: when it serves, what it says of new actions, what ends it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optimizer.errors import BadArtifact
from optimizer.model.adf import AdfModel
from optimizer.model.artifact import pack, unpack
from optimizer.model.plain import told
from optimizer.model.tokens import Tokens, tokens
from optimizer.model.training.adf import AdfRow
from optimizer.model.training.plain import LoopTrainer

IDS = ("same", "other")
BOTH = np.ones(2, np.bool_)


def action(name: str, *features: Any) -> Tokens:
    return tokens(features, "a", name)


def seen(x: int, y: int) -> Tokens:
    return tokens([{"x": f"x{x}", "y": f"y{y}"}], "c")


def rows(count: int, seed: int = 1) -> Iterator[AdfRow]:
    """Two features that say by being alike or not which of two actions is right: no linear model can tell."""
    rng = np.random.default_rng(seed)
    for x, y, chosen in rng.integers(2, size=(count, 3)).tolist():
        yield AdfRow(seen(x, y), action(IDS[chosen]), float((x != y) == bool(chosen)))


def trained(taught: Sequence[AdfRow], trainer: LoopTrainer | None = None, block: int = 100) -> AdfModel:
    """The model after rows that came in blocks."""
    trainer = trainer or LoopTrainer()
    for start in range(0, len(taught), block):
        trainer.add(taught[start : start + block])
        model = trainer.fit()
    return model


def test_it_serves_once_it_has_foretold_better_and_knows_what_no_linear_model_can() -> None:
    taught = list(rows(1_500))
    assert trained(taught[:200]).plain is None, "too few to tell"
    plain = trained(taught).plain
    assert plain is not None
    for x, y in ((0, 0), (0, 1), (1, 0), (1, 1)):
        wanted = plain.wanted(seen(x, y), [action(name) for name in IDS], BOTH)
        assert wanted is not None
        scores, probability = wanted
        assert scores[int(x != y)] > 0.9 > 0.1 > scores[int(x == y)]
        assert probability.sum() == pytest.approx(1.0)
        assert probability.argmax() == int(x != y)


def test_it_does_not_serve_where_a_line_says_it_all() -> None:
    rng = np.random.default_rng(2)
    taught = []
    for age, chosen, luck in rng.random((3_000, 3)).tolist():
        chance = 0.05 + 0.1 * (age if chosen < 0.5 else 1.0 - age)
        taught.append(AdfRow(tokens([{"age": age}], "c"), action(IDS[int(chosen < 0.5)]), float(luck < chance)))
    assert trained(taught, block=300).plain is None


def test_a_new_action_is_hoped_in_and_one_with_features_is_the_linear_models() -> None:
    plain = trained(list(rows(1_500))).plain
    assert plain is not None
    wanted = plain.wanted(seen(0, 0), [action("same"), action("other"), action("new")], np.ones(3, np.bool_))
    assert wanted is not None
    scores, probability = wanted
    assert scores[2] == pytest.approx(scores[:2].mean())
    assert probability[2] > probability[1]
    assert plain.wanted(seen(0, 0), [action("same"), action("new", {"price": 3})], BOTH) is None
    assert plain.wanted(seen(0, 0), [action("new"), action("newer")], BOTH) is None
    masked = plain.wanted(seen(0, 0), [action(name) for name in IDS], np.array([False, True]))
    assert masked is not None
    assert masked[1].tolist() == [0.0, 1.0]


def test_actions_that_come_later_are_learned_beside_the_others() -> None:
    late = [replace(row, action=action("late"), reward=1.0) for row in rows(300, seed=3)]
    plain = trained([*rows(1_500), *late]).plain
    assert plain is not None
    wanted = plain.wanted(seen(0, 1), [action(name) for name in ("same", "other", "late")], np.ones(3, np.bool_))
    assert wanted is not None
    assert wanted[0][[1, 2]].min() > 0.9
    assert wanted[0][0] < 0.1, "what was known before is still known"


@pytest.mark.parametrize(
    "row",
    [
        AdfRow(seen(0, 0), action("same", {"price": 3}), 1.0),
        AdfRow(seen(0, 0), action("same"), 1.5),
        AdfRow(seen(0, 0), action("same"), -0.1),
    ],
)
def test_rows_that_are_not_plain_end_it(row: AdfRow) -> None:
    assert trained([*rows(1_500), row, *rows(300, seed=4)]).plain is None


def test_too_many_actions_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.model.training.plain.MOST_ACTIONS", 2)
    assert trained(list(rows(1_500))).plain is not None
    assert trained([*rows(1_500), AdfRow(seen(0, 0), action("third"), 0.0)]).plain is None


def test_what_nobody_was_shown_teaches_it_nothing() -> None:
    taught = list(rows(1_000))
    imitated = [replace(row, reward=0.0, weight=0.25) for row in rows(1_000, seed=5)]
    both = [row for pair in zip(taught, imitated, strict=True) for row in pair]
    one, other = trained(taught).plain, trained(both, block=200).plain
    assert one is not None
    assert other is not None
    assert other.graph == one.graph


def test_of_a_long_log_the_newest_rows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.model.training.plain.MOST_ROWS", 800)
    turned = [replace(row, reward=1.0 - row.reward) for row in rows(1_600, seed=6)]
    plain = trained([*rows(1_500), *turned]).plain
    assert plain is not None
    wanted = plain.wanted(seen(0, 0), [action(name) for name in IDS], BOTH)
    assert wanted is not None
    assert wanted[0][1] > 0.9
    assert plain.meta["rows"] <= 800


def test_a_log_that_is_read_again_is_learned_in_parts_and_judged_once_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optimizer.model.training.plain.PACE", 16.0)
    before = trained(list(rows(1_500))).plain
    assert before is not None
    trainer = LoopTrainer(plain=before)
    trainer.add(rows(1_000))
    for learned in (256, 1_000):
        model = trainer.fit()
        assert model.plain is before
        trainer.add(rows(learned // 256, seed=learned))
    for seed in range(3):
        trainer.add(rows(100, seed))
        plain = trainer.fit().plain
    assert plain is not None
    assert plain is not before
    assert plain.meta["rows"] == 1_304


def test_a_stored_one_is_read_again_or_left_where_it_is_not_to_be_run() -> None:
    model = trained(list(rows(1_500)))
    blob = model.to_blob()
    again = AdfModel.from_blob(blob)
    asked = (seen(1, 0), [action(name) for name in IDS], BOTH)
    assert model.plain is not None
    assert again.plain is not None
    first, second = model.plain.wanted(*asked), again.plain.wanted(*asked)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first[1], second[1])
    assert AdfModel.from_blob(blob, linear=True).plain is None
    graph, arrays, meta = unpack(blob)
    for broken in ({"keys": [1]}, {"keys": ["x", "y"]}, {"kind": "adf"}, {"optimism": None}):
        with pytest.raises(BadArtifact):
            AdfModel.from_blob(pack(graph, arrays, {**meta, "plain": {**meta["plain"], **broken}}))


def test_the_one_before_serves_until_the_own_has_been_judged() -> None:
    before = trained(list(rows(1_500)))
    trainer = LoopTrainer(start=before, plain=before.plain)
    trainer.remember(rows(1_500))
    assert trained(list(rows(100, seed=7)), trainer).plain is before.plain
    after = trained(list(rows(400, seed=8)), trainer).plain
    assert after is not None
    assert after is not before.plain, "it goes on from the rows that were remembered"
    assert trained(list(rows(400)), LoopTrainer(network=False, plain=before.plain)).plain is None


def test_lists_of_levels_are_told_one_by_one() -> None:
    said = told(tokens([{"age": 3, "likes": ["tea", "tea", "cake"], "plan": "pro", "sizes": [1, 2]}], "c"))
    assert said["c:age"] == 3
    assert (said["c:sizes[0]"], said["c:sizes[1]"]) == (1, 2)
    assert sum(name.startswith("c:likes=") for name in said) == 2
    assert isinstance(said["c:plan"], str)
