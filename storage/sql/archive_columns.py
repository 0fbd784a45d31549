"""Columns and blocks of a log of which a part lies in files: see ``storage.archive``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Final

from storage import parquet
from storage.archive import Archived, ArchiveFile
from storage.blocks import BLOCK
from storage.codec import to_micros
from storage.columns import DecisionColumns, EventColumns
from storage.sql.archive_tables import ArchiveReader
from storage.sql.block_tables import BlockReader, Log
from storage.sql.column_tables import CHUNK, ColumnReader, free_events, turned, turned_events
from storage.sql.decision_rows import SEQ
from storage.sql.tables import Row

_TYPE, _OCCURRED, _RECIPIENT, _VALUE, _AUTOMATED, _PROPERTIES = (
    parquet.EVENT.index(name) for name in ("type", "occurred_at", "recipient_id", "value", "automated", "properties")
)
#: Where the values of ``DECISION_VALUES`` are in a decision's row; -1 stands for an unknown planned or real time.
_VALUES: Final = tuple(
    parquet.DECISION.index(name)
    for name in (
        *("seq", "recipient_id", "campaign_version", "status", "control_group", "mode", "decided_at", "variant_id"),
        *("channel", "send_at", "sent_at", "detail"),
    )
)
_PLANNED, _SENT = (parquet.DECISION.index(name) for name in ("send_at", "sent_at"))


class ArchiveColumnReader(ArchiveReader, BlockReader, ColumnReader):
    """A campaign's log as columns and by the block."""

    def decision_columns(
        self, workspace_id: str, campaign_id: str, since: datetime, until: datetime
    ) -> Iterator[DecisionColumns]:
        """See ``storage.port``."""
        yield from super().decision_columns(workspace_id, campaign_id, since, until)
        chunk: list[Row] = []
        for row in self._own(workspace_id, campaign_id, since, until):
            chunk.append(_decision(row))
            if len(chunk) == CHUNK:
                yield turned(chunk)
                chunk = []
        if chunk:
            yield turned(chunk)

    def event_columns(
        self,
        workspace_id: str,
        campaign_id: str,
        since: datetime,
        until: datetime,
        *,
        types: Collection[str],
        properties_of: Collection[str] = (),
    ) -> Iterator[EventColumns]:
        """See ``storage.port``."""
        own = self._own(workspace_id, campaign_id, since, until)
        told = set(properties_of)
        rows: list[Row] = []
        strangers: set[str] = set()
        for row in own:
            strangers.add(row.decision[parquet.RECIPIENT])
            rows += [(row.decision[SEQ], None, *_event(event, told)) for event in _meant(row, types)]
        mine: set[str] = set()
        for chunk in super().event_columns(
            workspace_id, campaign_id, since, until, types=types, properties_of=properties_of
        ):
            mine.update(who for who in chunk.recipient if who is not None)
            yield chunk
        # Events that name recipients alone, of those who have no such decision in the tables any more.
        if strangers and types:
            for found in self._free_rows(workspace_id, campaign_id, since, sorted(strangers - mine), types, told):
                rows.append(found)
        for start in range(0, len(rows), CHUNK):
            yield turned_events(rows[start : start + CHUNK])

    def _free_rows(
        self,
        workspace_id: str,
        campaign_id: str,
        since: datetime,
        recipients: list[str],
        types: Collection[str],
        told: Collection[str],
    ) -> Iterator[Row]:
        statement, after = free_events(campaign_id, since, types)
        for who, *event in self._rows_in(statement, (workspace_id,), recipients, after):
            yield (None, who, *event[:3], event[3] if event[0] in told else None)

    def _own(self, workspace_id: str, campaign_id: str, since: datetime, until: datetime) -> Iterator[Archived]:
        """The campaign's archived decisions of a time, none imported."""
        first, past = map(to_micros, (since, until))
        for file in self.archive_files(workspace_id):
            if campaign_id not in file.contents.campaigns or file.last < first or file.first >= past:
                continue
            for number, group in enumerate(file.contents.groups):
                if campaign_id in group.campaigns and group.times[1] >= first and group.times[0] < past:
                    for _, row in self._group(file, number):
                        if _own(row, campaign_id) and first <= row.decision[parquet.DECIDED] < past:
                            yield row

    # --- blocks

    def has_decisions(self, workspace_id: str, campaign_id: str, count: int) -> bool:
        """See ``storage.blocks``."""
        archived = sum(self._count(file, campaign_id) for file in self.archive_files(workspace_id))
        return archived >= count or super().has_decisions(workspace_id, campaign_id, count - archived)

    def has_answers(self, workspace_id: str) -> bool:
        """See ``storage.blocks``."""
        return super().has_answers(workspace_id) or any(
            row.events
            for file in self.archive_files(workspace_id)
            for number, group in enumerate(file.contents.groups)
            if group.events[1] >= 0
            for _, row in self._group(file, number)
        )

    def _count(self, file: ArchiveFile, campaign_id: str) -> int:
        """How many rows of a campaign count; a file of which all rows do says so itself."""
        count = file.contents.campaigns.get(campaign_id, 0)
        if not count or (file.moved == file.rows and file.number not in self.archive_gone(file.workspace_id)):
            return count
        groups = [n for n, group in enumerate(file.contents.groups) if campaign_id in group.campaigns]
        rows = (row for number in groups for _, row in self._group(file, number))
        return sum(row.decision[parquet.CAMPAIGN] == campaign_id for row in rows)

    def _last_rows(self, workspace_id: str, log: Log, last: str) -> dict[int, Row]:
        found = super()._last_rows(workspace_id, log, last)
        for file in self.archive_files(workspace_id):
            for block, mark in (file.contents.decisions if log == "decisions" else file.contents.events).items():
                if block not in found or found[block][0] < mark[0]:
                    found[block] = mark
        return found

    def _decisions_in_block(self, workspace_id: str, campaign_id: str, block: int) -> list[Row]:
        rows = super()._decisions_in_block(workspace_id, campaign_id, block)
        archived = [
            _decision(row)
            for row in self._of_block(workspace_id, campaign_id, "decisions", block)
            if row.decision[SEQ] // BLOCK == block
        ]
        return sorted((*rows, *archived), key=_number) if archived else rows

    def _events_in_block(
        self, workspace_id: str, campaign_id: str, block: int, types: Collection[str], properties_of: Collection[str]
    ) -> list[Row]:
        rows = super()._events_in_block(workspace_id, campaign_id, block, types, properties_of)
        archived = [
            (event[parquet.EVENT_SEQ], row.decision[SEQ], event[_RECIPIENT], *_event(event, set(properties_of)), False)
            for row in self._of_block(workspace_id, campaign_id, "events", block)
            for event in _meant(row, types)
            if event[parquet.EVENT_SEQ] // BLOCK == block
        ]
        return sorted((*rows, *archived), key=_number) if archived else rows

    def _of_block(self, workspace_id: str, campaign_id: str, log: Log, block: int) -> Iterator[Archived]:
        """The campaign's own archived decisions in row groups that reach into a block of either log."""
        for file in self.archive_files(workspace_id):
            if campaign_id not in file.contents.campaigns:
                continue
            for number, group in enumerate(file.contents.groups):
                first, last = group.decisions if log == "decisions" else group.events
                if campaign_id in group.campaigns and first // BLOCK <= block <= last // BLOCK:
                    for _, row in self._group(file, number):
                        if _own(row, campaign_id):
                            yield row


def _own(row: Archived, campaign_id: str) -> bool:
    """Whether it is a decision of this campaign that was made here."""
    return row.decision[parquet.CAMPAIGN] == campaign_id and not row.decision[parquet.IMPORTED]


def _decision(row: Archived) -> Row:
    """The row's values of ``DECISION_VALUES``."""
    d = row.decision
    return tuple(-1 if place in (_PLANNED, _SENT) and d[place] is None else d[place] for place in _VALUES)


def _meant(row: Archived, types: Collection[str]) -> Iterator[Row]:
    return (event for event in row.events if event[_TYPE] in types and not event[_AUTOMATED])


def _event(event: Row, told: Collection[str]) -> Row:
    properties = event[_PROPERTIES] if event[_TYPE] in told else None
    return event[_TYPE], event[_OCCURRED], event[_VALUE], properties


def _number(row: Row) -> int:
    number: int = row[0]
    return number
