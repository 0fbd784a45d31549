"""What calls messages off, in one transaction with it: an opt-out suppresses its channel and category and revokes what
is reserved there, and so does a record by which a person agrees to less; a failure gives back its own message's place.
And the event that lifts what opt-outs recorded: ``resubscribed``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from optimizer.bandit.consent import closed
from optimizer.service import recipients as people
from optimizer.service.engagement import meaning, meant, note_sent
from optimizer.service.requests import BREADTHS, Breadth, EventInput, VendorEvent
from optimizer.service.rhythms import note_message
from storage.log import OPEN, Decision, Event
from storage.port import Writer
from storage.records import ANY, Campaign, JsonObject, Recipient, Suppression

#: Outcomes that are a refusal, with how much they refuse where the event doesn't say it. ``bounced`` is one only when
#: it is hard: the address doesn't exist.
_REFUSED: Mapping[str, Breadth] = {"unsubscribed": "category", "complained": "category", "bounced": "channel"}
#: Those that may name a recipient without a message: a person can refuse everything. A bounce tells of one address, so
#: of the channel of the message that it names and of no other.
OF_PEOPLE = _REFUSED.keys() - {"bounced"}
#: Outcomes that may refuse. A failure does where it says so: the vendor won't deliver to that address any more.
REFUSING = frozenset({*_REFUSED, "failed"})
#: The outcome that takes refusals back.
RESUBSCRIBED = "resubscribed"
#: The property of a failure that tells of an unsubscription before it.
_OPTED_OUT = "opted_out"
#: Outcomes that may change what a recipient has refused, or call a message off.
ACTING = REFUSING | {RESUBSCRIBED}
#: (campaign, type) -> the refusal that the campaign maps events of that type to; campaign None = any of the workspace.
MappedRefusals = Mapping[tuple[str | None, str], str]
#: Why a message was called off whose recipient's new record closes its channel.
WITHDRAWN = "recipient:consent"


def with_breadth(one: EventInput) -> JsonObject:
    """The properties that are stored of an event, among them how much it refuses, where it says so."""
    told: dict[str, Any] = {"hard": one.hard} if one.type == "bounced" else {}
    if one.refuses is not None:
        told["refuses"] = one.refuses
    if isinstance(one, VendorEvent) and one.opted_out:
        told[_OPTED_OUT] = True
    return {**one.properties, **told} if told else one.properties


def refuses(event: Event) -> Breadth | None:
    """How much an event refuses, None = nothing. A machine's click on an unsubscribe link counts: better too quiet."""
    if event.type not in REFUSING or (event.type == "bounced" and event.properties.get("hard", True) is not True):
        return None
    told = event.properties.get("refuses")
    return next((one for one in BREADTHS if one == told), _REFUSED.get(event.type))


def apply_opt_outs(writer: Writer, decision: Decision, events: Iterable[Event], now: datetime) -> list[Decision]:
    """Suppresses what the opt-outs among ``events`` refuse, and lifts what others take back; returns the reserved
    messages that were revoked, as they are now. An event is what its campaign maps it to: what counts as an opt-out
    silences. An address that is told of by a decision without a message is none, and silences nothing."""
    revoked: list[Decision] = []
    for told in events:
        event = replace(told, type=meaning(writer, decision, told.type))
        breadth = refuses(event)
        if event.type == RESUBSCRIBED:
            _lift(writer, event, decision, now)
        elif breadth is not None and (event.type in OF_PEOPLE or decision.channel is not None):
            revoked += suppress(
                writer,
                (decision.workspace_id, decision.recipient_id),
                (decision.channel or ANY, ANY if breadth == "channel" else decision.category),
                event,
                now,
                answered=decision.decision_id,
            )
    return revoked


def mapped_refusals(campaigns: Iterable[Campaign]) -> MappedRefusals:
    """What campaigns make a refusal that may name a person alone. Of an event that names no campaign, one that maps it
    so is enough: better too quiet."""
    found: dict[tuple[str | None, str], str] = {}
    for campaign in campaigns:
        for kind in campaign.event_mapping:
            outcome = meant(campaign, kind)
            if outcome != kind and outcome in OF_PEOPLE:
                found[campaign.campaign_id, kind] = outcome
                found.setdefault((None, kind), outcome)
    return found


def of_person(event: Event, mapped: MappedRefusals) -> str:
    """The outcome that an event is which names a recipient and no message that is known. Nothing is mapped to
    ``resubscribed`` here: whoever may track, as every copy of an app, could take anybody's refusals back."""
    return mapped.get((event.campaign_id, event.type), event.type)


