"""Moving old decisions into files, and back: see ``storage.archive``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from storage import parquet
from storage.archive import Archived, ArchiveFile
from storage.blocks import BLOCK
from storage.bulk import NewEvents, NewLogged
from storage.codec import to_micros
from storage.errors import AlreadyExists, OneByOne, VersionConflict
from storage.log import Decision, Event, Message
from storage.records import JsonObject, Recipient
from storage.sql.archive_places import At, keys_of
from storage.sql.archive_tables import CLEANED, CLEANING_WANTED, ArchiveReader
from storage.sql.bulk_tables import BulkWriter
from storage.sql.decision_tables import DecisionWriter
from storage.sql.erasure_tables import ErasureWriter
from storage.sql.retention import FREE_EVENTS, RetentionWriter
from storage.sql.tables import Row
from storage.sql.webhook_tables import WebhookWriter

_TAKEN: Final = "one of these decisions is stored already, in the archive"
_DELETE_EVENTS: Final = "DELETE FROM events WHERE workspace_id = ? AND decision_id = ?"
_DELETE_DECISION: Final = "DELETE FROM decisions WHERE workspace_id = ? AND decision_id = ?"
_ADD_KEY: Final = "INSERT INTO archive_keys (workspace_id, name, number, place) VALUES (?, ?, ?, ?)"
_DELETE_KEY: Final = "DELETE FROM archive_keys WHERE workspace_id = ? AND name = ? AND number = ? AND place = ?"
_ADD_GONE: Final = "INSERT INTO archive_gone (workspace_id, number, place, cleaned) VALUES (?, ?, ?, 0)"
_CLEANED: Final = "UPDATE archive_gone SET cleaned = 1 WHERE workspace_id = ? AND number = ? AND place = ?"
_MOVED: Final = """
UPDATE archive_files SET moved = ? WHERE workspace_id = ? AND number = ? AND moved = ? RETURNING number
"""
_CLEAN_FILE: Final = """
UPDATE archive_files SET path = ?, checksum = ? WHERE workspace_id = ? AND number = ? AND path = ? AND checksum = ?
RETURNING number
"""


def _insert(table: str, columns: Sequence[str]) -> str:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of this package


_PUT_DECISION: Final = _insert("decisions", (*parquet.DECISION, "workspace_id"))
_PUT_EVENT: Final = (
    _insert("events", (*parquet.EVENT, "workspace_id")) + " ON CONFLICT (workspace_id, event_id) DO NOTHING"
)
_NAMESAKE: Final = "SELECT seq, received_at FROM events WHERE workspace_id = ? AND event_id = ?"
_DELETE_EVENT: Final = "DELETE FROM events WHERE workspace_id = ? AND event_id = ?"
_NUMBER_TAKEN: Final = "SELECT 1 FROM events WHERE seq = ?"
_DROP: Final = (
    "DELETE FROM archive_files WHERE workspace_id = ? AND number = ?",
    "DELETE FROM archive_gone WHERE workspace_id = ? AND number = ?",
)
_DROP_MESSAGE: Final = "DELETE FROM messages WHERE workspace_id = ? AND recipient_id = ? AND at = ? AND message_ref = ?"
_USES: Final = "UPDATE policy_uses SET decisions = decisions - ? WHERE workspace_id = ? AND policy_id = ?"
_RECEIVED: Final = parquet.EVENT.index("received_at")
_POLICY, _SHADOW, _MESSAGE_AT = (parquet.DECISION.index(one) for one in ("policy_id", "shadow_policy_id", "message_at"))


class ArchiveWriter(ArchiveReader, BulkWriter, DecisionWriter, ErasureWriter, RetentionWriter, WebhookWriter):
    """What changes in the archive; and every change of the log, which first brings back what it is about."""

    def _forget_archive(self) -> None:
        """What was read of the archive has changed."""
        for name in ("_archive_any", "_archive_files", "_archive_gone"):
            self.__dict__.pop(name, None)

    # --- files

    def put_archive_file(self, file: ArchiveFile) -> None:
        """See ``storage.archive``."""
        self._upsert(
            "archive_files",
            {"workspace_id": file.workspace_id, "number": file.number},
            {
                **{name: getattr(file, name) for name in ("path", "rows", "moved", "first", "last", "checksum")},
                "contents": msgspec.json.encode(file.contents),
            },
        )
        self._forget_archive()

    def move_to_archive(self, file: ArchiveFile, rows: Sequence[Archived]) -> int:
        """See ``storage.archive``."""
        whose, number = file.workspace_id, file.number
        ids = [row.decision[0] for row in rows]
        self.decisions_by_id(whose, ids)  # who changes one of them waits from now on
        stored = self._stored(whose, ids)
        places = {row.decision[0]: file.moved + i for i, row in enumerate(rows)}
        same = [row for row in rows if stored.get(row.decision[0]) == row]
        if not self._rows(_MOVED, (file.moved + len(rows), whose, number, file.moved)):
            raise VersionConflict(f"archive file {file.path}: somebody else moved rows of it meanwhile")
        keys = [(whose, key, number, places[row.decision[0]]) for row in same for key in keys_of(row)]
        going = [(whose, row.decision[0]) for row in same]
        self._query_many(_DELETE_EVENTS, going)
        self._query_many(_DELETE_DECISION, going)
        self._query_many(_ADD_KEY, keys)
        gone = places.keys() - {row.decision[0] for row in same}
        self._query_many(_ADD_GONE, [(whose, number, places[one]) for one in sorted(gone)])
        self._forget_archive()
        return len(same)

    def give_up_moving(self, file: ArchiveFile) -> None:
        """See ``storage.archive``."""
        rest = range(file.moved, file.rows)
        if self._rows(_MOVED, (file.rows, file.workspace_id, file.number, file.moved)):
            self._query_many(_ADD_GONE, [(file.workspace_id, file.number, place) for place in rest])
        self._forget_archive()

    def put_clean_file(self, old: ArchiveFile, new: ArchiveFile, rows: Sequence[int]) -> None:
        """See ``storage.archive``."""
        whose, number = old.workspace_id, old.number
        if not self._rows(_CLEAN_FILE, (new.path, new.checksum, whose, number, old.path, old.checksum)):
            raise VersionConflict(f"archive file {old.path}: it was dropped or rewritten meanwhile")
        self._query_many(_CLEANED, [(whose, number, place) for place in rows])
        self._forget_archive()

    def want_cleaning(self, workspace_id: str) -> None:
        """See ``storage.archive``."""
        self._next(workspace_id, CLEANING_WANTED)

    def note_cleaned(self, workspace_id: str, mark: int) -> None:
        """See ``storage.archive``."""
        self._upsert("counters", {"workspace_id": workspace_id, "name": CLEANED}, {"value": mark})

    # --- back into the tables

    def bring_back(self, workspace_id: str, recipient_id: str) -> int:
        """See ``storage.archive``."""
        return self._put_back(workspace_id, self._by_recipient(workspace_id, recipient_id))

    def _revive(self, workspace_id: str, decision_ids: Iterable[str | None]) -> None:
        """Brings back those of these decisions that are archived."""
        found = self._by_id(workspace_id, {one for one in decision_ids if one is not None})
        if found:
            # Another write may have brought them back while this one waited for it.
            self.decisions_by_id(workspace_id, [row.decision[0] for row in found.values()])
            self._forget_archive()
            self._put_back(workspace_id, self._by_id(workspace_id, [row.decision[0] for row in found.values()]))

    def _put_back(self, workspace_id: str, found: Mapping[At, Archived]) -> int:
        for at, row in found.items():
            self._query(_PUT_DECISION, (*row.decision, workspace_id))
            for event in row.events:
                self._put_back_event(workspace_id, event)
            self._query_many(_DELETE_KEY, [(workspace_id, key, *at) for key in keys_of(row)])
            self._query(_ADD_GONE, (workspace_id, *at))
        if found:
            self._forget_archive()
        return len(found)

    def _put_back_event(self, workspace_id: str, event: Row) -> None:
        seq = event[parquet.EVENT_SEQ]
        if self._row(_NUMBER_TAKEN, (seq,)) is None:
            stored = self._query(_PUT_EVENT, (*event, workspace_id)).rowcount > 0
        else:
            # Numbers of deleted events are given anew on SQLite; then it gets the next, and its old block has changed.
            unnumbered = _PUT_EVENT.replace(", seq", "").replace("?, ", "", 1)
            stored = self._query(unnumbered, (*event[:-1], workspace_id)).rowcount > 0
            self._count_rewrite(workspace_id, "events", seq)
        if not stored:
            self._keep_first(workspace_id, event)

    def _keep_first(self, workspace_id: str, event: Row) -> None:
        """Of an archived event and one of its id in the tables, which was stored without being known again, the one
        that was received first stays: it counts once, as if none had been archived. It keeps the other's number, so
        that the newest number stays taken."""
        seq, received = self._rows(_NAMESAKE, (workspace_id, event[0]))[0]
        self._count_rewrite(workspace_id, "events", event[parquet.EVENT_SEQ])
        if received < event[_RECEIVED]:
            return
        self._count_rewrite(workspace_id, "events", seq)
        self._query(_DELETE_EVENT, (workspace_id, event[0]))
        self._query(_PUT_EVENT, (*event[:-1], seq, workspace_id))

    # --- events that are known already

    def known_events(self, workspace_id: str, event_ids: Sequence[str]) -> dict[str, str]:
        """See ``storage.port``; what was found to be new is not looked up again when it is stored."""
        found = super().known_events(workspace_id, event_ids)
        if self.has_archive(workspace_id):
            self._looked_up(workspace_id).update(one for one in event_ids if one not in found)
        return found

    def _looked_up(self, workspace_id: str) -> set[str]:
        """The ids of events that this transaction has found to be new."""
        seen: dict[str, set[str]] = self.__dict__.setdefault("_new_events", {})
        return seen.setdefault(workspace_id, set())

    def _taken(self, workspace_id: str, event_ids: Sequence[str]) -> set[str]:
        """Where there is an archive: those of these events that are stored, before they are stored again."""
        if not self.has_archive(workspace_id):
            return set()  # the tables tell as they are stored
        new = self._looked_up(workspace_id)
        return set(self.known_events(workspace_id, [one for one in event_ids if one not in new]))

    def _require_new(self, workspace_id: str, event_ids: Sequence[str]) -> None:
        """After they were stored in the tables; ``OneByOne`` when one of them is archived."""
        new = self._looked_up(workspace_id)
        if self._archived_events(workspace_id, [one for one in event_ids if one not in new]):
            raise OneByOne("one of these events is in the archive")

    # --- whoever changes the log

    def add_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        if self._by_id(decision.workspace_id, (decision.decision_id,)):
            raise AlreadyExists(_TAKEN)
        super().add_decision(decision, message)

    def add_decisions(self, rows: Sequence[tuple[Decision, Message | None]], told: Sequence[Recipient] = ()) -> None:
        """See ``storage.port``."""
        ids: dict[str, list[str]] = {}
        for decision, _ in rows:
            ids.setdefault(decision.workspace_id, []).append(decision.decision_id)
        archived = [self.ask(partial(self._by_id, one, named)) for one, named in ids.items()]
        if told:
            self.put_recipients(told)
        if any(found() for found in archived):
            raise AlreadyExists(_TAKEN)
        super().add_decisions(rows)

    def add_new_logged(self, workspace_id: str, logged: NewLogged) -> None:
        """See ``storage.bulk``."""
        if self._by_id(workspace_id, logged.ids):
            raise OneByOne("one of these decisions is in the archive")
        super().add_new_logged(workspace_id, logged)
        self._require_new(workspace_id, logged.outcomes.ids)

    def update_decision(self, decision: Decision, message: Message | None) -> None:
        """See ``storage.port``."""
        self._revive(decision.workspace_id, (decision.decision_id,))
        super().update_decision(decision, message)

    def erase_decision(self, decision: Decision) -> None:
        """See ``storage.erasure``."""
        self._revive(decision.workspace_id, (decision.decision_id,))
        super().erase_decision(decision)

    def add_message(self, message: Message) -> bool:
        """See ``storage.port``."""
        self._revive(message.workspace_id, (message.message_ref,))
        return super().add_message(message)

    def add_event(self, event: Event) -> bool:
        """See ``storage.port``."""
        self._revive(event.workspace_id, (event.decision_id,))
        return not self._taken(event.workspace_id, (event.event_id,)) and super().add_event(event)

    def add_events(self, events: Sequence[Event]) -> int:
        """See ``storage.port``."""
        taken: set[tuple[str, str]] = set()
        for workspace_id in {event.workspace_id for event in events}:
            own = [one for one in events if one.workspace_id == workspace_id]
            self._revive(workspace_id, [one.decision_id for one in own])
            taken.update((workspace_id, one) for one in self._taken(workspace_id, [one.event_id for one in own]))
        return super().add_events([one for one in events if (one.workspace_id, one.event_id) not in taken])

    def add_new_events(self, workspace_id: str, events: NewEvents) -> None:
        """See ``storage.bulk``."""
        self._revive(workspace_id, events.decisions)
        archived = self.ask(partial(self.has_archive, workspace_id))
        super().add_new_events(workspace_id, events)
        if archived():
            self._require_new(workspace_id, events.ids)

    def add_vendor_event(self, event: Event, vendor: str, words: JsonObject) -> bool:
        """See ``storage.webhooks``."""
        self._revive(event.workspace_id, (event.decision_id,))
        return not self._taken(event.workspace_id, (event.event_id,)) and super().add_vendor_event(event, vendor, words)

    def join_event(self, event: Event) -> Event | None:
        """See ``storage.webhooks``."""
        self._revive(event.workspace_id, (event.decision_id,))
        return super().join_event(event)

    def match_events(self, workspace_id: str, decision: Decision) -> tuple[Event, ...]:
        """See ``storage.port``."""
        self._revive(workspace_id, (decision.decision_id,))
        return super().match_events(workspace_id, decision)

    # --- retention

    def prune(
        self, workspace_id: str, before: datetime, *, counting_from: datetime | None = None, limit: int | None = None
    ) -> int:
        """See ``storage.retention``; a file goes once all of it is old enough."""
        old = to_micros(before)
        files = self.archive_files(workspace_id)
        over = (file for file in files if file.last < old and file.moved == file.rows)
        idle = (file for file in over if counting_from is None or not self._counts(file, to_micros(counting_from)))
        going = list(islice(idle, None if limit is None else 1))
        bound = min([old, *(file.first for file in files if file not in going)])
        dropped = sum(self._drop(file, bound) for file in going)
        if limit is not None and dropped:
            return dropped
        return dropped + super().prune(workspace_id, before, counting_from=counting_from, limit=limit)

    def _oldest_archived(self, workspace_id: str) -> int:
        return min([super()._oldest_archived(workspace_id), *(one.first for one in self.archive_files(workspace_id))])

    def _counts(self, file: ArchiveFile, since: int) -> bool:
        """Whether a message of the file's decisions is as young as that."""
        return any((row.decision[_MESSAGE_AT] or since - 1) >= since for _, row in self._rows_of(file))

    def _rows_of(self, file: ArchiveFile) -> list[tuple[int, Archived]]:
        return [one for group in range(len(file.contents.groups)) for one in self._group(file, group)]

    def _drop(self, file: ArchiveFile, bound: int) -> int:
        whose = file.workspace_id
        rows = self._rows_of(file)
        uses: Counter[str] = Counter()
        for _, row in rows:
            uses.update(one for one in (row.decision[_POLICY], row.decision[_SHADOW]) if one is not None)
        self._query_many(_USES, [(count, whose, policy_id) for policy_id, count in uses.items()])
        told = [
            (whose, row.decision[parquet.RECIPIENT], row.decision[_MESSAGE_AT], row.decision[0])
            for _, row in rows
            if row.decision[_MESSAGE_AT] is not None
        ]
        self._note_forgotten(whose, max((at for _, _, at, _ in told), default=None))
        self._query_many(_DROP_MESSAGE, told)
        self._query_many(_DELETE_KEY, [(whose, key, file.number, p) for p, r in rows for key in keys_of(r)])
        for statement in _DROP:
            self._query(statement, (whose, file.number))
        self._forget_archive()
        for who in sorted({row.decision[parquet.RECIPIENT] for _, row in rows}):
            span = (whose, who, bound)
            self._count_all("events", FREE_EVENTS, span)
            self._query("DELETE " + FREE_EVENTS, span)
        for block in file.contents.decisions:
            self._count_rewrite(whose, "decisions", block * BLOCK)
        for block in file.contents.events:
            self._count_rewrite(whose, "events", block * BLOCK)
        return len(rows)
