"""Scores through the structure equal the plain product of a feature row per action with the weights."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.model.artifact import pack, unpack
from optimizer.model.heads import Heads
from optimizer.model.inference import RewardModel
from optimizer.model.layout import Layout
from optimizer.model.prepared import DOUBT
from optimizer.model.timefeatures import TIME_NAMES
from optimizer.model.training import rows
from optimizer.model.training.train import train
from optimizer.model.values import expected_values
from storage.records import Campaign, JsonObject, OutcomeWeight
from tests.model.conftest import MONDAY, campaign, contexts, dearer, made_up

ROWS = 3_000
LOCAL = MONDAY + np.array([0, 3_599, 9 * 3_600 + 60, 30 * 3_600, 5 * 86_400 + 7_200, 7 * 86_400 - 1], dtype=np.int64)
SPACE = ActionSpace(("a", "b"), ("email", "sms"), LOCAL, LOCAL, True)
PEOPLE = contexts(np.random.default_rng(9), 5)


@pytest.fixture(scope="module")
def model() -> RewardModel:
    """A model without network, with the full set of blocks."""
    return RewardModel.load(train(dearer(made_up(ROWS, 4)), attributes=(), seed=4, network=False).blob)


def tau(local: int) -> list[float]:
    """The 23 time features, written out."""
    day, week = local % 86_400 / 86_400, (local - MONDAY) % (7 * 86_400) / (7 * 86_400)

    def pair(turns: float) -> list[float]:
        return [math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)]

    weekend = (1.0 if week >= 5 / 7 else 0.0) - 2 / 7
    daily = [*pair(day), *pair(2 * day)]
    shorter = [*pair(3 * day), *pair(4 * day)]
    weekday = math.floor(7 * week) / 7
    weekdays = [*pair(weekday), *pair(2 * weekday), *pair(3 * weekday)]
    smooth = [*pair(week), *pair(2 * week)]
    return [*daily, weekend, *(weekend * value for value in daily), *shorter, *weekdays, *smooth]


def segment_row(layout: Layout, segment: str, x: NDArray[Any], local: int) -> list[float]:
    """The segment's numbers of one row, written out."""
    hour = (local - MONDAY) % (7 * 86_400) // 3_600
    time = tau(local)
    rows: dict[str, list[float]] = {
        "one": [1.0],
        "plain": [float(x[i]) for i in layout.plain],
        "detail": [float(x[i]) for i in layout.detail],
        "network": [float(x[i]) for i in layout.network],
        "time": [time[i] for i in layout.time],
        "weekday": [time[i] for i in layout.weekday],
        "plain_time": [time[i] * float(x[j]) for i in layout.time if i < 9 for j in layout.plain],
        "hour": [float(hour % 24 == h) for h in layout.hour],
        "week": [float(hour == h) for h in layout.week],
    }
    return rows[segment]


def feature_row(
    model: RewardModel, heads: Heads, owner: Campaign, x: NDArray[Any], action: tuple[str, str] | None, local: int
) -> NDArray[np.float64]:
    """The whole row φ(x, a), (d,), by blocks: unit ⊗ segment."""
    parts = []
    for block in heads.layout.blocks:
        names: dict[str, str] = {"one": "", "campaign": owner.campaign_id}
        coordinates: tuple[float, ...] = ()
        if action is not None:
            variant, channel = action
            key = f"{owner.campaign_id}\x1f{variant}"
            names |= {"channel": channel, "variant": key, "pair": f"{key}\x1f{channel}"}
            coordinates = model.basis.coordinates(next(v for v in owner.variants if v.id == variant))
        if block.unit == "feature":
            unit = list(coordinates)
        else:
            unit = [float(key == names.get(block.unit)) for key in block.keys]
        parts.append(np.kron(unit, segment_row(heads.layout, block.segment, x, local)))
    return np.concatenate(parts)


def actions(space: ActionSpace) -> Iterator[tuple[tuple[str, str] | None, int]]:
    for a in range(space.size):
        factors = space.factors(a)
        if factors is None:
            yield None, 0
        else:
            v, s, c = factors
            yield (space.variants[v], space.channels[c]), int(space.local[s])


