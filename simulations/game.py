"""One seed of a scenario: the world, the stream of arrivals that every policy meets, and what each action is worth.

Arrivals, contexts and the chance behind outcomes hang on the seed and the place in the stream alone. So policies of one
seed are paired: they meet the same people at the same moments, with the same luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.groups import assign
from optimizer.bandit.localtime import DAY, Zone, zone
from optimizer.bandit.rewards import needs_message
from optimizer.bandit.spoken import window_hours
from optimizer.service.choose import Plan, Situation
from optimizer.service.framing import factors, resolve_zone, seen_context
from optimizer.service.record import Ask, named_request
from optimizer.service.requests import DecisionRequest
from simulations.asking import plan_for
from simulations.scenarios import CAMPAIGN, START, WORKSPACE, Scenario
from simulations.world import tastes
from simulations.world.chances import Chances
from simulations.world.memory import Memory
from simulations.world.population import TOPICS
from simulations.world.spec import CHANNEL_NAMES
from simulations.world.timing import within
from simulations.world.world import Moment, Slots, World, make_world
from storage.log import Event, Message
from storage.records import Attribute, AttributeType, Campaign, Channel, Consent, Recipient, Variant

Floats = NDArray[np.float64]

_ARRIVALS, _LUCK = 21, 22
#: The local time at which a ``week`` window starts on Monday, in seconds: slots of six hours are 02, 08, 14 and 20.
_WEEK_STARTS = 2 * 3600
#: Things viewed before a decision.
VIEWED = 6
#: How often somebody has bought something since their last decision, and how many minutes before the next one.
BUYS, BOUGHT_AGO = 0.5, 720
#: Uniform numbers and normal ones that the outcomes of one decision use.
UNIFORMS, NORMALS = 5, 5


@dataclass(frozen=True)
class Arrival:
    """One decision of the stream: when, and the moment it is about."""

    index: int
    at: datetime
    moment: Moment


@dataclass(frozen=True)
class Turn:
    """What a policy is asked: all that the service would know. ``memory`` is the truth's; only oracles look at it.

    ``news`` are the recipient's tracked events since the last decision. ``hints`` is what rivals are told of them by
    hand, who read no events.
    """

    arrival: Arrival
    ask: Ask
    recipient: Recipient
    situation: Situation
    plan: Plan
    news: tuple[Event, ...]
    hints: Mapping[str, Any]
    memory: Memory

    @property
    def seen_by_rivals(self) -> Mapping[str, Any]:
        """The context that the service's model sees, and the hints."""
        return {**self.situation.seen, **self.hints}

    @property
    def space(self) -> ActionSpace:
        """The actions."""
        return self.plan.space


