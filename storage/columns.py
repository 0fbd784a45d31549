"""The log as columns, for what looks at a campaign's every decision and needs few facts of each.

Times are microseconds since 1970-01-01 UTC, as stored, and -1 where there is none. Chunks come in no promised order;
``position`` tells rows apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage.log import Group, Status
from storage.records import JsonObject, Mode


@dataclass(frozen=True, slots=True)
class DecisionColumns:
    """Decisions of one campaign; every column has n entries.

    ``latest`` is the latest moment that the decision could have planned a message for. ``reasons`` are what masked
    actions, each (rule id, kind, actions masked, dry run).
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
