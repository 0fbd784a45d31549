"""Blocks of contexts against what the model's spec says of its training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from optimizer.model.featurebins import expected_shares
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.service.featureblocks import BLOCK_ROWS, BLOCK_SECONDS, Block, Filling, empty_block

Context = dict[str, Any]


def contexts(rng: np.random.Generator, n: int, **changes: Any) -> list[Context]:
    """A number, a number with many ties, a flag, a category with rare levels, a boolean, a text; gaps in the first."""
    level = rng.choice([f"city{i}" for i in range(60)], n, p=np.array([1 / (i + 1) for i in range(60)]) / 4.679870412)
    rows = []
    for i in range(n):
        row: Context = {
            "age": float(rng.normal(40, 12)),
            "visits": int(rng.choice([0, 1, 2], p=[0.2, 0.6, 0.2])),
            "app": int(rng.random() < 0.3),
            "city": str(level[i]),
            "member": bool(rng.random() < 0.4),
            "note": f"the {i} brown foxes jump",
        }
        if rng.random() < 0.1:
            del row["age"]
        rows.append(
            {
                name: value
                for name, value in (row | {k: f(rng) for k, f in changes.items()}).items()
                if value is not None
            }
        )
    return rows


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    return fit_spec(contexts(np.random.default_rng(1), 4000), [])


def filled(
    spec: FeatureSpec,
    rows: Sequence[Context],
    at: np.ndarray[Any, Any] | None = None,
    people: Sequence[str] | None = None,
    trained: int = 4000,
) -> list[set[str]]:
    """What each block that became full names as shifted; without times a day of rows, without people one row each."""
    times = np.linspace(0.0, BLOCK_SECONDS - 1.0, len(rows)) if at is None else at
    block, found = empty_block(spec.hash), []
    for start in range(0, len(rows), 50):  # a look each
        filling = Filling(block, spec, trained)
        for i in range(start, start + 50):
            filling.take(float(times[i]), f"p{i}" if people is None else people[i], rows[i])
        block = filling.at(float(times[start + 49]))
        found.append(filling.shifts)
    last = Filling(block, spec, trained)
    last.at(block.until)
    return [{name for name, (index, limit) in one.items() if index > limit} for one in [*found, last.shifts] if one]


def shifted(spec: FeatureSpec, rows: list[Context]) -> set[str]:
    """What a block of a day names."""
    filling = Filling(empty_block(spec.hash), spec, 4000)
    for i, row in enumerate(rows):
        filling.take(i * BLOCK_SECONDS / len(rows), f"p{i}", row)
    filling.at(BLOCK_SECONDS)
    assert len(filling.shifts) == len(spec.columns)
    return {name for name, (index, limit) in filling.shifts.items() if index > limit}


def test_a_spec_knows_the_shares_of_its_training_rows(spec: FeatureSpec) -> None:
    rows = contexts(np.random.default_rng(1), 4000)
    filling = Filling(empty_block(spec.hash), spec, 4000)
    for row in rows[: BLOCK_ROWS - 1]:
        filling.take(0.0, "p", row)
    block = filling.at(1.0)
    for column in spec.columns:
        shares = expected_shares(column)
        assert shares.sum() == pytest.approx(1.0)
        assert np.asarray(block.counts[column.name]) / (BLOCK_ROWS - 1) == pytest.approx(shares, abs=0.06)


def test_unchanged_features_raise_no_alarm(spec: FeatureSpec) -> None:
    """40 blocks of six features at .001 a block: one alarm has a chance of .04, two of .001."""
    rng = np.random.default_rng(2)
    assert sum(bool(shifted(spec, contexts(rng, BLOCK_ROWS))) for _ in range(40)) <= 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("age", lambda rng: float(rng.normal(52, 12))),
        ("age", lambda rng: None if rng.random() < 0.5 else float(rng.normal(40, 12))),
        ("visits", lambda rng: int(rng.choice([0, 1, 2], p=[0.8, 0.1, 0.1]))),
        ("app", lambda rng: int(rng.random() < 0.7)),
        ("city", lambda rng: "elsewhere" if rng.random() < 0.5 else "city0"),
        ("member", lambda _: True),
        ("note", lambda _: None),
    ],
)
def test_a_changed_feature_is_named(spec: FeatureSpec, name: str, change: Any) -> None:
    assert shifted(spec, contexts(np.random.default_rng(3), BLOCK_ROWS, **{name: change})) == {name}


def test_a_block_is_judged_at_the_end_of_a_day_once_it_is_full(spec: FeatureSpec) -> None:
    rows = contexts(np.random.default_rng(4), 1_500)
    filling = Filling(empty_block(spec.hash), spec, 4000)
    for i, row in enumerate(rows[:700]):
        filling.take(100.0 + i, f"p{i}", row)
    block = filling.at(100.0 + BLOCK_SECONDS)  # a day is over: too few
    assert (block.rows, block.since, block.until, filling.shifts) == (700, 100.0, 100.0 + 2 * BLOCK_SECONDS, {})
    filling = Filling(block, spec, 4000)
    for i, row in enumerate(rows[700:]):
        filling.take(block.until - BLOCK_SECONDS + i, f"p{i}", row)
    again = filling.at(block.until - 1.0)  # enough, and the second day is not over
    assert (again.rows, filling.shifts) == (1_500, {})
    assert filling.at(block.until) == empty_block(spec.hash)
    assert set(filling.shifts) == {column.name for column in spec.columns}
    other = Filling(Block("another spec", 900, {"age": [1]}), spec, 4000)
    other.take(5.0, "p0", rows[0])
    assert other.at(6.0).rows == 1


REGIONS = ("asia", "europe", "atlantic", "america")


def by_region(shares: np.ndarray[Any, Any], rng: np.random.Generator) -> list[Context]:
    """One context a row of ``shares`` (n, 4), its region drawn from it."""
    drawn = (shares.cumsum(axis=1) > rng.random((len(shares), 1))).argmax(axis=1)
    return [{"region": REGIONS[i]} for i in drawn.tolist()]


def daylight(hours: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(n, 4) shares of regions that wake six hours apart."""
    awake = np.maximum(0.05, np.sin(2 * np.pi * (hours[:, None] - np.array([0, 6, 12, 18])) / 24))
    shares: np.ndarray[Any, Any] = awake / awake.sum(axis=1, keepdims=True)
    return shares


