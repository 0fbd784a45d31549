"""What a campaign says of outcomes: which it speaks of, how long each is looked for, and what its messages cost.

Worked out once a campaign: a log asks for it several times a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from storage.records import Campaign

#: Attribution window of an outcome for which the campaign names none.
DEFAULT_WINDOW_HOURS = 72.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a campaign says.

    Attributes:
        names: of every outcome that it speaks of (objective, guardrails, attribution windows), sorted.
        windows: of each its attribution window. longest, reach: the longest, in hours and as a span.
        variants, channels: what each costs, by id.
    """

    names: tuple[str, ...]
    windows: Mapping[str, timedelta]
    longest: float
    reach: timedelta
    variants: Mapping[str | None, float]
    channels: Mapping[str | None, float]


def window_hours(campaign: Campaign, outcome: str) -> float:
    """Attribution window of an outcome in hours: the campaign's, else 72."""
    return campaign.attribution_hours.get(outcome, DEFAULT_WINDOW_HOURS)


def max_window(campaign: Campaign) -> float:
    """The longest attribution window of the campaign's outcomes in hours (72 if it names no outcome)."""
    return speaks_of(campaign).longest


def outcome_names(campaign: Campaign) -> tuple[str, ...]:
    """Every outcome that the campaign speaks of (objective, guardrails, attribution windows), sorted."""
    return speaks_of(campaign).names


def speaks_of(campaign: Campaign) -> Spoken:
    """All of it."""
    return _spoken(_One(campaign))


class _One:
    """A campaign as a key: this very object."""

    __slots__ = ("campaign",)

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign

    def __hash__(self) -> int:
        return id(self.campaign)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _One) and other.campaign is self.campaign


@lru_cache(maxsize=64)
def _spoken(one: _One) -> Spoken:
    campaign = one.campaign
    names = tuple(sorted({*campaign.objective, *campaign.guardrails, *campaign.attribution_hours}))
    hours = {name: window_hours(campaign, name) for name in names}
    longest = max(hours.values(), default=DEFAULT_WINDOW_HOURS)
    return Spoken(
        names,
        {name: timedelta(hours=value) for name, value in hours.items()},
        longest,
        timedelta(hours=longest),
        {variant.id: variant.cost for variant in campaign.variants},
        {channel.id: channel.cost for channel in campaign.channels},
    )
