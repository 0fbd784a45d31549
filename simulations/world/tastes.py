"""What people like and through which channel: functions of features that are neither linear nor the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulations.world.population import TOPICS, Floats, Ints, Population
from simulations.world.spec import CHANNEL_NAMES, WorldSpec

#: Parts of the day of the three-way table.
PARTS = 4
HOURS_OF_WEEK = 168
#: The ages around which variants speak to people, and how sharply, in years.
_AGES = (34.0, 62.0, 27.0, 48.0, 70.0, 22.0, 55.0, 40.0)
_AGE_WIDTH = 13.0
_WEEKDAY_EFFECT = 0.25
_FIT_EFFECT = 0.3
_PART_EFFECT = 0.3


@dataclass(frozen=True)
class Tastes:
    """The tables of one world.

    Attributes:
        topic, age, price: (V,) what each variant is about, whom it speaks to, how much it saves (0 to 1).
        weekday: (V, 7) and fit: (V, C) small preferences; part: (C, 4) channel by part of the day.
        device: (3, C) and slope: (C,) how device and age move channels.
        three_way: (V, C, 4), xor: (V,), jagged: (168,), order: (4, 4) wanted topic after viewing one and another.
        goes_with: (4,) wanted topic after buying one.
        swap: (V,) whose content taste each variant has; drift changes it. turn: ±1, drift turns channels round.
    """

    topic: Ints
    age: Floats
    price: Floats
    weekday: Floats
    fit: Floats
    part: Floats
    device: Floats
    slope: Floats
    three_way: Floats
    xor: Floats
    jagged: Floats
    order: Ints
    goes_with: Ints
    swap: Ints
    turn: float = 1.0

    def swapped(self) -> Tastes:
        """The tastes after a drift: every variant gets another one's appeal, and channels turn half round."""
        return replace(self, swap=np.roll(self.swap, 1), turn=-0.5 * self.turn)


def make_tastes(spec: WorldSpec, rng: np.random.Generator) -> Tastes:
    """Draws the tables of a world."""
    v, c, twists = spec.variants, len(CHANNEL_NAMES), spec.twists
    device = np.array([[0.9, -0.8, -0.2], [-0.6, 0.9, 0.3], [0.2, 0.1, -0.3]])
    order = (np.arange(len(TOPICS))[None, :] - np.arange(len(TOPICS))[:, None]) % len(TOPICS)
    return Tastes(
        topic=np.arange(v, dtype=np.int64) % len(TOPICS),
        age=np.array(_AGES[:v]) + rng.normal(0, 4, v),
        price=(np.arange(v) % 3) / 2.0,
        weekday=_WEEKDAY_EFFECT * rng.standard_normal((v, 7)),
        fit=_FIT_EFFECT * rng.standard_normal((v, c)),
        part=_PART_EFFECT * rng.standard_normal((c, PARTS)),
        device=device + 0.15 * rng.standard_normal(device.shape),
        slope=np.array([0.5, -0.5, 0.15])[:c] + 0.1 * rng.standard_normal(c),
        three_way=twists.three_way * rng.standard_normal((v, c, PARTS)),
        xor=twists.xor * _balanced(v, rng),
        jagged=twists.jagged * rng.standard_normal(HOURS_OF_WEEK),
        order=order.astype(np.int64),
        goes_with=(np.arange(len(TOPICS), dtype=np.int64) + 1) % len(TOPICS),
        swap=np.arange(v, dtype=np.int64),
    )


def content(tastes: Tastes, people: Population, person: int, *, visits: int, basket: bool) -> Floats:
    """(V,) how much each variant appeals to a person by what is known: topic, age, price, and what they do just now."""
    interest = people.interest[person][tastes.topic]
    topical = 1.9 * np.tanh(3.2 * (interest - 0.47))
    aged = 1.2 * np.exp(-(((people.age[person] - tastes.age) / _AGE_WIDTH) ** 2)) - 0.5
    thrift = np.tanh(1.2 - 0.5 * np.log1p(people.orders[person]))
    saving = 0.8 * tastes.price * thrift
    warm = (0.7 if basket else -0.1) * (tastes.price > 0.4) + 0.12 * min(visits, 6) * (tastes.topic == 2)
    return np.asarray((topical + aged + saving + warm)[tastes.swap])


def channels(tastes: Tastes, people: Population, person: int) -> Floats:
    """(C,) how much a person's features speak for each channel."""
    age = np.tanh((people.age[person] - 44.0) / 15.0)
    table = tastes.device[people.device[person]]
    habit = 0.2 * np.tanh((people.tenure[person] - 250.0) / 300.0) * np.array([1.0, 0.3, -1.0])
    return np.asarray(tastes.turn * (table + tastes.slope * age) + habit)


def exclusive_or(people: Population, person: int) -> float:
    """±1: whether exactly one of two features is high. Neither of them alone says anything."""
    return 1.0 if (people.noise[person] > 0) != (people.morning[person] > 0) else -1.0


def wanted_topic(tastes: Tastes, last: int, before: int) -> int:
    """The topic that somebody wants who viewed ``before`` and then ``last``: a Latin square, so neither alone tells."""
    return int(tastes.order[before, last])


def describe(tastes: Tastes, name: str, place: int) -> dict[str, str | float]:
    """What the service is told of a variant."""
    return {
        "topic": TOPICS[int(tastes.topic[place])],
        "saving": float(tastes.price[place]),
        "tone": "warm" if len(name) % 2 else "plain",
    }


def _balanced(count: int, rng: np.random.Generator) -> Floats:
    """Half +1, half −1, in random order."""
    return np.asarray(rng.permutation(np.where(np.arange(count) % 2, 1.0, -1.0)))
