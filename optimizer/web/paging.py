"""Pages of lists: the store's own cursors, and cursors over lists that are read whole."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from optimizer.errors import Invalid

T = TypeVar("T")


@contextmanager
def own_cursor() -> Iterator[None]:
    """Turns the ``ValueError`` with which a store refuses a cursor into the caller's error."""
    try:
        yield
    except ValueError as error:
        raise Invalid.field("query.cursor", f"{error}. Allowed: the cursor of the page before.") from None


def sliced(
    items: Sequence[T], key: Callable[[T], str], *, limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """A page of a short list that was read whole, by ``key``; the next page's cursor is the last key."""
    after = None if cursor is None else _decoded(cursor)
    ordered = sorted(items, key=key)
    rest = [one for one in ordered if after is None or key(one) > after]
    shown = rest[:limit]
    more = len(rest) > limit
    return shown, _encoded(key(shown[-1])) if more else None


def _encoded(key: str) -> str:
    return urlsafe_b64encode(b"k" + key.encode("utf-8")).decode("ascii").rstrip("=")


def _decoded(cursor: str) -> str:
    with own_cursor():
        problem = f"{cursor[:80]!r} is not a cursor that this list gave"
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            key = raw[1:].decode("utf-8")
        except ValueError:
            raise ValueError(problem) from None
        if raw[:1] != b"k":
            raise ValueError(problem)
        return key
