"""How strong each part of a world is. All strengths are on the logit scale unless they say otherwise.

A message is first *looked at* and then *liked*: ``opened`` has the chance of a look, ``clicked`` that of a look times
that of a like. Both chances have a floor and a ceiling, and tastes enter through tanh, bumps and tables. So no outcome
of a message is a logistic function that is linear in features and Fourier terms, as the model's heads are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Variants, by name; a world uses the first ``WorldSpec.variants``.
VARIANT_NAMES = ("offer", "story", "tips", "news", "reminder", "voucher", "survey", "event")
CHANNEL_NAMES = ("email", "push", "sms")
ZONES = ("Europe/Berlin", "Europe/London", "America/New_York", "Asia/Tokyo")


@dataclass(frozen=True)
class Personal:
    """Standard deviations of what no feature tells: each person's own taste, around what features say."""

    content: float = 0.5
    channel: float = 0.35
    rhythm: float = 0.35
    level: float = 0.4


@dataclass(frozen=True)
class Twists:
    """Structure that breaks an additive model; 0 = not in this world.

    Attributes:
        three_way: variant x channel x part of the day, a free table.
        xor: the product of the signs of two features turns the liking of variants round.
        jagged: hours that differ from their neighbours by chance, each hour of the week for itself.
        order: the *order* of the last two things viewed says what is wanted; how often each was viewed says nothing.
        bought: the last thing bought says what is wanted next: what goes with it.
    """

    three_way: float = 0.0
    xor: float = 0.0
    jagged: float = 0.0
    order: float = 0.0
    bought: float = 0.0


@dataclass(frozen=True)
class Tiring:
    """Fatigue: every message wears off with a half-life, and what is left lowers looks and raises unsubscribes."""

    strength: float = 0.0
    half_life_hours: float = 72.0
    repetition: float = 0.0
    unsubscribe: float = 0.6


@dataclass(frozen=True)
class Delays:
    """Outcomes come a log-normal time after the send: medians in hours, and the spread of the logarithm."""

    opened: float = 2.0
    clicked: float = 3.0
    converted: float = 12.0
    unsubscribed: float = 4.0
    spread: float = 1.2


@dataclass(frozen=True)
class WorldSpec:
    """One kind of world; a seed makes one of it.

    Attributes:
        recipients, variants: how many.
        look, like: intercepts of the two stages.
        floor, ceiling: limits of the two stages' chances.
        content, channel, rhythm: strengths of what features tell of each.
        payday, season: strengths of what the calendar does (no feature of the model tells it).
        convert: chance that a click becomes a purchase. organic: chance of a purchase without any message.
        unsubscribe: log odds at no fatigue and a middling interest.
        value: mean of a purchase's value, log-normal with ``value_spread``.
        scanned: share of recipients whose mail is opened by a machine (an automated event, which counts for nothing).
    """

    recipients: int = 2_000
    variants: int = 6
    look: float = -1.1
    like: float = -0.5
    floor: float = 0.01
    ceiling: float = 0.95
    content: float = 0.9
    channel: float = 0.9
    rhythm: float = 0.9
    payday: float = 0.3
    season: float = 0.3
    convert: float = 0.15
    organic: float = 0.01
    unsubscribe: float = -6.5
    value: float = 40.0
    value_spread: float = 0.5
    scanned: float = 0.15
    personal: Personal = field(default_factory=Personal)
    twists: Twists = field(default_factory=Twists)
    tiring: Tiring = field(default_factory=Tiring)
    delays: Delays = field(default_factory=Delays)

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the variants."""
        return VARIANT_NAMES[: self.variants]
