"""A made-up audience with tastes that can be learned: when they read, on which channel, and about what.

Nothing here is drawn from real people. Habits follow from attributes that the service is told (work, device, interest),
with noise, so that there is something to generalise from one recipient to the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storage.records import JsonObject

VARIANTS = ("offer", "story", "tips")
CHANNELS = ("email", "push")
ZONES = ("Europe/Berlin", "Europe/London", "America/New_York")
#: The hour (local) around which people of each kind of work read, and how it varies among them.
READING_HOUR = {"shift": 7.0, "office": 12.5, "student": 19.5}
HOUR_SPREAD = 1.0
#: How many hours off the best time the attention is down to 61 % (one standard deviation of a bell curve).
ATTENTION_HOURS = 2.5
#: The chance of a click at the best time, on the liked channel, about the liked topic.
BEST_CLICK = 0.7
#: What is left of it at a bad time, on the other channel, about another topic.
AT_BAD_TIME, OTHER_CHANNEL, OTHER_TOPIC = 0.12, 0.5, 0.4
#: Who does not click still opens with this chance, in part of the attention that a click takes.
OPEN_LIFT = 0.3


@dataclass(frozen=True, slots=True)
class Person:
    """A made-up recipient. Attributes are known to the service; the rest only shows in what the person does."""

    recipient_id: str
    timezone: str
    attributes: JsonObject
    best_hour: float
    channel: str
    topic: str


@dataclass(frozen=True, slots=True)
class Response:
    """What a person did with a message. A click implies an open."""

    opened: bool
    clicked: bool


def audience(size: int, rng: np.random.Generator) -> tuple[Person, ...]:
    """``size`` people; the same generator state gives the same people."""
    return tuple(_person(i, rng) for i in range(size))


def _person(number: int, rng: np.random.Generator) -> Person:
    work = str(rng.choice(list(READING_HOUR)))
    device = str(rng.choice(["phone", "desktop"]))
    interest = str(rng.choice(["savings", "culture", "practice"]))
    usual_channel = "push" if device == "phone" else "email"
    usual_topic = {"savings": "offer", "culture": "story", "practice": "tips"}[interest]
    return Person(
        recipient_id=f"person-{number}",
        timezone=str(rng.choice(ZONES)),
        attributes={"work": work, "device": device, "interest": interest, "age": int(rng.integers(18, 80))},
        best_hour=float((READING_HOUR[work] + HOUR_SPREAD * rng.standard_normal()) % 24),
        channel=usual_channel if rng.random() < 0.85 else str(rng.choice(CHANNELS)),
        topic=usual_topic if rng.random() < 0.85 else str(rng.choice(VARIANTS)),
    )


def hours_off(person: Person, hour: float) -> float:
    """Hours between a local time of day and the person's best one, around the clock: 0 to 12."""
    away = abs(hour - person.best_hour) % 24
    return min(away, 24 - away)


def click_chance(person: Person, *, variant: str, channel: str, hour: float) -> float:
    """The chance that this person clicks a message that arrives at ``hour`` (local, 0 to 24)."""
    attention = float(np.exp(-0.5 * (hours_off(person, hour) / ATTENTION_HOURS) ** 2))
    chance = BEST_CLICK * (AT_BAD_TIME + (1 - AT_BAD_TIME) * attention)
    chance *= 1.0 if channel == person.channel else OTHER_CHANNEL
    return chance * (1.0 if variant == person.topic else OTHER_TOPIC)


def respond(person: Person, *, variant: str, channel: str, hour: float, rng: np.random.Generator) -> Response:
    """What the person does; always draws two numbers, so that one response doesn't shift the next."""
    click, look = rng.random(2)
    chance = click_chance(person, variant=variant, channel=channel, hour=hour)
    clicked = bool(click < chance)
    return Response(opened=clicked or bool(look < OPEN_LIFT * chance + OPEN_LIFT * 0.2), clicked=clicked)
