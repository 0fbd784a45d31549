"""Conditions of a variant: whether the recipient did, or did not do, what it requires with an earlier message.

The last message is that which had gone out by the time of the decision as far as was known then: at its real time once
confirmed, else at its planned one, as long as it was not given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from simulations.audit.holdings import Held, times_at
from simulations.audit.verdicts import KEPT, Judgement
from storage.log import Decision, Event
from storage.records import Requirement

#: Outcomes that only a message can cause: an event must name the message, not only its recipient.
_OF_A_MESSAGE = frozenset({"delivered", "opened", "clicked", "bounced", "failed", "complained", "unsubscribed"})

#: What an event of a type meant for a campaign at a position, by each of its versions that may have been current.
Meanings = Callable[[str | None, str, int], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An event that may be an answer to a message: joined to it from the mark ``surely`` on, maybe earlier.

    ``automated`` is what is believed of it now, ``flips`` the marks from which the opposite was, and then this again.
    """

    type: str
    at: datetime
    maybe: int
    surely: int
    names_message: bool
    automated: bool = False
    flips: tuple[int, ...] = ()

    def by_person(self, position: int) -> bool:
        """Whether it was taken for a person's by a decision at this position."""
        later = sum(mark >= position for mark in self.flips)
        return self.automated == (later % 2 == 1)


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a recipient: messages, whenever they are; answers by message; what events meant."""

    messages: Sequence[Held]
    answers: Mapping[str, Sequence[Reply]]
    meanings: Meanings


def replies(decision: Decision, events: Iterable[Event], wanted: frozenset[tuple[str, str]]) -> tuple[Reply, ...]:
    """The events of a decision that some campaign may ask for; ``wanted``: (campaign id, event type)."""
    return tuple(
        Reply(
            event.type,
            _happened_at(decision, event),
            *_joined_after(decision, event),
            names_message=event.decision_id is not None,
            automated=event.automated,
            flips=event.flipped_after,
        )
        for event in events
        if (event.flipped_after or not event.automated)
        and (decision.campaign_id, event.type) in wanted
        and _belongs(decision, event)
    )


def _happened_at(decision: Decision, event: Event) -> datetime:
    """What names a decision came after it; a sender's clock may say that it was up to five minutes before."""
    earliest = decision.decided_at - timedelta(minutes=5)
    late = event.decision_id is None or event.occurred_at < earliest
    return event.occurred_at if late else max(event.occurred_at, decision.decided_at)


def _belongs(decision: Decision, event: Event) -> bool:
    if event.decision_id is not None:
        return event.decision_id == decision.decision_id
    return event.message_id is None and event.campaign_id in (None, decision.campaign_id)


def _joined_after(decision: Decision, event: Event) -> tuple[int, int]:
    """From when an event was maybe and surely joined: at its report, or, by the provider's id, at the confirm."""
    reported = max(event.known_after, decision.position - 1)
    if event.message_id is None or decision.sent_after is None:
        return reported, reported
    return reported, max(reported, decision.sent_after)


def judge(required: Sequence[Requirement], judged: Held, past: Past) -> Judgement:
    """Whether every condition of the variant held when the reservation was made."""
    doubt = False
    for condition in required:
        verdicts = set(_verdicts(condition, judged, past))
        if verdicts == {False}:
            word = "" if condition.happened else "not "
            what = f"{condition.campaign_id}/{condition.variant_id or 'any'}"
            return Judgement("violated", f"{what} had {word}to be {condition.outcome} in {condition.within_hours:g} h")
        doubt = doubt or False in verdicts
    return Judgement("unknown", "the log doesn't tell what was known of the earlier message") if doubt else KEPT


def _verdicts(condition: Requirement, judged: Held, past: Past) -> Iterator[bool]:
    """Whether one condition held, in each state that may have been."""
    if judged.decided_at is None:
        raise ValueError(f"{judged.ref} is another system's message; only reservations are judged")
    now = judged.decided_at.replace(microsecond=0)
    for last in _candidates(condition, judged.position, now, past.messages):
        if last is None:
            yield False
            continue
        held, sent_at = last
        until = sent_at + timedelta(hours=condition.within_hours)
        for heard in _hearings(condition, held, judged.position, past):
            first = _first(condition.outcome, held, sent_at, heard)
            within = first is not None and first <= until
            yield within if condition.happened else not within and until <= now


def _first(outcome: str, held: Held, sent_at: datetime, heard: Iterable[datetime]) -> datetime | None:
    """When the outcome first happened. What only a message can cause came after it, whatever time the log has for the
    send: it counts from the decision on, as at the send. Anything else counts from the send on, or from its planned
    time if that is the earlier one."""
    earliest = min(sent_at, held.planned)
    if outcome in _OF_A_MESSAGE and held.decided_at is not None:
        earliest = held.decided_at
    return min((max(at, sent_at) for at in heard if at >= earliest), default=None)


def _candidates(
    condition: Requirement, position: int, now: datetime, messages: Sequence[Held]
) -> Iterator[tuple[Held, datetime] | None]:
    """The messages that may have been the last one, as known at a position; None = maybe there was none."""
    fitting: list[tuple[datetime, str, str, Held, bool]] = []
    for held in messages:
        own = held.decided_at is not None and held.position < position
        if own and held.campaign_id == condition.campaign_id and condition.variant_id in (None, held.variant_id):
            times = times_at(held, position, now)
            fitting += [
                (at, held.variant_id or "", held.ref, held, len(times) == 1)
                for at in times
                if at is not None and at <= now
            ]
    fitting.sort(key=lambda one: one[:3], reverse=True)
    for at, _, _, held, certain in fitting:
        yield held, at
        if certain:
            return
    yield None


def _hearings(condition: Requirement, held: Held, position: int, past: Past) -> Iterator[list[datetime]]:
    """When the outcome is known to have happened, by the answers that were surely known, and by all that maybe were."""
    surely, maybe = [], []
    for reply in past.answers.get(held.ref, ()):
        meant = past.meanings(held.campaign_id, reply.type, position)
        if condition.outcome not in meant or reply.maybe >= position or not reply.by_person(position):
            continue
        if condition.outcome in _OF_A_MESSAGE and not reply.names_message:
            continue
        maybe.append(reply.at)
        if reply.surely < position and len(meant) == 1:
            surely.append(reply.at)
    yield surely
    yield maybe
