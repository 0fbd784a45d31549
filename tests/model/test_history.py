"""The history in a context: compact and readable whatever stands there; its summary and its ids."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.errors import BadArtifact, Invalid
from optimizer.model.features import FeatureSpec, fit_spec
from optimizer.model.history import HISTORY, KEPT_DAYS, LENGTH, History, Past, Wanted, pack, read, subject_of, wanted
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
    told = context(SENT, CLICK, VIEW, VIEW)
    assert told[HISTORY] == {
        "minutes": [2880, 1440, 30, 30],
        "of": [0, 1, 2, 2],
        "events": [[0, "", "email", "spring/a"], [2, "", "email", "spring/a"], [6, "shoes"]],
    }
    assert read(told) == [SENT, CLICK, VIEW, VIEW]


def test_a_history_that_was_written_event_by_event_says_what_it_said() -> None:
    told = {
        HISTORY: [
            [2880, 0, "", "email", "spring/a"],
            [1440, 2, "", "email", "spring/a"],
            [30, 6, "shoes"],
            [30, 6, "shoes"],
        ]
    }
    assert read(told) == [SENT, CLICK, VIEW, VIEW]


def test_an_event_of_a_kind_that_is_not_known_yet_is_left_out() -> None:
    told = {"minutes": [9, 8, 7], "of": [0, 1, 0], "events": [[99], [6, "shoes"]]}
    assert read({HISTORY: told}) == [Past(8, "viewed", "shoes")]


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


#: What nearly is one by column.
COLUMNS = st.fixed_dictionaries(
    {},
    optional={
        "minutes": JSON | st.lists(st.integers(-1, 9) | st.just(1 << 53), max_size=4),
        "of": JSON | st.lists(st.integers(-1, 3), max_size=4),
        "events": JSON | st.lists(st.sampled_from([[0], [1, "", "email"], [99], [], [[]], "x", {}]), max_size=4),
    },
)


@given(st.lists(JSON, max_size=6) | JSON | COLUMNS)
def test_anything_may_stand_there(value: Any) -> None:
    assert SPEC is not None
    contexts = [{HISTORY: value}, context(VIEW)]
    summary, ids = SPEC.summary(contexts), SPEC.ids(contexts)
    assert np.isfinite(summary).all()
    assert ids.min() >= 0
    assert ids.max() < SPEC.size


@given(
    value=JSON
    | COLUMNS
    | st.lists(st.lists(st.integers(0, 9) | st.sampled_from(["sent", "", True, 1.0, "x"]), max_size=6))
)
def test_a_packed_history_says_the_same(value: Any) -> None:
    assert SPEC is not None
    plain = {HISTORY: value}
    packed = dict(plain)
    pack(packed)
    pack(packed)
    assert read(packed) == read(plain)
    both = [plain, packed, pickle.loads(pickle.dumps(packed))]  # noqa: S301  our own
    assert len({row.tobytes() for row in SPEC.summary(both)}) == 1
    assert len({row.tobytes() for row in SPEC.ids(both)}) == 1


def test_true_is_not_the_kind_1() -> None:
    assert [event.kind for event in read({HISTORY: [[9, 1], [8, True], [7, 1.0], [6, 1]]})] == ["opened", "opened"]
    columns = {"minutes": [9, 8, 7, 6], "of": [0, 1, 2, 3], "events": [[1], [True], [1.0], [1]]}
    assert [(event.minutes, event.kind) for event in read({HISTORY: columns})] == [(9, "opened"), (6, "opened")]


def test_more_events_than_are_remembered_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.model.history._MOST_KNOWN", 3)
    for i in range(10):
        told = context(Past(9, "viewed", f"shoe {i}"), Past(5, "viewed", "hat"))
        assert [event.subject for event in read(told)] == [f"shoe {i}", "hat"]


def test_the_subject_is_the_first_known_property() -> None:
    assert subject_of({"name": "Boot", "category": "shoes"}) == "shoes"
    assert subject_of({"topic": ["a"], "page": 3}) == "3"
    assert subject_of({"colour": "red"}) == ""
    assert len(subject_of({"name": "x" * 1000})) == 40


def test_the_summary_is_decayed_counts_and_ages() -> None:
    assert SPEC is not None
    raw = dict(zip(SPEC.labels, _unstandardised(context(SENT, CLICK, VIEW)), strict=True))
    assert raw["event.sent.1d"] == pytest.approx(math.log1p(0.25))
    assert raw["event.sent.7d"] == pytest.approx(math.log1p(2 ** (-2 / 7)))
    assert raw["sent.channel.email.30d"] == pytest.approx(math.log1p(2 ** (-2 / 30)))
    assert raw["sent.variant.spring/a.7d"] == pytest.approx(raw["event.sent.7d"])
    assert raw["event.viewed.1d"] == pytest.approx(math.log1p(2 ** (-30 / DAY)))
    assert raw["since.sent"] == pytest.approx(math.log1p(48.0))
    assert raw["since.engaged"] == pytest.approx(math.log1p(24.0))
    never = dict(zip(SPEC.labels, _unstandardised({}), strict=True))
    assert never["since.sent"] == pytest.approx(math.log1p(90 * 24.0))
    assert never["event.sent.30d"] == pytest.approx(0.0, abs=1e-12)


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


def test_the_vocabulary_is_what_occurs_most_frequent_first_and_a_step_ends_with_its_history() -> None:
    assert SPEC is not None
    assert SPEC.kinds == ("viewed", "clicked", "sent")
    assert SPEC.steps == ("clicked>shoes", "sent>clicked", "sent>shoes"), "none leads to the next recipient's events"
    often = fit_history([context(VIEW, VIEW), {}] * 3 + [context(SENT, CLICK)] * 5 + [context(SENT)])
    assert often is not None
    assert often.steps == ("sent>clicked",), "three views after views are too few"


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
    assert spec.owners[spec.owner[spec.labels.index("@history.sent.channel.email.7d")]] == "@history.sent.channel.email"
    assert FeatureSpec.from_json(spec.to_json()) == spec
    assert spec.describe()[-1]["type"] == "history"
    plain = fit_spec([{"x": i} for i in range(9)], [])
    assert plain.history is None
    assert "history" not in plain.to_json()
    assert fit_history([{}, {"x": 1}]) is None


#: A kind of event, a channel and a variant that callers may call alike, and a kind called as a number of ours.
ALIKE = [
    {HISTORY: [[60 * i, "sent.email"], [50, "since.sent"], [9, "since"], [8 + i, 0, "", "email", "email"]][: 1 + i % 4]}
    for i in range(1, 80)
]


def test_whatever_callers_call_their_events_each_number_is_its_own() -> None:
    history = fit_history(ALIKE)
    assert history is not None
    assert len({*history.labels}) == len(history.labels)
    numbers = history.summary(ALIKE)
    place = {label: i for i, label in enumerate(history.labels)}
    kind, channel = numbers[:, place["event.sent.email.7d"]], numbers[:, place["sent.channel.email.7d"]]
    assert not np.allclose(kind, channel)
    assert (channel[3::4] == channel.min()).all(), "these had no message"
    assert numbers.mean(axis=0) == pytest.approx(0.0, abs=1e-9)
    spec = fit_spec(ALIKE, [])
    assert spec.owners.count("@history.since") == 1
    assert "@history.event.since" in spec.owners


def test_the_summary_tells_what_was_bought_from_what_was_looked_at() -> None:
    seen = [
        context(Past(DAY, kind, topic)) for kind in ("bought", "viewed", "a.b") for topic in ("coats", "b.hats")
    ] * 5
    spec = fit_history([*seen, context(Past(5, "bought", "rare"))])
    assert spec is not None
    one = context(
        Past(4 * DAY, "bought", "coats"),
        Past(3 * DAY, "bought", "b.hats"),
        Past(2 * DAY, "bought"),
        Past(DAY, "viewed", "b.hats"),
        Past(60, "bought", "coats"),
    )
    mean, scale = (np.array([column[i] for column in spec.columns]) for i in (1, 2))
    raw = dict(zip(spec.labels, spec.summary([{}, one])[1] * scale + mean, strict=True))
    told = {name: value for name, value in raw.items() if name.startswith("about.") and value > 1e-9}
    assert told == pytest.approx(
        {
            "about.bought.coats.lately": math.log1p(1.0 + 0.25),
            "about.bought.b.hats.lately": math.log1p(0.5),
            "about.viewed.b.hats.lately": math.log1p(1.0),
        }
    )
    rare = context(Past(2 * DAY, "bought", "coats"), Past(5, "bought", "rare"))
    left = (spec.summary([rare])[0] * scale + mean)[spec.labels.index("about.bought.coats.lately")]
    assert left == pytest.approx(math.log1p(0.5)), "what has no column of its own came later all the same"
    assert {"about.a%2Eb.coats.lately", "about.a%2Eb.b.hats.lately"} <= raw.keys(), (
        "a kind ends where the dot behind it is"
    )
    assert len({*spec.labels}) == len(spec.labels)
    assert HistorySpec.from_json(orjson.loads(orjson.dumps(spec.to_json()))) == spec


def test_what_events_of_a_kind_were_about_is_one_feature() -> None:
    buyers = [context(Past(60, "bought", one), Past(30, "viewed", one)) for one in ("coats", "b.hats", "coats")]
    spec = fit_history(buyers * 5)
    assert spec is not None
    of = dict(zip(spec.labels, spec.counted, strict=True))
    assert of["about.bought.coats.lately"] == of["about.bought.b.hats.lately"] == "about.bought"
    assert of["about.viewed.coats.lately"] == "about.viewed"
    assert {label for label, plain in zip(spec.labels, spec.plain, strict=True) if plain} == {
        label for label in spec.labels if label.startswith("about.")
    }
    stored = HistorySpec.from_json({**spec.to_json(), "naming": 2})
    of = dict(zip(stored.labels, stored.counted, strict=True))
    assert of["about.bought.coats.lately"] == "about.bought.coats", "its weights' groups are what they were"
    assert not any(stored.plain)
    assert stored.to_json()["naming"] == 2


def test_without_subjects_a_spec_is_written_as_before() -> None:
    spec = fit_history([context(SENT), context(SENT, CLICK), {}] * 5)
    assert spec is not None
    assert "about" not in spec.to_json()


def test_a_stored_spec_with_the_first_names_means_what_it_meant() -> None:
    told = {
        **{name: [] for name in ("subjects", "variants", "steps")},
        "kinds": ["sent.email", "sent"],
        "channels": ["email"],
        "columns": [["sent.email.7d", 0.0, 1.0], ["sent.7d", 0.0, 1.0], ["sent.email.7d", 0.0, 1.0]],
    }
    old = HistorySpec.from_json(told)
    assert old.labels == ("sent.email.7d", "sent.7d", "sent.email.7d")
    event, message = math.log1p(2 ** (-1 / 7)), math.log1p(1.0)
    found = old.summary([{HISTORY: [[1440, "sent.email"], [0, 0, "", "email"]]}])[0]
    assert found == pytest.approx([event, message, event])
    assert HistorySpec.from_json(old.to_json()) == old
    assert "naming" not in old.to_json(), "its hash is what it was"


@pytest.mark.parametrize(
    "data", [{}, {"kinds": 3}, {**SPEC.to_json(), "columns": [["a", "b"]]}, {**SPEC.to_json(), "naming": 4}]
)
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
