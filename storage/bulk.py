"""Rows that are stored as they come, many at once: packed by ``storage.codec`` already, no record is made of them.

Each method stores all of its rows, or raises ``OneByOne`` where one of them is not new; then the write is to be given
up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from storage.log import Named, Reply
from storage.rhythm import RhythmKind


@dataclass(frozen=True, slots=True)
class NewEvents:
    """Events that no vendor told, by column. Times in microseconds (``codec``); ``properties`` by
    ``codec.pack_object``. All are received at one moment. ``matched`` None: all of them are, and they name a recipient
    and neither decision nor message."""

    received_at: int
    ids: Sequence[str]
    types: Sequence[str]
    occurred_at: Sequence[int]
    recipients: Sequence[str | None]
    campaigns: Sequence[str | None]
    values: Sequence[float | None]
    automated: Sequence[bool]
    properties: Sequence[bytes | None]
    matched: Sequence[bool] | None = None
    decisions: Sequence[str | None] = ()
    providers: Sequence[str | None] = ()
    messages: Sequence[str | None] = ()

    @property
    def people(self) -> Sequence[str]:
        """``recipients``, where each event names one."""
        return cast("Sequence[str]", self.recipients)


@dataclass(frozen=True, slots=True)
class NewOutcomes:
    """What came of decisions, by column: the decision's place, and the event. All are received at one moment."""

    received_at: int
    places: Sequence[int]
    ids: Sequence[str]
    types: Sequence[str]
    occurred_at: Sequence[int]
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class NewLogged:
    """Imported decisions of one campaign, by column, with the messages that they hold and what came of them.

    Times are in microseconds, costs in micros; ``details`` by ``decision_codec``. No variant = nothing was sent.
    """

    campaign_id: str
    campaign_version: int
    category: str
    policy_id: str
    actions: int
    eligible: bytes
    ids: Sequence[str]
    request_ids: Sequence[str]
    recipients: Sequence[str]
    decided_at: Sequence[int]
    send_at: Sequence[int]
    propensities: Sequence[float | None]
    action: Sequence[int]
    variants: Sequence[str | None]
    channels: Sequence[str | None]
    costs: Sequence[int]
    details: Sequence[bytes]
    outcomes: NewOutcomes


class BulkReader(Protocol):
    """Part of ``storage.port.Reader``."""

    def timezones(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, str | None]:
        """The zones of those of the given recipients that exist."""

    def with_open_decisions(self, workspace_id: str, recipient_ids: Sequence[str]) -> set[str]:
        """Those of the given recipients who have reserved or claimed decisions."""

    def named(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, Named]:
        """Those of the given decisions that exist, in short."""

    def replies(self, workspace_id: str, decision_ids: Sequence[str]) -> dict[str, list[Reply]]:
        """The events that name one of these decisions, in no order, by decision (absent = none)."""

    def unprompted_hours(
        self, workspace_id: str, hours: Sequence[tuple[str, int]], but: Collection[str]
    ) -> set[tuple[str, int]]:
        """Those of the given hours, by recipient and beginning in microseconds, that hold an event of the recipient
        which names no decision and no message, comes from no machine, and is of none of the types in ``but``."""


class BulkWriter(Protocol):
    """Part of ``storage.port.Writer``."""

    def add_new_events(self, workspace_id: str, events: NewEvents) -> None:
        """Stores events; ``OneByOne`` when one of their ids is stored already or occurs twice."""

    def clear_all_unanswered(self, workspace_id: str, recipient_ids: Sequence[str]) -> None:
        """``clear_unanswered`` for many."""

    def add_to_rhythms(self, workspace_id: str, kind: RhythmKind, added: Sequence[tuple[str, int, float]]) -> None:
        """``add_to_rhythm`` for many: recipient, hour of the week, weight."""

    def add_new_recipients(self, workspace_id: str, recipient_ids: Sequence[str], documents: Sequence[bytes]) -> None:
        """Stores recipients in version 1 by their documents (``codec.pack_recipient``); ``OneByOne`` when one of them
        is stored already or named twice."""

    def add_new_logged(self, workspace_id: str, logged: NewLogged) -> None:
        """Stores decisions as sent (or as not to be sent), treated, live and imported, with messages and events;
        ``OneByOne`` when something of it is stored already or occurs twice, or a rule counts messages."""
