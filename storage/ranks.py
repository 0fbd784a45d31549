"""The log of the Personalizer loop: what was asked and answered, what was rewarded, and the models learned from it.

Each workspace has one loop. Its actions come with every request and it knows no recipients, so it shares nothing with
campaigns and decisions but the store. Every time is an aware UTC ``datetime``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

LoopMode = Literal["Online", "Apprentice", "LoggingOnly"]
#: What is kept of a loop as a whole document, beside its log.
DocumentKind = Literal["loop", "evaluation", "importance"]


@dataclass(frozen=True, slots=True)
class RankedAction:
    """An action of a request with its feature objects, as they came."""

    id: str
    features: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class SlotChoice:
    """What was chosen for one slot; a request without slots has one, named "".

    Attributes:
        slot_id: the slot. features: its feature objects, as they came.
        eligible: places in the request's actions of those that could be chosen here, ascending.
        probability: of each of them; sums to 1. The choice was drawn from it.
        chosen, baseline: places of the choice and of what would be shown without the loop.
        shadow: place of what the model would have chosen where the baseline is shown instead; None = the choice is
            the model's.
    """

    slot_id: str
    eligible: tuple[int, ...]
    probability: tuple[float, ...]
    chosen: int
    baseline: int
    features: tuple[Any, ...] = ()
    shadow: int | None = None


@dataclass(frozen=True, slots=True)
class Rank:
    """A logged answer. ``active_at``: since when it counts as shown (None = deferred and not activated yet).

    ``position`` ascends in the order of commits and never comes twice; the store assigns it. ``model`` is the
    generation of the model that chose (0 = none yet).
    """

    workspace_id: str
    event_id: str
    ranked_at: datetime
    request_hash: bytes
    mode: LoopMode
    model: int
    actions: tuple[RankedAction, ...]
    slots: tuple[SlotChoice, ...]
    context: tuple[Any, ...] = ()
    multi_slot: bool = False
    active_at: datetime | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class RankReward:
    """A reported reward of an event's slot ("" = of the event)."""

    workspace_id: str
    event_id: str
    slot_id: str
    value: float
    at: datetime


@dataclass(frozen=True, slots=True)
class RankRow:
    """An answer with all its rewards, in the order of their arrival."""

    rank: Rank
    rewards: tuple[RankReward, ...]


@dataclass(frozen=True, slots=True)
class RankModel:
    """A generation of a loop's model; an empty ``blob`` is a model that has learned nothing.

    ``upto`` is the position of the last answer it learned from or passed over; ``born_at`` when its first generation
    since the last reset was made.
    """

    workspace_id: str
    generation: int
    born_at: datetime
    made_at: datetime
    upto: int
    blob: bytes


class RankReader(Protocol):
    """Queries on loops; part of ``storage.port.Reader``."""

    def rank(self, workspace_id: str, event_id: str) -> Rank | None:
        """One answer."""

    def ranks(
        self, workspace_id: str, *, after: int = 0, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[RankRow]:
        """Answers of positions above ``after`` with ``since <= ranked_at < until``, by position; streamed."""

    def rank_position(self, workspace_id: str) -> int:
        """The position of the newest answer, or of one deleted since (0 = never any)."""

    def rank_span(self, workspace_id: str) -> tuple[datetime, datetime] | None:
        """When the oldest and the newest logged answer were given; None = none is logged."""

    def rank_model(self, workspace_id: str) -> RankModel | None:
        """The newest generation."""

    def rank_generation(self, workspace_id: str) -> int:
        """The newest generation's number (0 = none)."""

    def rank_newest(self, workspace_id: str) -> tuple[int, datetime | None]:
        """The newest generation's number and when it was made (0, None: none): whether a model that is held is still
        the newest. After a restore the number alone may be that of another."""

    def loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str) -> bytes | None:
        """One document."""

    def loop_documents(self, workspace_id: str, kind: DocumentKind) -> tuple[bytes, ...]:
        """All documents of a kind, by id."""


class RankWriter(Protocol):
    """Changes of loops; part of ``storage.port.Writer``."""

    def add_rank(self, rank: Rank) -> None:
        """Logs an answer; ``AlreadyExists`` when the event id is taken."""

    def activate_rank(self, workspace_id: str, event_id: str, at: datetime) -> bool:
        """Notes when a deferred event was shown; False (nothing changed) when it is unknown or active already."""

    def add_rank_reward(self, reward: RankReward) -> None:
        """Logs a reward; its event need not be known."""

    def put_rank_model(self, model: RankModel) -> None:
        """Publishes: ``VersionConflict`` unless ``generation`` is the newest one + 1. Older generations go."""

    def forget_ranks(self, workspace_id: str, before: datetime | None) -> int:
        """Deletes answers given, and rewards reported, before ``before`` (None = all); returns how many answers."""

    def put_loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str, document: bytes) -> None:
        """Inserts or replaces."""

    def replace_loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str, document: bytes) -> bool:
        """Replaces; False (and nothing stored) when there is none."""

    def drop_loop_document(self, workspace_id: str, kind: DocumentKind, document_id: str) -> bool:
        """Deletes; False when there was none."""
