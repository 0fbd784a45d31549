"""The expected value of an outcome."""

from __future__ import annotations

import dataclasses

import numpy as np
import orjson
import pytest

from optimizer.model.examples import Examples
from optimizer.model.values import SKETCH, expected_value, fit_values
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


def test_values_of_what_did_not_happen_or_is_unknown_do_not_count() -> None:
    examples = bought([(0, 1.0), (0, 9.0), (0, np.nan)])
    partly = dataclasses.replace(examples, outcome={"converted": np.array([1.0, 0.0, 1.0])})
    assert expected_value(fit_values(partly), "converted", OWNERS[0], None) == pytest.approx(1.0)
    assert expected_value({}, "converted", OWNERS[0], None) == 0.0
    never = dataclasses.replace(examples, outcome={"converted": np.zeros(3)})
    assert fit_values(never) == {}
