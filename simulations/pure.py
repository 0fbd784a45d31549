"""Sendtide as a player: the service's pure middle with the log in memory.

Distribution, draw, reward, training, refresh: all are the very functions that the service calls; what is left out is
the store, the gate and HTTP. ``simulations.through_service`` plays the same through the whole service, and the tests
hold the two to the same actions.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import zone
from optimizer.bandit.rewards import clock_start
from optimizer.model.history import LENGTH, SENT, Encoder, wanted
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.service.annealing import exploration_numbers
from optimizer.service.choose import Drawn, draw
from optimizer.service.drifting import advanced, beginning, changes, following, planned_maturity
from optimizer.service.driftstate import Drift
from optimizer.service.feedback import Log, Logged, examples, logged
from optimizer.service.footing import footing_of, known_of
from optimizer.service.forgetting import remembered
from optimizer.service.ids import COLD_POLICY
from optimizer.service.pacing import unsettled
from optimizer.service.past import with_past
from optimizer.service.record import message_of
from optimizer.service.runs import LEAST_ROWS
from simulations.game import Game, Turn
from simulations.play import AT_ONCE, Result
from simulations.scenarios import CAMPAIGN, WORKSPACE, Feedback
from simulations.tallies import Tallies
from storage.log import Decision, Event, FeedbackRow, Happening
from storage.policies import Component
from storage.records import Attribute, Campaign, ExplorationMethod, JsonObject

Floats = NDArray[np.float64]


#: Rows up to which a log is short: most of what there is to learn is learned here.
EARLY = 1_500
#: Rows after which the drift detectors look, at the latest; the service looks every minute.
LOOK = 100


@dataclass(frozen=True)
class Schedule:
    """When the service learns, in rows whose clock has started.

    The service retrains every four hours and refreshes within an hour, or when what is known has grown by 1 %; a
    simulation's clock has no hours of computing, so both go by growth here: a retrain when the log has grown by
    ``retrain`` (.5 = by half), or while it is shorter than ``EARLY`` rows by ``early``, since a short log is fitted in
    a second or two: 17 retrains in 10,000 decisions over four weeks, where the service would make 168. A refresh when
    it has grown by ``refresh``, by ``step`` rows at least. What is forgotten after a change of outcomes doesn't count.
    """

    retrain: float = 0.5
    refresh: float = 0.05
    step: int = 25
    early: float = 0.2

    def due(self, rows: int, retrained: int, refreshed: int) -> str | None:
        """``retrain``, ``refresh`` or None, for so many rows now and at the last of each."""
        if retrained == 0:
            return "retrain" if rows >= LEAST_ROWS else None
        if rows >= (1 + (self.early if retrained < EARLY else self.retrain)) * retrained:
            return "retrain"
        return "refresh" if self.refreshes(rows, refreshed) else None

    def refreshes(self, rows: int, refreshed: int) -> bool:
        """Whether a refresh is due."""
        return rows - refreshed >= max(self.step, self.refresh * refreshed)


class Clocks:
    """Counts the decisions whose clocks have started: there is something to learn from them."""

    def __init__(self, feedback: Feedback) -> None:
        self._immediate = feedback == "immediate"
        self._waiting: list[float] = []
        self._count = 0

    def add(self, decision: Decision) -> None:
        """One more decision; what was withheld has no clock."""
        if decision.action is not None:
            at = -math.inf if self._immediate else clock_start(decision).timestamp()
            heapq.heappush(self._waiting, at)

    def started(self, now: datetime) -> int:
        """How many have started before now."""
        while self._waiting and self._waiting[0] < now.timestamp():
            heapq.heappop(self._waiting)
            self._count += 1
        return self._count


@dataclass(frozen=True)
class Kept:
    """Versions of the campaign and policies of a log in memory (``replay.Past``)."""

    campaigns: dict[int, Campaign] = field(default_factory=dict)
    policies: dict[str, LivePolicy] = field(default_factory=dict)

    def campaign(self, decision: Decision) -> Campaign:
        """See ``Past``."""
        return self.campaigns[decision.campaign_version]

    def policy(self, workspace_id: str, policy_id: str) -> LivePolicy:
        """See ``Past``."""
        del workspace_id
        return self.policies[policy_id]

    def asked(self, campaign: Campaign, recipient_id: str) -> tuple[Decision, ...]:
        """See ``Past``: what is reported here names its decision."""
        del campaign, recipient_id
        return ()

    def keep_only(self, policy_ids: set[str]) -> None:
        """Forgets all other policies."""
        for name in self.policies.keys() - policy_ids:
            del self.policies[name]


@dataclass
class Sendtide:
    """The production policy of one campaign, gate off.

    Attributes:
        naive: whether an outcome that has not been seen yet counts as a no (what a simple log would say); without
            drift detectors, which would find that its predictions come true late.
        network: whether learned columns (a network's, an encoder's) may join the model.
        encoder: what reads the recipient's history in order.
        history: whether the recipient's history is known at all.
        opens: whether it is told of opens; without them clicks are learned from clicks alone.
        method, parameter: how the campaign explores.
    """

    game: Game
    schedule: Schedule = field(default_factory=Schedule)
    naive: bool = False
    network: bool = True
    encoder: Encoder = "auto"
    history: bool = True
    opens: bool = True
    method: ExplorationMethod = "posterior_bank"
    parameter: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._live = LivePolicy.cold(COLD_POLICY)
        self._blob: bytes | None = None
        self._attributes: tuple[Attribute, ...] = self.game.attributes
        self._campaign = self._exploring(self.game.campaigns[0])
        self._decisions: list[Decision] = []
        self._pasts: dict[str, list[Happening]] = {}
        self._tallies = Tallies({one.recipient_id: zone(one.timezone) for one in self.game.recipients if one.timezone})
        self._sent: dict[str, tuple[str | None, str | None, str | None]] = {}
        self._seen: JsonObject = {}
        self._effects: JsonObject = {}
        self._events: dict[str, list[Event]] = {}
        self._final: dict[str, Logged] = {}
        self._kept = Kept()
        self._drift: Drift | None = None
        self._clocks = Clocks(self.game.scenario.feedback)
        self._retrained = self._refreshed = self._looked = self._forgotten = 0
        self._unsettled = False
        self.notes |= {"choose": 0.0, "read": 0.0, "refresh": 0.0, "retrain": 0.0, "refreshes": 0, "retrains": 0}

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``: the service's own draw."""
        campaign = turn.situation.campaign
        if (campaign.version, campaign.updated_at) != (self._campaign.version, self._campaign.updated_at):
            self._campaign = self._exploring(campaign)
        self._kept.campaigns[self._campaign.version] = self._campaign
        rows = len(self._decisions) if self.naive else self._clocks.started(turn.arrival.at)
        due = self._due(rows, turn.arrival.at)
        if due is not None:
            self._learn(due, turn.arrival.at)
            self._looked, self._refreshed = rows, rows - self._forgotten
            # What a model was fitted to beyond what is remembered now is of no use to it any more.
            self._retrained = self._refreshed if due == "retrain" else min(self._retrained, self._refreshed)
        started = time.perf_counter()
        self._seen = with_past(turn.situation.context, self._past(turn), turn.arrival.at)
        self._effects = self._tallies.effects(turn.recipient.recipient_id, turn.arrival.at) if self.history else {}
        situation = replace(turn.situation, campaign=self._campaign, context=self._seen, effects=self._effects)
        made = draw(situation, turn.plan, self._live, self.game.salt, 0)
        self.notes["choose"] += time.perf_counter() - started
        return made

    def _due(self, rows: int, now: datetime) -> str | None:
        """What is due after so many rows; an alarm asks for a refresh, and a change has retrains wait, as there."""
        known = rows - self._forgotten
        due = self.schedule.due(known, self._retrained, self._refreshed)
        if due is None and rows - self._looked >= LOOK:
            before, self._looked = self._changed, rows
            self._look(self.rows(now), now)
            due = "refresh" if self._changed != before else None
        if due == "retrain" and self._unsettled:
            due = "refresh" if self.schedule.refreshes(known, self._refreshed) else None
        return due

    @property
    def _changed(self) -> float | None:
        """When outcomes last changed, as far as is known."""
        return None if self._drift is None else self._drift.changed

    def _exploring(self, campaign: Campaign) -> Campaign:
        return replace(campaign, exploration_method=self.method, exploration_parameter=self.parameter)

    def learn(self, result: Result) -> None:
        """See ``Player``: it reads its own log."""
        del result

    def decided(self, turn: Turn, decision: Decision) -> None:
        """See ``Logging``. A decision without an action is no row, so its context doesn't matter."""
        del turn
        told = replace(decision.snapshot, context=self._seen, effects=self._effects)
        decision = replace(decision, snapshot=told)
        self._decisions.append(decision)
        self._clocks.add(decision)
        message = message_of(decision)
        if message is not None:
            place = (message.channel, message.campaign_id, message.variant_id)
            sent = Happening(message.at, message.message_ref, SENT, *place)
            self._pasts.setdefault(decision.recipient_id, []).append(sent)
            self._sent[decision.decision_id] = place
            self._tallies.sent(decision)

    def heard(self, event: Event) -> None:
        """See ``Logging``."""
        if event.type == "opened" and not self.opens:
            return
        self._tallies.heard(event, self._campaign)
        if event.decision_id is not None:
            self._events.setdefault(event.decision_id, []).append(event)
        if event.recipient_id is not None and not event.automated:
            place = self._sent.get(event.decision_id or "", (None, None, None))
            past = self._pasts.setdefault(event.recipient_id, [])
            past.append(Happening(event.occurred_at, event.event_id, event.type, *place, event.properties))

    def _past(self, turn: Turn) -> list[Happening]:
        """What a store would give: the last events and messages before the decision, oldest first."""
        known = self._pasts.get(turn.recipient.recipient_id, []) if self.history else []
        before = [one for one in known if one.at < turn.arrival.at]
        return sorted(before, key=lambda one: (one.at, one.ref))[-LENGTH:]

    @property
    def live(self) -> LivePolicy:
        """The policy that is served now."""
        return self._live

    @property
    def log(self) -> Sequence[Decision]:
        """Its decisions, each with what it was told."""
        return self._decisions

    @property
    def drift(self) -> Drift | None:
        """What the drift detectors know; None before they have looked."""
        return self._drift

    def _learn(self, kind: str, now: datetime) -> None:
        started = time.perf_counter()
        rows = self.rows(now)
        self.notes["read"] += time.perf_counter() - started
        started = time.perf_counter()
        self._look(rows, now)
        self._publish(self._fit(kind, rows, now), rows)
        self.notes[kind] += time.perf_counter() - started
        self.notes[f"{kind}es" if kind == "refresh" else f"{kind}s"] += 1

    def _look(self, rows: list[Logged], now: datetime) -> None:
        """The drift detectors' look, as the service has it once a learned policy serves."""
        if self.naive or self._live.policy_id == COLD_POLICY:
            return
        state = beginning(self._campaign) if self._drift is None else following(self._drift, self._campaign)
        state = advanced(state, self._kept, self._campaign, rows, self._live, now, self._known_at)
        self._drift = state
        self._forgotten = len(rows) - len(remembered(rows, changes({CAMPAIGN: state})))
        changed = changes({CAMPAIGN: state})
        anchored = self._blob is not None and footing_of(known_of(self._blob), CAMPAIGN, changed).since is not None
        self._unsettled = anchored and any(unsettled(rows, at) for at in changed.values())
        open_ = [r for r in rows if (self._known_at(self._campaign, r), r.decision.decision_id) > state.matured]
        self._kept.keep_only({self._live.policy_id, *(r.decision.policy_id for r in open_)})

    def _known_at(self, campaign: Campaign, row: Logged) -> float:
        """When a row's outcomes are known, in epoch seconds."""
        if self.game.scenario.feedback == "immediate":
            return row.decision.decided_at.timestamp()
        if self.game.scenario.feedback == "at_send":
            return clock_start(row.decision).timestamp()
        return planned_maturity(campaign, row)

    def _fit(self, kind: str, rows: list[Logged], now: datetime) -> bytes:
        # Imported here: torch takes seconds, and the command line's help must not wait for it.
        from optimizer.model.training.quality import examine
        from optimizer.model.training.train import anchor, refresh
        from optimizer.service.fitting import Fitting, settled

        log = Log({CAMPAIGN: self._campaign}, tuple(rows))
        drift = {} if self._drift is None else {CAMPAIGN: self._drift}
        if kind == "refresh" and self._blob is not None:
            footing = footing_of(known_of(self._blob), CAMPAIGN, changes(drift))
            data = Fitting(log=log, attributes=self._attributes, drift=drift).data(rows, footing)
            if footing.anchor is not None:
                return anchor(self._blob, data, CAMPAIGN, footing.anchor).blob
            return refresh(self._blob, data).blob
        registry = examine(examples(rows, log.campaigns), self._attributes).registry(self._attributes, WORKSPACE)
        served = [model.artifact_meta.get("encoder", {}) for model in self._live.models if model is not None]
        asked = wanted(self.encoder, now.timestamp(), *served)
        fitting = settled(Fitting(log=log, attributes=registry, drift=drift, encoder=asked))
        self._drift = fitting.drift.get(CAMPAIGN)
        trained = fitting.fit(rows, network=self.network, calibrated=False)
        self.notes.setdefault("trained", []).append({name: trained.report[name] for name in ("network", "encoder")})
        return trained.blob

    def _publish(self, blob: bytes, rows: list[Logged]) -> None:
        self._blob = blob
        name = f"pure-{self.notes['retrains'] + self.notes['refreshes'] + 1}"
        numbers = exploration_numbers(rows, self._drift)
        self._live = LivePolicy(name, (Component(1.0, name),), (RewardModel.load(blob),), numbers)
        self._kept.policies[name] = self._live

    def rows(self, now: datetime) -> list[Logged]:
        """The log as the service reads it now; what is final is computed once."""
        feedback = self.game.scenario.feedback
        out = []
        for decision in self._decisions:
            row = self._final.get(decision.decision_id)
            if row is None:
                known = feedback == "immediate" or (feedback == "at_send" and clock_start(decision) < now)
                events = tuple(self._events.get(decision.decision_id, ()))
                asked = now + AT_ONCE if known or self.naive else now
                row = logged(self._campaign, FeedbackRow(decision, events), asked)
                if row is None:
                    continue
                if row.matured and (known or not self.naive):
                    self._final[decision.decision_id] = row
            out.append(row)
        return out
