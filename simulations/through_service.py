"""A scenario played through the whole service on SQLite: decider, ingest, retrain, refresh, gate, policy server.

It costs several times what ``simulations.pure`` does, and is there for two things: to show that the two take the same
actions, and to let the gate judge what a scenario logs.
"""

from __future__ import annotations

import heapq
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optimizer.bandit.actions import ActionSpace
from optimizer.config import Settings
from optimizer.model.policy import LivePolicy
from optimizer.service.choose import Drawn
from optimizer.service.engagement import ENGAGING
from optimizer.service.progress import freed
from optimizer.service.rhythms import note_active, sums_of
from optimizer.service.wiring import Services, open_services
from simulations.game import Game, Turn
from simulations.play import AT_ONCE, Result
from simulations.pure import Clocks, Schedule
from simulations.scenarios import CAMPAIGN, START, WORKSPACE
from simulations.training_runs import carried_out
from storage.codec import to_micros
from storage.log import Decision, Event
from storage.port import Writer
from storage.records import Workspace
from storage.rhythm import RhythmKind, RhythmSum

#: Ways in which a log may be wrong about propensities.
Lie = Literal["none", "numbers", "draws"]


@dataclass
class MovedClock:
    """What time it is: what the simulation says."""

    now: datetime = START

    def __call__(self) -> datetime:
        """The present time."""
        return self.now


@dataclass
class Service:
    """The whole service as a player. It keeps its own log; what the play draws is what the service drew.

    Attributes:
        game: the seed; the database must be new.
        services: wired on that database, with the game's seed and ``clock``.
        clock: the services' clock.
        schedule: when to learn.
        lie: what the log is made to say; see ``falsified``.
        database: the file that the store is in.
        folder: the temporary database's, thrown away by ``close``.
    """

    game: Game
    services: Services
    clock: MovedClock
    database: Path
    schedule: Schedule = field(default_factory=Schedule)
    lie: Lie = "none"
    folder: tempfile.TemporaryDirectory[str] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._version = 1
        self._clocks = Clocks(self.game.scenario.feedback)
        self._matured = self._retrained = self._refreshed = 0
        self._hours: list[tuple[float, int, Decision, RhythmKind]] = []
        self._order = count()
        self._sent: dict[str, Decision] = {}
        self.services.store.write(self._set_up)

    def _set_up(self, writer: Writer) -> None:
        game = self.game
        writer.put_workspace(Workspace(WORKSPACE, "Simulation", "live", START))
        writer.put_campaign(game.campaigns[0])
        for attribute in game.attributes:
            writer.put_attribute(attribute)
        for rule in game.scenario.rules:
            writer.put_rule(rule)
        writer.put_recipients(game.recipients)

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``: asks the service's decider."""
        self.clock.now = turn.arrival.at
        campaign = turn.situation.campaign
        if campaign.version != self._version:
            self.services.store.write(lambda writer: writer.put_campaign(campaign))
            self._version = campaign.version
        # Where a gate judges, matured rows count.
        rows = self._matured if self.services.settings.gate else self._clocks.started(turn.arrival.at)
        due = self.schedule.due(rows, self._retrained, self._refreshed)
        if due is not None:
            self._learn(due, turn.arrival.at)
            self._refreshed = rows
            self._retrained = rows if due == "retrain" else self._retrained
        self._tally(turn.arrival.at)
        decision, _ = self.services.decider.decide(WORKSPACE, self.game.request(turn.arrival))
        told = falsified(decision, turn.space, self.lie)
        if told is not decision:
            self._overwrite(told)
            decision = told
        return Drawn(decision.action, decision.propensity or 0.0, decision.policy_id)

    def _overwrite(self, told: Decision) -> None:
        """Makes the log say something else, behind the store's back: it never changes what was drawn."""
        send_at = None if told.send_at is None else to_micros(told.send_at)
        with closing(sqlite3.connect(self.database, isolation_level=None)) as raw:
            raw.execute(
                "UPDATE decisions SET action = ?, propensity = ?, send_at = ? WHERE decision_id = ?",
                (told.action, told.propensity, send_at, told.decision_id),
            )

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        del result
        self._matured += 1

    def decided(self, turn: Turn, decision: Decision) -> None:
        """See ``Logging``: the service has its own record."""
        del turn
        self._clocks.add(decision)
        if decision.send_at is not None:
            self._sent[decision.decision_id] = decision
            self._expect(decision.send_at, decision, "sent")

    def heard(self, event: Event) -> None:
        """See ``Logging``: events are stored as they are."""

        def work(writer: Writer) -> None:
            writer.add_event(event)
            note_active(writer, event)

        self.services.store.write(work)
        decision = self._sent.get(event.decision_id or "")
        if decision is not None and not event.automated and event.type in ENGAGING:
            self._expect(event.occurred_at, decision, "answered")

    def _expect(self, at: datetime, decision: Decision, kind: RhythmKind) -> None:
        heapq.heappush(self._hours, (at.timestamp(), next(self._order), decision, kind))

    def _tally(self, now: datetime) -> None:
        """Tallies messages that have gone out or were answered by now, which reports would do in a service."""
        known: list[tuple[str, RhythmSum]] = []
        while self._hours and self._hours[0][0] < now.timestamp():
            _, _, decision, kind = heapq.heappop(self._hours)
            if kind == "sent" or self._sent.pop(decision.decision_id, None) is not None:
                sums = sums_of(replace(decision, status="sent"), answered=True)
                known += [(decision.recipient_id, one) for one in sums if one.kind == kind]

        def work(writer: Writer) -> None:
            for recipient_id, one in known:
                writer.add_to_rhythm(WORKSPACE, recipient_id, [one])

        if known:
            self.services.store.write(work)

    @property
    def live(self) -> LivePolicy:
        """The policy that is served now."""
        return self.services.policies.current(WORKSPACE, CAMPAIGN)

    def _learn(self, kind: str, now: datetime) -> None:
        started = time.perf_counter()
        # With immediate feedback every outcome so far counts as matured: the service asks its clock.
        ahead = AT_ONCE if self.game.scenario.feedback == "immediate" else timedelta(0)
        self.clock.now = now + ahead
        step: Literal["retrain", "refresh"] = "retrain" if kind == "retrain" else "refresh"
        for answer in carried_out(self.services, WORKSPACE, CAMPAIGN, step, ahead):
            told = {name: answer.get(name) for name in ("decision", "rows", "reason", "alpha")}
            of = "watch" if "watch" in answer else "climb" if "looks" in answer else kind
            told |= {"looked": bool(answer["conditions"])} if of == "climb" else {}
            told |= {"freed": self._freed(answer["policy_id"])} if of == "refresh" else {}
            self.notes.setdefault("verdicts", []).append({"kind": of, **told})
        self.clock.now = now
        self.services.policies.refresh_now()
        self.notes[kind] = self.notes.get(kind, 0.0) + time.perf_counter() - started

    def _freed(self, policy_id: str | None) -> bool:
        """Whether a revision may go as far from its gated policy as it likes: its line was shown to predict better."""
        if policy_id is None:
            return False
        with self.services.store.read() as reader:
            revision = reader.policy(WORKSPACE, policy_id)
        return revision is not None and freed(revision)

    def close(self) -> None:
        """Closes the service and throws its database away, if it owns it."""
        if self.folder is not None:
            self.services.close()
            self.folder.cleanup()
            self.folder = None


