"""What a store keeps of a recipient's weekly rhythm: sums of weights by local hour of the week.

A weight grows with time, 2^(t / half-life) for something that happened at t, so that a sum never needs to be aged: at
any later moment all of it is divided by that moment's weight. Sums don't depend on the order of what is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol, get_args

#: ``active``: something unprompted. ``sent``: a message, at the hour it went out; ``answered``: one that was answered.
RhythmKind = Literal["active", "answered", "sent"]
RHYTHM_KINDS: Final[tuple[RhythmKind, ...]] = get_args(RhythmKind)
HOURS_OF_WEEK: Final = 168


@dataclass(frozen=True, slots=True)
class RhythmSum:
    """One sum of a recipient. ``hour``: of the week on the recipient's wall clock, 0 = Monday 00:00–01:00."""

    kind: RhythmKind
    hour: int
    weight: float

    def __post_init__(self) -> None:
        if self.kind not in RHYTHM_KINDS:
            raise ValueError(f"kind is {self.kind!r}; allowed: {', '.join(RHYTHM_KINDS)}")
        if not 0 <= self.hour < HOURS_OF_WEEK:
            raise ValueError(f"hour is {self.hour}; allowed: 0 … {HOURS_OF_WEEK - 1}")


class RhythmQueries(Protocol):
    """Part of ``storage.port.Reader``."""

    def rhythms(self, workspace_id: str, recipient_ids: Sequence[str]) -> dict[str, tuple[RhythmSum, ...]]:
        """What is kept of each recipient's weekly rhythm (absent = nothing), by kind and hour; sums above 0 only."""

    def unprompted_types(
        self, workspace_id: str, recipient_id: str, since: datetime, until: datetime
    ) -> tuple[str, ...]:
        """The types of the recipient's events with ``since <= occurred_at < until`` that name no decision and no
        message and come from no machine; sorted, with repetitions."""


class RhythmChanges(Protocol):
    """Part of ``storage.port.Writer``."""

    def add_to_rhythm(self, workspace_id: str, recipient_id: str, added: Sequence[RhythmSum]) -> None:
        """Adds weights, negative ones included, to the sums of the recipient's weekly rhythm."""
