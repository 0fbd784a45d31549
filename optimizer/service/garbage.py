"""How often Python looks for garbage while rows of a file come and go."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: Objects that are made for a row, more or less.
_A_ROW = 50


@contextmanager
def rarely_collected(rows: int) -> Iterator[None]:
    """A chunk of rows is thousands of objects that live for a moment and hold no cycles: looking for some in them again
    and again took a third of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(_A_ROW * rows, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
