"""Brings a PostgreSQL database to the schema that this version of the code speaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import psycopg

from storage.errors import SchemaMismatch
from storage.migrations import (
    postgres_0001_first,
    postgres_0002_blocks,
    postgres_0003_intake,
    postgres_0004_archive,
    postgres_0005_retention,
    postgres_0006_moves,
    postgres_0007_replaced,
    postgres_0008_run_kinds,
    postgres_0009_counted,
)
from storage.postgres.connect import Connected, meaning

_OLDEST_SERVER: Final = 140000
#: Held while migrations are applied ("sendtide" in ASCII).
_LOCK: Final = 0x73656E6474696465

#: Each: its name, its statements, and the oldest migration whose code still works on the schema that it leaves. Code
#: that meets a migration it doesn't know goes on where that one says that it may.
STEPS: Final = (
    ("0001_first", postgres_0001_first.STATEMENTS, "0001_first"),
    ("0002_blocks", postgres_0002_blocks.STATEMENTS, "0002_blocks"),
    ("0003_intake", postgres_0003_intake.STATEMENTS, "0002_blocks"),
    ("0004_archive", postgres_0004_archive.STATEMENTS, "0002_blocks"),
    ("0005_retention", postgres_0005_retention.STATEMENTS, "0002_blocks"),
    ("0006_moves", postgres_0006_moves.STATEMENTS, "0002_blocks"),
    ("0007_replaced", postgres_0007_replaced.STATEMENTS, "0002_blocks"),
    ("0008_run_kinds", postgres_0008_run_kinds.STATEMENTS, "0002_blocks"),
    ("0009_counted", postgres_0009_counted.STATEMENTS, "0002_blocks"),
)
#: Once something is archived, code that would not look there has to refuse the database.
ARCHIVED: Final = """
UPDATE migrations SET works_with = number
WHERE name = '0004_archive' AND works_with < number AND EXISTS (SELECT 1 FROM archive_files)
"""
_TABLE: Final = """
CREATE TABLE migrations (
  number BIGINT PRIMARY KEY, name TEXT NOT NULL, works_with BIGINT NOT NULL,
  applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
"""
_TABLES: Final = """
SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = current_schema() AND relkind IN ('r', 'p', 'v', 'm')
"""


def prepare(opener: Callable[[], Connected], where: str) -> tuple[str, ...]:
    """Applies the migrations that a database lacks, all or none, one process at a time; returns their names.

    Raises:
        SchemaMismatch: not a database of Sendtide's, or one of a newer version that this code can't work with.
        StoreUnavailable: the server can't be reached, or it refuses.
    """
    try:
        with opener() as connection:
            _require_server(connection, where)
            if not _lacking(connection, where):
                return ()
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock($1)", (_LOCK,))
                connection.execute("SET LOCAL lock_timeout = 5000")  # who waits for a table makes all others wait too
                lacking = _lacking(connection, where)  # asked again: another process may have been quicker
                for number in lacking:
                    _apply(connection, number)
            return tuple(STEPS[number - 1][0] for number in lacking)
    except psycopg.Error as error:
        raise meaning(error, where) from error


def _require_server(connection: Connected, where: str) -> None:
    version = connection.info.server_version
    if version < _OLDEST_SERVER:
        raise SchemaMismatch(f"database {where}: PostgreSQL {version // 10000} is older than the 14 that is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaMismatch(f"database {where}: its encoding is {encoding}; create it with ENCODING 'UTF8'")


def _lacking(connection: Connected, where: str) -> list[int]:
    """The numbers of the migrations that are to be applied."""
    tables = {row[0] for row in connection.execute(_TABLES)}
    if "migrations" not in tables or "decisions" not in tables:
        if tables:
            raise SchemaMismatch(f"database {where}: it is not a database of Sendtide's, nor an empty one")
        return list(range(1, len(STEPS) + 1))
    done = {row[0]: row[1:] for row in connection.execute("SELECT number, name, works_with FROM migrations")}
    newer = [name for number, (name, works_with) in sorted(done.items()) if number > len(STEPS) < works_with]
    if newer:
        raise SchemaMismatch(
            f"database {where}: a newer version of Sendtide made it (it has {', '.join(newer)}); upgrade the code"
        )
    return [number for number in range(1, len(STEPS) + 1) if number not in done]


def _apply(connection: Connected, number: int) -> None:
    name, statements, works_with = STEPS[number - 1]
    if number == 1:
        connection.execute(_TABLE)
    for statement in statements:
        connection.execute(statement)
    oldest = [step[0] for step in STEPS].index(works_with) + 1
    connection.execute("INSERT INTO migrations (number, name, works_with) VALUES ($1, $2, $3)", (number, name, oldest))
