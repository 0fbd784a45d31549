"""Retention, as a store does it: what is deleted because of its age."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from storage.records import Recipient


class RetentionQueries(Protocol):
    """Part of ``storage.port.Reader``."""

    def recipients_after(self, workspace_id: str, after: str, *, limit: int) -> tuple[Recipient, ...]:
        """The next recipients behind an id ("" = from the first on), by id."""

    def forgotten_until(self, workspace_id: str) -> datetime | None:
        """The latest time of a message that ``prune`` deleted, or its latest ``before`` (None = it never ran): up to
        the period of this moment, sums count messages that are stored no more."""


class RetentionChanges(Protocol):
    """Part of ``storage.port.Writer``."""

    def last_retention(self, workspace_id: str) -> tuple[datetime | None, datetime | None]:
        """When retention last ran (None = never), and since when it has doubted the clock (None = it doesn't)."""

    def note_retention(self, workspace_id: str, at: datetime, *, doubted: bool = False) -> None:
        """Notes that retention runs, which ends its doubts, or else that it doubts the clock, which says ``at``."""

    def prune(
        self, workspace_id: str, before: datetime, *, counting_from: datetime | None = None, limit: int | None = None
    ) -> int:
        """Retention: deletes closed decisions made before ``before`` with their events and messages, policies and
        artifacts that nothing uses, and sums of periods that ended by ``before`` (see ``usage``); returns how many
        decisions went. The newest stays until one is newer, of the workspace or (one series of positions) of any. What
        the line of a revision that stays started from is in use.

        Args:
            workspace_id: whose.
            before: see above.
            counting_from: messages at or after this moment still count, so their decisions stay.
            limit: at most so many decisions go, the oldest first (or those of one file of the archive, all of them),
                each with what is its own; policies, artifacts and sums once no decision is left to go, which 0 says.
        """

    def prune_loose(self, workspace_id: str, before: datetime, *, limit: int) -> int:
        """Deletes what ``prune`` takes along with no decision, the oldest first: messages of other systems of before
        ``before``, and events that occurred before it and belong to no decision that is stored, in the tables or in the
        archive. At most ``limit`` of each; returns how many went in all (0 = none is left)."""

    def prune_runs(self, workspace_id: str, before: datetime, *, refreshes_before: datetime, limit: int) -> int:
        """Deletes training runs that are over: retrains of before ``before``, refreshes of before ``refreshes_before``,
        but for the newest run of all. At most ``limit``, the oldest first; returns how many went (0 = none is left)."""

    def prune_revisions(self, workspace_id: str, before: datetime, *, limit: int) -> int:
        """Deletes refreshed revisions of before ``before`` that nothing was decided under, with the artifacts that only
        they named: those that were superseded before it. What came from one comes from its parent from then on. At most
        ``limit``, the oldest first; returns how many went (0 = none is left)."""

    def prune_changes(self, workspace_id: str, before: datetime, *, told: int | None, limit: int) -> int:
        """Deletes the oldest entries of the change feed, up to the first of at or after ``before`` and to the position
        ``told`` (None = all of them), but for what became of policies that are stored. At most ``limit``; returns how
        many went (0 = none is left). Their positions never come again."""
