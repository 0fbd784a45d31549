"""The history in a context: compact and readable whatever stands there; its summary and its ids."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.errors import BadArtifact, Invalid
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.model.history import HISTORY, KEPT_DAYS, LENGTH, History, Past, Wanted, read, subject_of, wanted
from optimizer.model.historyspec import FACTS, HistorySpec, fit_history

DAY = 24 * 60
SENT = Past(2 * DAY, "sent", "", "email", "spring/a")
CLICK = Past(DAY, "clicked", "", "email", "spring/a")
VIEW = Past(30, "viewed", "shoes")


def context(*events: Past) -> dict[str, Any]:
    return {HISTORY: History(events).to_json()}


#: Enough of each kind that the vocabulary has it, and an empty history.
SEEN = [context(SENT, CLICK, VIEW), context(VIEW), context(SENT, VIEW), {}, context(CLICK)] * 5
SPEC = fit_history(SEEN)
assert SPEC is not None


def test_the_compact_form_comes_back_and_leaves_out_what_is_unknown() -> None:
    told = context(SENT, CLICK, VIEW)
    assert told[HISTORY] == [
        [2880, 0, "", "email", "spring/a"],
        [1440, 2, "", "email", "spring/a"],
        [30, 6, "shoes"],
    ]
    assert read(told) == [SENT, CLICK, VIEW]


@pytest.mark.parametrize(
    "events",
    [(Past(-1, "viewed"),), (VIEW, SENT), (VIEW,) * (LENGTH + 1)],
    ids=["after the decision", "not in order", "too many"],
)
def test_a_history_that_can_not_be_is_refused(events: tuple[Past, ...]) -> None:
    with pytest.raises(Invalid, match="events"):
        History(events)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=6) | JSON)
def test_anything_may_stand_there(value: Any) -> None:
    assert SPEC is not None
    contexts = [{HISTORY: value}, context(VIEW)]
    summary, ids = SPEC.summary(contexts), SPEC.ids(contexts)
    assert np.isfinite(summary).all()
    assert ids.min() >= 0
    assert ids.max() < SPEC.size


def test_the_subject_is_the_first_known_property() -> None:
    assert subject_of({"name": "Boot", "category": "shoes"}) == "shoes"
    assert subject_of({"topic": ["a"], "page": 3}) == "3"
    assert subject_of({"colour": "red"}) == ""
    assert len(subject_of({"name": "x" * 1000})) == 40


def test_the_summary_is_decayed_counts_and_ages() -> None:
    assert SPEC is not None
    raw = dict(zip(SPEC.labels, _unstandardised(context(SENT, CLICK, VIEW)), strict=True))
    assert raw["sent.1d"] == pytest.approx(math.log1p(0.25))
    assert raw["sent.7d"] == pytest.approx(math.log1p(2 ** (-2 / 7)))
    assert raw["sent.email.30d"] == pytest.approx(math.log1p(2 ** (-2 / 30)))
    assert raw["sent.spring/a.7d"] == pytest.approx(raw["sent.7d"])
    assert raw["viewed.1d"] == pytest.approx(math.log1p(2 ** (-30 / DAY)))
    assert raw["since.sent"] == pytest.approx(math.log1p(48.0))
    assert raw["since.engaged"] == pytest.approx(math.log1p(24.0))
    never = dict(zip(SPEC.labels, _unstandardised({}), strict=True))
    assert never["since.sent"] == pytest.approx(math.log1p(90 * 24.0))
    assert never["sent.30d"] == pytest.approx(0.0, abs=1e-12)


def _unstandardised(one: dict[str, Any]) -> list[float]:
    assert SPEC is not None
    mean, scale = (np.array([column[i] for column in SPEC.columns]) for i in (1, 2))
    return (SPEC.summary([one])[0] * scale + mean).tolist()  # type: ignore[no-any-return]  # numpy's own


def test_ids_tell_events_apart_and_keep_their_order() -> None:
    assert SPEC is not None
    one, other, none = SPEC.ids([context(SENT, VIEW), context(CLICK, VIEW), {}])
    assert one.shape == (LENGTH, FACTS)
    assert not one[:-2].any()
    assert one[-1, 0] != one[-2, 0]
    assert one[-1, 4] != other[-1, 4], "what a view follows is part of it"
    assert one[-1, 5] < one[-2, 5], "ages grow"
    assert not none.any()


def test_what_was_never_seen_has_an_id_too() -> None:
    assert SPEC is not None
    strange = SPEC.ids([context(Past(5, "Loan Requested", "cars", "fax", "autumn/z"))])[0, -1]
    assert 0 < strange[0] < SPEC.size
    known = SPEC.ids([context(SENT, CLICK, VIEW)])[0]
    assert strange[0] not in known[:, 0]


def test_rows_do_not_depend_on_each_other() -> None:
    spec = fit_spec([{**one, "x": i % 7} for i, one in enumerate(SEEN)], [])
    contexts = [context(SENT, VIEW), context(VIEW), {}, context(CLICK)]
    together = spec.encode(contexts)
    assert np.array_equal(together, np.stack([spec.encode_row(one) for one in contexts]))
    assert spec.history is not None
    assert np.array_equal(spec.history.ids(contexts)[1], spec.history.ids(contexts[1:2])[0])


def test_the_feature_spec_keeps_its_history_and_without_one_is_what_it_was() -> None:
    spec = fit_spec(SEEN, [])
    assert spec.width == len(spec.labels) > 0
    assert all(label.startswith("@history.") for label in spec.labels)
    assert len(spec.owner) == spec.width
    assert spec.owners[spec.owner[spec.labels.index("@history.sent.email.7d")]] == "@history.sent.email"
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert spec.describe()[-1]["type"] == "history"
    plain = fit_spec([{"x": i} for i in range(9)], [])
    assert plain.history is None
    assert "history" not in plain.to_json()
    assert fit_history([{}, {"x": 1}]) is None


@pytest.mark.parametrize("data", [{}, {"kinds": 3}, {**SPEC.to_json(), "columns": [["a", "b"]]}])
def test_a_spec_that_can_not_be_read_is_a_bad_artifact(data: dict[str, Any]) -> None:
    with pytest.raises(BadArtifact, match="history spec"):
        HistorySpec.from_json(data)


def test_a_choice_of_auto_is_kept_for_a_week() -> None:
    week = KEPT_DAYS * 86_400
    told = {"kind": "gru", "since": 1000.0}, {"kind": "cnn", "since": 2000.0}, {"kind": "auto", "since": 3000.0}
    assert wanted("auto", 2000.0 + week - 1, *told, {}) == Wanted("cnn", 2000.0)
    assert wanted("auto", 2000.0 + week, *told) == Wanted("auto", 2000.0 + week)
    assert wanted("gru", 5000.0, *told) == Wanted("gru", 5000.0)
    assert wanted("auto", 5.0) == Wanted("auto", 5.0)
    with pytest.raises(Invalid, match="lstm"):
        Wanted("lstm")  # type: ignore[arg-type]  # what a caller may say
