"""The store's own errors. The web layer maps them to HTTP; nothing here knows of it."""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything that a store raises."""


class StoreUnavailable(StoreError):
    """The store can't be reached or can't take a write (locked, full, read-only). Nothing was recorded; or, where
    ``fate_unknown``, all of it or nothing: the answer to a commit was lost and the server can't be asked."""

    def __init__(self, detail: str, retry_after_seconds: int = 1, *, fate_unknown: bool = False) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds
        self.fate_unknown = fate_unknown


class ArchiveUnreadable(StoreUnavailable):
    """A file of the archive can't be read; what doesn't look into it can be done."""


class AlreadyExists(StoreError):
    """A row with this key is there already."""


class OneByOne(StoreError):
    """Rows that were to be stored together can only be stored one by one. Some may be stored when this is raised: the
    write is to be given up, which undoes them."""


class VersionConflict(StoreError):
    """A compare-and-set found another version than the caller expected."""


class SchemaMismatch(StoreError):
    """The database was made by a newer or unknown version of Sendtide, or isn't one of its databases."""
