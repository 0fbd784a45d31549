"""Recipients' weekly rhythms in a log in memory: what ``service.rhythms`` would tell a decision of its recipient.

A message counts from when it goes out, its answer from the first that is given, an unprompted hour from what was done
in it. Other than in a store nothing is taken back: simulated reports are never wrong.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from optimizer.bandit.localtime import Zone
from optimizer.service.engagement import ENGAGING, meant
from optimizer.service.rhythms import active_sum, effects_of, sums_of, unprompted
from storage.log import Decision, Event
from storage.records import Campaign, JsonObject
from storage.rhythm import RhythmKind, RhythmSum

_HOUR = 3_600


@dataclass
class _Message:
    """What a message adds once it is out and once it is answered, and when that is, in epoch seconds."""

    sent: RhythmSum
    answered: RhythmSum
    sent_at: float
    answered_at: float = math.inf


@dataclass
class _Person:
    messages: list[_Message] = field(default_factory=list)
    #: By the start of an hour: when something was done in it first.
    hours: dict[int, float] = field(default_factory=dict)


class Tallies:
    """What is known of everybody's hours. ``zones``: of the recipients of whom one is known."""

    def __init__(self, zones: Mapping[str, Zone]) -> None:
        self._zones = zones
        self._people: defaultdict[str, _Person] = defaultdict(_Person)
        self._messages: dict[str, _Message] = {}

    def sent(self, decision: Decision) -> None:
        """A message that goes out at its time."""
        sums = sums_of(replace(decision, status="sent"), answered=True)
        if sums and decision.send_at is not None:
            out, answered = sums
            one = _Message(out, answered, decision.send_at.timestamp())
            self._messages[decision.decision_id] = one
            self._people[decision.recipient_id].messages.append(one)

    def heard(self, event: Event, campaign: Campaign) -> None:
        """An outcome of a message, or something that a recipient did unprompted."""
        at = event.occurred_at.timestamp()
        message = self._messages.get(event.decision_id or "")
        if message is not None and not event.automated and meant(campaign, event.type) in ENGAGING:
            message.answered_at = min(message.answered_at, at)
        elif event.recipient_id is not None and event.recipient_id in self._zones and unprompted(event):
            hours = self._people[event.recipient_id].hours
            hour = int(at) // _HOUR * _HOUR
            hours[hour] = min(at, hours.get(hour, at))

    def effects(self, recipient_id: str, now: datetime) -> JsonObject:
        """What a decision at ``now`` is told."""
        weights: defaultdict[tuple[RhythmKind, int], float] = defaultdict(float)
        for one in self._known(recipient_id, now.timestamp()):
            weights[one.kind, one.hour] += one.weight
        return effects_of([RhythmSum(*key, weight) for key, weight in sorted(weights.items())], now)

    def _known(self, recipient_id: str, now: float) -> Iterator[RhythmSum]:
        person = self._people[recipient_id]
        for one in person.messages:
            if one.sent_at < now:
                yield one.sent
                if one.answered_at < now:
                    yield one.answered
        for hour, at in person.hours.items():
            if at < now:
                yield active_sum(hour, self._zones[recipient_id])
