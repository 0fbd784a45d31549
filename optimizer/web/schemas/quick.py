"""Loads what is as it should be without marshmallow's bookkeeping, which takes most of the time of a batch's rows.

The same fields and the same hooks run over the same values: what is loaded is what the schema would have loaded. What
is refused is left to the schema, which collects everything that is wrong, where, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, missing

#: What makes one value of another, or raises ``ValidationError``.
Load = Callable[[Any], Any]


def quick(schema: Schema) -> Load | None:
    """A loader of bodies that the schema accepts; None where the schema does more than its fields and ``post_load``.

    The loader raises ``ValidationError``, without saying what is wrong, where the schema would have refused.
    """
    hooks = schema._hooks
    if any(names for kind, names in hooks.items() if kind != "post_load"):
        return None
    if schema.many or schema.partial or schema.unknown != RAISE:
        return None
    loaders: list[tuple[str, Load, bool, Any]] = []
    for name, field in schema.load_fields.items():
        one = _of_field(field)
        if one is None or field.data_key not in (None, name) or field.attribute not in (None, name):
            return None
        default = _REQUIRED if field.required else field.load_default
        loaders.append((name, one, field.allow_none, default))
    makers: list[Callable[..., Any]] = [
        getattr(schema, name) for name, many, _ in hooks.get("post_load", ()) if not many
    ]
    return _loader(loaders, makers)


_REQUIRED = object()


def _loader(loaders: list[tuple[str, Load, bool, Any]], makers: list[Callable[..., Any]]) -> Load:
    def load(data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError("not an object")
        made: Any = {}
        found = 0
        for name, one, allow_none, default in loaders:
            if name in data:
                found += 1
                value = data[name]
                if value is not None:
                    made[name] = one(value)
                elif allow_none:
                    made[name] = None
                else:
                    raise ValidationError("null")
            elif default is _REQUIRED:
                raise ValidationError("missing")
            elif default is not missing:
                made[name] = default() if callable(default) else default
        if found < len(data):
            raise ValidationError("unknown field")
        for maker in makers:
            made = maker(made, many=False, partial=None, unknown=None)
        return made

    return load


def _of_field(field: fields.Field[Any]) -> Load | None:
    if field.validators:
        return None
    if isinstance(field, fields.Nested):
        return None if field.many else quick(field.schema)
    return lambda value: field._deserialize(value, None, None)
