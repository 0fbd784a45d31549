"""Opaque cursors of paged lists: the sort key of the last item, so that a page's cost does not grow with its number."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

import msgspec

_INT64 = 2**63


def encode_cursor(listing: str, key: Sequence[int | str]) -> str:
    """A URL-safe text for the place right after ``key`` in the list named ``listing``."""
    return urlsafe_b64encode(msgspec.json.encode([listing, *key])).decode("ascii").rstrip("=")


def decisions_before(micros: int) -> str:
    """Where ``decisions`` goes on with those that were decided before a time (microseconds since 1970)."""
    return encode_cursor("decisions", (micros, -1))


def decode_cursor(listing: str, cursor: str, kinds: Sequence[type]) -> tuple[int | str, ...]:
    """The key of ``encode_cursor``.

    Args:
        listing: the list that the cursor is used on.
        cursor: what the caller sent.
        kinds: ``int`` or ``str`` for each part of the key.

    Raises:
        ValueError: the text is not a cursor that this list gave.
    """
    problem = f"{cursor[:80]!r} is not a cursor that the list of {listing} gave"
    try:
        parts = msgspec.json.decode(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)), type=list)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(problem) from error
    key = parts[1:]
    if parts[:1] != [listing] or [type(part) for part in key] != list(kinds) or encode_cursor(listing, key) != cursor:
        raise ValueError(problem)
    if any(isinstance(part, int) and not -_INT64 <= part < _INT64 for part in key):
        raise ValueError(problem)
    return tuple(key)
