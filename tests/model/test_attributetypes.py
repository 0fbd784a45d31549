"""The type of an attribute that nobody declared follows its newest values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from optimizer.model.training.attributetypes import retyped
from storage.records import Attribute, AttributeType


def shown(kind: AttributeType, values: list[Any], **changes: Any) -> AttributeType:
    """The type after a training whose contexts had these values, in order of time."""
    contexts = [{} if value is None else {"x": value} for value in values]
    (found,) = retyped([replace(Attribute("w", "x", kind), **changes)], contexts)
    return found.type


@pytest.mark.parametrize(
    ("first", "later", "kind", "becomes"),
    [
        ("33", list(range(20, 80)), "category", "number"),
        (0, ["gold", "silver"] * 40, "number", "category"),
        (True, ["weekly", "never"] * 40, "boolean", "category"),
        (0, ["2026-01-02", "2026-02-03"] * 40, "number", "timestamp"),
        ("2026-01-02", ["soon", "later"] * 40, "timestamp", "category"),
        ("x" * 99, [1.5, 2.5] * 40, "text", "number"),
        ("33", ["n/a", *range(20, 80)], "category", "number"),
    ],
)
def test_a_developers_first_value_types_nothing_for_good(
    first: Any, later: list[Any], kind: AttributeType, becomes: AttributeType
) -> None:
    assert shown(kind, [first, *later]) == becomes


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", ["20", "33", "51"] * 40),  # numbers as texts, which a number reads
        ("number", [True, False] * 40),
        ("number", [1, 2, 3, "n/a"] + [4] * 200),
        ("timestamp", [1_700_000_000] * 80),
        ("category", ["1", 2, "3"] * 40),
        ("category", [True, False] * 40),
        ("category", [f"a sentence of four {i}" for i in range(80)]),
        ("boolean", ["yes", "no"] * 40),
        ("text", ["short", "words"] * 40),
        ("number", [["a"], {}] * 40),
        ("number", ["gold"] * 49 + [None] * 200),  # too few to show anything
    ],
)
def test_a_type_that_reads_its_values_stays(kind: AttributeType, values: list[Any]) -> None:
    assert shown(kind, values) == kind


def test_the_newest_thousand_values_count() -> None:
    assert shown("category", ["a", "b"] * 1_000 + [1, 2] * 500) == "number"
    assert shown("category", [1, 2] * 1_000 + ["a", "b"] * 500) == "category"


def test_what_was_declared_or_is_not_for_the_model_keeps_its_type() -> None:
    assert shown("number", ["gold"] * 80, declared=True) == "number"
    assert shown("number", ["gold"] * 80, use_in_model=False) == "number"
