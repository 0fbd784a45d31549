"""Old decisions into the archive: which may go, the files, and taking out of files what was erased.

A decision may go once its month is older than the age, it is closed, and its reward is final whatever had been drawn
(``feedback.closes``). Whoever reads the log reads on (``storage.archive``), rules look at messages, which aren't
archived, and whoever changes an archived decision brings it back. What decisions look at while they are made stays
near: answers to messages of campaigns that a variant's condition names.

A run takes months one after the other, some thousand decisions to a file: the file is written and flushed, noted, and
then its rows are moved a few at a time, so that nobody waits for long. A run that was killed is taken up by the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from optimizer.errors import Conflict
from optimizer.service.answers import LOOKBACK, required_campaigns
from optimizer.service.feedback import all_campaigns, closes
from optimizer.service.ids import fresh
from optimizer.service.wiring import Services
from storage import parquet
from storage.archive import Archived, ArchiveFile, Place
from storage.archive_folder import claim
from storage.codec import from_micros
from storage.errors import VersionConflict
from storage.log import Decision
from storage.port import Store, Writer

#: Decisions of a file at most.
FILE_ROWS: Final = 16 * parquet.GROUP
#: Decisions that are moved by one transaction: some 12 ms of the writer's time.
STEP: Final = 200
#: Code of the refusal while another run is under way.
BUSY: Final = "archiving"
#: How long a run may go on before another one takes over; each step renews it.
_LEASE: Final = timedelta(minutes=10)
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Archiving:
    """What a run did, or would do: decisions and events that went, the files, and their bytes."""

    decisions: int = 0
    events: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: Archiving) -> Archiving:
        """The sums."""
        return Archiving(
            self.decisions + other.decisions,
            self.events + other.events,
            self.files + other.files,
            self.bytes + other.bytes,
        )


def latest(services: Services) -> datetime:
    """What was decided before this moment is to be archived by the settings: the first of a month (UTC)."""
    days = services.settings.archive_days
    return _month(services.clock() - timedelta(days=days)) if days else _NEVER


def archive(
    services: Services, workspace_id: str, before: datetime, *, dry_run: bool = False, step: int = STEP
) -> Archiving:
    """Moves what is older than ``before`` and settled into files.

    Args:
        services: the wired service.
        workspace_id: whose log.
        before: only what was decided before it; cut to the beginning of a month.
        dry_run: count only.
        step: decisions moved by one transaction.

    Raises:
        Conflict: another run is under way, or the folder is another installation's.
        StoreUnavailable: the store or the folder failed; the next run goes on.
    """
    run = _Run(services, workspace_id, _month(min(before, services.clock())), fresh("archive"), step)
    return run.count() if dry_run else run.archive()


def _month(moment: datetime) -> datetime:
    day = moment.astimezone(UTC)
    return datetime(day.year, day.month, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Run:
    """One run over a workspace."""

    services: Services
    workspace_id: str
    before: datetime
    holder: str
    step: int

    @property
    def store(self) -> Store:
        return self.services.store

    def count(self) -> Archiving:
        """What would go."""
        total, after = Archiving(), None
        while True:
            rows, after = self._next(after)
            total += Archiving(len(rows), sum(len(row.events) for row in rows))
            if after is None:
                return total

    def archive(self) -> Archiving:
        """Does it."""
        if not claim(self.store.archive, self.services.salt):
            told = (
                f"archive {self.store.archive} is another installation's; SENDTIDE_ARCHIVE_FOLDER names one of its own"
            )
            raise Conflict(told, code="archive_folder")
        self.store.write(self._renew)
        try:
            total, after = Archiving(), None
            for file in self._files():
                if file.moved < file.rows:  # of a run that was killed
                    total += self._move(file)
            _remove_strangers(self.store, self.workspace_id)
            while True:
                rows, after = self._next(after)
                if rows:
                    total += self._put(rows)
                if after is None:
                    break
            clean(self.services, self.workspace_id)
            return total
        finally:
            self.store.write(lambda writer: writer.drop_lease(self._lease, self.holder))

    @property
    def _lease(self) -> str:
        return f"archive:{self.workspace_id}"

    def _renew(self, writer: Writer) -> None:
        now = self.services.clock()
        if not writer.take_lease(self._lease, self.holder, now, now + _LEASE):
            raise Conflict("another run is archiving this workspace", code=BUSY)

    def _files(self) -> tuple[ArchiveFile, ...]:
        with self.store.read() as reader:
            return reader.archive_files(self.workspace_id)

    def _next(self, after: Place | None) -> tuple[Sequence[Archived], Place | None]:
        now = self.services.clock()
        with self.store.read() as reader:
            campaigns = {one.campaign_id: one for one in all_campaigns(reader, self.workspace_id)}
            required = {name for one in campaigns.values() for name in required_campaigns(one)}

            def settled(decision: Decision) -> bool:
                campaign = campaigns.get(decision.campaign_id)
                if decision.campaign_id in required and decision.send_at is not None:
                    return (decision.sent_at or decision.send_at) < now - LOOKBACK
                return campaign is None or closes(campaign, decision) <= now

            return reader.archivable(self.workspace_id, self.before, settled, after=after, limit=FILE_ROWS)

    def _put(self, rows: Sequence[Archived]) -> Archiving:
        number = 1 + max((file.number for file in self._files()), default=0)
        month = from_micros(rows[0].decision[parquet.DECIDED]).strftime("%Y-%m")
        path = str(Path(folder_of(self.workspace_id)) / month / parquet.named(number, 1))
        place = self.store.archive / path
        groups = (rows[start : start + parquet.GROUP] for start in range(0, len(rows), parquet.GROUP))
        checksum = parquet.write(place, groups)
        size = place.stat().st_size
        times = rows[0].decision[parquet.DECIDED], rows[-1].decision[parquet.DECIDED]
        contents = parquet.contents_of(rows)
        file = ArchiveFile(self.workspace_id, number, path, len(rows), 0, *times, checksum, contents)

        def note(writer: Writer) -> None:
            self._renew(writer)
            if not place.exists():  # this run stood still for so long that another one took it for a leftover
                raise Conflict(f"archive file {place}: another run removed it", code=BUSY)
            writer.put_archive_file(file)

        self.store.write(note)
        moved = self._move(file, rows)
        return replace(moved, files=1, bytes=size)

    def _move(self, file: ArchiveFile, rows: Sequence[Archived | None] | None = None) -> Archiving:
        """Moves the rows of a file that are not moved yet."""
        if rows is None:
            groups = parquet.read_groups(self.store.archive / file.path, file.rows)
            rows = [row for group in groups for row in group]
        total = Archiving()
        while file.moved < file.rows:
            part = [row for row in rows[file.moved : file.moved + self.step] if row is not None]
            try:
                total += self._step(file, part)
            except VersionConflict:  # an erasure gave up what was not moved by then
                break
            file = replace(file, moved=file.moved + len(part))
        return total

    def _step(self, file: ArchiveFile, part: Sequence[Archived]) -> Archiving:
        people = {(self.workspace_id, row.decision[parquet.RECIPIENT]) for row in part}

        def work(writer: Writer) -> int:
            self._renew(writer)
            return writer.move_to_archive(file, part)

        moved = self.store.write(work, recipients=sorted(people))
        return Archiving(moved, sum(len(row.events) for row in part))


def folder_of(workspace_id: str) -> str:
    """The name of a workspace's folder."""
    return quote(workspace_id, safe="").replace(".", "%2E")


