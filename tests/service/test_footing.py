"""What a served model is refitted on once outcomes have changed."""

from __future__ import annotations

import pytest

from optimizer.service.footing import GROWN, Footing, Known, footing_of, told_as

CHANGED = {"spring": 500.0}


@pytest.mark.parametrize(
    ("model", "footing", "why"),
    [
        (Known(GROWN, {}, None), Footing(500.0, anchors=True), "it was trained before the change"),
        (Known(GROWN, {"spring": 400.0}, 400.0), Footing(500.0, anchors=True), "it knows of an earlier one only"),
        (Known(GROWN, {"spring": 500.0}, 500.0), Footing(500.0), "it is anchored there"),
        (Known(GROWN, {"spring": 500.0}, None), Footing(), "it was trained on what is remembered"),
        (Known(GROWN - 1, {}, None), Footing(), "it is young"),
        (Known(GROWN, None, None), Footing(), "it was stored before models knew of changes"),
        (Known(GROWN, {"autumn": 900.0}, 900.0), Footing(500.0, anchors=True), "what it knows is another campaign's"),
    ],
)
def test_a_model_is_anchored_at_a_change_that_it_does_not_know(model: Known, footing: Footing, why: str) -> None:
    assert footing_of(model, "spring", CHANGED) == footing, why
    assert footing.anchor == (footing.since if footing.anchors else None)


def test_without_a_change_a_model_stands_as_it_stood() -> None:
    assert footing_of(Known(GROWN, {"spring": 500.0}, 500.0), "spring", {}) == Footing(500.0), "recalled rows are in it"
    assert footing_of(Known(GROWN, {}, None), "spring", {"autumn": 500.0}) == Footing()


def test_what_settled_rows_say_is_kept_by_where_a_model_stands() -> None:
    assert told_as("art_1", Footing()) == "art_1"
    assert told_as("art_1", Footing(500.0)) == told_as("art_1", Footing(500.0, anchors=True)) != "art_1"
