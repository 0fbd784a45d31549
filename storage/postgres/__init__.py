"""The shared backend: one PostgreSQL database for any number of API hosts and schedulers."""

from storage.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
