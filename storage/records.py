"""The records of set-up: workspaces, keys, campaigns, recipients. Rules are in ``storage.rules``, what happened is in
``storage.log``.

Frozen dataclasses, validated at the border and trusted from there on. Every time is an aware UTC ``datetime``; every
amount of time says its unit in its name. A record that belongs to a workspace starts with ``workspace_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Any, Literal

from storage.swift import swift

Mode = Literal["live", "shadow", "baseline_only", "paused"]
CampaignStatus = Literal["active", "archived"]
VariantStatus = Literal["active", "paused", "archived"]
ColdStart = Literal["uniform", "around_baseline"]
ExplorationMethod = Literal[
    "posterior_bank", "inverse_gap", "marginal_thompson", "softmax", "epsilon_greedy", "uniform"
]
Unconfirmed = Literal["assume_sent", "release"]
AttributeType = Literal["category", "number", "boolean", "timestamp", "text"]
#: ``admin`` implies all, ``feedback`` implies ``track``: to report by a Segment SDK and in no other way.
Scope = Literal["decide", "feedback", "track", "read", "admin"]
#: What the one number of an exploration method is called; methods that are not here have none.
EXPLORATION_PARAMETERS: Mapping[ExplorationMethod, str] = {
    "inverse_gap": "gamma",
    "softmax": "temperature",
    "epsilon_greedy": "epsilon",
}
#: Wildcard of a suppression: every channel, or every category.
ANY = "*"

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant. ``mode`` is the switch over all its campaigns; the stricter of the two modes wins.

    ``training`` holds the numbers of training that were tuned on its log; what is not there has its default.
    ``mode_since`` is when the mode was set; None: never, or before that was written down.
    """

    workspace_id: str
    name: str
    mode: Mode
    created_at: datetime
    version: int = 1
    training: JsonObject = field(default_factory=dict)
    mode_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key; only the SHA-256 of its secret is kept."""

    workspace_id: str
    key_id: str
    name: str
    secret_hash: bytes
    scopes: tuple[Scope, ...]
    created_at: datetime
    revoked_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope, or one that implies it."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "track" and "feedback" in self.scopes)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on what the recipient did with an earlier message before a variant opens."""

    campaign_id: str
    outcome: str
    happened: bool
    within_hours: float
    variant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One message text or creative. ``features`` and ``text`` let a new variant start warm."""

    id: str
    status: VariantStatus = "active"
    features: JsonObject = field(default_factory=dict)
    text: str = ""
    cost: float = 0.0
    requires: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to reach people; ``cost`` is what one message costs, in the campaign's currency."""

    id: str
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class OutcomeWeight:
    """What an outcome is worth: ``fixed`` when it happens plus ``per_value`` x its value within ± ``max_value``."""

    fixed: float = 0.0
    per_value: float = 0.0
    max_value: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """What a value counts as at least and at most: a refund of a million weighs no more than an order of one."""
        most = inf if self.max_value is None else self.max_value
        return -most, most


@dataclass(frozen=True, slots=True)
class GroupShares:
    """Shares of recipients in each control group; the rest is treated."""

    holdout: float = 0.0
    random: float = 0.0
    baseline: float = 0.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """What would be sent without Sendtide. ``local_time`` is ``HH:MM`` in the recipient's zone."""

    variant_id: str
    channel: str
    local_time: str


@dataclass(frozen=True, slots=True)
class Guardrail:
    """Limits on a harmful outcome: its rate, and its increase over the incumbent."""

    max_rate: float | None = None
    max_increase: float | None = None


@dataclass(frozen=True, slots=True)
class EventMapping:
    """Turns a tracked event into an outcome; ``value`` names the property that holds its value."""

    outcome: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """One question put to the optimizer: which of these variants, on which channel, when, or nothing.

    ``exploration_parameter`` is the one number that some methods have (see ``EXPLORATION_PARAMETERS``); None = the
    method's default.
    """

    workspace_id: str
    campaign_id: str
    variants: tuple[Variant, ...]
    channels: tuple[Channel, ...]
    created_at: datetime
    updated_at: datetime
    version: int = 1
    name: str = ""
    category: str = "marketing"
    priority: int = 50
    status: CampaignStatus = "active"
    mode: Mode = "live"
    slot_minutes: int = 60
    default_window_hours: float = 24.0
    spread_within_slot: bool = True
    allow_no_send: bool = True
    currency: str = "EUR"
    timezone: str | None = None
    objective: Mapping[str, OutcomeWeight] = field(default_factory=dict)
    attribution_hours: Mapping[str, float] = field(default_factory=dict)
    groups: GroupShares = GroupShares()
    baseline: Baseline | None = None
    displaceable: bool = True
    exploration_rate: float = 0.02
    exploration_method: ExplorationMethod = "posterior_bank"
    exploration_parameter: float | None = None
    guardrails: Mapping[str, Guardrail] = field(default_factory=dict)
    cold_start: ColdStart = "uniform"
    unconfirmed: Unconfirmed = "assume_sent"
    event_mapping: Mapping[str, EventMapping] = field(default_factory=dict)

    @property
    def active_variants(self) -> tuple[Variant, ...]:
        """The variants that may be chosen now, in their stored order."""
        return tuple([v for v in self.variants if v.status == "active"])

    @property
    def begins_with_baseline(self) -> bool:
        """Whether the cold start decides around the baseline, and not by chance alone."""
        return self.cold_start == "around_baseline" and self.baseline is not None


@swift
@dataclass(frozen=True, slots=True)
class Consent:
    """What a recipient said of one channel, and where and when."""

    state: bool
    source: str | None = None
    at: datetime | None = None


@swift
@dataclass(frozen=True, slots=True)
class Suppression:
    """A recorded refusal of a channel and category (``*`` = all of them)."""

    channel: str = ANY
    category: str = ANY
    source: str | None = None
    at: datetime | None = None


@swift
@dataclass(frozen=True, slots=True)
class Recipient:
    """A person who may be written to. ``version`` grows with every change (0 = not stored yet).

    ``changed_after`` is the position (see ``storage.log.Decision``) of the last decision that was committed before the
    last change of what rules go by: zone, consents, refusals, country; not of refusals that an event recorded, which
    has a mark of its own. -1 = that is this one: the store assigns it.
    """

    workspace_id: str
    recipient_id: str
    version: int = 0
    timezone: str | None = None
    attributes: JsonObject = field(default_factory=dict)
    channels: Mapping[str, Consent] = field(default_factory=dict)
    suppressed: tuple[Suppression, ...] = ()
    updated_at: datetime | None = None
    changed_after: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Attribute:
    """An entry of the attribute registry: the type of a feature and what may be done with it."""

    workspace_id: str
    name: str
    type: AttributeType
    use_in_model: bool = True
    sensitive: bool = False
    retention_days: int | None = None
    declared: bool = False
