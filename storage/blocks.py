"""The log in blocks of rows with stamps: who keeps something of a block learns from its stamp whether it still holds.

Decisions are numbered by their positions, events by numbers of the store's own in the order of their arrival. Block b
has the numbers from ``b * BLOCK`` on. The newest block changes with every row that is added, older ones only where a
row is changed or deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from storage.columns import DecisionColumns
from storage.records import JsonObject

#: Rows of a block: what is read anew for one changed row.
BLOCK: Final = 8_192


@dataclass(frozen=True, slots=True)
class Stamps:
    """Block -> stamp, of blocks that have rows."""

    decisions: Mapping[int, str]
    events: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class EventBlock:
    """Events of one block that no machine made; n of them, in the order of their numbers.

    Attributes:
        number: (n,). position: (n,) of the decision that it names; None where it names a recipient and no decision.
        recipient: (n,) where it names no decision. type, occurred, value, properties: as in ``EventColumns``.
        complete: whether the decision of each event that names one is stored; if not, more may come and the stamp stay.
    """

    number: tuple[int, ...]
    position: tuple[int | None, ...]
    recipient: tuple[str | None, ...]
    type: tuple[str, ...]
    occurred: tuple[int, ...]
    value: tuple[float | None, ...]
    properties: tuple[JsonObject, ...]
    complete: bool


class BlockQueries(Protocol):
    """What ``storage.port.Reader`` answers by the block."""

    def has_decisions(self, workspace_id: str, campaign_id: str, count: int) -> bool:
        """Whether the campaign has at least so many decisions; the cost grows with ``count`` alone."""

    def has_answers(self, workspace_id: str) -> bool:
        """Whether an event names a decision that was found; the cost grows with the events that await theirs alone."""

    def block_stamps(self, workspace_id: str) -> Stamps:
        """The stamps of all blocks. A stamp changes with every change of a row of this workspace in the block, whether
        it is added, rewritten or deleted, and differs between databases that went different ways from one backup."""

    def decision_block(self, workspace_id: str, campaign_id: str, block: int) -> DecisionColumns | None:
        """As ``decision_columns``, of one block, in the order of positions; None for none."""

    def event_block(
        self, workspace_id: str, campaign_id: str, block: int, types: Collection[str], properties_of: Collection[str]
    ) -> EventBlock:
        """Events of these types that are not automated and name one of the campaign's own decisions; or a recipient,
        whoever it is, and neither a decision nor a message nor another campaign."""
