"""What knows the outcome is found, and what is known before the send is not: each test's error is stated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer.model.examples import Examples
from optimizer.model.training.quality import examine
from storage.records import Attribute
from tests.model.test_quality import BASE, NORMAL, ROWS, of, problem, with_feature


def of_people(contexts: list[dict[str, Any]], converted: NDArray[np.bool_]) -> Examples:
    """A row a recipient, with these contexts and one outcome."""
    rows = BASE.take(np.arange(len(contexts)) % ROWS)
    outcome = {"converted": converted.astype(np.float64)}
    return replace(rows, contexts=contexts, cluster=np.arange(len(contexts)), outcome=outcome, value={})


class TestLeaks:
    """The outcome "unsubscribed" is rare (2 %), "clicked" is not (a third of the messages)."""

    def test_a_value_that_separates_an_outcome(self) -> None:
        clicked = BASE.outcome["clicked"]
        assert problem(lambda i: NORMAL[i] + 8.0 * np.nan_to_num(clicked[i])) == "leaking"

    def test_what_is_present_only_where_something_happened(self) -> None:
        converted = BASE.outcome["converted"]
        found = of(examine(with_feature(lambda i: f"order {i}" if converted[i] == 1 and i % 2 else None)))
        assert found is not None
        assert found.problem == "leaking"
        assert "converted" in found.detail
        assert found.figure > 0.95

    @pytest.mark.parametrize(("people", "share"), [(16_000, 0.011), (2_000, 0.45)])
    def test_one_exact_number_where_something_happened(self, people: int, share: float) -> None:
        """No hours since the last order, for those who ordered: no bin of quantiles holds them alone."""
        rng = np.random.default_rng(31)
        ordered = rng.random(people) < share
        hours = np.where(ordered, 0.0, 1.0 + rng.exponential(400.0, people))
        found = of(examine(of_people([{"odd": float(one)} for one in hours], ordered)))
        assert found is not None
        assert (found.problem, found.left_out) == ("leaking", True)

    def test_a_time_after_the_decision_where_something_happened(self) -> None:
        rng = np.random.default_rng(32)
        people, now, day = 16_000, 1_780_000_000.0, 86_400.0
        ordered = rng.random(people) < 0.011
        registry = [Attribute("w", "odd", "timestamp")]
        for ahead, leaks in ((ordered, True), (np.full(people, True), False)):
            at = now + day * np.where(ahead, rng.uniform(0.01, 1.0, people), -rng.exponential(60.0, people))
            rows = of_people([{"odd": float(one), "@moment": now} for one in at], ordered)
            found = of(examine(rows, registry))
            assert (found is not None and found.problem == "leaking") == leaks

    def test_a_strong_and_honest_feature_is_no_leak(self) -> None:
        # Its area under the curve is about .9: more than features that are known before the send ever have.
        clicked = BASE.outcome["clicked"]
        assert problem(lambda i: NORMAL[i] + 1.8 * np.nan_to_num(clicked[i])) is None

    def test_a_good_policy_is_no_leak(self) -> None:
        """What always works for some people, since the policy sends them the right message, is no leak."""
        rng = np.random.default_rng(5)
        segment = rng.integers(0, 4, ROWS)
        right = rng.random(ROWS) < np.where(segment == 3, 0.98, 0.3)
        variant = np.where(right, segment % 2, 1 - segment % 2).astype(np.int64)
        happened = ((right & (segment == 3)) | (rng.random(ROWS) < 0.06)).astype(np.float64)
        rows = replace(BASE, variant=variant, channel=np.zeros(ROWS, np.int64), outcome={"clicked": happened}, value={})
        assert problem(lambda i: f"s{segment[i]}", rows) is None

    def test_what_happens_often_anyway_may_be_nearly_certain(self) -> None:
        """People who nearly always open are no leak where half of all messages are opened."""
        rng = np.random.default_rng(6)
        keen = rng.random(ROWS) < 0.3
        happened = (rng.random(ROWS) < np.where(keen, 0.98, 0.3)).astype(np.float64)
        rows = replace(BASE, outcome={"converted": happened}, value={})
        assert problem(lambda i: "keen" if keen[i] else "cool", rows) is None

    @pytest.mark.parametrize("number", [False, True])
    def test_false_alarms_are_rarer_than_stated(self, number: bool) -> None:
        """60 features at the edge of the null: a value that makes a rare outcome .9 likely, in fresh logs each.

        At .01 a log (5 features more are examined), 5 or more alarms in 60 logs have a chance of .0004.
        """
        yes, no = (0, 1) if number else ("yes", "no")
        rng = np.random.default_rng(8)
        alarms = 0
        for _ in range(60):
            marked = rng.random(ROWS) < 0.1
            happened = (rng.random(ROWS) < np.where(marked, 0.9, 0.01)).astype(np.float64)
            rows = replace(BASE, outcome={"converted": happened}, value={})
            alarms += problem(lambda i, m=marked: yes if m[i] else no, rows) == "leaking"  # type: ignore[misc]
        assert alarms < 5

    def test_a_certain_value_is_found_with_power(self) -> None:
        """20 logs in which a value makes an outcome certain, 10 % of 4,000 rows: found in all."""
        rng = np.random.default_rng(9)
        for _ in range(20):
            marked = rng.random(ROWS) < 0.1
            happened = (rng.random(ROWS) < np.where(marked, 1.0, 0.01)).astype(np.float64)
            rows = replace(BASE, outcome={"converted": happened}, value={})
            assert problem(lambda i, m=marked: "yes" if m[i] else None, rows) == "leaking"  # type: ignore[misc]
