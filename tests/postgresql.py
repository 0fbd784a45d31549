"""The PostgreSQL server of a test process, with migrated databases at hand; it is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from simulations import pgserver
from simulations.pgserver import PostgresServer
from storage.postgres import PostgresStore

_TEMPLATE = "sendtide_template"
_DISCONNECT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
#: Tables that stayed empty are left alone: most do in any one test.
_EMPTY = """
DO $$ DECLARE name text; filled bool; BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'migrations' LOOP
    EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I)', name) INTO filled;
    IF filled THEN EXECUTE format('TRUNCATE %I RESTART IDENTITY', name); END IF;
  END LOOP;
END $$
"""
#: What is on a disk matters to none of these tests: a server that is killed leaves its pages to the kernel.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_wal_size": "256MB"}


class Server(PostgresServer):
    """One running server, and databases on it that are made from a migrated one."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder, settings)
        self._free: list[str] = []
        PostgresStore(super().create(name=_TEMPLATE)).close()

    def create(self, *, template: str | None = _TEMPLATE, name: str | None = None) -> str:
        """Makes a database, migrated unless ``template`` is None; returns its URL."""
        return super().create(template=template, name=name)

    def take(self) -> str:
        """The URL of an empty migrated database; ``give_back`` must follow."""
        return self._free.pop() if self._free else self.create()

    def give_back(self, url: str) -> None:
        """Ends whoever uses a database and empties it for the next test: quicker by far than making one."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_DISCONNECT)
            connection.execute(_EMPTY)
        self._free.append(url)


@contextmanager
def running() -> Iterator[Server]:
    """A server, until the block ends."""
    with pgserver.running(Server, _SETTINGS) as server:
        yield server
