"""How well the loop does as the application does, counted while it is an apprentice (Azure's
``latestApprenticeModeMetrics``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import msgspec

from optimizer.service.wiring import Services
from storage.port import Reader, Writer
from storage.ranks import Rank

_DOCUMENT: Final = "apprentice"


@dataclass(frozen=True, slots=True)
class Counts:
    """Events, those in which the loop would have done the same, and the rewards of both."""

    events: int = 0
    imitated: int = 0
    rewards: float = 0.0
    imitated_rewards: float = 0.0


@dataclass(frozen=True, slots=True)
class Apprentice:
    """All events since the first, and those of the last refresh."""

    start: datetime
    end: datetime
    total: Counts = Counts()
    last: Counts = Counts()


_decoder: Final = msgspec.json.Decoder(Apprentice)


def get(services: Services, workspace_id: str) -> Apprentice | None:
    """What was counted; None = the loop never was an apprentice."""
    with services.store.read() as reader:
        return _load(reader, workspace_id)


def _load(reader: Reader, workspace_id: str) -> Apprentice | None:
    stored = reader.loop_document(workspace_id, "loop", _DOCUMENT)
    return None if stored is None else _decoder.decode(stored)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts, with the times of the first and the last answer that was counted."""

    counts: Counts
    start: datetime
    end: datetime


def of(rank: Rank, rewards: Sequence[float]) -> Tally | None:
    """The tally of one settled answer; None where it is not an apprentice's."""
    if rank.mode != "Apprentice" or not rewards:
        return None
    same = [slot.shadow == slot.chosen for slot in rank.slots]
    imitated = sum(reward for reward, like in zip(rewards, same, strict=True) if like)
    return Tally(Counts(len(same), sum(same), sum(rewards), imitated), rank.ranked_at, rank.ranked_at)


def together(a: Tally | None, b: Tally | None) -> Tally | None:
    """Both tallies in one."""
    if a is None or b is None:
        return a or b
    return Tally(_sum(a.counts, b.counts), min(a.start, b.start), max(a.end, b.end))


def _sum(a: Counts, b: Counts) -> Counts:
    return Counts(
        a.events + b.events,
        a.imitated + b.imitated,
        a.rewards + b.rewards,
        a.imitated_rewards + b.imitated_rewards,
    )


def add(writer: Writer, workspace_id: str, tally: Tally) -> None:
    """Adds a tally to what is stored."""
    before = _load(writer, workspace_id) or Apprentice(tally.start, tally.end)
    after = replace(before, end=tally.end, total=_sum(before.total, tally.counts), last=tally.counts)
    writer.put_loop_document(workspace_id, "loop", _DOCUMENT, msgspec.json.encode(after))
