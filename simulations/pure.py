"""Sendtide as a player: the service's pure middle with the log in memory.

Distribution, draw, reward, training, refresh: all are the very functions that the service calls; what is left out is
the store, the gate and HTTP. ``simulations.through_service`` plays the same through the whole service, and the tests
hold the two to the same actions.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from optimizer.model.examples import Examples
from optimizer.model.history import LENGTH, SENT, Encoder, wanted
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.service.choose import Drawn, draw
from optimizer.service.feedback import Logged, examples, logged
from optimizer.service.ids import COLD_POLICY
from optimizer.service.past import with_past
from optimizer.service.record import message_of
from optimizer.service.retrain import LEAST_ROWS, exploration_numbers
from simulations.game import Game, Turn
from simulations.play import AT_ONCE, Result
from simulations.scenarios import CAMPAIGN, WORKSPACE
from storage.log import Component, Decision, Event, FeedbackRow, Happening
from storage.records import Attribute, Campaign, ExplorationMethod, JsonObject


@dataclass(frozen=True)
class Schedule:
    """When the service learns, in matured rows.

    The service retrains every four hours and refreshes every minute, or when the log has grown by 2 %; a simulation's
    clock has no hours of computing, so both go by growth here: a retrain when the log has grown by ``retrain`` (1 =
    doubled), a refresh when it has grown by ``refresh``, by ``step`` rows at least.
    """

    retrain: float = 1.0
    refresh: float = 0.05
    step: int = 25

    def due(self, rows: int, retrained: int, refreshed: int) -> str | None:
        """``retrain``, ``refresh`` or None, for so many matured rows now and at the last of each."""
        if retrained == 0:
            return "retrain" if rows >= LEAST_ROWS else None
        if rows >= (1 + self.retrain) * retrained:
            return "retrain"
        return "refresh" if rows - refreshed >= max(self.step, self.refresh * refreshed) else None


@dataclass
class Sendtide:
    """The production policy of one campaign, gate off.

    Attributes:
        naive: whether an outcome that has not been seen yet counts as a no (what a simple log would say).
        network: whether learned columns (a network's, an encoder's) may join the model.
        encoder: what reads the recipient's history in order.
        history: whether the recipient's history is known at all.
        method, parameter: how the campaign explores.
    """

    game: Game
    schedule: Schedule = field(default_factory=Schedule)
    naive: bool = False
    network: bool = True
    encoder: Encoder = "auto"
    history: bool = True
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
        self._sent: dict[str, tuple[str | None, str | None, str | None]] = {}
        self._seen: JsonObject = {}
        self._events: dict[str, list[Event]] = {}
        self._final: dict[str, Logged] = {}
        self._matured = self._retrained = self._refreshed = 0
        self.notes |= {"choose": 0.0, "read": 0.0, "refresh": 0.0, "retrain": 0.0, "refreshes": 0, "retrains": 0}

    def choose(self, turn: Turn) -> Drawn:
        """See ``Player``: the service's own draw."""
        campaign = turn.situation.campaign
        if (campaign.version, campaign.updated_at) != (self._campaign.version, self._campaign.updated_at):
            self._campaign = self._exploring(campaign)
        due = self.schedule.due(self._matured, self._retrained, self._refreshed)
        if due is not None:
            self._learn(due, turn.arrival.at)
        started = time.perf_counter()
        self._seen = with_past(turn.situation.context, self._past(turn), turn.arrival.at)
        situation = replace(turn.situation, campaign=self._campaign, context=self._seen)
        made = draw(situation, turn.plan, self._live, self.game.salt, 0)
        self.notes["choose"] += time.perf_counter() - started
        return made

    def _exploring(self, campaign: Campaign) -> Campaign:
        return replace(campaign, exploration_method=self.method, exploration_parameter=self.parameter)

    def learn(self, result: Result) -> None:
        """See ``Player``."""
        del result
        self._matured += not self.naive

    def decided(self, turn: Turn, decision: Decision) -> None:
        """See ``Logging``. A decision without an action is no row, so its context doesn't matter."""
        del turn
        decision = replace(decision, snapshot=replace(decision.snapshot, context=self._seen))
        self._decisions.append(decision)
        self._matured += self.naive
        message = message_of(decision)
        if message is not None:
            place = (message.channel, message.campaign_id, message.variant_id)
            sent = Happening(message.at, message.message_ref, SENT, *place)
            self._pasts.setdefault(decision.recipient_id, []).append(sent)
            self._sent[decision.decision_id] = place

    def heard(self, event: Event) -> None:
        """See ``Logging``."""
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

    def _learn(self, kind: str, now: datetime) -> None:
        started = time.perf_counter()
        rows = self._rows(now)
        mine = [r for r in rows if r.trainable and r.matured]
        self.notes["read"] += time.perf_counter() - started
        started = time.perf_counter()
        self._publish(self._fit(kind, rows, now), mine)
        self.notes[kind] += time.perf_counter() - started
        self.notes[f"{kind}es" if kind == "refresh" else f"{kind}s"] += 1
        self._refreshed = self._matured
        if kind == "retrain":
            self._retrained = self._matured

    def _fit(self, kind: str, rows: list[Logged], now: datetime) -> bytes:
        # Imported here: torch takes seconds, and the command line's help must not wait for it.
        from optimizer.model.training.quality import examine
        from optimizer.model.training.train import refresh, train

        if kind == "refresh" and self._blob is not None:
            return refresh(self._blob, self._examples([r for r in rows if r.matured])).blob
        data = self._examples(rows)
        registry = examine(data, self._attributes).registry(self._attributes, WORKSPACE)
        served = [model.artifact_meta.get("encoder", {}) for model in self._live.models if model is not None]
        asked = wanted(self.encoder, now.timestamp(), *served)
        trained = train(
            data, attributes=registry, seed=len(rows), network=self.network, encoder=asked, calibrated=False
        )
        self.notes.setdefault("trained", []).append({name: trained.report[name] for name in ("network", "encoder")})
        return trained.blob

    def _publish(self, blob: bytes, mine: list[Logged]) -> None:
        self._blob = blob
        self._live = LivePolicy("pure", (Component(1.0, "pure"),), (RewardModel.load(blob),), exploration_numbers(mine))

    def _examples(self, rows: list[Logged]) -> Examples:
        return examples(rows, {CAMPAIGN: self._campaign})

    def _rows(self, now: datetime) -> list[Logged]:
        """The log as the service reads it now; what is final is computed once."""
        immediate = self.game.scenario.feedback == "immediate"
        asked = now + AT_ONCE if immediate or self.naive else now
        out = []
        for decision in self._decisions:
            row = self._final.get(decision.decision_id)
            if row is None:
                events = tuple(self._events.get(decision.decision_id, ()))
                row = logged(self._campaign, FeedbackRow(decision, events), asked)
                if row is None:
                    continue
                if row.matured and (immediate or not self.naive):
                    self._final[decision.decision_id] = row
            out.append(row)
        return out
