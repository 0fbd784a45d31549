"""The embedded backend: one SQLite file, one writer thread a process, any number of readers."""

from storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
