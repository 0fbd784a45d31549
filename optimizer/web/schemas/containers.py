"""Field types that hold others: lists, tables, free attributes, and short forms of objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields

from optimizer.service.requests import NO_OWN_NAME
from optimizer.web.schemas import limits
from optimizer.web.schemas.fields import about_field, is_id


class Many(fields.List[Any]):
    """A list of ``shortest`` to ``longest`` items; None: whoever reads it has counted them before."""

    def __init__(
        self,
        inner: fields.Field[Any],
        about: str = "",
        *,
        shortest: int = 0,
        longest: int | None,
        unique: bool = False,
        **kw: Any,
    ) -> None:
        self.shortest, self.longest, self.unique = shortest, longest, unique
        facts = {"minItems": shortest or None, "maxItems": longest, "uniqueItems": unique or None}
        super().__init__(inner, **about_field(kw, about, **facts))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        longest = math.inf if self.longest is None else self.longest
        if not isinstance(value, list) or not self.shortest <= len(value) <= longest:
            counted = "" if self.longest is None else f" of {self.shortest} to {self.longest} items"
            raise ValidationError(f"Must be a list{counted}.")
        plain = type(self.inner) is fields.Raw and self.inner.allow_none and not self.inner.validators
        loaded = list(value) if plain else super()._deserialize(value, None, None)
        if self.unique and len(set(loaded)) < len(loaded):
            twice = dict.fromkeys(one for one in loaded if loaded.count(one) > 1)
            raise ValidationError(f"Must have no duplicates; twice in it: {', '.join(map(repr, twice))}.")
        return loaded


class Table(fields.Dict):
    """An object whose keys are ids and whose values are all of one field type; ``refused`` says what is wrong with a
    key that is an id (None = nothing)."""

    def __init__(
        self,
        value: fields.Field[Any],
        about: str = "",
        *,
        smallest: int = 0,
        largest: int = 50,
        refused: Callable[[str], str | None] | None = None,
        **kw: Any,
    ) -> None:
        self.smallest, self.largest, self.refused = smallest, largest, refused
        facts = {"minProperties": smallest or None, "maxProperties": largest}
        super().__init__(keys=fields.String(), values=value, **about_field(kw, about, **facts))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[Any, Any]:
        if not isinstance(value, dict) or not self.smallest <= len(value) <= self.largest:
            raise ValidationError(f"Must be an object of {self.smallest} to {self.largest} entries.")
        for key in value:
            if not is_id(key):
                raise ValidationError(_misnamed(key))
        loaded: dict[Any, Any] = {}
        errors: dict[str, Any] = {}
        for key, one in value.items():
            fault = self.refused(key) if self.refused is not None else None
            if fault is not None:
                errors[key] = [fault]
                continue
            try:
                assert self.value_field is not None  # noqa: S101  for mypy: __init__ always gives one
                quick = one is not None and not self.value_field.validators
                load = self.value_field._deserialize if quick else self.value_field.deserialize
                loaded[key] = load(one, key, value)
            except ValidationError as error:
                errors[key] = error.messages
        if errors:
            raise ValidationError(errors)
        return loaded


class Part(fields.Nested):
    """An object within an object."""

    def __init__(self, schema: type[Schema], about: str = "", **kw: Any) -> None:
        super().__init__(schema, **about_field(kw, about))


class Attributes(fields.Dict):
    """Free facts: names to scalars, short lists or small objects. Bounded in number, depth and size of strings."""

    def __init__(self, about: str = "", *, largest: int = limits.ATTRIBUTES, **kwargs: Any) -> None:
        self.largest = largest
        super().__init__(**about_field(kwargs, about, maxProperties=largest))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise ValidationError("Must be an object.")
        if not value:
            return value
        left = _walk(value, 1, self.largest)
        if left < 0:
            raise ValidationError(f"Must hold at most {self.largest} values, those in lists and objects counted.")
        return value


class Context(Attributes):
    """What is known of the moment of a request. Names that begin with ``@`` are what Sendtide itself adds there."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> dict[Any, Any]:
        told = super()._deserialize(value)
        for name in told:
            if name.startswith("@"):
                raise ValidationError({name: [f"{NO_OWN_NAME[0].upper()}{NO_OWN_NAME[1:]}."]})
        return told


def _misnamed(key: str) -> str:
    return f"Names must be 1 to 256 characters without control characters. Got {key[:80]!r}."


def _walk(value: Mapping[str, Any], depth: int, left: int) -> int:
    """Checks the values below ``value`` and returns how many more are allowed (negative: too many)."""
    for key, one in value.items():
        if not is_id(key):
            raise ValidationError(_misnamed(key))
        left = _walk_value(key, one, depth, left - 1)
        if left < 0:
            break
    return left


def _walk_value(key: str, value: Any, depth: int, left: int) -> int:
    if isinstance(value, str):
        longest = len(value) if value.isascii() else len(value.encode("utf-8"))
        if longest > limits.TEXT or "\x00" in value:
            raise ValidationError({key: [f"A string may have at most {limits.TEXT} bytes and no NUL."]})
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValidationError({key: ["A number must be finite."]})
    elif isinstance(value, dict | list):
        if depth >= limits.DEPTH:
            raise ValidationError({key: [f"May be nested at most {limits.DEPTH} levels deep."]})
        try:
            if isinstance(value, dict):
                return _walk(value, depth + 1, left)
            for i, item in enumerate(value):
                left = _walk_value(str(i), item, depth + 1, left - 1)
                if left < 0:
                    break
        except ValidationError as error:
            raise ValidationError({key: error.messages}) from None
    return left


class Either(fields.Field[Any]):
    """A short form or an object: ``short`` turns a plain value into the object's, or refuses it with None."""

    def __init__(
        self, nested: fields.Nested, short: Callable[[Any], Any], about: str = "", *, form: Mapping[str, Any], **kw: Any
    ) -> None:
        self.nested, self.short, self.form = nested, short, form
        super().__init__(**about_field(kw, about))

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        if isinstance(value, dict):
            return self.nested.deserialize(value)
        loaded = self.short(value)
        if loaded is None:
            raise ValidationError(f"Must be {self.form['description']} or an object.")
        return loaded
