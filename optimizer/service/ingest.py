"""Feedback: events are stored durably before the answer, in any order, any number of times.

An event is correlated by decision id, request id, provider + message id, or recipient id. What can't be correlated yet
is kept and joined when its decision or confirm appears. Rewards are computed from the set of events when they are
needed, so order and repetition can't change them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from optimizer.bandit.rewards import CLOCK_SKEW, MESSAGE_OUTCOMES
from optimizer.errors import Forged, Invalid
from optimizer.service import recipients as people
from optimizer.service.engagement import UNMAPPED, note_engagement
from optimizer.service.erased import CODE, gone, hidden_message_id
from optimizer.service.heard import count_again
from optimizer.service.ids import decision_id
from optimizer.service.labels import judge_all_anew, judge_alone
from optimizer.service.optout import (
    OF_PEOPLE,
    MappedRefusals,
    apply_of_person,
    apply_opt_outs,
    release_failed,
    revoke_withdrawn,
    with_breadth,
)
from optimizer.service.plainevents import Correlated, Plain, split
from optimizer.service.requests import EventInput, IngestReport, OneTimeToken, RejectedEvent, Told, VendorEvent
from optimizer.service.rhythms import note_active, note_message
from optimizer.service.webhooks.messages import normalised
from optimizer.service.wiring import Services
from storage.errors import OneByOne
from storage.log import Event, Named
from storage.port import Reader, Writer

#: In place of a workspace: what is noted for the whole installation.
_EVERYWHERE: Final = ""


def ingest(
    services: Services,
    workspace_id: str,
    inputs: Sequence[EventInput | RejectedEvent],
    told: Mapping[int, Told] | None = None,
    also: Callable[[Writer, IngestReport], None] | None = None,
    token: OneTimeToken | None = None,
) -> IngestReport:
    """Stores an envelope of events in one transaction.

    Args:
        services: the wired service.
        workspace_id: whose events they are.
        inputs: the readable ones, and in their places those that the border refused already.
        told: what some of them, by place, tell of their recipient. It is taken over with the event, so once.
        also: what is to be written in the same transaction, given what became of the readable ones.
        token: what the envelope was signed with, if that serves for one event only.

    Raises:
        Forged: the token was used for another event; nothing of the envelope was recorded.
        StoreUnavailable: nothing of the envelope was recorded.
    """
    now = services.clock()
    rejected = [i for i in inputs if isinstance(i, RejectedEvent)]
    mapped = _mapped(services, workspace_id, inputs)

    def work(writer: Writer, *, together: bool = True) -> IngestReport:
        report = _store(writer, services, workspace_id, inputs, told or {}, mapped, token, now, together=together)
        if also is not None:
            also(writer, report)
        return report

    concerned = _recipients(services, workspace_id, inputs, now) if services.store.names_recipients else ()
    pairs = [(workspace_id, one) for one in sorted(concerned)]
    try:
        report = services.store.write(work, recipients=pairs)
    except OneByOne:  # one of them was stored by another write while this one ran
        report = services.store.write(partial(work, together=False), recipients=pairs)
    return replace(report, rejected=tuple(sorted((*rejected, *report.rejected), key=lambda r: r.index)))


def _mapped(services: Services, workspace_id: str, inputs: Sequence[EventInput | RejectedEvent]) -> MappedRefusals:
    """What campaigns make a refusal, if any of the events may be one: read apart, since only a read may be kept."""
    people_did = (i.type for i in inputs if isinstance(i, EventInput) and i.recipient_id is not None)
    if UNMAPPED.issuperset(people_did):
        return {}
    with services.store.read() as reader:
        return services.catalog.view(reader, workspace_id).spoken(reader).refusals


def _recipients(
    services: Services, workspace_id: str, inputs: Sequence[EventInput | RejectedEvent], now: datetime
) -> set[str]:
    """The recipients whose state the events may change, as far as they are known before the write."""
    if not any(names_message(one) for one in inputs if isinstance(one, EventInput)):
        return {one.recipient_id for one in inputs if isinstance(one, EventInput) and one.recipient_id is not None}
    with services.store.read() as reader:
        correlated, _ = _correlate_all(services, reader, workspace_id, inputs, now)
    return {one.event.recipient_id for one in correlated if one.event.recipient_id is not None}


def _correlate_all(
    services: Services,
    reader: Reader,
    workspace_id: str,
    inputs: Sequence[EventInput | RejectedEvent],
    now: datetime,
) -> tuple[list[Correlated], list[RejectedEvent]]:
    named: dict[int, str] = {}
    for index, one in enumerate(inputs):
        found = services_decision_id(services, workspace_id, one) if isinstance(one, EventInput) else None
        if found is not None:
            named[index] = found
    decisions = reader.named(workspace_id, sorted(set(named.values())))
    latest = now + CLOCK_SKEW
    people_named = {i.recipient_id for i in inputs if isinstance(i, EventInput) and i.recipient_id is not None}
    erased = gone(reader, services.salt, workspace_id, people_named)
    campaigns: dict[str, bool] = {}
    correlated, refused = [], []
    for index, one in enumerate(inputs):
        if isinstance(one, RejectedEvent):
            continue
        try:
            _check(reader, workspace_id, one, latest, campaigns)
            event, decision = _correlate(services, reader, workspace_id, one, named.get(index), decisions, now)
        except Invalid as error:
            refused.append(RejectedEvent.of(index, error))
            continue
        if event.recipient_id in erased or (decision is not None and decision.erased):
            refused.append(RejectedEvent(index, CODE, "it is about a person who was erased; nothing of it is stored"))
            continue
        correlated.append(Correlated(index, event, decision, one if isinstance(one, VendorEvent) else None))
    return correlated, refused


def _check(reader: Reader, workspace_id: str, one: EventInput, latest: datetime, campaigns: dict[str, bool]) -> None:
    if one.occurred_at > latest:
        raise Invalid.field(
            "occurred_at",
            f"{one.occurred_at.isoformat()} is in the future; allowed: up to {latest.isoformat()}",
            code="future",
        )
    if one.campaign_id is not None:
        if one.campaign_id not in campaigns:
            campaigns[one.campaign_id] = reader.campaign(workspace_id, one.campaign_id) is not None
        if not campaigns[one.campaign_id]:
            raise Invalid.field(
                "campaign_id", f"no campaign {one.campaign_id!r} in this workspace", code="unknown_campaign"
            )
    named = names_message(one)
    if not named and one.recipient_id is None and not isinstance(one, VendorEvent):
        raise Invalid.field(
            "decision_id",
            "missing; allowed: decision_id, request_id, provider + message_id, or recipient_id",
            code="uncorrelated",
        )
    if not named and one.recipient_id and one.type in MESSAGE_OUTCOMES and one.type not in OF_PEOPLE:
        raise Invalid.field(
            "recipient_id",
            f"{one.type!r} needs its message: decision_id, request_id or provider + message_id",
            code="needs_message",
        )


def names_message(one: EventInput) -> bool:
    """Whether an event says which message it is about, and not only whom."""
    return bool(one.decision_id or one.request_id or (one.provider and one.message_id))


def services_decision_id(services: Services, workspace_id: str, one: EventInput) -> str | None:
    """The decision id that an event names, directly or by its request id."""
    if one.decision_id is not None:
        return one.decision_id
    return decision_id(services.salt, workspace_id, one.request_id) if one.request_id is not None else None


def _correlate(
    services: Services,
    reader: Reader,
    workspace_id: str,
    one: EventInput,
    named: str | None,
    decisions: dict[str, Named],
    now: datetime,
) -> tuple[Event, Named | None]:
    decision = decisions.get(named) if named is not None else None
    provider, message_id = normalised(one.provider, one.message_id)
    # A vendor hands back whatever stands in the argument; where that is no decision of ours, the message may be known.
    by_message = named is None or (decision is None and isinstance(one, VendorEvent))
    if by_message and provider is not None and message_id is not None:
        decision = _by_message(services, reader, workspace_id, one, provider, message_id)
    by_recipient = named is None and one.message_id is None and one.recipient_id is not None
    event = Event(
        workspace_id=workspace_id,
        event_id=one.event_id or content_id(one),
        type=one.type,
        occurred_at=one.occurred_at,
        received_at=now,
        matched=decision is not None or by_recipient,
        decision_id=decision.decision_id if decision is not None else named,
        recipient_id=decision.recipient_id if decision is not None else one.recipient_id,
        campaign_id=decision.campaign_id if decision is not None else one.campaign_id,
        provider=provider,
        message_id=message_id,
        value=one.value,
        automated=one.automated,
        properties=with_breadth(one),
    )
    return event, decision


def _by_message(
    services: Services, reader: Reader, workspace_id: str, one: EventInput, provider: str, message_id: str
) -> Named | None:
    """The decision that was confirmed with a message id, for the recipient who is named, if one is.

    Raises:
        Invalid: it may be any of several people's: nobody is to be silenced for somebody else.
    """
    # Asked for together, since the message of somebody who was erased may have shared its id with others'.
    ids = (message_id, hidden_message_id(services.salt, workspace_id, provider, message_id))
    sent = reader.decisions_by_message(workspace_id, provider, ids, recipient_id=one.recipient_id)
    if len(sent) > 1 and reader.known_events(workspace_id, [one.event_id or content_id(one)]):
        return None  # a retry: it came while it could be but one's
    if len(sent) > 1:
        told = f"{message_id!r:.80} of {provider!r:.80} was confirmed for messages to several recipients"
        raise Invalid.field("message_id", f"{told}; allowed: that of one message, or a decision_id", code="ambiguous")
    return Named.of(sent[0]) if sent else None


def _reused(index: int, event: Event, known_as: str) -> RejectedEvent:
    """What becomes of another event under a stored id: a caller whose ids are those of messages would lose clicks and
    refusals without a word."""
    told = f"{event.event_id!r:.80} is taken by an event of type {known_as!r}; this one is {event.type!r}"
    allowed = "allowed: an id for each event, or none"
    return RejectedEvent.of(index, Invalid.field("event_id", f"{told}; {allowed}", code="event_id_reused"))


def content_id(one: EventInput) -> str:
    """The id of an event that came without one: a hash of its content, so that a repetition is recognised."""
    return "evt_" + hashlib.blake2b(msgspec.json.encode(one, order="deterministic"), digest_size=16).hexdigest()


def _store(
    writer: Writer,
    services: Services,
    workspace_id: str,
    inputs: Sequence[EventInput | RejectedEvent],
    told: Mapping[int, Told],
    mapped: MappedRefusals,
    token: OneTimeToken | None,
    now: datetime,
    *,
    together: bool,
) -> IngestReport:
    if token is not None:
        noted = writer.use_token(_EVERYWHERE, token.vendor, token.token, token.used_for, now=now, until=token.until)
        if noted != token.used_for:
            raise Forged("the signature's token was used for another event")
    # Correlated here and not before: the decision or its confirm may have been committed since any read.
    correlated, refused = _correlate_all(services, writer, workspace_id, inputs, now)
    plain, others = split(writer, workspace_id, correlated, told, mapped) if together else (Plain(), correlated)
    plain.store(writer, workspace_id, now)
    accepted, duplicates = len(plain.rows), 0
    unmatched = sum(not one.event.matched for one in plain.rows)
    fresh: list[Event] = []
    named = [one.event.event_id for one in others if one.said is None]
    types = writer.known_events(workspace_id, named) if named else {}
    for one in others:
        event, new = _add(writer, one)
        known_as = types.setdefault(event.event_id, event.type)
        if new:
            accepted += 1
            unmatched += not event.matched
        elif one.said is None and known_as != event.type:
            refused.append(_reused(one.index, event, known_as))
            continue
        else:
            duplicates += 1
            # Two reports of one event may name its decision differently: the first by a message id that nobody has
            # confirmed, the second by the decision's own. What happened is what was stored: a second report may say
            # anything else under the same id.
            joined = None if one.decision is None else writer.join_event(event)
            if joined is None:
                continue
            event = joined
        if new and one.index in told:
            _learn(writer, services, event, told[one.index], now)
        note_active(writer, event)
        fresh.append(event)
    _act_on(writer, workspace_id, fresh, mapped, now)
    plain.clear(writer, workspace_id)
    return IngestReport(accepted, duplicates, unmatched, tuple(refused))


def _add(writer: Writer, one: Correlated) -> tuple[Event, bool]:
    """Stores an event; returns it with the label that it got by itself, and whether it was new."""
    if one.said is None:
        return one.event, writer.add_event(one.event)
    event = judge_alone(one.event, one.said)
    return event, writer.add_vendor_event(event, one.said.vendor, one.said.words)


def _act_on(writer: Writer, workspace_id: str, events: Sequence[Event], mapped: MappedRefusals, now: datetime) -> None:
    """Does what follows from events, all of which are stored: what hangs on all of a message's events once for each
    message, else each delivery of thousands of clicks would read them thousands of times."""
    of: dict[str, list[Event]] = {}
    for event in events:
        if event.matched and event.decision_id is not None:
            of.setdefault(event.decision_id, []).append(event)
    decisions = writer.decisions_by_id(workspace_id, sorted(of)) if of else {}
    judged = judge_all_anew(writer, [(decisions[key], new) for key, new in of.items()])
    for key, new in zip(of, judged, strict=True):
        before = decisions[key]
        decisions[key] = count_again(writer, before, new, now)
        note_message(writer, before, decisions[key], new)
    for key, new in zip(of, judged, strict=True):  # when all of them count that do: who has read one has seen the rest
        note_engagement(writer, decisions[key], new)
    for event in events:  # in their order, since the first that calls a message off is the reason
        decision = None if event.decision_id is None else decisions.get(event.decision_id)
        if decision is not None:
            apply_opt_outs(writer, decision, [event], now)
            release_failed(writer, decision, [event], now)
        else:
            apply_of_person(writer, event, mapped, now)


def _learn(writer: Writer, services: Services, event: Event, told: Told, now: datetime) -> None:
    """Takes over what an event tells of the recipient that it names."""
    if event.recipient_id is None:
        return
    stored = writer.recipient(event.workspace_id, event.recipient_id)
    known = stored or people.unknown(event.workspace_id, event.recipient_id)
    learned = people.store(writer, known, people.learned(known, told.patch), now)
    revoke_withdrawn(writer, known, learned, now)
    attributes = services.catalog.view(writer, event.workspace_id, keep=False).attributes
    people.sight(writer, event.workspace_id, attributes, [told.patch.attributes], told.private)
