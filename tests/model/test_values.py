"""The expected value of an outcome."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import orjson
import pytest

from optimizer.model.examples import Examples
from optimizer.model.values import NOT_SENT, SKETCH, expected_value, expected_values, fit_values, joined
from tests.model.conftest import campaign

OWNERS = (campaign("big"), campaign("small"), campaign("yen", currency="JPY"), campaign("unseen"))


def bought(values: list[tuple[int, float]]) -> Examples:
    """One converted row a (campaign, value)."""
    n = len(values)
    zero = np.zeros(n, dtype=np.int64)
    which = np.array([owner for owner, _ in values], dtype=np.int64)
    amounts = np.array([amount for _, amount in values])
    return Examples(
        [{}] * n, OWNERS, which, zero, zero, zero, {"converted": np.ones(n)}, {"converted": amounts}, np.arange(n)
    )


def test_the_mean_is_exact_and_shrunk_to_the_pool() -> None:
    rows = [(0, float(v)) for v in range(1, 101)] + [(1, 10.0)] * 20
    sketches = orjson.loads(orjson.dumps(fit_values(bought(rows))))
    pooled = (5_050.0 + 200.0) / 120.0
    assert expected_value(sketches, "converted", OWNERS[0], None) == pytest.approx((100 * 50.5 + 20 * pooled) / 120)
    assert expected_value(sketches, "converted", OWNERS[1], None) == pytest.approx((20 * 10.0 + 20 * pooled) / 40)
    assert expected_value(sketches, "converted", OWNERS[3], None) == pytest.approx(pooled)
    assert len(sketches["converted"]["campaign"]["big"]["means"]) <= SKETCH


def test_the_clip_is_applied_when_asked() -> None:
    sketches = fit_values(bought([(0, 1.0), (0, 5.0), (0, 1_000.0)]))
    assert expected_value(sketches, "converted", OWNERS[0], 10.0) == pytest.approx(16.0 / 3.0)
    assert expected_value(sketches, "converted", OWNERS[0], None) == pytest.approx(1_006.0 / 3.0)


def test_currencies_are_not_pooled() -> None:
    sketches = fit_values(bought([(0, 1.0), (2, 5_000.0)]))
    assert expected_value(sketches, "converted", OWNERS[1], None) == pytest.approx(1.0)
    assert expected_value(sketches, "converted", OWNERS[2], None) == pytest.approx(5_000.0)
    dollars = fit_values(baskets({0: np.full(5, 9.0), 1: np.full(5, 99.0)}))
    changed = dataclasses.replace(OWNERS[0], currency="JPY")
    assert expected_values(dollars, "converted", changed, ("a", "b"), None).tolist() == [0.0, 0.0]


def test_values_of_what_did_not_happen_or_is_unknown_do_not_count() -> None:
    examples = bought([(0, 1.0), (0, 9.0), (0, np.nan)])
    partly = dataclasses.replace(examples, outcome={"converted": np.array([1.0, 0.0, 1.0])})
    assert expected_value(fit_values(partly), "converted", OWNERS[0], None) == pytest.approx(1.0)
    assert expected_value({}, "converted", OWNERS[0], None) == 0.0
    never = dataclasses.replace(examples, outcome={"converted": np.zeros(3)})
    assert fit_values(never) == {}


def baskets(by_variant: dict[int, np.ndarray]) -> Examples:
    """Orders of the first campaign, by variant (-1 = not sent)."""
    orders = bought([(0, float(one)) for values in by_variant.values() for one in values])
    variant = np.concatenate([np.full(len(values), place) for place, values in by_variant.items()])
    which = variant.astype(np.int64)
    return dataclasses.replace(orders, variant=which, channel=np.minimum(which, 0))


def by_variant(sketches: dict[str, Any], max_value: float | None = None) -> list[float]:
    found = expected_values(sketches, "converted", OWNERS[0], ("a", "b", None, "new"), max_value)
    return [float(one) for one in found]


def test_baskets_that_differ_by_variant_are_told_apart() -> None:
    chance = np.random.default_rng(1)
    small, large = (chance.lognormal(np.log(mean), 0.5, 200) for mean in (10.0, 100.0))
    sketches = orjson.loads(orjson.dumps(fit_values(baskets({0: small, 1: large, -1: small[:50]}))))
    first, second, none, new = by_variant(sketches)
    assert first == pytest.approx(small.mean(), rel=0.1)
    assert second == pytest.approx(large.mean(), rel=0.02)
    assert none == pytest.approx(small[:50].mean(), rel=0.3)
    assert new == expected_value(sketches, "converted", OWNERS[0], None)
    assert sorted(sketches["converted"]["variant"]["big"]) == [NOT_SENT, "a", "b"]


def test_baskets_that_chance_made_different_are_not() -> None:
    """Of 200 campaigns whose variants are alike, with 30 orders each: no more than half of what chance says is left."""
    chance = np.random.default_rng(2)
    raw, told = [], []
    for _ in range(200):
        orders = {place: chance.lognormal(3.0, 1.0, 30) for place in (0, 1)}
        sketches = fit_values(baskets(orders))
        first, second, *_ = by_variant(sketches)
        raw.append(orders[0].mean() - orders[1].mean())
        told.append(first - second)
    assert np.std(told) < 0.5 * np.std(raw)
    assert np.mean(np.array(told) == 0.0) > 0.6


def test_one_dear_order_does_not_make_a_variant() -> None:
    sketches = fit_values(baskets({0: np.full(50, 20.0), 1: np.append(np.full(50, 20.0), 5_000.0)}))
    first, second, *_ = by_variant(sketches)
    assert first == pytest.approx(second, rel=0.02)


def test_prices_that_never_vary_are_taken_as_they_are() -> None:
    first, second, *_ = by_variant(fit_values(baskets({0: np.full(5, 9.0), 1: np.full(5, 99.0)})))
    assert (first, second) == (9.0, 99.0)
    alone, other, *_ = by_variant(fit_values(baskets({0: np.array([9.0]), 1: np.array([99.0])})))
    assert alone == other, "one order each tells nothing of how they vary"


def test_a_refund_counts_no_more_than_an_order() -> None:
    sketches = fit_values(baskets({0: np.array([10.0, 20.0, -100_000.0]), 1: np.array([30.0, 40.0])}))
    assert expected_value(sketches, "converted", OWNERS[0], 50.0) == pytest.approx(50.0 / 5)
    assert min(by_variant(sketches, 50.0)) >= -50.0


def test_sketches_of_two_lots_are_as_of_all_of_them() -> None:
    """Each as its groups lie; what was learned before variants were told apart has none, and no variances."""
    chance = np.random.default_rng(3)
    lots = [baskets({0: chance.normal(mean, 1.0, 30), 1: chance.normal(50.0, 1.0, 30)}) for mean in (10.0, 12.0)]
    one, other = (fit_values(lot) for lot in lots)
    both = by_variant(joined(one, other))
    assert both[0] == pytest.approx(11.0, abs=1.0)
    old = orjson.loads(orjson.dumps(other))
    del old["converted"]["variant"]
    for kind in ("campaign", "currency"):
        for sketch in old["converted"][kind].values():
            sketch["means"] = [group[:2] for group in sketch["means"]]
    assert by_variant(old) == [expected_value(old, "converted", OWNERS[0], None)] * 4
    again = joined(old, one)
    assert by_variant(again)[0] == pytest.approx(10.0, abs=1.0)
    assert again["converted"]["campaign"]["big"]["count"] == 120
