"""Rows that are stored as they come, many at once: packed by ``storage.codec`` already, no record is made of them.

Each method stores all of its rows, or none where one of them is not new: then they are to be stored one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from storage.rhythm import RhythmKind


@dataclass(frozen=True, slots=True)
class NewEvents:
    """Events that name a recipient and neither decision nor message, by column. Times in microseconds (``codec``);
    ``properties`` by ``codec.pack_object``. All are received at one moment."""

    received_at: int
    ids: Sequence[str]
    types: Sequence[str]
    occurred_at: Sequence[int]
    recipients: Sequence[str]
    campaigns: Sequence[str | None]
    values: Sequence[float | None]
    automated: Sequence[bool]
    properties: Sequence[bytes | None]


class BulkReader(Protocol):
    """Part of ``storage.port.Reader``."""

    def timezones(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, str | None]:
        """The zones of those of the given recipients that exist."""

    def unprompted_hours(
        self, workspace_id: str, hours: Sequence[tuple[str, int]], but: Collection[str]
    ) -> set[tuple[str, int]]:
        """Those of the given hours, by recipient and beginning in microseconds, that hold an event of the recipient
        which names no decision and no message, comes from no machine, and is of none of the types in ``but``."""


class BulkWriter(Protocol):
    """Part of ``storage.port.Writer``."""

    def add_new_events(self, workspace_id: str, events: NewEvents) -> bool:
        """Stores events; False, and nothing stored, when one of their ids is stored already or occurs twice."""

    def add_to_rhythms(self, workspace_id: str, added: Sequence[tuple[str, RhythmKind, int, float]]) -> None:
        """``add_to_rhythm`` for many: recipient, kind, hour of the week, weight."""

    def add_new_recipients(self, workspace_id: str, recipient_ids: Sequence[str], documents: Sequence[bytes]) -> bool:
        """Stores recipients in version 1 by their documents (``codec.pack_recipient``); False, and nothing stored, when
        one of them is stored already or named twice."""
