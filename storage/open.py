"""Opens the store that a database URL names."""

from __future__ import annotations

from pathlib import Path

from storage.port import Store
from storage.sqlite import SqliteStore

_SQLITE = "sqlite:///"


def open_store(url: str) -> Store:
    """Opens a store for this process, after its fork; creates and migrates the database if need be.

    Args:
        url: ``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``.

    Raises:
        ValueError: the URL is of another form.
        SchemaMismatch: not a database of Sendtide's, or one of a newer version.
        StoreUnavailable: the database can't be reached.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path == ":memory:" or path.endswith("/") or "\0" in path:
        raise ValueError(
            f"database: {url!r} is not a database URL; "
            "allowed are sqlite:///PATH (relative) and sqlite:////PATH (absolute)"
        )
    return SqliteStore(Path(path))
