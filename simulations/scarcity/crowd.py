"""A made-up crowd that asks all day, and what each message would gain: by person, hour, channel, text and moment.

The chance of a click is a logistic function of how ready a person is, their taste, the rhythm of their day, the
channel, and how ripe the moment is (told with the request). All of that is in the context, so a policy with enough rows
knows the truth nearly; one that learned for some days knows it as well as those days taught it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.records import Campaign, Channel, OutcomeWeight, Variant
from storage.rules import MICROS, Budget, Cap, Capacity, Rule

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scarcity = Literal["capacity", "budget", "cap"]

WORKSPACE = "simulation"
CAMPAIGN = "crowd"
HOUR, DAY = 3_600, 86_400
#: The first day of the course, a Monday.
START = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp())
VARIANTS = ("plain", "lively")
#: Ids and what a message costs.
CHANNELS = (("email", 0.01), ("letter", 0.05))
#: How much readier people are on each channel, in log odds.
CHANNEL_PULL = np.array([0.0, 0.5])
#: The shares of people by the hour of the day at which they are readiest.
RHYTHMS = (("early", 8, 0.35), ("noon", 13, 0.15), ("late", 18, 0.3), ("night", 21, 0.2))
BASE, SWING = -2.2, 0.9
#: Hours that a request leaves to choose from.
WINDOW_HOURS = 12
#: What is scarce takes this part of what would be asked for.
PART = 0.3


@dataclass(frozen=True)
class Course:
    """How many people, how many requests a day, how many days of learning and of earning.

    ``steps``: requests come together so many times a day, at least hourly; before each time prices are worked out anew.
    """

    scarcity: Scarcity
    people: int = 2_000
    requests: int = 2_400
    learning: int = 2
    earning: int = 4
    steps: int = 96

    @property
    def days(self) -> int:
        """All days."""
        return self.learning + self.earning

    @property
    def end(self) -> int:
        """When the last request's window is over, seconds since 1970."""
        return START + self.days * DAY


@dataclass(frozen=True, eq=False)
class Crowd:
    """n requests in order of time.

    Attributes:
        at: (n,) int64, seconds since 1970.
        person: (n,) int64.
        ready, taste, ripe: (n,) float64, what the chance depends on.
        rhythm: (n,) int64, index into ``RHYTHMS``.
    """

    at: Ints
    person: Ints
    ready: Floats
    taste: Floats
    ripe: Floats
    rhythm: Ints

    def __len__(self) -> int:
        return len(self.at)

    def context(self, i: int) -> dict[str, Any]:
        """What a policy sees of a request."""
        return {
            "ready": float(self.ready[i]),
            "taste": float(self.taste[i]),
            "ripe": float(self.ripe[i]),
            "rhythm": RHYTHMS[int(self.rhythm[i])][0],
        }

    def chance(self, rows: Ints, send_at: Ints) -> Floats:
        """(m, V, C) the chance of a click of requests ``rows`` (m,), sent at ``send_at`` (m,)."""
        best = np.array([hour for _, hour, _ in RHYTHMS])[self.rhythm[rows]]
        turn = np.cos(2 * np.pi * (send_at % DAY / HOUR - best) / 24)
        own = BASE + self.ready[rows] + self.ripe[rows] + SWING * turn
        variant = np.outer(self.taste[rows], [-0.5, 0.5])
        eta = own[:, None, None] + variant[:, :, None] + CHANNEL_PULL
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * eta)))


def crowd(course: Course, seed: int) -> Crowd:
    """The requests of a course: each day the people in random order, each step as many."""
    rng = np.random.default_rng([11, seed])
    ready, taste = rng.normal(0, 0.8, course.people), rng.normal(0, 0.8, course.people)
    rhythm = rng.choice(len(RHYTHMS), course.people, p=[share for _, _, share in RHYTHMS])
    rounds = -(-course.requests // course.people)
    person = np.concatenate(
        [
            np.concatenate([rng.permutation(course.people) for _ in range(rounds)])[: course.requests]
            for _ in range(course.days)
        ]
    )
    each = np.arange(course.requests) * course.steps // course.requests
    at = START + (np.arange(course.days)[:, None] * course.steps + each).ravel() * (DAY // course.steps)
    ripe = rng.normal(0, 0.7, len(person))
    return Crowd(at, person, ready[person], taste[person], ripe, rhythm[person])


def campaign(exploration_rate: float = 0.02) -> Campaign:
    """Two texts on two channels or nothing; a click is worth 1."""
    start = datetime.fromtimestamp(START, UTC)
    return Campaign(
        WORKSPACE,
        CAMPAIGN,
        variants=tuple(Variant(name, features={"tone": name}) for name in VARIANTS),
        channels=tuple(Channel(name, cost) for name, cost in CHANNELS),
        created_at=start,
        updated_at=start,
        objective={"clicked": OutcomeWeight(1.0)},
        attribution_hours={"clicked": 1.0},
        spread_within_slot=False,
        exploration_rate=exploration_rate,
    )


def rule(course: Course) -> Rule:
    """What is scarce: it suffices for ``PART`` of the requests.

    Messages an hour; money a week, where every request would take the dearer channel; or a person's messages in any
    seven days.
    """
    if course.scarcity == "capacity":
        return Rule(WORKSPACE, "scarce", "capacity", Capacity(round(PART * course.requests / 24), 60))
    if course.scarcity == "budget":
        dearest = max(cost for _, cost in CHANNELS)
        return Rule(WORKSPACE, "scarce", "budget", Budget(round(PART * course.requests * 7 * dearest * MICROS), "week"))
    asked = course.requests / course.people * 7
    return Rule(WORKSPACE, "scarce", "cap", Cap(max(1, round(PART * asked)), rolling_hours=7 * 24.0))


def window(course: Course, at: int) -> tuple[datetime, datetime]:
    """What a request at ``at`` may be answered in; none reaches beyond the course."""
    start = datetime.fromtimestamp(at, UTC)
    return start, min(start + timedelta(hours=WINDOW_HOURS), datetime.fromtimestamp(course.end, UTC))
