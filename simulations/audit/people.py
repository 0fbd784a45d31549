"""Consent, refusals and time zones: whether a reservation kept what was known of its recipient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from simulations.audit.holdings import Held
from simulations.audit.verdicts import CHANGED, KEPT, Judgement
from storage.log import Decision, Event
from storage.records import Recipient

#: Channels on which only a recorded yes allows a message.
NEEDS_YES = ("sms", "push", "whatsapp", "voice")
_BY_EVENT = "event:"
_REFUSALS = frozenset({"unsubscribed", "complained", "bounced", "failed"})


@dataclass(frozen=True, slots=True)
class Person:
    """A recipient as stored now, and for refusals that events recorded, by event id, the mark from which they held."""

    record: Recipient | None
    refused_after: Mapping[str, int]

    def steady(self, held: Held) -> bool:
        """Whether what rules go by is recorded as it was at the reservation."""
        return self.record is None or self.record.changed_after < held.position


def refusals_by_event(decision: Decision, events: Iterable[Event]) -> dict[str, int]:
    """From which mark on the refusals held that events of this decision recorded, by event id, where that is certain.

    An event that came when its decision was stored and named was heeded at once. One that had to wait is left out:
    when it was joined is not in the log.
    """
    return {
        event.event_id: event.known_after
        for event in events
        if event.type in _REFUSALS
        and event.decision_id == decision.decision_id
        and event.known_after >= decision.position
        and (event.message_id is None or event.known_after >= _named_after(decision))
    }


def _named_after(decision: Decision) -> float:
    """The mark of the confirm that gave the provider's message id; infinite if there is none."""
    return float("inf") if decision.sent_after is None else decision.sent_after


def judge_consent(judged: Held, person: Person) -> Judgement:
    """Whether the recipient had agreed to the channel."""
    if not person.steady(judged):
        return CHANGED
    consent = person.record.channels.get(judged.channel) if person.record is not None else None
    agreed = judged.channel not in NEEDS_YES if consent is None else consent.state
    said = "no record of consent" if consent is None else "a recorded no"
    return KEPT if agreed else Judgement("violated", f"{said} for {judged.channel}")


def judge_suppression(judged: Held, person: Person) -> Judgement:
    """Whether no recorded refusal covered the message.

    A refusal that an event recorded stays until an event takes it back: it speaks whatever else of the record has
    changed since.
    """
    steady = person.steady(judged)
    for refusal in person.record.suppressed if person.record is not None else ():
        covered = refusal.channel in ("*", judged.channel) and refusal.category in ("*", judged.category)
        if covered and (steady or _held_since(refusal.source, person) < judged.position):
            return Judgement("violated", f"refused: {refusal.channel}, {refusal.category} ({refusal.source})")
    return KEPT if steady else CHANGED


def _held_since(source: str | None, person: Person) -> float:
    """The mark of the event in ``event:TYPE:ID``; infinite for any other source."""
    if source is None or not source.startswith(_BY_EVENT):
        return float("inf")
    return person.refused_after.get(source.removeprefix(_BY_EVENT).partition(":")[2], float("inf"))


def judge_zone(judged: Held, person: Person, campaign_zone: str | None) -> Judgement:
    """Whether the zone that the rules were read in was the recipient's, else the campaign's, else UTC."""
    if not person.steady(judged):
        return CHANGED
    right = (person.record.timezone if person.record is not None else None) or campaign_zone or "UTC"
    return KEPT if right == judged.timezone else Judgement("violated", f"read in {judged.timezone}, not {right}")
