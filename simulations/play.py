"""Plays one policy through one seed of a scenario: ask, draw the outcomes, tell them when they are known, keep score.

The score is by expected reward, which the world gives exactly: the luck of outcomes moves what a policy learns, not how
it is judged.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.rewards import clock_start
from optimizer.bandit.spoken import max_window
from optimizer.service.choose import Drawn
from optimizer.service.feedback import Logged, logged
from optimizer.service.record import message_of
from simulations.asking import record
from simulations.game import Game, Turn
from simulations.outcomes import happen
from simulations.world.chances import Chances
from simulations.world.memory import Memory
from storage.log import Decision, Event, FeedbackRow, Message

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Where outcomes are known ahead of time, a decision counts as matured this long after it: further than any window.
AT_ONCE = timedelta(days=400)
#: Columns of the score that are numbers, and those that are places (−1 = nothing was sent).
NUMBERS = ("value", "best", "informed", "chance", "reward", "propensity")
PLACES = ("variant", "channel", "hour", "weekday")


@dataclass(frozen=True)
class Result:
    """A decision whose outcomes are known."""

    turn: Turn
    decision: Decision
    reward: float
    outcomes: dict[str, bool]


class Player(Protocol):
    """A policy under test."""

    def choose(self, turn: Turn) -> Drawn:
        """An eligible action with its probability."""

    def learn(self, result: Result) -> None:
        """Is told what came of a decision, once that is known."""


@runtime_checkable
class Logging(Protocol):
    """A policy that keeps a log, as the service does, and wants to know everything when it happens."""

    def decided(self, turn: Turn, decision: Decision) -> None:
        """A decision was made."""

    def heard(self, event: Event) -> None:
        """An event came in."""


@runtime_checkable
class Closing(Protocol):
    """A policy that holds something open."""

    def close(self) -> None:
        """Lets go of it."""


@dataclass(frozen=True)
class Played:
    """One policy's score in one seed; every column has a row for each decision.

    Attributes:
        numbers: ``value`` of the action taken, of the ``best`` eligible one, of the ``informed`` oracle's choice, of
            ``chance`` (the mean over eligible actions), all expected rewards given what the policy made of the
            recipient before; ``reward`` as it came, ``propensity``. NaN where nobody was asked (gone, withheld).
        places: ``variant``, ``channel``, local ``hour`` and ``weekday`` of the message; −1 for none.
        notes: what the player wants to say of itself.
    """

    policy: str
    seed: int
    numbers: dict[str, Floats]
    places: dict[str, Ints]
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def regret(self) -> Floats:
        """(T,) loss against the informed oracle at each decision, 0 where nobody was asked."""
        return np.nan_to_num(self.numbers["informed"] - self.numbers["value"])

    @property
    def full_regret(self) -> Floats:
        """(T,) loss against the best action, which needs to know what no feature tells."""
        return np.nan_to_num(self.numbers["best"] - self.numbers["value"])


@dataclass
class _Post:
    """What is under way: results and events by the time at which they are known."""

    queue: list[tuple[float, int, Event | Result]] = field(default_factory=list)
    count: int = 0

    def put(self, at: datetime, what: Event | Result) -> None:
        heapq.heappush(self.queue, (at.timestamp(), self.count, what))
        self.count += 1

    def deliver(self, until: datetime, player: Player) -> None:
        while self.queue and self.queue[0][0] <= until.timestamp():
            _tell(player, heapq.heappop(self.queue)[2])


class Play:
    """One policy in one seed."""

    def __init__(self, game: Game, player: Player) -> None:
        self.game, self.player = game, player
        self.memory = Memory()
        self._messages: dict[int, list[Message]] = {}
        self._post = _Post()
        count = game.decisions
        self._numbers = {name: np.full(count, np.nan) for name in NUMBERS}
        self._places = {name: np.full(count, -1, dtype=np.int64) for name in PLACES}

    def run(self, name: str, on_progress: Callable[[int], None] | None = None) -> Played:
        """Plays all decisions; ``on_progress`` is told how many are done, now and then."""
        started = time.perf_counter()
        for arrival in self.game.arrivals:
            self._post.deliver(arrival.at, self.player)
            if arrival.moment.person not in self.memory.gone:
                held = self._messages.get(arrival.moment.person, [])
                self._ask(self.game.turn(arrival, self.memory, held))
            if on_progress is not None and arrival.index % 100 == 99:
                on_progress(arrival.index + 1)
        notes = getattr(self.player, "notes", {})
        if isinstance(self.player, Closing):
            self.player.close()
        return Played(name, self.game.seed, self._numbers, self._places, time.perf_counter() - started, dict(notes))

    def _ask(self, turn: Turn) -> None:
        if isinstance(self.player, Logging):
            for event in turn.news:
                self.player.heard(event)
        sends = bool(turn.plan.mask[: turn.space.messages].any())
        drawn = self.player.choose(turn) if sends else Drawn(None, 1.0, "withheld")
        decision = record(turn.ask, turn.situation, turn.plan, drawn, turn.recipient)
        if isinstance(self.player, Logging):
            self.player.decided(turn, decision)
        if decision.action is None:
            return
        chances = self.game.chances(turn)
        self._score(turn, decision, chances)
        message = message_of(decision)
        if message is not None:
            self._messages.setdefault(turn.arrival.moment.person, []).append(message)
        self._report(turn, decision, chances)
        self._remember(turn, decision)

    def _score(self, turn: Turn, decision: Decision, chances: Chances) -> None:
        game, mask, i = self.game, turn.plan.mask, turn.arrival.index
        truth = game.values(chances, turn)
        informed = game.values(game.chances(turn, personal=False), turn)
        action = decision.action or 0
        self._numbers["value"][i] = truth[action]
        self._numbers["best"][i] = truth[mask].max()
        self._numbers["informed"][i] = truth[np.where(mask, informed, -np.inf).argmax()]
        self._numbers["chance"][i] = truth[mask].mean()
        self._numbers["propensity"][i] = decision.propensity or 0.0
        at = turn.space.factors(action)
        if at is not None:
            local = int(turn.space.local[at[1]])
            self._places["variant"][i] = self.game.scenario.world.names.index(turn.space.variants[at[0]])
            self._places["channel"][i] = at[2]
            self._places["hour"][i] = local % 86_400 // 3600
            self._places["weekday"][i] = (local // 86_400 + 3) % 7

    def _report(self, turn: Turn, decision: Decision, chances: Chances) -> None:
        """Draws the outcomes and sends them on their way."""
        events = happen(self.game, turn, decision, chances)
        campaign = turn.situation.campaign
        known = logged(campaign, FeedbackRow(decision, tuple(events)), decision.decided_at + AT_ONCE)
        if known is None:
            return
        self._numbers["reward"][turn.arrival.index] = known.reward
        result = Result(turn, decision, known.reward, _happened(known))
        if self.game.scenario.feedback == "immediate":
            for event in events:
                _tell(self.player, event)
            _tell(self.player, result)
        else:
            at_send, start = self.game.scenario.feedback == "at_send", clock_start(decision)
            for event in events:
                self._post.put(start if at_send else event.occurred_at, event)
            self._post.put(start if at_send else start + timedelta(hours=max_window(campaign)), result)
        if self.game.scenario.leaving and result.outcomes.get("unsubscribed"):
            self.memory.gone.add(turn.arrival.moment.person)

    def _remember(self, turn: Turn, decision: Decision) -> None:
        at = None if decision.action is None else turn.space.factors(decision.action)
        if at is None or decision.send_at is None:
            return
        variant = self.game.scenario.world.names.index(turn.space.variants[at[0]])
        self.memory.add(turn.arrival.moment.person, int(decision.send_at.timestamp()), variant, at[2])


def _tell(player: Player, what: Event | Result) -> None:
    if isinstance(what, Result):
        player.learn(what)
    elif isinstance(player, Logging):
        player.heard(what)


def _happened(row: Logged) -> dict[str, bool]:
    return {name: outcome.happened for name, outcome in row.outcomes.items()}
