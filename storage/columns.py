"""The log as columns, for what looks at a campaign's every decision and needs few facts of each.

Times are microseconds since 1970-01-01 UTC, as stored, and -1 where there is none. Chunks come in no promised order;
``position`` tells rows apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from storage.log import Group, Status
from storage.records import JsonObject, Mode


@dataclass(frozen=True, slots=True)
class DecisionColumns:
    """Decisions of one campaign; every column has n entries.

    ``latest`` is the latest moment that the decision could have planned a message for. ``reasons`` are what masked
    actions, each (rule id, kind, actions masked, dry run). ``cost`` is what the message cost, in micros.
    """

    position: Sequence[int]
    recipient: Sequence[str]
    version: Sequence[int]
    status: Sequence[Status]
    group: Sequence[Group]
    mode: Sequence[Mode]
    decided: Sequence[int]
    latest: Sequence[int]
    variant: Sequence[str | None]
    channel: Sequence[str | None]
    planned: Sequence[int]
    sent: Sequence[int]
    timezone: Sequence[str]
    reasons: Sequence[Sequence[tuple[str, str, int, bool]]]
    cost: Sequence[int]


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Events of one campaign's decisions that no machine made; every column has n entries.

    ``position`` is that of the decision which an event names; None where it names a recipient and no decision.
    ``properties`` are there for the types that they were asked for.
    """

    position: Sequence[int | None]
    recipient: Sequence[str | None]
    type: Sequence[str]
    occurred: Sequence[int]
    value: Sequence[float | None]
    properties: Sequence[JsonObject]


class ColumnQueries(Protocol):
    """What ``storage.port.Reader`` answers in columns."""

    def decision_columns(
        self, workspace_id: str, campaign_id: str, since: datetime, until: datetime
    ) -> Iterator[DecisionColumns]:
        """The campaign's own decisions (no imported ones) with ``since <= decided_at < until``, as columns; streamed
        in chunks, none empty."""

    def event_columns(
        self,
        workspace_id: str,
        campaign_id: str,
        since: datetime,
        until: datetime,
        *,
        types: Collection[str],
        properties_of: Collection[str] = (),
    ) -> Iterator[EventColumns]:
        """Events of these types that are not automated and may count for those decisions, as columns; streamed.

        They name one of the decisions; or, from ``since`` on, one of their recipients and neither a decision nor a
        message nor another campaign.
        """
