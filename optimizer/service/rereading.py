"""Reading what an erasure may rewrite meanwhile: a snapshot that is older than the archive's files can't be read on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from storage.errors import ArchiveUnreadable
from storage.port import Reader, Store

_Found = TypeVar("_Found")


@contextmanager
def reading(store: Store, read: Callable[[Reader], _Found]) -> Iterator[tuple[Reader, _Found]]:
    """A reader with what was read by it; where a file was rewritten under it, a new one reads once more.

    Raises:
        ArchiveUnreadable: the new one met that as well, or the file is lost.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(store.read())
        try:
            found = read(reader)
        except ArchiveUnreadable:
            stack.close()
            reader = stack.enter_context(store.read())
            found = read(reader)
        yield reader, found
