"""The log as a reader sees it where a part of it lies in files: see ``storage.archive``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Final

from storage import codec, parquet
from storage.archive import Archived, ArchiveFile
from storage.codec import to_micros, unpack_object
from storage.cursors import decode_cursor, encode_cursor
from storage.log import OPEN, Decision, Event, FeedbackRow, Named, Page, Reply
from storage.records import JsonObject
from storage.sql.archive_candidates import ArchiveCandidates
from storage.sql.archive_places import At, clusters, file_from, key_of
from storage.sql.bulk_tables import BulkReader
from storage.sql.decision_rows import SEQ, decision_from
from storage.sql.decision_tables import DecisionReader, of_two_people
from storage.sql.erasure_tables import ErasureReader
from storage.sql.event_tables import CHUNK, EventReader, event_from
from storage.sql.learning_tables import LearningReader
from storage.sql.setup_tables import SetupReader
from storage.sql.tables import Row
from storage.sql.usage_tables import UsageReader
from storage.sql.webhook_tables import WebhookReader

_FILES: Final = """
SELECT number, path, rows, moved, first, last, checksum, contents FROM archive_files
WHERE workspace_id = ? ORDER BY first, number
"""
_GONE: Final = "SELECT number, place FROM archive_gone WHERE workspace_id = ?"
_FOUND: Final = "SELECT number, place FROM archive_keys WHERE workspace_id = ? AND name IN ({marks})"
_ANY: Final = "SELECT 1 FROM archive_files WHERE workspace_id = ? LIMIT 1"
_KIND, _AUTOMATED, _WORDS = (parquet.EVENT.index(name) for name in ("type", "automated", "words"))
#: Counters: erasures that want files cleaned, and how many of them have got it.
CLEANING_WANTED, CLEANED = "archive_cleaning_wanted", "archive_cleaned"
#: The key under which a vendor's words are stored beside the vendor's name.
_SAID: Final = "event"


class ArchiveReader(
    ArchiveCandidates,
    BulkReader,
    DecisionReader,
    ErasureReader,
    EventReader,
    LearningReader,
    SetupReader,
    UsageReader,
    WebhookReader,
):
    """Queries on single decisions and on the stream of them, in the tables and in the files. Its bases are those of
    ``ArchiveWriter``'s too, so that both agree on their order."""

    #: The archive's folder.
    folder: Path

    # --- the files

    def archive_files(self, workspace_id: str) -> tuple[ArchiveFile, ...]:
        """See ``storage.archive``; read once."""
        seen: dict[str, tuple[ArchiveFile, ...]] = self.__dict__.setdefault("_archive_files", {})
        if workspace_id not in seen:
            rows = self._rows(_FILES, (workspace_id,))
            seen[workspace_id] = tuple(file_from(workspace_id, row) for row in rows)
        return seen[workspace_id]

    def has_archive(self, workspace_id: str) -> bool:
        """See ``storage.archive``. Asked once a transaction: the first file is noted when no write is under way
        (``put_archive_file``)."""
        seen: dict[str, bool] = self.__dict__.setdefault("_archive_any", {})
        if workspace_id not in seen:
            seen[workspace_id] = self._row(_ANY, (workspace_id,)) is not None
        return seen[workspace_id]

    def archive_gone(self, workspace_id: str, *, uncleaned: bool = False) -> Mapping[int, frozenset[int]]:
        """See ``storage.archive``."""
        seen: dict[tuple[str, bool], dict[int, frozenset[int]]] = self.__dict__.setdefault("_archive_gone", {})
        if (workspace_id, uncleaned) not in seen:
            found: dict[int, set[int]] = {}
            for number, place in self._rows(_GONE + " AND cleaned = 0" * uncleaned, (workspace_id,)):
                found.setdefault(number, set()).add(place)
            seen[workspace_id, uncleaned] = {number: frozenset(places) for number, places in found.items()}
        return seen[workspace_id, uncleaned]

    def cleaning_wanted(self, workspace_id: str) -> int | None:
        """See ``storage.archive``."""
        wanted = self._counter(workspace_id, CLEANING_WANTED)
        return wanted if wanted > self._counter(workspace_id, CLEANED) else None

    def _group(self, file: ArchiveFile, group: int) -> Iterator[tuple[int, Archived]]:
        """The rows of a row group that count, with their numbers, by time, then id.

        Raises:
            ArchiveUnreadable: as ``parquet.read_group``; or the file has a cleaner copy since this snapshot, and one of
                them is in the tables now, where this snapshot doesn't look.
        """
        gone = self.archive_gone(file.workspace_id).get(file.number, frozenset())
        start = group * parquet.GROUP
        for place, row in enumerate(parquet.read_group(self.folder / file.path, group), start):
            if place < file.moved and place not in gone:
                yield place, parquet.require_row(row, file.path)

    def _found(self, workspace_id: str, keys: Iterable[int]) -> dict[At, Archived]:
        """The archived rows that have one of these hashes."""
        wanted: dict[tuple[int, int], list[int]] = {}
        for number, place in self._rows_in(_FOUND, (workspace_id,), list(keys)):
            wanted.setdefault((number, place // parquet.GROUP), []).append(place)
        files = {file.number: file for file in self.archive_files(workspace_id)} if wanted else {}
        found = {}
        for (number, group), places in wanted.items():
            rows = parquet.read_group(self.folder / files[number].path, group)
            for place in places:
                found[At(number, place)] = parquet.require_row(rows[place % parquet.GROUP], files[number].path)
        return found

    def _by_id(self, workspace_id: str, decision_ids: Iterable[str]) -> dict[At, Archived]:
        """Those of these decisions that are archived."""
        wanted = set(decision_ids)
        if not wanted or not self.has_archive(workspace_id):
            return {}
        found = self._found(workspace_id, [key_of("decision", one) for one in wanted])
        return {at: row for at, row in found.items() if row.decision[0] in wanted}

    def _by_recipient(self, workspace_id: str, recipient_id: str) -> dict[At, Archived]:
        found = self._found(workspace_id, [key_of("recipient", recipient_id)])
        return {at: row for at, row in found.items() if row.decision[parquet.RECIPIENT] == recipient_id}

    def _archived_events(self, workspace_id: str, event_ids: Iterable[str]) -> dict[str, str]:
        """Those of these events that are archived, with their types."""
        wanted = set(event_ids)
        if not wanted or not self.has_archive(workspace_id):
            return {}
        found = self._found(workspace_id, [key_of("event", one) for one in wanted])
        return {event[0]: event[_KIND] for row in found.values() for event in row.events if event[0] in wanted}

    # --- single decisions

    def decision(self, workspace_id: str, decision_id: str) -> Decision | None:
        """See ``storage.port``."""
        found = super().decision(workspace_id, decision_id)
        if found is not None:
            return found
        archived = self._by_id(workspace_id, (decision_id,)).values()
        return next((decision_from(workspace_id, row.decision) for row in archived), None)

    def decisions_by_id(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Decision]:
        """See ``storage.port``."""
        found = super().decisions_by_id(workspace_id, decision_ids)
        for row in self._by_id(workspace_id, set(decision_ids) - found.keys()).values():
            found[row.decision[0]] = decision_from(workspace_id, row.decision)
        return found

    def named(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Named]:
        """See ``storage.bulk``."""
        found = super().named(workspace_id, decision_ids)
        for row in self._by_id(workspace_id, set(decision_ids) - found.keys()).values():
            found[row.decision[0]] = Named.of(decision_from(workspace_id, row.decision))
        return found

    def replies(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, list[Reply]]:
        """See ``storage.bulk``."""
        found = super().replies(workspace_id, decision_ids)
        for row in self._by_id(workspace_id, set(decision_ids) - found.keys()).values():
            if row.events:
                found[row.decision[0]] = [
                    Reply(event[_KIND], bool(event[_AUTOMATED]), event[_WORDS] is not None) for event in row.events
                ]
        return found

    def decisions_by_message(
        self, workspace_id: str, provider: str, message_ids: Sequence[str], *, recipient_id: str | None = None
    ) -> tuple[Decision, ...]:
        """See ``storage.port``; of messages that share an id some may be archived, and others not."""
        found = super().decisions_by_message(workspace_id, provider, message_ids, recipient_id=recipient_id)
        if len(found) > 1 or not self.has_archive(workspace_id):
            return found
        keys = [key_of("message", provider, one) for one in message_ids]
        rows = sorted((r.decision for r in self._found(workspace_id, keys).values()), key=itemgetter(SEQ), reverse=True)
        told = {(provider, one) for one in message_ids}
        right = [decision_from(workspace_id, r) for r in rows if (r[parquet.PROVIDER], r[parquet.MESSAGE]) in told]
        return of_two_people([*found, *(one for one in right if recipient_id in (None, one.recipient_id))])

    def events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """See ``storage.port``."""
        found = super().events(workspace_id, decision)
        archived = [
            event_from(workspace_id, event)
            for row in self._by_id(workspace_id, (decision.decision_id,)).values()
            for event in row.events
        ]
        return tuple(sorted((*found, *archived), key=_order)) if archived else found

    def known_events(self, workspace_id: str, event_ids: Sequence[str]) -> dict[str, str]:
        """See ``storage.port``. The tables are asked first: what goes to the archive meanwhile was seen there, and what
        comes back is met there when it is to be stored."""
        archived = self.ask(partial(self.has_archive, workspace_id))
        found = super().known_events(workspace_id, event_ids)
        return found | self._archived_events(workspace_id, set(event_ids) - found.keys()) if archived() else found

    def events_about(self, workspace_id: str, recipient_id: str) -> tuple[tuple[Event, JsonObject], ...]:
        """See ``storage.erasure``."""
        found = list(super().events_about(workspace_id, recipient_id))
        for row in self._by_recipient(workspace_id, recipient_id).values():
            found += [(event_from(workspace_id, one), unpack_object(one[-2]).get(_SAID, {})) for one in row.events]
        return tuple(sorted(found, key=lambda one: _order(one[0])))

    # --- lists and streams

    def decisions(
        self,
        workspace_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        campaign_id: str | None = None,
        recipient_id: str | None = None,
        status: str | None = None,
    ) -> Page[Decision]:
        """See ``storage.port``; files are read where the tables' page reaches back to them."""
        page = super().decisions(
            workspace_id,
            limit=limit,
            cursor=cursor,
            campaign_id=campaign_id,
            recipient_id=recipient_id,
            status=status,
        )
        if status in OPEN:
            return page
        below: tuple[int, int] | None = None
        if cursor is not None:
            time, number = decode_cursor("decisions", cursor, (int, int))
            below = (int(time), int(number))
        floor = None if page.cursor is None else to_micros(page.items[-1].decided_at)

        def meant(row: Row) -> bool:
            return (
                (below is None or (row[parquet.DECIDED], row[SEQ]) < below)
                and (campaign_id is None or row[parquet.CAMPAIGN] == campaign_id)
                and (status is None or codec.STATUSES[row[parquet.STATUS]] == status)
            )

        if recipient_id is not None:
            rows = [row.decision for row in self._by_recipient(workspace_id, recipient_id).values()]
            archived: Iterable[Row] = sorted(rows, key=_time_and_number, reverse=True)
        else:
            archived = self._newest_first(workspace_id, floor, None if below is None else below[0])
        more = [decision_from(workspace_id, row) for row in islice((one for one in archived if meant(one)), limit + 1)]
        if not more:
            return page
        found = sorted((*page.items, *more), key=lambda one: (one.decided_at, one.position), reverse=True)
        if page.cursor is None and len(found) <= limit:
            return Page(tuple(found), None)
        last = found[limit - 1]
        return Page(tuple(found[:limit]), encode_cursor("decisions", (to_micros(last.decided_at), last.position)))

    def _newest_first(self, workspace_id: str, floor: int | None, ceiling: int | None) -> Iterator[Row]:
        """Archived decisions from ``ceiling`` back to ``floor``, of one time by number, the highest first."""
        files = [
            file
            for file in self.archive_files(workspace_id)
            if (floor is None or file.last >= floor) and (ceiling is None or file.first <= ceiling)
        ]
        for cluster in reversed(clusters(files)):
            streams = [self._backwards(file, floor, ceiling) for file in cluster]
            rows = merge(*streams, key=_time, reverse=True)
            for _, tied in groupby(rows, key=_time):
                yield from sorted(tied, key=_time_and_number, reverse=True)

    def _backwards(self, file: ArchiveFile, floor: int | None, ceiling: int | None) -> Iterator[Row]:
        for number, group in reversed(list(enumerate(file.contents.groups))):
            if (ceiling is None or group.times[0] <= ceiling) and (floor is None or group.times[1] >= floor):
                for _, row in reversed(list(self._group(file, number))):
                    yield row.decision

    def feedback(
        self,
        workspace_id: str,
        *,
        campaign_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        imported: bool | None = None,
    ) -> Iterator[FeedbackRow]:
        """See ``storage.port``."""
        stored = super().feedback(workspace_id, campaign_id=campaign_id, since=since, until=until, imported=imported)
        first = None if since is None else to_micros(since)
        past = None if until is None else to_micros(until)
        files = [
            file
            for file in self.archive_files(workspace_id)
            if (first is None or file.last >= first) and (past is None or file.first < past)
        ]
        if not files:
            return stored

        def meant(row: Row) -> bool:
            return (
                (first is None or row[parquet.DECIDED] >= first)
                and (past is None or row[parquet.DECIDED] < past)
                and (campaign_id is None or row[parquet.CAMPAIGN] == campaign_id)
                and (imported is None or bool(row[parquet.IMPORTED]) == imported)
            )

        archived = self._feedback_of(workspace_id, files, campaign_id, meant)
        return merge(stored, archived, key=lambda row: (row.decision.decided_at, row.decision.decision_id))

    def _feedback_of(
        self,
        workspace_id: str,
        files: Sequence[ArchiveFile],
        campaign_id: str | None,
        meant: Callable[[Row], bool],
    ) -> Iterator[FeedbackRow]:
        for cluster in clusters(files):
            rows = merge(
                *(self._forwards(file, campaign_id) for file in cluster),
                key=lambda row: (row.decision[parquet.DECIDED], row.decision[0]),
            )
            kept = (row for row in rows if meant(row.decision))
            while chunk := list(islice(kept, CHUNK)):
                naming = {row.decision[0]: row.events for row in chunk}
                yield from self._with_events(workspace_id, [row.decision for row in chunk], naming)

    def _forwards(self, file: ArchiveFile, campaign_id: str | None) -> Iterator[Archived]:
        for number, group in enumerate(file.contents.groups):
            if campaign_id is None or campaign_id in group.campaigns:
                for _, row in self._group(file, number):
                    yield row


def _time(row: Row) -> int:
    at: int = row[parquet.DECIDED]
    return at


def _time_and_number(row: Row) -> tuple[int, int]:
    return row[parquet.DECIDED], row[SEQ]


def _order(event: Event) -> tuple[datetime, str]:
    return event.occurred_at, event.event_id
