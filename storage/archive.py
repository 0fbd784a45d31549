"""Old decisions in Parquet files, so that the live tables stay small; a reader sees both as one log.

**A file** holds decisions of one workspace that were made in one month, each with the events that name it: the very
values of their rows, so nothing is lost and nothing has to be computed anew. ``storage.parquet`` is its format, the
table ``archive_files`` the list of files. A row of a file counts where the tables say so: its number is below ``moved``
and not in ``archive_gone``. So a file may be on disk before anything is deleted, and whoever is killed leaves rows that
count either in the tables or in the file, never in both and never in neither.

**Moving** is done in small transactions: each compares some rows of the file with those in the tables, deletes the ones
that are still the same, and raises ``moved``. A row that was changed since it was written to the file is gone there.

**Reading**: every query of ``storage.port.Reader`` on decisions and on events that name them answers from both
(``storage.sql.archive_*``). ``archive_keys`` finds a decision by its id (a repeated request is known), by its
recipient, by the provider's message id and by the ids of its events (one that is reported again is known), as hashes of
64 bits that are compared with the row itself. Blocks of rows and their stamps (``storage.blocks``) are what they were,
so what was kept of a block holds on.

**Changing**: whoever writes about an archived decision brings it back into the tables, with its events, in the same
transaction; in the file it is gone. So a late webhook, confirm or order does all that it would have done before. The
next run archives it again. Erasing a person brings back all of theirs. Should an event come back whose id was stored
again meanwhile, the one that was received first stays.

**What leaves a file** leaves its bytes, too: ``archive_files`` gets another path, to a copy of the file in which rows
that are gone are empty. Row numbers stay. No two files ever have the same name, and one is removed only once no table
names it.

What is not archived: messages (caps, sums and the audit count them), events that name no decision (they count for old
decisions and new ones), policies (an old decision is replayed and explained by them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from storage.log import Decision

#: A decision's row, or an event's, as ``storage.sql`` orders its values.
Row = tuple[Any, ...]
#: Where a list of candidates goes on: time of the decision in microseconds, and its id.
Place = tuple[int, str]
#: The last row of a block, by block: its number, its id and its time.
Marks = Mapping[int, tuple[int, str, int]]


def beside(database: Path) -> Path:
    """The folder of the archive of an embedded database, or of a backup, where nobody says another."""
    return database.with_name(f"{database.name}.archive")


@dataclass(frozen=True, slots=True)
class Archived:
    """A decision with the events that name it, as rows."""

    decision: Row
    events: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What one row group of a file holds: times of decisions, numbers of decisions and of events (-1 = no events),
    each from the first to the last, and the campaigns."""

    times: tuple[int, int]
    decisions: tuple[int, int]
    events: tuple[int, int]
    campaigns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds, told beside it: by row group, the last row of each block of either log, rows by campaign."""

    groups: tuple[Group, ...]
    decisions: Marks = field(default_factory=dict)
    events: Marks = field(default_factory=dict)
    campaigns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of the archive. ``number`` is its name within the workspace; ``path`` is relative to the archive's folder;
    ``first`` and ``last`` are times of decisions in microseconds; rows from ``moved`` on are still in the tables."""

    workspace_id: str
    number: int
    path: str
    rows: int
    moved: int
    first: int
    last: int
    checksum: bytes
    contents: Contents


class ArchiveQueries(Protocol):
    """Part of ``storage.port.Reader``."""

    def has_archive(self, workspace_id: str) -> bool:
        """Whether there is any."""

    def archive_files(self, workspace_id: str) -> tuple[ArchiveFile, ...]:
        """The files of a workspace, by the first decision's time, then number."""

    def archive_gone(self, workspace_id: str, *, uncleaned: bool = False) -> Mapping[int, frozenset[int]]:
        """The numbers of rows that count no more, by file; ``uncleaned``: of those, the ones whose bytes are there."""

    def cleaning_wanted(self, workspace_id: str) -> int | None:
        """The mark of the newest erasure after which no file was cleaned; None = there is none."""

    def archivable(
        self,
        workspace_id: str,
        before: datetime,
        settled: Callable[[Decision], bool],
        *,
        after: Place | None = None,
        limit: int,
    ) -> tuple[tuple[Archived, ...], Place | None]:
        """Closed decisions of the tables that were made before ``before``, of one month (UTC), by time, then id.

        Args:
            workspace_id: whose.
            before: the time.
            settled: whether one may go.
            after: where to go on.
            limit: how many are looked at at most.

        Returns:
            Those that may go (all of one month), and where to go on; None = at the end. The newest decision and the one
            with the newest event stay, since numbers must never come twice.
        """


class ArchiveChanges(ArchiveQueries, Protocol):
    """Part of ``storage.port.Writer``."""

    def put_archive_file(self, file: ArchiveFile) -> None:
        """Inserts or replaces."""

    def move_to_archive(self, file: ArchiveFile, rows: Sequence[Archived]) -> int:
        """Moves the next rows of a file, those from ``file.moved`` on; returns how many were the same and went. The
        others stay in the tables and are gone in the file. ``VersionConflict`` when somebody else moved meanwhile."""

    def give_up_moving(self, file: ArchiveFile) -> None:
        """What was not moved by now stays in the tables and is gone in the file."""

    def put_clean_file(self, old: ArchiveFile, new: ArchiveFile, rows: Sequence[int]) -> None:
        """Notes a copy of a file, without the bytes of these rows, in its place. ``VersionConflict`` when the file is
        not ``old`` any more."""

    def want_cleaning(self, workspace_id: str) -> None:
        """Leaves a mark: somebody was erased, and files may hold their bytes."""

    def note_cleaned(self, workspace_id: str, mark: int) -> None:
        """All files are clean of who was erased up to this mark (``cleaning_wanted``)."""

    def bring_back(self, workspace_id: str, recipient_id: str) -> int:
        """Brings the recipient's archived decisions back into the tables; returns how many."""
