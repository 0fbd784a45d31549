"""The truth of a world: for one person at one moment, the exact chance of every outcome of every action."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.world import rhythms, tastes
from simulations.world.chances import Chances, Link
from simulations.world.memory import Memory, weariness
from simulations.world.population import Population, populate
from simulations.world.spec import CHANNEL_NAMES, WorldSpec
from simulations.world.tastes import Tastes, make_tastes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: How much of the log odds of a like goes, with the other sign, into those of unsubscribing.
ANNOYED = 0.4
#: Keeps the random streams of one seed apart.
_PEOPLE, _TABLES = 11, 12


@dataclass(frozen=True)
class Moment:
    """What is going on when a decision is made, beyond who it is for.

    Attributes:
        person: position in the population.
        visits, basket: of the present: visits within 7 days, something in the basket. The service is told.
        viewed: the topics that were viewed lately, oldest first; told as events.
        bought: the topic of the last purchase. new: whether it was made since the last decision; told as an event.
        drifted: whether tastes have swapped.
    """

    person: int
    visits: int = 0
    basket: bool = False
    viewed: tuple[int, ...] = ()
    bought: int | None = None
    new: bool = False
    drifted: bool = False


@dataclass(frozen=True)
class Slots:
    """Where and when a message may go: the variants' and channels' positions, and the send times.

    ``send_at`` (S,) seconds since 1970, ``local`` (S,) the same on the recipient's wall clock.
    """

    variants: Ints
    channels: Ints
    send_at: Ints
    local: Ints


@dataclass(frozen=True)
class World:
    """One world: its people, its tastes, and what follows from them."""

    spec: WorldSpec
    people: Population
    before: Tastes
    after: Tastes
    look: Link = field(init=False)
    like: Link = field(init=False)
    leave: Link = field(init=False)

    def __post_init__(self) -> None:
        own = self.spec.personal
        look = float(np.sqrt(own.level**2 + own.channel**2 + own.rhythm**2))
        like = float(np.sqrt(own.level**2 + own.content**2))
        object.__setattr__(self, "look", Link(self.spec.floor, self.spec.ceiling, look))
        object.__setattr__(self, "like", Link(self.spec.floor, self.spec.ceiling, like))
        object.__setattr__(self, "leave", Link(0.0, 1.0, ANNOYED * like))

    def tables(self, moment: Moment) -> Tastes:
        """The tastes in force."""
        return self.after if moment.drifted else self.before

    def chances(self, moment: Moment, slots: Slots, memory: Memory, *, personal: bool = True) -> Chances:
        """The exact chances of every message action.

        Args:
            moment: who, and what is going on.
            slots: the actions.
            memory: what this person got before.
            personal: True gives the truth; False its mean given all that features, events and past tell.
        """
        look, like, tired = self.log_odds(moment, slots, memory, personal=personal)
        read = Link.chance if personal else Link.mean
        opened = read(self.look, look)
        clicked = opened * read(self.like, like)
        annoyed = self.spec.unsubscribe - ANNOYED * like + self.spec.tiring.unsubscribe * tired
        organic = self.organic(moment)
        return Chances(
            opened=opened,
            clicked=clicked,
            bought=1.0 - (1.0 - organic) * (1.0 - self.spec.convert * clicked),
            unsubscribed=read(self.leave, annoyed),
            organic=organic,
        )

    def log_odds(
        self, moment: Moment, slots: Slots, memory: Memory, *, personal: bool = True
    ) -> tuple[Floats, Floats, Floats]:
        """Log odds of a look and of a like, and the fatigue that is in them, each (V, S, C)."""
        tired, repeated = self._load(moment, slots, memory)
        look = self._look(moment, slots, personal=personal)
        look = look[None] - self.spec.tiring.strength * weariness(tired)[None]
        like = self._like(moment, slots, personal=personal)
        like = like - self.spec.tiring.repetition * repeated[slots.variants][:, :, None]
        shape = (len(slots.variants), len(slots.send_at), len(slots.channels))
        return np.broadcast_to(look, shape), like, np.broadcast_to(tired[None], shape)

    def organic(self, moment: Moment) -> float:
        """The chance that somebody buys without a message: who has bought lately does so again."""
        often = np.tanh(0.25 * self.people.orders[moment.person])
        return float(min(1.0, self.spec.organic * (0.5 + 2.0 * often) * (2.0 if moment.basket else 1.0)))

    def _load(self, moment: Moment, slots: Slots, memory: Memory) -> tuple[Floats, Floats]:
        tiring = self.spec.tiring
        if tiring.strength == 0 and tiring.repetition == 0:
            return np.zeros((len(slots.send_at), len(slots.channels))), np.zeros(
                (self.spec.variants, len(slots.send_at))
            )
        tired, repeated = memory.load(tiring, moment.person, slots.send_at, self.spec.variants, len(CHANNEL_NAMES))
        return tired[:, slots.channels], repeated

    def _look(self, moment: Moment, slots: Slots, *, personal: bool) -> Floats:
        """(S, C): when, and through which channel."""
        spec, people, person = self.spec, self.people, moment.person
        table, local = self.tables(moment), slots.local
        at = spec.rhythm * rhythms.attention(people, person, local) + spec.season * rhythms.season(local)
        if spec.twists.jagged:
            at = at + table.jagged[rhythms.weekdays(local) * 24 + (local % rhythms.DAY) // 3600]
        through = spec.channel * tastes.channels(table, people, person)
        if personal:
            at = at + rhythms.personal_rhythm(people.rhythm[person], local) + people.level[person, 0]
            through = through + people.channel[person]
        part = (local % rhythms.DAY) * tastes.PARTS // rhythms.DAY
        look = (
            spec.look
            + _loyalty(people, person)
            + at[:, None]
            + (through[None, :] + table.part.T[part])[:, slots.channels]
        )
        return np.asarray(look)

    def _like(self, moment: Moment, slots: Slots, *, personal: bool) -> Floats:
        """(V, S, C): what, and how it goes with day and channel."""
        spec, people, person = self.spec, self.people, moment.person
        table, local = self.tables(moment), slots.local
        of = spec.content * tastes.content(table, people, person, visits=moment.visits, basket=moment.basket)
        if personal:
            of = of + people.content[person] + people.level[person, 1]
        if spec.twists.xor:
            of = of + table.xor * tastes.exclusive_or(people, person)
        if spec.twists.order and len(moment.viewed) >= 2:
            wanted = tastes.wanted_topic(table, moment.viewed[-1], moment.viewed[-2])
            of = of + spec.twists.order * ((table.topic == wanted) - 0.25)
        if spec.twists.bought and moment.bought is not None:
            of = of + spec.twists.bought * ((table.topic == table.goes_with[moment.bought]) - 0.25)
        timed = table.weekday[:, rhythms.weekdays(local)] + spec.payday * np.outer(table.price, rhythms.payday(local))
        like = spec.like + (of[:, None] + timed)[:, :, None] + table.fit[:, None, :]
        if spec.twists.three_way:
            part = (local % rhythms.DAY) * tastes.PARTS // rhythms.DAY
            like = like + table.three_way[:, :, part].swapaxes(1, 2)
        return np.asarray(like[slots.variants][:, :, slots.channels])

    def context(self, moment: Moment) -> dict[str, Any]:
        """What the request tells of the moment."""
        return {"visits_7d": moment.visits, "basket": moment.basket}


def _loyalty(people: Population, person: int) -> float:
    """How much readier to look somebody is who visits often and holds a card."""
    return float(0.5 * np.tanh((people.visits[person] - 4.0) / 4.0) + 0.2 * (people.tier[person] - 0.5))


def make_world(spec: WorldSpec, seed: int) -> World:
    """One world of a kind; the same seed gives the same world."""
    before = make_tastes(spec, np.random.default_rng([_TABLES, seed]))
    people = populate(spec, np.random.default_rng([_PEOPLE, seed]))
    return World(spec, people, before, before.swapped())
