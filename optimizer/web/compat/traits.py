"""Traits and properties of a tracking API as attributes: whatever people send there, trimmed to what we keep.

A tracker can't be told to send something else, so what breaks a bound is left out and the rest is kept: a purchase must
not be lost because of one odd property. The bounds are those of the API's own attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import ValidationError

from optimizer.service.cells import values_in
from optimizer.web.schemas import limits
from optimizer.web.schemas.containers import Attributes
from optimizer.web.schemas.fields import ID

_BOUNDS = Attributes()
#: Segment's reserved traits that say who someone is, not what they are like
#: (https://segment.com/docs/connections/spec/identify/#traits).
PRIVATE = frozenset(
    {"avatar", "birthday", "description", "email", "firstName", "id", "lastName", "name", "phone", "username"}
    | {"website", "address.street", "address.postalCode"}
)


def trimmed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that keep to the bounds of attributes, nested as they are, as long as there is room."""
    kept: dict[str, Any] = {}
    left = limits.ATTRIBUTES
    for name, value in values.items():
        size = values_in(value)
        if size <= left and _fits(name, value):
            kept[name] = value
            left -= size
    return kept


def flat(traits: Mapping[str, Any]) -> dict[str, Any]:
    """Traits as attributes: objects are spread to dotted names, since the model reads plain values; null stays null."""
    return trimmed(dict(_spread("", traits, 1)))


def _spread(prefix: str, values: Mapping[str, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and depth < limits.DEPTH:
            yield from _spread(f"{prefix}{name}.", value, depth + 1)
        else:
            yield prefix + name, value


def _fits(name: str, value: Any) -> bool:
    if len(name) > limits.ID or ID.fullmatch(name) is None:
        return False
    try:
        _BOUNDS.deserialize({name: value})
    except ValidationError:
        return False
    return True