def brute_force(
    model: RewardModel, owner: Campaign, x: NDArray[Any], space: ActionSpace
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Reward (K,), draws (M, K), probabilities, from dense rows."""
    reward, draws = [], []
    chances: dict[str, list[float]] = {name: [] for name in model.outcomes}
    width = float(model.artifact_meta["width"])  # how wide that is has a test of its own
    for action, local in actions(space):
        heads = model.no_send if action is None else model.message
        row = feature_row(model, heads, owner, x, action, local)
        cost = 0.0
        if action is not None:
            cost = next(v.cost for v in owner.variants if v.id == action[0])
            cost += next(c.cost for c in owner.channels if c.id == action[1])
        total, drawn = -cost, np.full(heads.bank.shape[1], -cost)
        for name in model.outcomes:
            if name not in heads.outcomes:
                chances[name].append(0.0)
                continue
            i = heads.outcomes.index(name)
            p = 1.0 / (1.0 + math.exp(-(float(row @ heads.mean[i]) + float(heads.offset[i]))))
            chances[name].append(p)
            weight = owner.objective.get(name)
            if weight is None:
                continue
            sketches, variant = model.artifact_meta["values"], None if action is None else action[0]
            (value,) = expected_values(sketches, name, owner, (variant,), weight.max_value)
            worth = weight.fixed + weight.per_value * value
            total += worth * p
            assert heads.doubt is not None
            deviation = width * heads.bank[i].astype(float) + max(width, DOUBT) * heads.doubt[i].astype(float)
            drawn = drawn + worth * (p + p * (1 - p) * (deviation @ row))
        reward.append(total)
        draws.append(drawn)
    return np.array(reward), np.array(draws).T, {name: np.array(values) for name, values in chances.items()}


#: Time columns in the order in which format 2 numbered them.
FORMER = [name for name in TIME_NAMES if not name.startswith(("weekday", "weekend_"))]


def of_smooth_weeks(names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, dict[str, Any], JsonObject]:
    """The parts of a model from before weekdays had steps, with these time columns."""
    columns = tuple(TIME_NAMES.index(name) for name in names)
    monkeypatch.setattr(rows, "_live_times", lambda _: columns)
    graph, arrays, meta = unpack(train(made_up(ROWS, 4), attributes=(), seed=4, network=False).blob)
    for kind in ("message", "no_send"):
        del meta[kind]["layout"]["weekday"]
    return graph, dict(arrays), meta


def test_scores_equal_the_dense_product(model: RewardModel) -> None:
    equal_the_dense_product(model)


def test_an_outcome_counts_what_it_is_worth_after_that_variant(model: RewardModel) -> None:
    """By planted orders: three times as dear after the second, and clipped."""
    sketches = model.artifact_meta["values"]
    first, second, none = expected_values(sketches, "converted", campaign(), ("a", "b", None), 50.0)
    assert second > 1.3 * max(first, none)


def test_scores_of_a_model_of_smooth_weeks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = [name for name in TIME_NAMES if not name.startswith("weekday")]
    model = RewardModel.load(pack(*of_smooth_weeks(smooth, monkeypatch)))
    assert model.message.layout.time == tuple(TIME_NAMES.index(name) for name in smooth)
    equal_the_dense_product(model)


def equal_the_dense_product(model: RewardModel) -> None:
    for context in PEOPLE:
        x = model.embed([context])[0]
        scores = model.score(x, SPACE, campaign(), {})
        reward, draws, chances = brute_force(model, campaign(), x, SPACE)
        assert np.abs(scores.reward - reward).max() < 1e-6
        assert np.abs(scores.draws - draws).max() < 1e-5 * max(1.0, float(np.abs(draws).max()))
        assert scores.outcome.keys() == chances.keys()
        assert all(np.abs(scores.outcome[name] - chances[name]).max() < 1e-6 for name in chances)
        assert scores.draws.std(axis=0).min() > 1e-4


def test_a_model_that_stored_its_time_columns_by_their_place_scores_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Format 2 had 13 of them, in this order: what later came between others was not there."""
    graph, arrays, meta = of_smooth_weeks(FORMER, monkeypatch)
    by_name = RewardModel.load(pack(graph, arrays, meta))
    meta["message"]["layout"]["time"] = list(range(13))
    by_place = RewardModel.load(pack(graph, arrays, {**meta, "format": 2}))
    assert len(FORMER) == 13
    x = by_name.embed(PEOPLE)[0]
    told = [model.score(x, SPACE, campaign(), {}) for model in (by_name, by_place)]
    assert np.array_equal(told[0].reward, told[1].reward)
    assert np.array_equal(told[0].draws, told[1].draws)


def test_no_send_has_heads_of_its_own_and_no_message_outcomes(model: RewardModel) -> None:
    scores = model.score(model.embed(PEOPLE)[0], SPACE, campaign(), {})
    assert scores.risk.keys() == {"unsubscribed"}
    assert scores.risk["unsubscribed"][-1] == 0.0
    assert (scores.risk["unsubscribed"][:-1] > 0.0).all()
    assert scores.outcome["clicked"][-1] == 0.0
    assert 0.1 < scores.outcome["converted"][-1] < 0.2
    without = dataclasses.replace(SPACE, no_send=False)
    assert np.array_equal(model.score(model.embed(PEOPLE)[0], without, campaign(), {}).reward, scores.reward[:-1])


def test_the_objective_is_applied_when_deciding(model: RewardModel) -> None:
    x = model.embed(PEOPLE)[0]
    other = campaign(version=2, objective={"clicked": OutcomeWeight(2.0)})
    scores = model.score(x, SPACE, other, {})
    cost = np.array([0.01, 0.0])[:, None, None] + np.array([0.001, 0.03])[None, None, :]
    expected = 2.0 * scores.outcome["clicked"][:-1] - np.broadcast_to(cost, (2, 6, 2)).reshape(-1)
    assert np.allclose(scores.reward[:-1], expected)
    assert scores.reward[-1] == 0.0
    nothing = model.score(x, SPACE, campaign(version=3, objective={}), {})
    assert np.ptp(nothing.draws, axis=0).max() == 0.0


def test_a_new_variant_scores_like_its_features_and_is_less_certain(model: RewardModel) -> None:
    space = ActionSpace(("a", "new"), ("email",), LOCAL, LOCAL, False)
    x = model.embed(PEOPLE)[0]
    scores = model.score(x, space, campaign(), {})
    reward, _, _ = brute_force(model, campaign(), x, space)
    assert np.abs(scores.reward - reward).max() < 1e-6
    spread = scores.draws.std(axis=0).reshape(2, -1).mean(axis=1)
    assert spread[1] > 1.2 * spread[0]
    again = RewardModel(model.graph, *_reloaded(model)).score(x, space, campaign(), {})
    assert np.array_equal(again.draws, scores.draws)


def _reloaded(model: RewardModel) -> tuple[dict[str, NDArray[Any]], Any]:
    arrays: dict[str, NDArray[Any]] = {"basis.mean": model.basis.mean, "basis.directions": model.basis.directions}
    for prefix, heads in (("message", model.message), ("no_send", model.no_send)):
        arrays |= heads.save(prefix)[0]
    _, arrays, meta = unpack(pack(model.graph, arrays, model.artifact_meta))
    return arrays, meta


def test_an_empty_window_leaves_only_no_send(model: RewardModel) -> None:
    nothing = np.zeros(0, dtype=np.int64)
    scores = model.score(
        model.embed(PEOPLE)[0], ActionSpace(("a", "b"), ("sms",), nothing, nothing, True), campaign(), {}
    )
    assert scores.reward.shape == (1,)
    assert scores.draws.shape[1] == 1


def test_a_batch_embeds_like_single_rows(model: RewardModel) -> None:
    assert np.array_equal(model.embed(PEOPLE), np.concatenate([model.embed([person]) for person in PEOPLE]))


def test_threads_share_a_model(model: RewardModel) -> None:
    fresh = RewardModel(model.graph, *_reloaded(model))
    x = model.embed(PEOPLE)
    expected = [model.score(row, SPACE, campaign(), {}).reward for row in x]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            for i, row in enumerate(x):
                if not np.array_equal(fresh.score(row, SPACE, campaign(), {}).reward, expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_serving_imports_neither_torch_nor_onnx() -> None:
    code = "import sys, optimizer.model.inference; print([m for m in ('torch', 'onnx', 'flask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_imports_nothing_that_only_trainers_and_files_need() -> None:
    code = (
        "import sys; from optimizer.web import create_app; create_app(); "
        "print([m for m in ('torch', 'onnx', 'pandas', 'pyarrow', 'optuna', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
