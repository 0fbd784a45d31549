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
    events: int = 0
    imitated: int = 0
    rewards: float = 0.0
    imitated_rewards: float = 0.0
    last: Counts = Counts()


_decoder: Final = msgspec.json.Decoder(Apprentice)


def get(services: Services, workspace_id: str) -> Apprentice | None:
    """What was counted; None = the loop never was an apprentice."""
    with services.store.read() as reader:
        return _load(reader, workspace_id)


def _load(reader: Reader, workspace_id: str) -> Apprentice | None:
    stored = reader.loop_document(workspace_id, "loop", _DOCUMENT)
    return None if stored is None else _decoder.decode(stored)


def count(settled: Sequence[tuple[Rank, tuple[float, ...]]]) -> tuple[Counts, datetime, datetime] | None:
    """The counts of settled answers that an apprentice gave, with the times of the first and last; None = no such."""
    found = Counts()
    times: list[datetime] = []
    for rank, rewards in settled:
        if rank.mode != "Apprentice":
            continue
        times.append(rank.ranked_at)
        for slot, reward in zip(rank.slots, rewards, strict=True):
            same = slot.shadow == slot.chosen
            found = Counts(
                found.events + 1,
                found.imitated + same,
                found.rewards + reward,
                found.imitated_rewards + (reward if same else 0.0),
            )
    return (found, min(times), max(times)) if times else None


def add(writer: Writer, workspace_id: str, counted: tuple[Counts, datetime, datetime]) -> None:
    """Adds what was counted to what is stored."""
    new, start, end = counted
    before = _load(writer, workspace_id) or Apprentice(start, end)
    after = replace(
        before,
        end=end,
        events=before.events + new.events,
        imitated=before.imitated + new.imitated,
        rewards=before.rewards + new.rewards,
        imitated_rewards=before.imitated_rewards + new.imitated_rewards,
        last=new,
    )
    writer.put_loop_document(workspace_id, "loop", _DOCUMENT, msgspec.json.encode(after))
