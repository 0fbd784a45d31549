"""Erasing a person, as a store does it: what names them is rewritten in place, so that sums and order stay.

The store moves and overwrites; what is left of a decision or an event is decided above it
(``optimizer.service.erasing``). What is overwritten or deleted must not be found in the store's files any more once
``Store.scrub`` has said so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from storage.log import Decision, Event
from storage.records import JsonObject


class ErasureReader(Protocol):
    """Queries on everything about one person; part of ``storage.port.Reader``."""

    def events_about(self, workspace_id: str, recipient_id: str) -> tuple[tuple[Event, JsonObject], ...]:
        """Every event that names the recipient or a decision of theirs, matched or not, by occurrence, then id; each
        with what a vendor said of it ({} = no vendor)."""


class ErasureWriter(ErasureReader, Protocol):
    """Changes that take a person out of the log; part of ``storage.port.Writer``."""

    def erase_decision(self, decision: Decision) -> None:
        """Gives the stored decision of this id the recipient, request, message id, closing reason and snapshot of this
        one; status, times and what the store itself assigned stay. ``VersionConflict`` when it is not stored."""

    def erase_event(self, event_id: str, event: Event) -> None:
        """Puts ``event`` in the place of the stored event of that id; a vendor's words for it go."""

    def drop_events(self, workspace_id: str, event_ids: Sequence[str]) -> None:
        """Deletes events."""

    def hand_over_messages(self, workspace_id: str, recipient_id: str, heir: str, refs: Mapping[str, str]) -> None:
        """Gives the recipient's messages to ``heir``, who has none; those of other systems get the references that
        ``refs`` maps theirs to. What shared limits count stays."""

    def erase_changes(self, workspace_id: str, details: Mapping[str, str]) -> None:
        """Gives the changes of these decisions that are told of an event, or by a caller, another ``detail``."""

    def forget_recipient(self, workspace_id: str, recipient_id: str) -> None:
        """Deletes the record, the weekly rhythm and the count of unanswered messages."""


class Scrubbing(Protocol):
    """Part of ``storage.port.Store``."""

    def scrub(self, words: Collection[str] = ()) -> bool:
        """Removes from the store's files what was overwritten and deleted; False while somebody still reads it there
        (ask again later). Its cost may grow with the store.

        Args:
            words: what must not be found any more, such as ids and attributes of someone who was erased.

        Raises:
            StoreUnavailable: the store can't be used.
        """
