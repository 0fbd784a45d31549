"""What became of events that were reported, as a store keeps it: counts by day (UTC), by who reported, by result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Intake:
    """How many events a source reported on a day that ended so.

    ``source`` is ``api``, ``segment`` or a vendor; ``result`` e.g. ``accepted``, ``duplicate``, ``rejected.invalid``.
    """

    workspace_id: str
    day: date
    source: str
    result: str
    count: int


class IntakeQueries(Protocol):
    """Part of ``storage.port.Reader``."""

    def intake(self, workspace_id: str, since: date) -> tuple[Intake, ...]:
        """The counts from that day on, by day, source and result."""


class IntakeChanges(IntakeQueries, Protocol):
    """Part of ``storage.port.Writer``."""

    def count_intake(self, added: Sequence[Intake]) -> None:
        """Adds to the counts."""

    def drop_intake(self, before: date) -> None:
        """Forgets the counts of earlier days, in every workspace."""
