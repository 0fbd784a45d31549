"""JSON as lines, cells and deliveries hold it: not nested so deeply that to read on would end in a traceback."""

from __future__ import annotations

from typing import Any

import orjson

#: Levels of nesting of one line or cell. Nothing that is kept has more than a few; telling of a value in an error, or
#: writing it, ends in a ``RecursionError`` where it has a thousand.
LEVELS = 100


def parsed(text: bytes | str) -> Any:
    """The value.

    Raises:
        ValueError: not JSON, or nested deeper than ``LEVELS``.
    """
    value = orjson.loads(text)
    opening = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opening > LEVELS and deeper(value, LEVELS):
        raise ValueError(f"nested more than {LEVELS} levels deep")
    return value


def deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in one another more than so many levels deep; level by level, since a recursion
    would end in an error."""
    here = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        if not here:
            break
        below = (one for outer in here for one in (outer.values() if isinstance(outer, dict) else outer))
        here = [one for one in below if isinstance(one, dict | list)]
    return bool(here)