def test_traffic_that_follows_the_sun_is_no_alarm_and_a_new_kind_of_people_is_one() -> None:
    """1,500 decisions a day for six days, half as many for two more: seven blocks, whatever hour they begin at."""
    rng = np.random.default_rng(9)
    hours = np.arange(6 * 1_500) * 24 / 1_500
    hours = np.concatenate((hours, 144.0 + np.arange(1_500) * 48 / 1_500))
    spec = fit_spec(by_region(daylight(hours), rng), [])
    found = filled(spec, by_region(daylight(hours), rng), 3600.0 * hours)
    assert found == [set()] * 7
    rows = by_region(daylight(hours), rng)
    new = [{"region": "africa"} if at >= 60.0 else row for at, row in zip(hours, rows, strict=True)]
    found = filled(spec, new, 3600.0 * hours)
    assert found[:2] == [set()] * 2  # two days without
    assert found[2:] == [{"region"}] * 5  # from the day on in whose middle they came


def test_a_list_that_is_worked_off_by_country_within_a_day_is_no_alarm() -> None:
    rng = np.random.default_rng(10)
    people = by_region(np.full((6_000, 4), 0.25), rng)
    spec = fit_spec(people, [])
    at = np.concatenate([day * BLOCK_SECONDS + np.arange(2_000) for day in range(3)])
    by_country = [row for day in range(3) for row in sorted(people[day::3], key=lambda row: row["region"])]
    assert filled(spec, by_country, at) == [set()] * 3


def test_many_decisions_of_few_people_say_as_little_as_few_people() -> None:
    """40 blocks of 100 people with 10 decisions each, .001 a block: one alarm has a chance of .04."""
    rng = np.random.default_rng(11)
    spec = fit_spec([{"age": float(x)} for x in rng.normal(size=20_000)], [])
    found = []
    for _ in range(40):
        ages = rng.normal(size=100)
        rows = [{"age": float(ages[i % 100])} for i in range(1_000)]
        found += filled(spec, rows, people=[f"p{i % 100}" for i in range(1_000)], trained=20_000)
    assert len(found) == 40
    assert sum(map(bool, found)) <= 1
    moved = [{"age": float(2.0 + i % 100 / 50)} for i in range(1_000)]
    assert filled(spec, moved, people=[f"p{i % 100}" for i in range(1_000)], trained=20_000) == [{"age"}]


def test_a_block_is_json_and_back_and_one_without_its_days_begins_anew(spec: FeatureSpec) -> None:
    filling = Filling(empty_block(spec.hash), spec, 4000)
    for i, row in enumerate(contexts(np.random.default_rng(5), 30)):
        filling.take(100.0 + i, f"p{i}", row)
    block = filling.at(200.0)
    told = orjson.loads(orjson.dumps(block.to_json()))
    assert set(told) == {"spec", "rows", "counts"}  # what earlier versions read
    assert Block.from_json(told) == block
    earlier = {"spec": spec.hash, "rows": 30, "counts": dict(block.counts)}
    assert Block.from_json(earlier) == empty_block(spec.hash)


def test_shares_follow_the_levels(spec: FeatureSpec) -> None:
    column = next(c for c in spec.columns if c.name == "member")
    rows = contexts(np.random.default_rng(1), 4000)
    share = Counter(row["member"] for row in rows)[True] / 4000
    assert expected_shares(column) == pytest.approx([0.0, share, 1 - share], abs=1e-9)
