"""The records of rules: who may be written to, when, how often.

Frozen dataclasses, validated at the border and trusted from there on. A kind of rule is one class of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

RuleKind = Literal["cap", "gap", "quiet_hours", "blackout", "capacity", "budget", "fatigue"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
#: In the order of ``date.weekday()``.
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
#: Amounts of money are whole millionths of a campaign's currency, so that sums are exact.
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Selector:
    """Which messages a rule speaks of. ``None`` = all; an empty tuple can't occur (422 at the border)."""

    channels: tuple[str, ...] | None = None
    except_channels: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    except_categories: tuple[str, ...] | None = None
    campaigns: tuple[str, ...] | None = None
    except_campaigns: tuple[str, ...] | None = None

    def admits(self, *, channel: str, category: str, campaign_id: str | None) -> bool:
        """Whether a message of this channel, category and campaign is selected."""
        return (
            (self.channels is None or channel in self.channels)
            and (self.except_channels is None or channel not in self.except_channels)
            and (self.categories is None or category in self.categories)
            and (self.except_categories is None or category not in self.except_categories)
            and (self.campaigns is None or campaign_id in self.campaigns)
            and (self.except_campaigns is None or campaign_id not in self.except_campaigns)
        )


@dataclass(frozen=True, slots=True)
class Adapt:
    """Tightens a cap to ``limit`` for a recipient with at least ``after_unengaged`` unanswered messages."""

    after_unengaged: int
    limit: int


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``limit`` messages in any window: ``rolling_hours`` long, or a calendar one in the recipient's zone.

    A rule of kind ``gap`` is a cap of 1 in any window as long as the gap: that is what a gap means.
    """

    limit: int
    rolling_hours: float | None = None
    calendar: Literal["day", "week", "month"] | None = None
    week_start: Weekday = "mon"
    adapt: Adapt | None = None

    def limit_for(self, unanswered: int) -> int:
        """The limit for a recipient with so many unanswered messages."""
        if self.adapt is None or unanswered < self.adapt.after_unengaged:
            return self.limit
        return min(self.limit, self.adapt.limit)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """No messages from ``start`` to ``end`` (``HH:MM``, recipient's zone); a night belongs to the day it starts."""

    start: str
    end: str
    days: tuple[Weekday, ...] = WEEKDAYS


@dataclass(frozen=True, slots=True)
class Blackout:
    """No messages on these dates (``YYYY-MM-DD``, recipient's zone), nor on public holidays of their country.

    The country is the recipient's attribute ``country`` (ISO 3166-1 alpha-2), else ``default_country``, else none.
    """

    dates: tuple[str, ...] = ()
    country_holidays: bool = False
    default_country: str | None = None


@dataclass(frozen=True, slots=True)
class WarmUpStep:
    """From this day of a warm-up on (1 = its first) ``limit`` holds instead of the capacity's own."""

    day: int
    limit: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """At most ``limit`` messages over all recipients in each period of ``per_minutes``.

    Periods follow each other from 1970-01-01T00:00Z on. A step of ``warm_up`` (ascending days) holds from its day to
    the next step's, the last one for its own day; after it, ``limit``. Day 1 is the UTC date ``starts_on``, which a
    stored rule with a warm-up always has; a period belongs to the UTC date it starts on.
    """

    limit: int
    per_minutes: int
    warm_up: tuple[WarmUpStep, ...] = ()
    starts_on: str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """At most ``amount`` (micros) spent on messages over all recipients in each calendar period of ``timezone``."""

    amount: int
    per: Literal["day", "week", "month"]
    timezone: str = "UTC"
    week_start: Weekday = "mon"


@dataclass(frozen=True, slots=True)
class Fatigue:
    """Part of the policy: masks actions whose predicted chance of ``outcome`` exceeds ``max_risk``."""

    outcome: str
    max_risk: float


RuleParameters = Cap | QuietHours | Blackout | Capacity | Budget | Fatigue


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may be written to, when, how often. ``applies_to`` binds requests, ``counts`` says which messages count.

    ``changed_after`` is the position (see ``storage.log.Decision``) of the last decision that was committed before this
    version; the store assigns it.
    """

    workspace_id: str
    rule_id: str
    kind: RuleKind
    parameters: RuleParameters
    applies_to: Selector = Selector()
    counts: Selector = Selector()
    enabled: bool = True
    dry_run: bool = False
    archived: bool = False
    version: int = 1
    updated_at: datetime | None = None
    changed_after: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class RiskLimit:
    """A ``fatigue`` rule as a policy sees it; ``channels`` None = all."""

    rule_id: str
    outcome: str
    max_risk: float
    channels: tuple[str, ...] | None = None
