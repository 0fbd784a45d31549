"""What is loaded quickly is what the schema loads, and what it refuses is refused with the schema's words."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError

from optimizer.errors import Invalid
from optimizer.web import examples
from optimizer.web.schemas.campaigns import CampaignIn
from optimizer.web.schemas.decisions import DecisionIn, DecisionsIn, RowIn
from optimizer.web.schemas.events import EventIn
from optimizer.web.schemas.quick import quick
from optimizer.web.schemas.recipients import RecipientIn
from optimizer.web.schemas.rules import RuleIn
from optimizer.web.schemas.scores import ScoreRowIn
from optimizer.web.validation import load

ROW: dict[str, Any] = {"recipient_id": "u1", "context": {"cart": 12.5, "tags": ["a", 1, None]}, "metadata": {"x": {}}}
CASES: list[tuple[Schema, dict[str, Any]]] = [
    (DecisionIn(), examples.DECISION),
    (
        DecisionIn(),
        {
            "campaign_id": "c",
            "recipient_id": "u1",
            "window": {"start": "2026-11-24T08:00:00Z", "end": "2026-11-25T08:00:00+02:00"},
            "variants": ["a", "b"],
            "channels": ["email"],
            "immediate": True,
            "recipient": {"timezone": None, "channels": {"sms": True, "push": {"state": False, "source": "app"}}},
        },
    ),
    (DecisionsIn(), examples.DECISIONS),
    (RowIn(), ROW),
    *((EventIn(), event) for event in examples.EVENTS["events"]),
    *((ScoreRowIn(), row) for row in examples.SCORES["recipients"]),
]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    "x",
    "\x00",
    "ü" * 300,
    [],
    ["a", "a"],
    {},
    {"a": None},
    "2026-13-01T00:00:00Z",
]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _paths(below, (*path, key))
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _paths(below, (*path, i))


def _spoilt(body: Any, path: tuple[Any, ...], change: str, value: Any) -> Any:
    if not path:
        return value
    spoilt = copy.deepcopy(body)
    at = spoilt
    for key in path[:-1]:
        at = at[key]
    if change == "replace":
        at[path[-1]] = value
    elif change == "remove":
        del at[path[-1]]
    elif isinstance(at, dict):
        at["surplus"] = value
    else:
        at.append(value)
    return spoilt


def _by_schema(schema: Schema, body: Any) -> Any:
    try:
        return schema.load(copy.deepcopy(body))
    except ValidationError:
        return "refused"


def _by_quick(schema: Schema, body: Any) -> Any:
    loader = quick(schema)
    assert loader is not None
    try:
        return loader(copy.deepcopy(body))
    except ValidationError:
        return "refused"


@pytest.mark.parametrize("number", range(len(CASES)))
def test_good_bodies_are_loaded_alike(number: int) -> None:
    schema, body = CASES[number]
    loaded = _by_quick(schema, body)
    assert loaded != "refused"
    assert loaded == _by_schema(schema, body)


@given(st.data())
def test_spoilt_bodies_are_loaded_or_refused_alike(data: st.DataObject) -> None:
    schema, body = data.draw(st.sampled_from(CASES))
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(list(_paths(body))))
        change = data.draw(st.sampled_from(["replace", "remove", "add"]))
        body = _spoilt(body, path, change, data.draw(st.sampled_from(VALUES)))
    assert _by_quick(schema, body) == _by_schema(schema, body)


def test_a_refusal_says_everything_that_is_wrong() -> None:
    with pytest.raises(Invalid) as refused:
        load(RowIn(), {"recipient_id": 7, "context": 1, "surplus": 2})
    assert set(refused.value.errors) == {"recipient_id", "context", "surplus"}


@pytest.mark.parametrize("schema", [CampaignIn(), RecipientIn(), RuleIn()])
def test_schemas_that_do_more_than_their_fields_are_left_to_marshmallow(schema: Schema) -> None:
    assert quick(schema) is None
