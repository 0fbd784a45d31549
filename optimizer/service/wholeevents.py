"""Events of an import, column by column: those of recipients alone, as trackers export them, whose only consequence is
what they add to history and rhythm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optimizer.bandit.rewards import CLOCK_SKEW, MESSAGE_OUTCOMES
from optimizer.service.cells import OBJECT_VALUES, Cells, instant
from optimizer.service.erased import any_erased
from optimizer.service.eventtypes import doubtful
from optimizer.service.optout import ACTING, MappedRefusals
from optimizer.service.rhythms import add_new_events
from optimizer.service.rowparts import Table
from optimizer.service.wholecolumns import REMEMBERED, Memos, joined, member, plain_ids, require, require_names
from storage.bulk import NewEvents
from storage.codec import to_micros
from storage.errors import OneByOne
from storage.port import Writer

_IDS = ("event_id", "type", "recipient_id")
_PREFIX = "properties."


@dataclass
class EventColumns:
    """Reads chunks of one file. ``typed``: as of ``Cells``."""

    typed: bool
    _memos: Memos[Any] = field(init=False)
    _zones: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._memos = Memos(self._meaning)

    def read(self, table: Table, now: datetime, mapped: MappedRefusals) -> NewEvents:
        """A chunk's events; ``mapped``: what campaigns make a refusal.

        Raises:
            Unusual: they are to be read row by row.
        """
        columns = dict(table.columns)
        require_names(columns)
        properties = [self._memos.of(name, columns.pop(name)) for name in table.columns if name.startswith(_PREFIX)]
        require(len(properties) <= OBJECT_VALUES and columns.keys() >= {*_IDS, "occurred_at"})
        ids, types, recipients = (plain_ids(columns.pop(name)) for name in _IDS)
        require((ACTING | MESSAGE_OUTCOMES).union(kind for _, kind in mapped).isdisjoint(types) and not doubtful(types))
        occurred: list[int] = self._memos.of("occurred_at", columns.pop("occurred_at"))
        require(max(occurred) <= to_micros(now + CLOCK_SKEW))
        nothing: Sequence[Any] = (None,) * len(ids)
        told = {
            name: self._memos.of(name, columns.pop(name, nothing)) for name in ("campaign_id", "value", "automated")
        }
        require(all(set(cells) <= {"", None} for cells in columns.values()))
        packed = [f"{{{members[1:]}}}".encode() if members else None for members in joined(properties, len(ids))]
        facts = (told["campaign_id"], told["value"], told["automated"], packed)
        return NewEvents(to_micros(now), ids, types, occurred, recipients, *facts)

    def _meaning(self, name: str, cell: Any) -> Any:
        if name == "occurred_at":
            return to_micros(instant(name, cell))
        if name.startswith(_PREFIX):
            return member(name, cell, typed=self.typed)
        one = Cells({name: cell}, typed=self.typed)
        if name == "campaign_id":
            return one.id(name)
        if name == "value":
            return one.worth(name)
        if name == "automated":
            return one.switch(name) or False
        raise KeyError(name)

    def store(self, writer: Writer, workspace_id: str, found: NewEvents) -> None:
        """Stores them.

        A recipient's zone is looked up once in a file; one that changes meanwhile counts from the next file on.

        Raises:
            OneByOne: some are known already or occur twice, name a campaign that isn't there, or somebody was erased
                once.
        """
        campaigns = [one for one in set(found.campaigns) if one is not None]
        if any_erased(writer, workspace_id) or any(writer.campaign(workspace_id, one) is None for one in campaigns):
            raise OneByOne("events of an unknown campaign, or maybe of erased people")
        if len(self._zones) > REMEMBERED:
            self._zones.clear()
        add_new_events(writer, workspace_id, found, self._zones)