def clean(services: Services, workspace_id: str) -> int:
    """Writes files anew without the rows that are gone: of people who were erased, and of decisions that came back.
    What a run has not moved yet stays in the tables: it may be of such a person. Returns how many rows lost their
    bytes."""
    store, total = services.store, 0
    with store.read() as reader:
        files = reader.archive_files(workspace_id)
    for file in files:
        if file.moved < file.rows:
            store.write(partial(_give_up, file))
    with store.read() as reader:
        files = reader.archive_files(workspace_id)
        dirty = reader.archive_gone(workspace_id, uncleaned=True)
        gone = reader.archive_gone(workspace_id)
    for file in files:
        if file.number in dirty:
            total += _rewrite(store, file, gone[file.number], sorted(dirty[file.number]))
    parquet.read_group.cache_clear()
    return total


def _give_up(file: ArchiveFile, writer: Writer) -> None:
    writer.give_up_moving(file)


def _rewrite(store: Store, file: ArchiveFile, gone: frozenset[int], dirty: Sequence[int]) -> int:
    old = store.archive / file.path
    path = parquet.next_path(file.path)
    numbered = enumerate(parquet.read_groups(old, file.rows))
    groups = (
        [None if number * parquet.GROUP + i in gone else row for i, row in enumerate(group)]
        for number, group in numbered
    )
    cleaner = replace(file, path=path, checksum=parquet.write(store.archive / path, groups))
    with suppress(VersionConflict):  # it was dropped meanwhile
        store.write(lambda writer: writer.put_clean_file(cleaner, dirty))
    old.unlink(missing_ok=True)
    return len(dirty)


def _remove_strangers(store: Store, workspace_id: str) -> None:
    """Removes files that a killed run left, and those of months that retention dropped."""
    with store.read() as reader:
        known = {store.archive / file.path for file in reader.archive_files(workspace_id)}
    for path in (store.archive / folder_of(workspace_id)).glob("*/part-*"):
        if path not in known:
            path.unlink(missing_ok=True)