def apply_of_person(writer: Writer, told: Event, mapped: MappedRefusals, now: datetime) -> None:
    """What an event does that names a recipient and no message that is known: an opt-out refuses everything,
    ``resubscribed`` takes back all that events recorded before it. A refusal doesn't wait for its message, which may
    never be confirmed: who has refused is not written to meanwhile. Taking back waits."""
    if told.recipient_id is None:
        return
    event = replace(told, type=of_person(told, mapped))
    if event.type == RESUBSCRIBED and event.matched:
        _lift(writer, event, None, now)
    elif event.type in OF_PEOPLE:
        suppress(writer, (event.workspace_id, told.recipient_id), (ANY, ANY), event, now)


def _lift(writer: Writer, event: Event, decision: Decision | None, now: datetime) -> None:
    """Takes refusals back that events recorded, if they are older than this one.

    By a message: unsubscriptions of its channel and category, or of the whole channel where ``event`` says so. A
    complaint and a dead address stay, since a vendor's word is of its list alone. By a person: all of them.
    """
    recipient_id = event.recipient_id if decision is None else decision.recipient_id
    stored = None if recipient_id is None else writer.recipient(event.workspace_id, recipient_id)
    if stored is None:
        return

    def lifted(one: Suppression) -> bool:
        if not people.by_event(one) or (one.at is not None and one.at >= event.occurred_at):
            return False
        if decision is None:
            return True
        whole = event.properties.get("refuses") == "channel"
        of_it = one.channel == decision.channel and (whole or one.category == decision.category)
        return of_it and (one.source or "").startswith(f"{people.EVENT_SOURCE}unsubscribed")

    left = tuple([one for one in stored.suppressed if not lifted(one)])
    people.store(writer, stored, replace(stored, suppressed=left), now)


def release_failed(writer: Writer, decision: Decision, events: Iterable[Event], now: datetime) -> list[Decision]:
    """Gives back the place of a message that the sender reports as failed, if it still has one and nobody has confirmed
    it; returns the decision as it is now, if that changed it."""
    found: list[Decision] = []
    for event in events:
        failed = meaning(writer, decision, event.type) == "failed"
        current = writer.decision(event.workspace_id, decision.decision_id) if failed else None
        if current is not None and current.status in (*OPEN, "assumed_sent"):
            reason = f"event:failed:{event.event_id}"
            released = replace(current, status="released", closed_at=now, close_reason=reason)
            writer.update_decision(released, None)
            note_sent(writer, current, released)
            note_message(writer, current, released)
            found.append(released)
    return found


def suppress(
    writer: Writer,
    person: tuple[str, str],
    refused: tuple[str, str],
    event: Event,
    now: datetime,
    *,
    answered: str | None = None,
) -> list[Decision]:
    """Records that ``person`` (workspace, recipient) refuses (channel, category), as ``event`` tells; revokes what is
    reserved there, and returns that as it is now.

    The message that the refusal answers (``answered``, a decision's id) has gone out once its time has passed,
    confirmed or not: it stays, so that its harm is learned from.
    """
    workspace_id, recipient_id = person
    channel, category = refused
    # A failure to send to somebody who had unsubscribed records that unsubscription: who takes it back is written to.
    opted_out = event.type == "failed" and event.properties.get(_OPTED_OUT) is True
    source = f"{people.EVENT_SOURCE}{'unsubscribed' if opted_out else event.type}:{event.event_id}"
    stored = writer.recipient(workspace_id, recipient_id) or people.unknown(workspace_id, recipient_id)
    at = min(event.occurred_at, now)
    people.record_refusal(writer, stored, channel, category, source=source, at=at, now=now)
    revoked: list[Decision] = []
    for decision in writer.open_decisions(workspace_id, recipient_id):
        out = decision.decision_id == answered and decision.send_at is not None and decision.send_at <= now
        if channel in (ANY, decision.channel) and category in (ANY, decision.category) and not out:
            revoked.append(revoke(writer, decision, reason=source, now=now))
    return revoked


def revoke_withdrawn(writer: Writer, before: Recipient, after: Recipient, now: datetime) -> list[Decision]:
    """Calls off what is reserved for a person where their stored record closes what the one before left open; returns
    it as it is now. What was closed before is settled: a message that an opt-out answered stays, as it does there."""
    if not people.narrows(before, after):
        return []
    return [
        revoke(writer, decision, reason=WITHDRAWN, now=now)
        for decision in writer.open_decisions(after.workspace_id, after.recipient_id)
        if decision.channel is not None
        and closed(after, decision.channel, decision.category)
        and not closed(before, decision.channel, decision.category)
    ]


def revoke(writer: Writer, decision: Decision, *, reason: str, now: datetime) -> Decision:
    """Calls a reserved message off: its place in the caps is free again, and the sender learns of it. Returns it as it
    is now."""
    gone = replace(decision, status="revoked", closed_at=now, close_reason=reason)
    writer.update_decision(gone, None)
    writer.add_change(
        decision.workspace_id,
        "revoked",
        now,
        decision_id=decision.decision_id,
        campaign_id=decision.campaign_id,
        detail=reason,
    )
    return gone
