"""Whole tables of a SQLite file as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from storage.file_lock import FileLock
from storage.sql.rows import OWN_FACTS, TABLES, RowReader, RowWriter
from storage.sql.tables import Row
from storage.sqlite.connect import connect, meaning
from storage.sqlite.migrate import NEWEST, prepare

#: Longest wait for the database.
WAIT_SECONDS: Final = 5.0


class SqliteRows:
    """``storage.sql.rows.RowStore`` on one file, which is created and migrated if need be."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._lock_path = self._path.with_name(self._path.name + ".lock")
        prepare(self._path, self._lock_path, WAIT_SECONDS)

    @property
    def schema(self) -> str:
        """See ``storage.sql.rows``."""
        return NEWEST

    @contextmanager
    def reading(self) -> Iterator[RowReader]:
        """See ``storage.sql.rows``."""
        with self._told(), closing(connect(self._path, "ro", WAIT_SECONDS)) as db:
            db.conn.execute("BEGIN")
            yield _Reader(db.conn)

    @contextmanager
    def writing(self) -> Iterator[RowWriter]:
        """See ``storage.sql.rows``."""
        lock = FileLock(self._lock_path)
        with self._told(), closing(lock), closing(connect(self._path, "rw", WAIT_SECONDS)) as db:
            lock.acquire()
            db.conn.execute("BEGIN IMMEDIATE")
            yield _Writer(db.conn)
            db.conn.execute("COMMIT")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise meaning(error, self._path) from error


class _Reader:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._query = connection.execute

    def columns(self, table: str) -> tuple[str, ...]:
        return tuple(row[1] for row in self._query(f"PRAGMA table_info({table})"))

    def key(self, table: str) -> tuple[str, ...]:
        places = sorted((row[5], row[1]) for row in self._query(f"PRAGMA table_info({table})") if row[5])
        return tuple(name for _, name in places)

    def rows(self, table: str, columns: Sequence[str], after: Sequence[Any] | None = None) -> Iterator[Row]:
        # A decision's own id is the number 0 here, and no text.
        wanted = [
            f"CASE WHEN {c} IS 0 THEN '' ELSE {c} END" if (table, c) == ("messages", "decision_id") else c
            for c in columns
        ]
        key = ", ".join(self.key(table))
        where = "" if after is None else f"WHERE ({key}) > ({', '.join('?' * len(after))})"
        statement = f"SELECT {', '.join(wanted)} FROM {table} {where} ORDER BY {key}"  # noqa: S608 - names of ours
        return iter(self._query(statement, tuple(after or ())))


class _Writer:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._query = connection.execute
        self._query_many = connection.executemany

    def fact(self, name: str) -> str | None:
        row = self._query("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put_fact(self, name: str, value: str | None) -> None:
        self._query("DELETE FROM meta WHERE name = ?", (name,))
        if value is not None:
            self._query("INSERT INTO meta (name, value) VALUES (?, ?)", (name, value))

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        marks = ["?"] * len(columns)
        if table == "messages":
            place = columns.index("decision_id")
            marks[place] = f"CASE WHEN ?{place + 1} = '' THEN 0 ELSE ?{place + 1} END"
            marks = [mark if mark != "?" else f"?{i + 1}" for i, mark in enumerate(marks)]
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(marks)})"  # noqa: S608 - names of ours
        self._query_many(statement, rows)

    def empty(self) -> bool:
        marks = ", ".join("?" * len(OWN_FACTS))
        if self._query(f"SELECT 1 FROM meta WHERE name NOT IN ({marks}) LIMIT 1", OWN_FACTS).fetchone():  # noqa: S608 - marks
            return False
        others = [table for table in TABLES if table != "meta"]
        return not any(self._query(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in others)  # noqa: S608 - names of ours

    def settle(self) -> None:
        newest = self._query("SELECT max(position) FROM rank_positions").fetchone()[0]
        if newest is not None:  # positions that were deleted must not come again
            self._query("DELETE FROM sqlite_sequence WHERE name = 'ranks'")
            self._query("INSERT INTO sqlite_sequence (name, seq) VALUES ('ranks', ?)", (newest,))
