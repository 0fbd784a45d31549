"""What is wrong with features is found by name, and what is right is left alone: each test's error is stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import orjson
import pytest

from optimizer.model.columns import NumberColumn
from optimizer.model.examples import Examples
from optimizer.model.features import fit_spec
from optimizer.model.training.findings import Finding
from optimizer.model.training.quality import Quality, examine
from storage.records import Attribute, AttributeType
from tests.model.conftest import made_up

ROWS = 4000
BASE = made_up(ROWS, 11)
Value = Callable[[int], Any]


def with_feature(value: Value, examples: Examples = BASE, name: str = "odd") -> Examples:
    """The rows with one more feature; None = absent."""
    rows = [dict(context) for context in examples.contexts]
    for i, row in enumerate(rows):
        found = value(i)
        if found is not None:
            row[name] = found
    return replace(examples, contexts=rows)


def of(quality: Quality, name: str = "odd") -> Finding | None:
    found = [finding for finding in quality.findings if finding.feature == name]
    assert len(found) <= 1
    return found[0] if found else None


def problem(value: Value, examples: Examples = BASE) -> str | None:
    quality = examine(with_feature(value, examples))
    others = [finding for finding in quality.findings if finding.feature != "odd"]
    assert others == []
    found = of(quality)
    return None if found is None else found.problem


RNG = np.random.default_rng(21)
NORMAL = RNG.normal(size=ROWS).tolist()
HEAVY = np.exp(3.0 * RNG.normal(size=ROWS)).tolist()
LATE = ROWS // 2


class TestProblems:
    def test_sound_features_have_no_findings(self) -> None:
        quality = examine(BASE)
        assert quality.findings == ()
        assert (quality.features, quality.rows) == (5, ROWS)

    def test_constant(self) -> None:
        assert problem(lambda _: 3) == "constant"
        assert problem(lambda _: "same") == "constant"

    def test_mostly_missing(self) -> None:
        assert problem(lambda i: NORMAL[i] if i % 40 == 0 else None) == "missing"
        assert problem(lambda i: NORMAL[i] if i % 10 == 0 else None) is None
        assert problem(lambda i: [i]) == "missing"

    def test_what_few_rows_have_stays_where_they_are_enough_to_learn_from(self) -> None:
        for rows, left_out in ((30, True), (60, False)):
            every = ROWS // rows
            found = of(examine(with_feature(lambda i, n=every: NORMAL[i] if i % n == 0 else None)))  # type: ignore[misc]
            assert found is not None
            assert (found.problem, found.left_out) == ("missing", left_out)

    def test_attributes_that_came_with_live_decisions_after_a_bare_history_are_learned_from(self) -> None:
        late = ROWS - ROWS // 30
        rows = replace(BASE, contexts=[context if i >= late else {} for i, context in enumerate(BASE.contexts)])
        quality = examine(rows)
        assert {finding.problem for finding in quality.findings} == {"missing"}
        assert quality.left_out == ()

    def test_a_flag_that_is_only_told_where_it_is_true_is_learned_from(self) -> None:
        vip = np.random.default_rng(2).random(ROWS) < 0.04
        happened = (np.random.default_rng(3).random(ROWS) < np.where(vip, 0.6, 0.1)).astype(np.float64)
        rows = replace(BASE, outcome={"clicked": happened}, value={})
        quality = examine(with_feature(lambda i: True if vip[i] else None, rows))
        assert "odd" not in quality.left_out

    def test_what_few_rows_have_and_only_where_something_happened_is_left_out(self) -> None:
        """Too few rows for the leak tests: 60 orders, each with its number of items."""
        converted = np.zeros(ROWS)
        converted[:60] = 1.0
        rows = replace(BASE, outcome={"converted": converted}, value={})
        found = of(examine(with_feature(lambda i: i % 5 if i < 60 else None, rows)))
        assert found is not None
        assert (found.problem, found.left_out) == ("missing", True)
        assert "converted happened in nearly all that have one" in found.detail

    def test_an_identity_that_few_rows_have_is_left_out_as_one(self) -> None:
        found = of(examine(with_feature(lambda i: f"coupon{i}" if i % 30 == 0 else None)))
        assert found is not None
        assert (found.problem, found.left_out) == ("identity", True)

    def test_a_feature_of_one_small_campaign_is_not_missing(self) -> None:
        campaign = np.zeros(ROWS, dtype=np.int64)
        campaign[::30] = 1
        rows = replace(BASE, campaign=campaign)
        assert problem(lambda i: NORMAL[i] if campaign[i] else None, rows) is None

    def test_exploding(self) -> None:
        assert problem(lambda i: 1e30 if i == 77 else NORMAL[i]) == "exploding"
        assert problem(lambda i: NORMAL[i] * (1000.0 if i > LATE else 1.0)) == "exploding"  # seconds, then milliseconds
        assert problem(lambda i: float("nan") if i % 20 == 0 else NORMAL[i]) == "exploding"
        assert problem(lambda i: 0.0 if i % 50 else NORMAL[i]) is None

    def test_a_few_values_that_can_not_be_true_are_missing_and_the_others_learned_from(self) -> None:
        for few in (1, 30):
            rows = with_feature(lambda i, n=few: 1e9 if i % (ROWS // n) == 77 else NORMAL[i])  # type: ignore[misc]
            quality = examine(rows)
            found = of(quality)
            assert found is not None
            assert (found.problem, found.left_out, found.limit) == ("exploding", False, 1e6)
            assert found.figure > found.limit
            assert found.detail.startswith(f"{few} of {ROWS} values can't be true")
            spec = fit_spec(rows.contexts, quality.registry((), "w"))
            column = next(column for column in spec.columns if column.name == "odd")
            absent = column.row({})
            assert column.row({"odd": 1e9}) == column.row({"odd": "1e9"}) == column.row({"odd": -1e9}) == absent
            assert column.row({"odd": 50.0}) != absent, "what is far and may be true counts as the outermost"
            expected = [absent if one["odd"] == 1e9 else column.row(one) for one in rows.contexts]
            np.testing.assert_allclose(column.bulk(rows.contexts), expected)
            plain = fit_spec(with_feature(lambda i: NORMAL[i]).contexts, ()).columns
            same = next(one for one in plain if one.name == "odd")
            assert isinstance(column, NumberColumn)
            assert isinstance(same, NumberColumn)
            assert column.scale == pytest.approx(same.scale, rel=0.05)

    def test_many_values_that_can_not_be_true_take_the_feature_away(self) -> None:
        found = of(examine(with_feature(lambda i: 1e9 if i % 80 == 77 else NORMAL[i])))
        assert found is not None
        assert (found.problem, found.left_out) == ("exploding", True)

    def test_heavy_tails_do_not_explode(self) -> None:
        assert problem(lambda i: HEAVY[i]) is None

    @pytest.mark.parametrize("declared", ["number", "timestamp", "boolean"])
    def test_what_its_declared_type_can_never_read_is_missing(self, declared: AttributeType) -> None:
        """The type may come from the first value that was ever seen."""
        rows = with_feature(lambda i: f"03/{i % 27 + 1:02d}/next")
        found = of(examine(rows, [Attribute("w", "odd", declared)]))
        assert found is not None
        assert (found.problem, found.left_out) == ("missing", True)
        assert found.detail == f"no value can be read as its type, {declared}"

    @pytest.mark.parametrize(
        ("kind", "value", "told"),
        [
            ("number", lambda i: NORMAL[i] if i % 3 == 0 else "gold", "can't be read as number, such as 'gold'"),
            ("boolean", lambda i: i % 2 == 0 if i % 5 else "weekly", "20.0 % of the values that are there"),
            ("timestamp", lambda i: f"2026-01-{i % 27 + 1:02d}" if i % 4 else "never", "such as 'never'"),
            ("category", lambda i: ["a"] if i % 10 == 0 else "ab"[i % 2], "can't be read as category"),
            ("text", lambda i: i if i % 10 == 0 else f"note {i}", "can't be read as text"),
        ],
    )
    def test_values_that_a_type_can_not_read_are_told_and_the_others_learned_from(
        self, kind: AttributeType, value: Value, told: str
    ) -> None:
        rows = with_feature(value)
        rows = replace(rows, contexts=[{**context, "@moment": 1_780_000_000.0} for context in rows.contexts])
        found = of(examine(rows, [Attribute("w", "odd", kind)]))
        assert found is not None
        assert (found.problem, found.left_out) == ("unreadable", False)
        assert found.figure > found.limit == 0.05
        assert told in found.detail

    def test_one_odd_value_in_thirty_is_no_finding(self) -> None:
        rows = with_feature(lambda i: NORMAL[i] if i % 30 else "unknown")
        assert of(examine(rows, [Attribute("w", "odd", "number")])) is None

    def test_what_cant_be_read_is_told_neither_of_one_person_nor_of_a_sensitive_attribute(self) -> None:
        number = Attribute("w", "odd", "number")
        names = of(examine(with_feature(lambda i: NORMAL[i] if i % 3 else f"Ann {i}"), [number]))
        assert names is not None
        assert "such as" not in names.detail
        shared = with_feature(lambda i: NORMAL[i] if i % 3 else "pregnant")
        secret = of(examine(shared, [replace(number, sensitive=True)]))
        assert secret is not None
        assert "such as" not in secret.detail

    def test_identity(self) -> None:
        assert problem(lambda i: f"user{BASE.cluster[i]}") == "identity"
        assert problem(lambda i: f"city{BASE.cluster[i] % 300}") is None

    def test_shifted_is_named_and_stays(self) -> None:
        rows = with_feature(lambda i: NORMAL[i] + (1.0 if i > LATE else 0.0))
        quality = examine(rows)
        found = of(quality)
        assert found is not None
        assert (found.problem, found.left_out) == ("shifted", False)
        assert found.figure > found.limit >= 0.2
        assert quality.left_out == ()

    def test_a_category_that_only_came_later_is_shifted(self) -> None:
        assert problem(lambda i: "ab"[i % 2] if i < LATE else "abc"[i % 3]) == "shifted"


class TestWidth:
    """A category of 24 levels takes 24 numbers, of the 320 that a model reads."""

    RNG = np.random.default_rng(41)
    WIDE: ClassVar = {f"cat{k:02}": RNG.integers(0, 24, ROWS).tolist() for k in range(30)}

    def wide(self, i: int, **more: Any) -> dict[str, Any]:
        return {**{name: f"l{values[i]}" for name, values in self.WIDE.items()}, **more}

    def test_what_does_not_fit_is_named_and_what_fits_is_as_before(self) -> None:
        rows = replace(BASE, contexts=[self.wide(i, zest="ab"[i % 2]) for i in range(ROWS)])
        quality = examine(rows)
        spec = fit_spec(rows.contexts, ())
        assert "zest" not in spec.dropped, "what needs little room still fits"
        assert len(spec.dropped) == 17
        assert quality.left_out == spec.dropped
        for found in quality.findings:
            assert (found.problem, found.left_out, found.figure, found.limit) == ("too_wide", True, 722, 320)
            assert found.detail.startswith("24 numbers of it don't fit into the 320 that a model reads of a context")
        assert fit_spec(rows.contexts, quality.registry((), "w")) == spec

    def test_what_a_bad_feature_makes_room_for_is_examined_too(self) -> None:
        """Twelve identities fill a spec by themselves; behind them comes what knows the outcome."""
        clicked = BASE.outcome["clicked"]
        ids = {f"a{k:02}": BASE.cluster for k in range(12)}
        rows = replace(
            BASE,
            contexts=[
                self.wide(i, **{name: f"u{of[i] if i % 30 else k}" for k, (name, of) in enumerate(ids.items())})
                | {"odd": NORMAL[i] + 8.0 * float(np.nan_to_num(clicked[i]))}
                for i in range(ROWS)
            ],
        )
        quality = examine(rows)
        told = {finding.feature: finding.problem for finding in quality.findings}
        assert {told[name] for name in ids} == {"identity"}
        assert told["odd"] == "leaking"
        spec = fit_spec(rows.contexts, quality.registry((), "w"))
        assert sorted({*spec.dropped, *ids, "odd"}) == list(quality.left_out)


class TestErrors:
    def test_sound_logs_rarely_show_a_finding(self) -> None:
        """100 fresh logs of five sound features; at .02 a log (leaks .01, shifts .01) 8 or more have chance .001."""
        alarms = sum(bool(examine(made_up(1000, 1000 + seed)).findings) for seed in range(100))
        assert alarms < 8


class TestUse:
    def test_the_spec_does_without_what_is_left_out(self) -> None:
        rows = with_feature(lambda i: f"user{BASE.cluster[i]}")
        quality = examine(rows)
        assert quality.left_out == ("odd",)
        spec = fit_spec(rows.contexts, quality.registry((), "w"))
        assert spec == fit_spec(BASE.contexts, ())

    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (lambda i: f"user{BASE.cluster[i]}", "identity"),
            (lambda i: "yes" if BASE.outcome["converted"][i] == 1 else "no", "leaking"),
            (lambda i: "ab"[i % 200 // 100] if i % 100 == 0 else None, "missing"),
        ],
    )
    def test_what_was_declared_for_the_model_stays_and_what_is_wrong_with_it_is_told(
        self, value: Value, found: str
    ) -> None:
        rows = with_feature(value)
        seen = Attribute("w", "odd", "category")
        declared = replace(seen, declared=True)
        assert examine(rows, [seen]).left_out == ("odd",)
        quality = examine(rows, [declared])
        told = of(quality)
        assert told is not None
        assert (told.problem, told.left_out, told.declared) == (found, False, True)
        spec = fit_spec(rows.contexts, quality.registry([declared], "w"))
        assert "odd" in {column.name for column in spec.columns}

    def test_the_registry_keeps_its_entries(self) -> None:
        registry = (Attribute("w", "odd", "category", sensitive=True), Attribute("w", "age", "number"))
        rows = with_feature(lambda i: f"user{BASE.cluster[i]}")
        told = {a.name: a for a in examine(rows, registry).registry(registry, "w")}
        assert told["odd"] == replace(registry[0], use_in_model=False)
        assert told["age"] == registry[1]
        kept_out = (replace(registry[0], use_in_model=False),)
        assert of(examine(rows, kept_out)) is None

    def test_the_report_is_json(self) -> None:
        told = orjson.loads(orjson.dumps(examine(with_feature(lambda _: 1)).to_json()))
        assert told["left_out"] == ["odd"]
        assert told["findings"][0]["problem"] == "constant"
        assert told["errors"] == {"leaking": 0.01, "shifted": 0.01}

    def test_no_rows_have_no_findings(self) -> None:
        assert examine(BASE.take(np.array([], dtype=np.int64))).findings == ()

    @pytest.mark.parametrize("rows", [1, 2, 7, 60])
    def test_few_rows_are_examined_without_fault(self, rows: int) -> None:
        quality = examine(BASE.take(np.arange(rows)))
        assert all(finding.problem in ("constant", "missing") for finding in quality.findings)
