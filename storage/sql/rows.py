"""Whole tables as rows, for moving a database from one backend to another: no record is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from storage.sql.tables import Row

#: Every table of the schema, in the order in which they are copied.
TABLES = (
    *("meta", "workspaces", "counters", "api_keys", "attributes", "campaigns", "campaign_versions"),
    *(
        "rules",
        "rule_versions",
        "usage",
        "rewrites",
        "recipients",
        "engagement",
        "rhythms",
        "decisions",
        "messages",
        "events",
    ),
    *("artifacts", "policies", "policy_uses", "pointers", "training_runs", "changes", "import_positions", "leases"),
    *("webhook_sources", "webhook_tokens", "endpoints", "deliveries", "intake", "ended_sessions"),
    *("archive_files", "archive_gone", "archive_keys"),
    *("ranks", "rank_rewards", "rank_models", "rank_positions", "loop_documents"),
)
#: Facts of a store's own, which another one has no use for: where a copy is, that SQLite's file is to be written anew,
#: the name by which the archive's folder knows the database, and the row that ``check`` writes.
COPYING = "copying"
REWRITE_WANTED = "rewrite_wanted"
ARCHIVE_OWNER = "archive_owner"
OWN_FACTS = (COPYING, REWRITE_WANTED, ARCHIVE_OWNER, "write_check")
#: The counter in which PostgreSQL keeps how far a workspace's positions are.
POSITION = "position"


def is_own(table: str, columns: Sequence[str], row: Row) -> bool:
    """Whether a row is the store's own affair and is not copied."""
    if table not in ("meta", "counters"):
        return False
    name = row[columns.index("name")]
    return name in OWN_FACTS if table == "meta" else name == POSITION


class RowReader(Protocol):
    """All tables of a database on one snapshot. Rows hold ``None``, numbers, texts and bytes only."""

    def columns(self, table: str) -> tuple[str, ...]:
        """The names of a table's columns."""

    def key(self, table: str) -> tuple[str, ...]:
        """The columns of its primary key; they are the same in every database of the backend."""

    def rows(self, table: str, columns: Sequence[str], after: Sequence[Any] | None = None) -> Iterator[Row]:
        """The rows behind this key (None = all), in the order of the key; streamed. In place of a decision's own id in
        ``messages`` there is an empty text."""


class RowWriter(Protocol):
    """One transaction that fills tables."""

    def fact(self, name: str) -> str | None:
        """A fact of ``meta``."""

    def put_fact(self, name: str, value: str | None) -> None:
        """Sets a fact; None removes it."""

    def put(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Inserts rows, none of which may be there."""

    def empty(self) -> bool:
        """Whether no table but ``meta`` holds anything, and that nothing but the store's own facts."""

    def settle(self) -> None:
        """After the last row: numbers that the database gives from now on come after those that it was given."""


class RowStore(Protocol):
    """A database, for copying out of it or into it."""

    @property
    def schema(self) -> str:
        """The name of its newest migration."""

    def reading(self) -> AbstractContextManager[RowReader]:
        """A snapshot."""

    def writing(self) -> AbstractContextManager[RowWriter]:
        """A transaction, committed when the block ends and undone when it raises."""
