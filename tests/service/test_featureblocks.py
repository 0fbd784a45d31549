"""Blocks of contexts against what the model's spec says of its training rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from optimizer.model.featurebins import expected_shares
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.service.featureblocks import BLOCK_ROWS, Block, compared, empty_block

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


def shifted(spec: FeatureSpec, rows: list[Context]) -> set[str]:
    _, found = compared(empty_block(spec.hash), spec, 4000, rows)
    return {name for name, shift in found.items() if shift[0] > shift[1]}


def test_a_spec_knows_the_shares_of_its_training_rows(spec: FeatureSpec) -> None:
    rows = contexts(np.random.default_rng(1), 4000)
    block, _ = compared(empty_block(spec.hash), spec, 4000, rows[: BLOCK_ROWS - 1])
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


def test_a_block_is_judged_when_it_is_full(spec: FeatureSpec) -> None:
    rows = contexts(np.random.default_rng(4), BLOCK_ROWS + 300)
    block, found = compared(empty_block(spec.hash), spec, 4000, rows[:700])
    assert (block.rows, found) == (700, {})
    again, found = compared(block, spec, 4000, rows[700:])
    assert again.rows == 300
    assert set(found) == {column.name for column in spec.columns}
    other = Block("another spec", 900, {"age": [1]})
    assert compared(other, spec, 4000, rows[:10])[0].rows == 10


def test_shares_follow_the_levels(spec: FeatureSpec) -> None:
    column = next(c for c in spec.columns if c.name == "member")
    rows = contexts(np.random.default_rng(1), 4000)
    share = Counter(row["member"] for row in rows)[True] / 4000
    assert expected_shares(column) == pytest.approx([0.0, share, 1 - share], abs=1e-9)