def open_service(game: Game, schedule: Schedule | None = None, *, gate: bool = False, lie: Lie = "none") -> Service:
    """The whole service on a temporary database; ``close`` it."""
    folder = tempfile.TemporaryDirectory(prefix="sendtide-", ignore_cleanup_errors=True)
    clock = MovedClock()
    database = Path(folder.name) / "simulation.db"
    settings = Settings(database=f"sqlite:///{database}", gate=gate, reload_seconds=60.0)
    services = open_services(settings, clock, seed=game.seed, watch=False)
    return Service(game, services, clock, database, schedule or Schedule(), lie=lie, folder=folder)


def falsified(decision: Decision, space: ActionSpace, lie: Lie) -> Decision:
    """A decision as a lying log has it.

    ``numbers``: twice the propensity it was drawn with. ``draws``: what was drawn for the night goes out at another
    time of the same day, under the propensity of the first draw; that is what a sender does who knows better.
    """
    if lie == "none" or decision.action is None or decision.propensity is None:
        return decision
    if lie == "numbers":
        return replace(decision, propensity=min(1.0, 2.0 * decision.propensity))
    at = space.factors(decision.action)
    if at is None or int(space.dayparts[at[1]]) != 0:
        return decision
    later = np.flatnonzero((space.dayparts > 0) & (np.arange(space.slots) > at[1]))
    if not len(later):
        return decision
    action = space.index(at[0], int(later[0]), at[2])
    return replace(decision, action=action, send_at=space.send_time(int(later[0])))
