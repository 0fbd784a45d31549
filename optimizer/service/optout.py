"""Events that call messages off, in one transaction with them: an opt-out suppresses its channel and category and
revokes what is reserved there; a failure gives back its own message's place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from optimizer.service import recipients as people
from optimizer.service.engagement import note_sent
from optimizer.service.rhythms import note_message
from storage.log import OPEN, Decision, Event
from storage.port import Writer
from storage.records import ANY

#: Outcomes that are a refusal. ``bounced`` is one only when it is hard: the address doesn't exist.
OPT_OUTS = frozenset({"unsubscribed", "complained", "bounced"})
#: Those that may name a recipient without a message: a person can refuse everything. A bounce tells of one address, so
#: of the channel of the message that it names and of no other.
OF_PEOPLE = OPT_OUTS - {"bounced"}


def is_opt_out(event: Event) -> bool:
    """Whether this event silences its channel. A machine's click on an unsubscribe link counts: better too quiet."""
    return event.type in OPT_OUTS and (event.type != "bounced" or event.properties.get("hard", True) is True)


def apply_opt_outs(writer: Writer, decision: Decision, events: Iterable[Event], now: datetime) -> list[Decision]:
    """Suppresses what the opt-outs among ``events`` refuse; returns the reserved messages that were revoked, as they
    are now. A bounce of a decision without a message tells of no address, and silences nothing."""
    revoked: list[Decision] = []
    for event in events:
        if is_opt_out(event) and (event.type != "bounced" or decision.channel is not None):
            category = ANY if event.type == "bounced" else decision.category
            revoked += suppress(
                writer,
                (decision.workspace_id, decision.recipient_id),
                (decision.channel or ANY, category),
                source=f"event:{event.type}:{event.event_id}",
                now=now,
                answered=decision.decision_id,
            )
    return revoked


def release_failed(writer: Writer, decision: Decision, events: Iterable[Event], now: datetime) -> list[Decision]:
    """Gives back the place of a message that the sender reports as failed, if it still has one and nobody has confirmed
    it; returns the decision as it is now, if that changed it."""
    found: list[Decision] = []
    for event in events:
        current = writer.decision(event.workspace_id, decision.decision_id) if event.type == "failed" else None
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
    *,
    source: str,
    now: datetime,
    answered: str | None = None,
) -> list[Decision]:
    """Records that ``person`` (workspace, recipient) refuses (channel, category); revokes what is reserved there, and
    returns that as it is now.

    The message that the refusal answers (``answered``, a decision's id) has gone out once its time has passed,
    confirmed or not: it stays, so that its harm is learned from.
    """
    workspace_id, recipient_id = person
    channel, category = refused
    stored = writer.recipient(workspace_id, recipient_id) or people.unknown(workspace_id, recipient_id)
    people.store(writer, stored, people.refused(stored, channel, category, source=source, at=now), now)
    revoked: list[Decision] = []
    for decision in writer.open_decisions(workspace_id, recipient_id):
        out = decision.decision_id == answered and decision.send_at is not None and decision.send_at <= now
        if channel in (ANY, decision.channel) and category in (ANY, decision.category) and not out:
            revoked.append(revoke(writer, decision, reason=source, now=now))
    return revoked


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
