"""Runs a schema over parsed JSON; what it finds becomes one ``Invalid`` that names field, value and what is allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from marshmallow import Schema, ValidationError

from optimizer.errors import Invalid
from optimizer.web.schemas.quick import Load, quick

_LONGEST_VALUE = 80
_MOST_ERRORS = 50


def load(schema: Schema, data: Any, prefix: str = "") -> Any:
    """What ``schema`` makes of ``data``.

    Args:
        schema: a schema instance; instances are safe to share.
        data: parsed JSON.
        prefix: put before every field path, such as ``query.``.

    Raises:
        Invalid: with ``errors`` by dotted path, each ending in the value that was given.
    """
    fast = _quick_of(schema)
    if fast is not None:
        try:
            return fast(data)
        except ValidationError:
            pass  # the schema says below what is wrong
    try:
        return schema.load(data)
    except ValidationError as error:
        secret = {name for name, field in schema.fields.items() if field.metadata.get("writeOnly")}
        raise invalid(error, data, prefix, secret) from None


@lru_cache(maxsize=1024)
def _quick_of(schema: Schema) -> Load | None:
    return quick(schema)


def invalid(error: ValidationError, data: Any, prefix: str = "", secret: Collection[str] = ()) -> Invalid:
    """The service's error for marshmallow's; nothing is repeated of the members named in ``secret``."""
    errors: dict[str, list[str]] = {}
    messages: Any = error.messages
    for path, message in _flat(messages, ()):
        if len(errors) >= _MOST_ERRORS:
            break
        found, value = _at(data, path)
        name = prefix + ".".join(_short(str(part)) for part in path) or "body"
        told = not found or (bool(path) and path[0] in secret) or " Got " in message
        text = message if told else f"{message} Got {_repr(value)}."
        errors.setdefault(name.removesuffix("."), []).append(text)
    first = next(iter(errors.items()))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return Invalid(f"{first[0]}: {first[1][0]}{more}", errors=errors)


def _flat(messages: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(messages, Mapping):
        for key, below in messages.items():
            yield from _flat(below, path if key == "_schema" else (*path, key))
    elif isinstance(messages, Sequence) and not isinstance(messages, str):
        for one in messages:
            yield from _flat(one, path)
    else:
        yield path, str(messages)


def _at(data: Any, path: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether something lies at ``path``, and what. Nothing is shown of a whole body; a row of a batch may be none."""
    for part in path:
        if isinstance(data, Mapping) and part in data:
            data = data[part]
        elif isinstance(data, list) and str(part).isdecimal() and int(part) < len(data):
            data = data[int(part)]
        else:
            return False, None
    return bool(path) or not isinstance(data, Mapping), data


def _repr(value: Any) -> str:
    if isinstance(value, str):
        value = value[: 2 * _LONGEST_VALUE]
    elif isinstance(value, dict | list):
        return f"an object of {len(value)} entries" if isinstance(value, dict) else f"a list of {len(value)} items"
    return _short(orjson.dumps(value).decode(), _LONGEST_VALUE)


def _short(text: str, longest: int = 64) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
