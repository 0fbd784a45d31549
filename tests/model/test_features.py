"""The feature spec: round trips, and no value that breaks it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.errors import BadArtifact
from optimizer.model import columns, hashing
from optimizer.model.features import MAX_WIDTH, FeatureSpec, fit_spec
from optimizer.model.moment import seen_at
from optimizer.model.reading import parse_category
from optimizer.model.variantfeatures import variant_features
from storage.records import Attribute, Variant
from tests.model.conftest import contexts

ROWS: list[dict[str, Any]] = contexts(np.random.default_rng(3), 400)
for number, row in enumerate(ROWS):
    row["city"] = f"city{number % 90}"
    row["joined"] = f"2025-0{1 + number % 9}-01T00:00:00Z"
    row["note"] = f"the {number} quick brown foxes jump over it"
ROWS = [dict(seen_at(row, datetime(2026, 1, 1, tzinfo=UTC))) for row in ROWS]
SPEC = fit_spec(ROWS, [])


def test_types_are_inferred_and_the_registry_wins() -> None:
    types = {entry["name"]: entry["type"] for entry in SPEC.describe()}
    assert types == {
        "age": "number",
        "city": "category",
        "joined": "timestamp",
        "member": "boolean",
        "note": "text",
        "plan": "category",
        "spend": "number",
        "visits": "number",
    }
    registry = [
        Attribute("w", "visits", "category"),
        Attribute("w", "age", "number", use_in_model=False),
    ]
    told = {entry["name"]: entry["type"] for entry in fit_spec(ROWS, registry).describe()}
    assert told["visits"] == "category"
    assert "age" not in told


def test_json_round_trip_keeps_the_encoding_and_the_hash() -> None:
    again = FeatureSpec.from_json(orjson.loads(orjson.dumps(SPEC.to_json())))
    assert again == SPEC
    assert again.hash == SPEC.hash
    assert np.array_equal(again.encode(ROWS), SPEC.encode(ROWS))


def test_the_hash_depends_on_the_encoding_and_not_on_the_order_of_rows() -> None:
    assert fit_spec(ROWS[::-1], []).labels == SPEC.labels
    assert fit_spec(ROWS[:200], []).hash != SPEC.hash
    small = fit_spec([{"c": "ab"[i % 2]} for i in range(40)], [])
    assert small.hash == "3a09a52f36156fab9e454d7efa27496e"  # stored decisions carry it


def test_row_and_bulk_encoders_agree_to_the_bit() -> None:
    strange: list[Any] = [None, "", "x", True, -7, 1e300, -1e300, 0.1, "12.5", "2026-01-02T03:04:05Z", [1], {"a": 1}]
    odd = [{**ROWS[i], name: value} for i, name in enumerate(ROWS[0]) for value in strange]
    several: list[list[dict[str, Any]]] = [ROWS, odd, [{}, {}]]
    for rows in several:
        one_by_one = np.stack([SPEC.encode_row(row) for row in rows])
        assert one_by_one.tobytes() == SPEC.encode(rows).tobytes()


def test_encoding_is_centred_and_finite() -> None:
    encoded = SPEC.encode(ROWS)
    assert encoded.dtype == np.float32
    assert encoded.shape == (400, SPEC.width)
    assert np.isfinite(encoded).all()
    assert np.abs(encoded.mean(axis=0)).max() < 1e-4


def test_what_was_never_seen_is_neutral() -> None:
    alike = SPEC.encode_row({name: value for name, value in ROWS[0].items() if name != "plan"})
    labels = np.array([label.startswith("plan.") for label in SPEC.labels])
    assert (alike[labels] == 0.0).all()
    unseen = SPEC.encode_row(ROWS[0] | {"plan": "enterprise", "brand_new_feature": 7})
    assert np.array_equal(unseen, alike)
    missing = SPEC.encode_row({**ROWS[0], "spend": None})
    assert missing[SPEC.labels.index("spend.missing")] > 0.5
    assert missing[SPEC.labels.index("spend.value")] == 0.0


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers())


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*sorted(ROWS[0]), "other"]), VALUES))
def test_no_value_raises_or_gives_nan(context: dict[str, Any]) -> None:
    row = SPEC.encode_row(context)
    assert np.isfinite(row).all()
    assert np.allclose(SPEC.encode([context, context])[1], row, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), max_size=12))
def test_any_data_can_be_learned_from(rows: list[dict[str, Any]]) -> None:
    spec = fit_spec(rows, [])
    assert np.isfinite(spec.encode(rows)).all()
    assert FeatureSpec.from_json(orjson.loads(orjson.dumps(spec.to_json()))) == spec


def test_a_timestamp_is_an_age_at_the_decision() -> None:
    """Each was seen last one to nine days before its own decision, and the decisions took half a year."""
    decided = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=11 * i) for i in range(400)]
    ages = [1.0 + i * 5 % 9 for i in range(400)]
    seen = [(at - timedelta(days=age)).isoformat() for at, age in zip(decided, ages, strict=True)]
    rows = [seen_at({"seen": one}, at) for one, at in zip(seen, decided, strict=True)]
    spec = fit_spec(rows, [])
    (column,) = spec.columns
    assert isinstance(column, columns.NumberColumn)
    assert column.parsed(rows) == pytest.approx(np.array(ages))
    assert (column.mean, column.knots[-1]) == pytest.approx((np.mean(ages), 9.0))
    later = [seen_at({"seen": "2027-03-01T00:00:00Z"}, datetime(2027, 3, day, tzinfo=UTC)) for day in (3, 7)]
    young, old = (spec.encode_row(one)[0] for one in later)
    assert young < old
    epoch = seen_at({"seen": datetime(2027, 3, 1, tzinfo=UTC).timestamp()}, datetime(2027, 3, 3, tzinfo=UTC))
    assert spec.encode_row(epoch)[0] == young
    told = FeatureSpec.from_json(orjson.loads(orjson.dumps(spec.to_json())))
    assert told == spec
    assert spec.encode_row({"seen": "2027-03-01T00:00:00Z"}) == pytest.approx(spec.encode_row({}))
    assert fit_spec([{"seen": one} for one in seen], []).columns == (), "no moments, no ages"


def test_a_stored_spec_that_counts_from_its_newest_row_goes_on_to_do_so() -> None:
    newest = datetime(2025, 6, 1, tzinfo=UTC)
    told = {
        "columns": [
            {
                "kind": "number",
                "name": "seen",
                "mean": 0.0,
                "scale": 1.0,
                "knots": [],
                "ranks": [],
                "centre": [0.0],
                "missing": None,
                "reference": newest.timestamp(),
            }
        ],
        "dropped": [],
    }
    spec = FeatureSpec.from_json(told)
    context = {"seen": "2025-05-30T00:00:00Z"}
    assert spec.encode_row(seen_at(context, datetime(2026, 1, 1, tzinfo=UTC))).tolist() == [2.0]
    assert spec.encode_row(seen_at(context | {"@decided_at": "2025-05-31T00:00:00Z"}, newest)).tolist() == [1.0]
    assert spec.describe()[0]["type"] == "timestamp"
    assert orjson.loads(orjson.dumps(spec.to_json())) == told, "its hash is what it was"


def test_the_width_is_bounded_and_says_what_was_left_out() -> None:
    wide = [{f"f{j:03d}": f"{(i * 7 + j) % 20}" for j in range(30)} for i in range(400)]
    spec = fit_spec(wide, [])
    assert spec.width <= MAX_WIDTH
    assert len(spec.dropped) >= 30 - MAX_WIDTH // 20
    assert all(not np.array_equal(row, np.zeros(spec.width)) for row in spec.encode(wide))


@pytest.mark.parametrize("data", [{}, {"columns": [{}], "dropped": []}, {"columns": [{"kind": "x"}], "dropped": []}])
def test_a_broken_spec_is_a_bad_artifact(data: dict[str, Any]) -> None:
    with pytest.raises(BadArtifact):
        FeatureSpec.from_json(data)


def test_variant_features_are_stable_and_tell_variants_apart() -> None:
    a = variant_features(Variant("a", features={"tone": "warm", "discount": 0.1}, text="Spring is here"))
    assert np.array_equal(
        a, variant_features(Variant("z", features={"discount": 0.1, "tone": "warm"}, text="spring IS here"))
    )
    b = variant_features(Variant("b", features={"tone": "cold", "discount": 0.1}, text="Spring is here"))
    assert not np.array_equal(a, b)
    assert not variant_features(Variant("empty")).any()
    assert np.flatnonzero(a).tolist() == [11, 12, 18, 21, 28, 29], "hashing changed: stored models would misread"


def test_long_texts_are_hashed_and_not_remembered() -> None:
    hashing._kept.cache_clear()
    long = [f"{n} {'x' * hashing.LONGEST_KEPT}" for n in range(50)]
    assert len({hashing.hashed(text) for text in long}) == 50
    assert hashing._kept.cache_info().currsize == 0
    hashing.hashed("a short text that no other test hashes")
    assert hashing._kept.cache_info().currsize == 1


def test_names_that_never_repeat_are_no_features_once_there_are_thousands() -> None:
    contexts: list[dict[str, Any]] = [{"age": float(i % 60), f"viewed-{i}": True} for i in range(2_500)]
    spec = fit_spec(contexts, ())
    assert [column.name for column in spec.columns] == ["age"]
    assert spec.dropped == ()
    declared = Attribute(workspace_id="w", name="viewed-7", type="boolean")
    assert [column.name for column in fit_spec(contexts, (declared,)).columns] == ["age", "viewed-7"]
    few = fit_spec(contexts[:500], ())
    assert len(few.dropped) == 500 - (len(few.columns) - 1), "of fewer each is looked at"


def test_one_category_level_is_one_value_however_it_is_written() -> None:
    assert {parse_category(value) for value in (3, 3.0, "3")} == {"3"}
    assert {parse_category(value) for value in (0, 0.0, -0.0, "0")} == {"0"}
    ids = 120_330_000_000_000_001, 120_330_000_000_000_999
    assert [parse_category(value) for value in ids] == [str(value) for value in ids], "no float holds them apart"
    assert parse_category(10**400) is None


def test_which_numbers_are_believed_is_kept_where_older_versions_do_not_look() -> None:
    """A host of before reads the spec as if all were believed, under the same hash, by which artifacts are checked."""
    rows = [{"x": 1e12 if i == 9 else float(i % 50)} for i in range(2000)]
    spec = fit_spec(rows, [])
    told = orjson.loads(orjson.dumps(spec.to_json()))
    assert FeatureSpec.from_json(told) == spec
    assert FeatureSpec.from_json(told).hash == spec.hash
    assert list(told["within"]) == ["x"]
    known = {"kind", "name", "mean", "scale", "knots", "ranks", "centre", "missing", "reference"}
    assert set(told["columns"][0]) == known, "older versions refuse a column that says more"
    before = FeatureSpec.from_json({name: value for name, value in told.items() if name != "within"})
    assert before.hash == spec.hash
    assert before.encode([{"x": 7}]).tolist() == spec.encode([{"x": 7}]).tolist()
    assert before.encode([{"x": 1e12}]).tolist() != spec.encode([{"x": 1e12}]).tolist() == spec.encode([{}]).tolist()
    assert "within" not in SPEC.to_json()
    for bad in ({"x": [1.0]}, {"x": ["a", "b"]}, [3], 3):
        with pytest.raises(BadArtifact, match="feature spec can't be read"):
            FeatureSpec.from_json({**told, "within": bad})
