"""The embedded backend: one SQLite file, one writer thread a process, any number of readers."""

from storage.sqlite import lean as _lean  # noqa: F401  must come before anything imports sqlite-utils
from storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
