"""Old decisions into the archive: which may go, and the files.

A decision may go once its month is older than the age, it is closed, and its reward is final whatever had been drawn
(``feedback.closes``). Whoever reads the log reads on (``storage.archive``), rules look at messages, which aren't
archived, and whoever changes an archived decision brings it back. What decisions look at while they are made stays
near: answers to messages of campaigns that a variant's condition names.

A run takes months one after the other, some thousand decisions to a file: the file is written and flushed, noted, and
then its rows are moved a few at a time, so that nobody waits for long. A run that was killed is taken up by the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from optimizer.errors import Conflict
from optimizer.service.answers import LOOKBACK, required_campaigns
from optimizer.service.cleaning import BUSY, Turn, clean_now, folder_of, remove_strangers, require
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
    turn = Turn(services, workspace_id, fresh("archive"))
    run = _Run(turn, _month(min(before, services.clock())), step)
    return run.count() if dry_run else run.archive()


def _month(moment: datetime) -> datetime:
    day = moment.astimezone(UTC)
    return datetime(day.year, day.month, 1, tzinfo=UTC)


@dataclass(frozen=True)
class _Run:
    """One run over a workspace."""

    turn: Turn
    before: datetime
    step: int

    @property
    def store(self) -> Store:
        return self.turn.store

    @property
    def workspace_id(self) -> str:
        return self.turn.workspace_id

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
        if self.store.archive.exists() or self.turn.files():
            self._claim()
        with self.turn.held():
            total, after = Archiving(), None
            for file in self.turn.files():
                if file.moved < file.rows:  # of a run that was killed
                    total += self._move(file)
            remove_strangers(self.turn)
            while True:
                rows, after = self._next(after)
                if rows:
                    self._claim()  # where there is no folder yet, nothing makes one before it has something to hold
                    total += self._put(rows)
                if after is None:
                    break
            clean_now(self.turn)
            return total

    def _claim(self) -> None:
        if not claim(self.store.archive, self.turn.owner()):
            told = f"archive {self.store.archive} is another database's; SENDTIDE_ARCHIVE_FOLDER names one of its own"
            raise Conflict(told, code="archive_folder")

    def _next(self, after: Place | None) -> tuple[Sequence[Archived], Place | None]:
        now = self.turn.services.clock()
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
        number = 1 + max((file.number for file in self.turn.files()), default=0)
        month = from_micros(rows[0].decision[parquet.DECIDED]).strftime("%Y-%m")
        path = str(Path(folder_of(self.workspace_id)) / month / parquet.named(number, 1))
        place = self.store.archive / path
        groups = (rows[start : start + parquet.GROUP] for start in range(0, len(rows), parquet.GROUP))
        checksum = parquet.write(place, groups)
        times = rows[0].decision[parquet.DECIDED], rows[-1].decision[parquet.DECIDED]
        contents = parquet.contents_of(rows)
        file = ArchiveFile(self.workspace_id, number, path, len(rows), 0, *times, checksum, contents)

        def note(writer: Writer) -> int:
            self.turn.renew(writer)
            size = require(place)
            if any(one.number == number for one in writer.archive_files(self.workspace_id)):
                raise Conflict(f"archive file {path}: another run made one of this number", code=BUSY)
            writer.put_archive_file(file)
            return size

        size = self.store.write(note)
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
            except VersionConflict:  # another run took over and gave up what was not moved by then
                break
            file = replace(file, moved=file.moved + len(part))
        return total

    def _step(self, file: ArchiveFile, part: Sequence[Archived]) -> Archiving:
        people = {(self.workspace_id, row.decision[parquet.RECIPIENT]) for row in part}

        def work(writer: Writer) -> int:
            self.turn.renew(writer)
            return writer.move_to_archive(file, part)

        moved = self.store.write(work, recipients=sorted(people))
        return Archiving(moved, sum(len(row.events) for row in part))
