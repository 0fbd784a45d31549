"""Loads what is as it should be without marshmallow's bookkeeping, which takes most of the time of a batch's rows.

The same fields and the same hooks run over the same values: what is loaded is what the schema would have loaded. What
is refused is left to the schema, which collects everything that is wrong, where, and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, missing

from optimizer.web.schemas.fields import Id

#: What makes one value of another, or raises ``ValidationError``.
Load = Callable[[Any], Any]


def quick(schema: Schema) -> Load | None:
    """A loader of bodies that the schema accepts; None where the schema does more than its fields and ``post_load``,
    or loads in a way of its own.

    The loader raises ``ValidationError``, without saying what is wrong, where the schema would have refused.
    """
    hooks = schema._hooks
    if any(names for kind, names in hooks.items() if kind != "post_load") or type(schema).load is not Schema.load:
        return None
    if schema.many or schema.partial or schema.unknown != RAISE:
        return None
    members: dict[str, tuple[Load, bool]] = {}
    required: list[str] = []
    defaults: dict[str, Any] = {}
    for name, field in schema.load_fields.items():
        one = _of_field(field)
        if one is None or field.data_key not in (None, name) or field.attribute not in (None, name):
            return None
        members[name] = one, field.allow_none
        if field.required:
            required.append(name)
        elif field.load_default is not missing:
            defaults[name] = field.load_default
    makers: list[Callable[..., Any]] = [
        getattr(schema, name) for name, many, _ in hooks.get("post_load", ()) if not many
    ]
    return _loader(members, required, defaults, makers)


def _loader(
    members: dict[str, tuple[Load, bool]],
    required: list[str],
    defaults: dict[str, Any],
    makers: list[Callable[..., Any]],
) -> Load:
    made_anew = [(name, one) for name, one in defaults.items() if callable(one)]
    fixed = {name: one for name, one in defaults.items() if not callable(one)}

    def load(data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValidationError("not an object")
        made: Any = dict(fixed)
        for name, value in data.items():
            member = members.get(name)
            if member is None:
                raise ValidationError("unknown field")
            if value is not None:
                made[name] = member[0](value)
            elif member[1]:
                made[name] = None
            else:
                raise ValidationError("null")
        for name in required:
            if name not in made:
                raise ValidationError("missing")
        for name, one in made_anew:
            if name not in made:
                made[name] = one()
        for maker in makers:
            made = maker(made, many=False, partial=None, unknown=None)
        return made

    return load


def _of_field(field: fields.Field[Any]) -> Load | None:
    if field.validators:
        return None
    if isinstance(field, fields.Nested):
        return None if field.many else quick(field.schema)
    deserialize = field._deserialize
    if not isinstance(field, Id):
        return lambda value: deserialize(value, None, None)
    allows = field.allows
    return lambda value: value if allows(value) else deserialize(value, None, None)