class Game:
    """One seed of a scenario."""

    def __init__(self, scenario: Scenario, seed: int, decisions: int | None = None) -> None:
        """``decisions``: how many (None = the scenario's); the days shrink or grow with them."""
        self.scenario, self.seed = scenario, scenario.seed + seed
        self.decisions = scenario.decisions if decisions is None else decisions
        self.days = scenario.days * self.decisions / scenario.decisions
        self.world: World = make_world(scenario.world, self.seed)
        #: As a new installation with this seed has it.
        self.salt = hashlib.blake2b(str(self.seed).encode(), digest_size=32).digest()

    @cached_property
    def arrivals(self) -> tuple[Arrival, ...]:
        """The stream, in order of time."""
        rng = np.random.default_rng([_ARRIVALS, self.seed])
        people, count = len(self.world.people), self.decisions
        rounds = [rng.permutation(people) for _ in range(-(-count // people))]
        who = np.concatenate(rounds)[:count]
        step = self.days * DAY / count
        at = (np.arange(count) + 0.9 * rng.random(count)) * step
        visits, basket = rng.poisson(1.2, count), rng.random(count) < 0.15
        viewed = rng.integers(len(TOPICS), size=(count, VIEWED))
        bought = self._bought(who, rng) if self.scenario.world.twists.bought else [(None, False)] * count
        drift = self.place(self.scenario.drift_at)
        return tuple(
            Arrival(
                i,
                START + timedelta(milliseconds=round(1000 * at[i])),
                Moment(
                    int(who[i]),
                    int(visits[i]),
                    bool(basket[i]),
                    tuple(viewed[i].tolist()) if self.scenario.world.twists.order else (),
                    *bought[i],
                    drift is not None and i >= drift,
                ),
            )
            for i in range(count)
        )

    def _bought(self, who: NDArray[np.int64], rng: np.random.Generator) -> list[tuple[int | None, bool]]:
        """What the person of each decision has bought last, and whether since their last decision. Everybody has bought
        something before the first one."""
        topics, buys = rng.integers(len(TOPICS), size=len(who)), rng.random(len(who)) < BUYS
        last: dict[int, int] = {}
        out: list[tuple[int | None, bool]] = []
        for person, topic, new in zip(who.tolist(), topics.tolist(), buys.tolist(), strict=True):
            new = new or person not in last
            last[person] = topic if new else last[person]
            out.append((last[person], new))
        return out

    @cached_property
    def luck(self) -> tuple[Floats, Floats]:
        """(T, 5) uniform and (T, 5) normal numbers behind the outcomes of each decision."""
        rng = np.random.default_rng([_LUCK, self.seed])
        return rng.random((self.decisions, UNIFORMS)), rng.standard_normal((self.decisions, NORMALS))

    def place(self, share: float | None) -> int | None:
        """The decision before which something happens that is set for a share of them."""
        return None if share is None else round(share * self.decisions)

    @cached_property
    def campaigns(self) -> tuple[Campaign, ...]:
        """The campaign's versions in order; the second one, if any, has the new variant active."""
        names = self.scenario.world.names
        variants = tuple(
            Variant(name, features=tastes.describe(self.world.before, name, i)) for i, name in enumerate(names)
        )
        whole = Campaign(
            WORKSPACE,
            CAMPAIGN,
            variants,
            tuple(Channel(name) for name in CHANNEL_NAMES),
            START,
            START,
            name=self.scenario.name,
            slot_minutes=self.scenario.slot_minutes,
            spread_within_slot=False,
            allow_no_send=self.scenario.allow_no_send,
            objective=dict(self.scenario.objective),
            attribution_hours=dict(self.scenario.attribution_hours),
            default_window_hours=7 * 24.0,
        )
        launch = self.place(self.scenario.launch_at)
        if launch is None:
            return (whole,)
        before = replace(whole, variants=(*variants[:-1], replace(variants[-1], status="paused")))
        launched = self.arrivals[launch].at
        return (before, replace(whole, version=2, updated_at=launched))

    def campaign_at(self, index: int) -> Campaign:
        """The campaign's version at a decision."""
        launch = self.place(self.scenario.launch_at)
        return self.campaigns[0] if launch is None or index < launch else self.campaigns[1]

    @cached_property
    def recipients(self) -> tuple[Recipient, ...]:
        """The people as the service knows them; every channel has their consent."""
        people = self.world.people
        agreed = {name: Consent(state=True) for name in CHANNEL_NAMES}
        return tuple(
            Recipient(WORKSPACE, f"person-{i}", 1, people.zone_name(i), attributes, agreed, updated_at=START)
            for i, attributes in enumerate(people.attributes)
        )

    @cached_property
    def attributes(self) -> tuple[Attribute, ...]:
        """The registry: the types of all that the service is told, declared."""
        told = {**self.context(self.arrivals[0]), **self.hints(self.arrivals[0])}
        for attributes in self.world.people.attributes:
            told |= attributes
        return tuple(Attribute(WORKSPACE, name, _type(value), declared=True) for name, value in sorted(told.items()))

    def context(self, arrival: Arrival) -> dict[str, Any]:
        """What the request tells: the moment, and a summary of what was viewed (counts, and the last one)."""
        told = self.world.context(arrival.moment)
        viewed = arrival.moment.viewed
        if viewed:
            told |= {f"viewed_{topic}": viewed.count(k) for k, topic in enumerate(TOPICS)}
            told["viewed_last"] = TOPICS[viewed[-1]]
        return told

    def hints(self, arrival: Arrival) -> dict[str, Any]:
        """What rivals are told of the recipient's events: their models read none."""
        bought, viewed = arrival.moment.bought, arrival.moment.viewed
        told = {} if bought is None else {"bought_last": TOPICS[bought]}
        return {**told, "viewed_before": TOPICS[viewed[-2]]} if len(viewed) >= 2 else told

    def request(self, arrival: Arrival) -> DecisionRequest:
        """The question as it is put to the service."""
        return DecisionRequest(
            CAMPAIGN,
            f"person-{arrival.moment.person}",
            request_id=f"arrival-{arrival.index}",
            window=self._window(arrival),
            context=self.context(arrival),
        )

    def turn(self, arrival: Arrival, memory: Memory, messages: Sequence[Message]) -> Turn:
        """The question as a policy gets it, with its action space and eligible set, by the service's own code."""
        campaign = self.campaign_at(arrival.index)
        recipient = self.recipients[arrival.moment.person]
        request = self.request(arrival)
        ask = named_request(self.salt, WORKSPACE, request)
        where, source = resolve_zone(recipient, campaign)
        variants, channels = factors(campaign, request.variants, request.channels)
        situation = Situation(
            decision_id=ask.decision_id,
            campaign=campaign,
            variants=variants,
            channels=channels,
            window=request.window or (arrival.at, arrival.at),
            zone=where,
            zone_source=source,
            group=assign(self.salt, WORKSPACE, CAMPAIGN, recipient.recipient_id, campaign.groups),
            mode=campaign.mode,
            decided_at=arrival.at,
            context=seen_context(recipient, request.context, frozenset()),
        )
        made = plan_for(situation, recipient, self.scenario.rules, messages)
        return Turn(arrival, ask, recipient, situation, made, self.news(arrival), self.hints(arrival), memory)

    def news(self, arrival: Arrival) -> tuple[Event, ...]:
        """What the recipient viewed or bought shortly before the decision, as tracked events, oldest first."""
        moment = arrival.moment
        viewed = [
            self._tracked(arrival, "viewed", 10 * (len(moment.viewed) - k), k, topic=TOPICS[topic])
            for k, topic in enumerate(moment.viewed)
        ]
        if moment.bought is None or not moment.new:
            return tuple(viewed)
        return (self._tracked(arrival, "bought", BOUGHT_AGO, 0, product=TOPICS[moment.bought]), *viewed)

    def _tracked(self, arrival: Arrival, kind: str, minutes: int, place: int, **properties: str) -> Event:
        return Event(
            WORKSPACE,
            f"{kind}-{arrival.index}-{place}",
            kind,
            arrival.at - timedelta(minutes=minutes),
            arrival.at,
            matched=True,
            recipient_id=f"person-{arrival.moment.person}",
            properties=properties,
        )

    def chances(self, turn: Turn, *, personal: bool = True) -> Chances:
        """The exact chances of every outcome; without ``personal`` their means given all that is known."""
        return self.chances_in(turn.arrival.moment, turn.space, turn.memory, personal=personal)

    def chances_in(self, moment: Moment, space: ActionSpace, memory: Memory, *, personal: bool = True) -> Chances:
        """The same for any action space."""
        names = self.scenario.world.names
        variants = np.array([names.index(v) for v in space.variants], dtype=np.int64)
        channels = np.array([CHANNEL_NAMES.index(c) for c in space.channels], dtype=np.int64)
        slots = Slots(variants, channels, space.send_at, space.local)
        return self.world.chances(moment, slots, memory, personal=personal)

    def values(self, chances: Chances, turn: Turn) -> Floats:
        """(K,) the expected reward of every action: what happens too late to count is left out.

        What needs a message counts within its window from the send; a purchase until its window has passed from the
        latest send that could have been planned, so one that follows an early send has longer to come.
        """
        space, delays = turn.space, self.scenario.world.delays
        worth, stay, last = np.zeros(space.shape), 0.0, turn.situation.window[1].timestamp()
        for outcome, gain in self._gains.items():
            message, without = chances.of(outcome)
            window = window_hours(self.campaigns[0], outcome)
            if needs_message(outcome):
                worth += within(delays, outcome, window) * gain * message
                continue
            hours = window + (last - np.append(space.send_at, turn.arrival.at.timestamp())) / 3_600.0
            *sent, unsent = [within(delays, outcome, one) for one in hours.tolist()]
            worth += np.array(sent)[:, None] * gain * message
            stay += unsent * gain * without
        flat = worth.reshape(-1)
        return np.append(flat, stay) if space.no_send else flat

    @cached_property
    def _gains(self) -> dict[str, float]:
        """What an outcome that counts is worth on average."""
        worth = self.scenario.objective
        return {name: one.fixed + one.per_value * self.mean_value(name) for name, one in worth.items()}

    def mean_value(self, outcome: str) -> float:
        """Mean value of an outcome as the objective counts it: log-normal, clipped at ``max_value``."""
        from scipy.stats import norm

        weight, spec = self.scenario.objective[outcome], self.scenario.world
        if outcome != "converted" or not weight.per_value:
            return 0.0
        most = weight.max_value
        spread = spec.value_spread
        if most is None:
            return spec.value
        z = (np.log(most / spec.value) + 0.5 * spread**2) / spread
        return float(spec.value * norm.cdf(z - spread) + most * norm.sf(z))

    def _window(self, arrival: Arrival) -> tuple[datetime, datetime]:
        where = zone(self.world.people.zone_name(arrival.moment.person))
        if self.scenario.window == "now":
            start = arrival.at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        else:
            start = _next_week(arrival.at, where)
        return start, start + timedelta(days=7)


def _next_week(at: datetime, where: Zone) -> datetime:
    """The next Monday 02:00 on the wall clock."""
    epoch = int(at.timestamp())
    local = epoch + where.offset(epoch)
    monday = ((local // DAY + 3) // 7 + 1) * 7 - 3
    return datetime.fromtimestamp(where.to_epoch(monday * DAY + _WEEK_STARTS), UTC)


def _type(value: Any) -> AttributeType:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "category"
