"""Consent, refusals and time zones: whether a reservation kept what was known of its recipient."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from simulations.audit.holdings import Held
from simulations.audit.verdicts import CHANGED, KEPT, UNTOLD, Judgement
from storage.log import Decision, Event
from storage.records import Recipient

#: Channels on which only a recorded yes allows a message.
NEEDS_YES = ("sms", "push", "whatsapp", "voice")
#: Outcomes of events that may record a refusal.
REFUSALS = frozenset({"unsubscribed", "complained", "bounced", "failed"})
_BY_EVENT = "event:"
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Heard:
    """The marks from which on an event was maybe and surely heeded: the same two unless it had to wait."""

    maybe: int
    surely: float


@dataclass(frozen=True, slots=True)
class Person:
    """A recipient as stored now, and the events of theirs that may have recorded a refusal, by event id."""

    record: Recipient | None
    refusals: Mapping[str, Heard]

    def steady(self, held: Held) -> bool:
        """Whether what rules go by is recorded as it was at the reservation, but for what events refused since."""
        return self.record is None or self.record.changed_after < held.position


def refusals_by_event(
    decision: Decision, events: Iterable[Event], mapped: Collection[tuple[str | None, str]]
) -> dict[str, Heard]:
    """From when on the refusals held that events of this decision or of its recipient recorded, by event id.

    Args:
        decision: a decision.
        events: all that may count for it.
        mapped: (campaign id, event type) of what campaigns make a refusal; None = any campaign.
    """
    return {
        event.event_id: _heard(decision, event)
        for event in events
        if (event.type in REFUSALS or (_campaign(decision, event), event.type) in mapped) and _may_refuse(event)
    }


def _campaign(decision: Decision, event: Event) -> str | None:
    """Whose mapping an event goes by: its message's; of one that names a person, that which it names itself."""
    return event.campaign_id if event.decision_id is None else decision.campaign_id


def _may_refuse(event: Event) -> bool:
    if event.type == "bounced":
        return event.properties.get("hard", True) is True
    return event.type != "failed" or "refuses" in event.properties


def _heard(decision: Decision, event: Event) -> Heard:
    """An event that came when its decision was stored and named was heeded at once, as is one that names nothing but a
    person. By the provider's id it waited for the confirm. When one joined that came before its decision isn't told."""
    if event.decision_id is None:
        return Heard(event.known_after, event.known_after)
    if event.known_after < decision.position:
        return Heard(decision.position, _NEVER)
    if event.message_id is None:
        return Heard(event.known_after, event.known_after)
    named = _NEVER if decision.sent_after is None else decision.sent_after
    return Heard(event.known_after, max(event.known_after, named))


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

    A refusal that an event recorded stays until an event takes it back, which moves the record's mark: it speaks
    whatever else of the record has changed since, and it speaks from the event's own mark on.
    """
    steady = person.steady(judged)
    doubt = False
    for refusal in person.record.suppressed if person.record is not None else ():
        if refusal.channel not in ("*", judged.channel) or refusal.category not in ("*", judged.category):
            continue
        event_id = _event_id(refusal.source)
        held = steady if event_id is None else _held(event_id, judged, person)
        if held:
            return Judgement("violated", f"refused: {refusal.channel}, {refusal.category} ({refusal.source})")
        doubt = doubt or held is None
    if not steady:
        return CHANGED
    return UNTOLD if doubt else KEPT


def _held(event_id: str, judged: Held, person: Person) -> bool | None:
    """Whether what an event refused was refused at a reservation; None = the log doesn't tell.

    A refusal that is told again takes the place of the first one. So where the reservation came before this event, an
    earlier one whose refusal is recorded no more may have stood for it.
    """
    heard = person.refusals.get(event_id)
    if heard is None:
        return None
    if heard.surely < judged.position:
        return True
    recorded = {_event_id(one.source) for one in person.record.suppressed} if person.record is not None else set()
    earlier = [heard, *(one for key, one in person.refusals.items() if key not in recorded)]
    return None if any(one.maybe < judged.position for one in earlier) else False


def _event_id(source: str | None) -> str | None:
    """The id in ``event:TYPE:ID``; None for any other source."""
    if source is None or not source.startswith(_BY_EVENT):
        return None
    return source.removeprefix(_BY_EVENT).partition(":")[2] or None


def judge_zone(judged: Held, person: Person, campaign_zone: str | None) -> Judgement:
    """Whether the zone that the rules were read in was the recipient's, else the campaign's, else UTC."""
    if not person.steady(judged):
        return CHANGED
    right = (person.record.timezone if person.record is not None else None) or campaign_zone or "UTC"
    return KEPT if right == judged.timezone else Judgement("violated", f"read in {judged.timezone}, not {right}")
