"""Connections to PostgreSQL, and what its errors mean."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import Connection, RawCursor
from psycopg.conninfo import conninfo_to_dict

from storage.errors import StoreUnavailable
from storage.postgres.values import register

Connected = Connection[tuple[Any, ...]]

#: Classes of SQLSTATE that speak of the server, the network or a rival, not of a mistake in a statement of ours:
#: connection, rolled back, resources, not in the right state, operator intervention, system, internal.
_CLASSES: Final = frozenset({"08", "40", "53", "55", "57", "58", "XX"})
#: Read-only server; our transaction was left idle, or took, too long.
_STATES: Final = frozenset({"25006", "25P03", "25P04"})


def place(url: str) -> str:
    """A database as it may be named in messages: without user and password.

    Raises:
        ValueError: it is no connection URL.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # what it says repeats the URL, and that may hold a password
        raise ValueError(
            "database: libpq can't read the URL; allowed is postgresql://USER:PASSWORD@HOST:PORT/NAME, with reserved "
            "characters as %XX"
        ) from None
    return f"postgresql://{parts.get('host', '')}/{parts.get('dbname', '')}"


def connect(url: str, wait_seconds: float) -> Connected:
    """A connection that leaves transactions to the caller.

    A peer that vanished without a word is noticed within some ``wait_seconds``: by TCP while data is under way, by
    keepalives while an answer is awaited.

    Raises:
        psycopg.Error: it can't be opened.
    """
    seconds = max(2, round(wait_seconds))
    parts: dict[str, Any] = {
        "application_name": "sendtide",
        "connect_timeout": seconds,
        "keepalives_idle": seconds,
        "keepalives_interval": seconds,
        "keepalives_count": 2,
        "tcp_user_timeout": 3000 * seconds,
        **conninfo_to_dict(url),
    }
    connection: Connected = Connection.connect(autocommit=True, cursor_factory=RawCursor, **parts)
    register(connection.adapters)
    return connection


def meaning(error: psycopg.Error, where: str) -> Exception:
    """What to raise for an error of PostgreSQL: ``StoreUnavailable``, or the error itself where it is a bug of ours."""
    state = error.sqlstate
    if state is None:
        unavailable = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    else:
        unavailable = state[:2] in _CLASSES or state in _STATES
    return StoreUnavailable(f"database {where}: {told(error)}") if unavailable else error


def told(error: psycopg.Error) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())
