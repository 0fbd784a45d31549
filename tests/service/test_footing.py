"""What a served model is refitted on once outcomes have changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optimizer.service.footing import GROWN, Footing, Known, footing_of, told_as

CHANGED = {"spring": 500.0}


@pytest.mark.parametrize(
    ("model", "footing", "why"),
    [
        (Known(GROWN, {}, None, 9), Footing(500.0, anchors=True), "it was trained before the change"),
        (Known(GROWN, {"spring": 400.0}, 400.0, 9), Footing(500.0, anchors=True), "it knows of an earlier one only"),
        (Known(GROWN, {"spring": 500.0}, 500.0, 9), Footing(500.0), "it is anchored there"),
        (Known(GROWN, {"spring": 500.0}, None, 9), Footing(), "it was trained on what is remembered"),
        (Known(GROWN - 1, {}, None, 9), Footing(), "it is young"),
        (Known(GROWN, None, None, 9), Footing(), "it was stored before models knew of changes"),
        (
            Known(GROWN, {"autumn": 900.0}, 900.0, 9),
            Footing(500.0, anchors=True),
            "what it knows is another campaign's",
        ),
    ],
)
def test_a_model_is_anchored_at_a_change_that_it_does_not_know(model: Known, footing: Footing, why: str) -> None:
    assert footing_of(model, "spring", CHANGED) == footing, why
    assert footing.anchor == (footing.since if footing.anchors else None)


def test_without_a_change_a_model_stands_as_it_stood() -> None:
    assert footing_of(Known(GROWN, {"spring": 500.0}, 500.0, 9), "spring", {}) == Footing(500.0), (
        "recalled rows are in it"
    )
    assert footing_of(Known(GROWN, {}, None, 9), "spring", {"autumn": 500.0}) == Footing()


def test_what_settled_rows_say_is_kept_by_where_a_model_stands_and_what_it_was_learned_from() -> None:
    model = Known(GROWN, {}, None, 900)
    name = told_as("art_1", Footing(), model)
    assert name.startswith("art_1")
    assert told_as("art_1", Footing(), replace(model, rows=3 * GROWN)) == name, "it was refreshed"
    anchored = told_as("art_1", Footing(500.0), model)
    assert anchored == told_as("art_1", Footing(500.0, anchors=True), model)
    assert len({name, anchored, told_as("art_1", Footing(), replace(model, learned=1_800))}) == 3
