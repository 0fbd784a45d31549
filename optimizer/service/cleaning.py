"""Taking out of the archive's files what is gone: people who were erased, and decisions that came back.

Whoever writes or removes files of a workspace has its turn for that, a lease in the store, and each transaction that
notes a file renews it: who stood still for so long that another one took over notes nothing and removes nothing.

An erasure leaves a mark in its own transaction, and cleans at once if it gets the turn. Whoever has the turn cleans
before giving it back; where a mark is left even so, the scheduler cleans within minutes (``clean_wanted``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from optimizer.errors import Conflict
from optimizer.service.ids import fresh
from optimizer.service.wiring import Services
from storage import parquet
from storage.archive import ArchiveFile
from storage.archive_folder import is_of, owner_of
from storage.errors import StoreUnavailable, VersionConflict
from storage.port import Store, Writer

#: Code of the refusal while another run is under way.
BUSY: Final = "archiving"
#: How long a run may go on before another one takes over; each step renews it.
_LEASE: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class Turn:
    """One holder's turn at the files of a workspace."""

    services: Services
    workspace_id: str
    holder: str

    @property
    def store(self) -> Store:
        """Where it is noted."""
        return self.services.store

    @contextmanager
    def held(self) -> Iterator[None]:
        """Has it for a block.

        Raises:
            Conflict: somebody else has it.
        """
        self.store.write(self.renew)
        try:
            yield
        finally:
            self.store.write(lambda writer: writer.drop_lease(self._lease, self.holder))

    def renew(self, writer: Writer) -> None:
        """Makes sure, until the commit, that nobody else has it.

        Raises:
            Conflict: somebody else has it.
        """
        now = self.services.clock()
        if not writer.take_lease(self._lease, self.holder, now, now + _LEASE):
            raise Conflict("another run is archiving this workspace", code=BUSY)

    def owner(self) -> str:
        """The name by which the archive's folder knows this database."""
        with self.store.read() as reader:
            return owner_of(reader, self.services.salt)

    @property
    def _lease(self) -> str:
        return f"archive:{self.workspace_id}"

    def files(self) -> tuple[ArchiveFile, ...]:
        """The files of the workspace."""
        with self.store.read() as reader:
            return reader.archive_files(self.workspace_id)


def clean(services: Services, workspace_id: str) -> int:
    """Writes files anew without the rows that are gone; returns how many rows lost their bytes.

    Raises:
        Conflict: another run is under way; it cleans what was gone when it came to that.
        StoreUnavailable: the store or the folder failed; the next run goes on.
    """
    with services.store.read() as reader:
        none, owner = not reader.has_archive(workspace_id), owner_of(reader, services.salt)
    if none and not is_of(services.store.archive, owner):
        return 0
    turn = Turn(services, workspace_id, fresh("clean"))
    with turn.held():
        return clean_now(turn)


def clean_wanted(services: Services, workspace_id: str) -> int:
    """``clean`` where an erasure waits for it and nobody else is at it."""
    with services.store.read() as reader:
        wanted = reader.cleaning_wanted(workspace_id)
    if wanted is None:
        return 0
    turn = Turn(services, workspace_id, fresh("clean"))
    try:
        with turn.held():
            return clean_now(turn)
    except Conflict as error:
        if error.code != BUSY:
            raise
        return 0


def clean_now(turn: Turn) -> int:
    """``clean`` by who has the turn. What a run that is dead has not moved stays in the tables: it may be of somebody
    who was erased."""
    store, whose, total = turn.store, turn.workspace_id, 0
    with store.read() as reader:
        wanted = reader.cleaning_wanted(whose)  # before all else: who is erased from now on is not cleaned for certain
    for file in turn.files():
        if file.moved < file.rows:
            _give_up(turn, file)
    with store.read() as reader:
        files = reader.archive_files(whose)
        dirty = reader.archive_gone(whose, uncleaned=True)
        gone = reader.archive_gone(whose)
    for file in files:
        if file.number in dirty:
            total += _rewrite(turn, file, gone[file.number], sorted(dirty[file.number]))
    remove_strangers(turn)
    parquet.read_group.cache_clear()
    if wanted is not None:

        def note(writer: Writer) -> None:
            turn.renew(writer)
            writer.note_cleaned(whose, wanted)

        store.write(note)
    return total


def _give_up(turn: Turn, file: ArchiveFile) -> None:
    def work(writer: Writer) -> None:
        turn.renew(writer)
        writer.give_up_moving(file)

    turn.store.write(work)


def _rewrite(turn: Turn, file: ArchiveFile, gone: frozenset[int], dirty: Sequence[int]) -> int:
    """Puts a copy in the place of a file, which is a stranger from then on."""
    folder = turn.store.archive
    numbered = enumerate(parquet.read_groups(folder / file.path, file.rows))
    groups = (
        [
            None if number * parquet.GROUP + i in gone else parquet.require_row(row, file.path)
            for i, row in enumerate(group)
        ]
        for number, group in numbered
    )
    path = parquet.next_path(file.path)
    cleaner = replace(file, path=path, checksum=parquet.write(folder / path, groups))

    def note(writer: Writer) -> None:
        turn.renew(writer)
        require(folder / path)
        writer.put_clean_file(file, cleaner, dirty)

    try:
        turn.store.write(note)
    except VersionConflict:  # retention dropped it meanwhile; both are strangers now
        return 0
    return len(dirty)


def require(path: Path) -> int:
    """Makes sure that a file is still there when it is noted; returns its bytes.

    Raises:
        Conflict: this run stood still for so long that another one took the file for a leftover.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise Conflict(f"archive file {path}: another run removed it", code=BUSY) from None


def remove_strangers(turn: Turn) -> None:
    """Removes files that nobody names: those that a dead run left, that have a cleaner copy, or that retention dropped.
    Where a named file is missing, what else there is of it stays.

    Raises:
        Conflict: somebody else has the turn.
        StoreUnavailable: one can't be removed, or the folder is not this database's.
    """
    folder = turn.store.archive
    if not is_of(folder, turn.owner()):
        if turn.files():
            raise StoreUnavailable(f"archive {folder} is not this database's: nothing is removed from it")
        return
    found = sorted((folder / folder_of(turn.workspace_id)).glob("*/part-*"))

    def work(writer: Writer) -> None:
        turn.renew(writer)  # until the commit nobody notes a file that is removed here
        known = {folder / file.path for file in writer.archive_files(turn.workspace_id)}
        missing = {_part(path) for path in known if not path.exists()}
        for path in found:
            if path not in known and _part(path) not in missing:
                path.unlink(missing_ok=True)

    try:
        turn.store.write(work)
    except OSError as error:
        raise StoreUnavailable(f"archive {error.filename}: {error.strerror}") from error


def _part(path: Path) -> tuple[Path, str]:
    """What all copies of a file have in common."""
    return path.parent, path.name.split("-")[1]


def folder_of(workspace_id: str) -> str:
    """The name of a workspace's folder."""
    return quote(workspace_id, safe="").replace(".", "%2E")
