"""Opens the store that a database URL names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOENT
from pathlib import Path

from storage.archive import beside
from storage.port import Store
from storage.sql.rows import RowStore
from storage.sqlite import SqliteStore
from storage.sqlite.rows import SqliteRows

_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql://", "postgres://")


def open_store(url: str, archive: Path | None = None) -> Store:
    """Opens a store for this process, after its fork; creates and migrates the database if need be.

    Args:
        url: ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``, or libpq's
            ``postgresql://user:password@host:port/database``.
        archive: the folder of the archive; None = ``archive_folder``.

    Raises:
        ValueError: the URL is of another form, or psycopg, which PostgreSQL needs, is not installed.
        SchemaMismatch: not a database of Sendtide's, or one of a newer version.
        StoreUnavailable: the database can't be reached.
    """
    if url.startswith(_POSTGRESQL):
        with _driver():
            from storage.postgres import PostgresStore  # an extra: not everyone has the driver
        return PostgresStore(url, archive or archive_folder(url))
    return SqliteStore(_path(url), archive)


def open_rows(url: str, *, create: bool = True) -> RowStore:
    """Opens a database for copying out of it or into it; creates and migrates it as ``open_store`` does.

    Raises:
        FileNotFoundError: it is an embedded one, is not there, and was not to be created.
        As ``open_store``.
    """
    if url.startswith(_POSTGRESQL):
        with _driver():
            from storage.postgres.rows import PostgresRows  # an extra: not everyone has the driver
        return PostgresRows(url)
    if not create:
        require_there(url)
    return SqliteRows(_path(url))


def require_there(url: str) -> None:
    """Refuses an embedded database that is not there; of a server's, opening it tells.

    Raises:
        FileNotFoundError: its file is not there.
        ValueError: the URL is of another form.
    """
    path = embedded(url)
    if path is not None and not path.exists():
        raise FileNotFoundError(ENOENT, "no such database", str(path))


def migrate(url: str) -> str:
    """Brings a database to this version's schema; returns the name of its newest migration.

    Raises:
        As ``open_store``.
    """
    return open_rows(url).schema


def embedded(url: str) -> Path | None:
    """The file of an embedded database; None where a server keeps it."""
    return None if url.startswith(_POSTGRESQL) else _path(url)


def _path(url: str) -> Path:
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path == ":memory:" or path.endswith("/") or "\0" in path:
        raise ValueError(
            f"database: {shown(url)!r} is not a database URL; "
            "allowed are sqlite:///PATH (relative), sqlite:////PATH (absolute), postgresql://USER:PASSWORD@HOST:PORT/NAME"
        )
    return Path(path)


def shown(url: str) -> str:
    """A database URL as it may be told: without user and password."""
    scheme, slashes, rest = url.partition("://")
    return url if scheme == "sqlite" else f"{scheme}{slashes}{rest.partition('?')[0].rpartition('@')[2]}"


def archive_folder(url: str) -> Path:
    """Where the archive of a database lies where nobody says another place: ``SENDTIDE_ARCHIVE_FOLDER``."""
    file = embedded(url)
    return Path("var/archive") if file is None else beside(file)


def folder_of(url: str) -> Path:
    """Where a program keeps what belongs to a database and not in it: beside an embedded one, else in ``var``."""
    return Path(url.removeprefix(_SQLITE)).parent if url.startswith(_SQLITE) else Path("var")


def name_of(url: str) -> str:
    """What tells a database from others with the same ``folder_of``: its file, or the URL behind the password."""
    file = embedded(url)
    return url.rpartition("@")[2] if file is None else file.name


@contextmanager
def _driver() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"database: PostgreSQL needs {error.name}; install sendtide[postgres]") from error
