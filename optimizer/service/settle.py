"""What becomes of a reservation: claimed right before sending, confirmed once sent, released when it won't be.

A confirm is a fact and never refused, whatever has become of the reservation; the first one says when the message went
out. Everything here is one write transaction and idempotent: the same call again answers the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from optimizer.bandit.rewards import CLOCK_SKEW
from optimizer.errors import Conflict, Invalid, NotFound
from optimizer.service.clockrules import closed_now
from optimizer.service.engagement import note_engagement, note_sent, out_at
from optimizer.service.erased import gone, hidden_message_id, refusal
from optimizer.service.heard import assume_sent, heard_of
from optimizer.service.labels import judge_anew
from optimizer.service.optout import apply_opt_outs, revoke
from optimizer.service.othersends import cost_to_count, require_same, shown
from optimizer.service.record import message_of
from optimizer.service.rhythms import note_message
from optimizer.service.stopped import stopped, stopped_since
from optimizer.service.webhooks.messages import normalised
from optimizer.service.wiring import Services
from storage.log import COUNTED, HEARD, HEARD_LATE, OPEN, Decision, Message, Reason
from storage.port import Writer

#: What is noted of a release that gives no reason.
RELEASED = "released"
#: Why a reservation expired.
UNCONFIRMED = "unconfirmed"
#: How long after its planned time, or its claim, a message may still be confirmed before it is settled without a word.
GRACE = timedelta(hours=1)

Work = Callable[[Writer], Decision]


def claim(services: Services, workspace_id: str, decision_id: str) -> Decision:
    """Marks a reservation as about to be sent. One that has been stopped since is revoked: what is paused on a bad day
    mustn't go out. One that is overdue expires: who asks whether to send it hasn't sent it. Was it claimed before, it
    may be out, and is settled as its campaign says; where an event says that it went out, it counts as sent.

    Raises:
        Conflict: it was revoked, displaced, released or has expired, or there is nothing to send. Where it is late, and
            quiet hours or a blackout have begun, it is revoked: else it would be settled as sent. One that was claimed
            before may be out: code ``not_claimable_now``, and nothing changes.
    """
    now = services.clock()

    def work(writer: Writer) -> Decision:
        decision = _found(writer, workspace_id, decision_id)
        if decision.status not in OPEN:
            return decision
        overdue = is_overdue(decision, now)
        if overdue and decision.status == "claimed":
            return settle_overdue(writer, decision, now)
        if overdue and heard_of(writer, decision):
            return assume_sent(writer, decision, now, heard=True)
        if (reason := stopped(writer, decision)) is not None:
            return revoke(writer, decision, reason=reason, now=now)
        if overdue:
            return _expire(writer, decision, now)
        closing = closed_now(writer, decision, now)
        if closing is not None and decision.status == "reserved" and not heard_of(writer, decision):
            return revoke(writer, decision, reason=f"rule:{closing.rule_id}", now=now)
        if closing is not None:
            raise _not_now(decision, closing, now)
        if decision.status == "claimed":
            return decision
        claimed = replace(decision, status="claimed", claimed_at=now)
        writer.update_decision(claimed, message_of(claimed))
        return claimed

    decision = _write(services, workspace_id, decision_id, work)
    if decision.status != "claimed":  # told here: what was settled in the transaction stays
        raise Conflict(
            f"decision {decision_id} is {decision.status}{_why(decision)}; only a reserved one can be claimed",
            code=f"not_claimable_{decision.status}",
            errors={"status": [f"{decision.status}; allowed: reserved, claimed"]},
        )
    return decision


def _not_now(decision: Decision, closing: Reason, now: datetime) -> Conflict:
    until = "" if closing.next_eligible_at is None else f" until {closing.next_eligible_at.isoformat()}"
    planned = "" if decision.send_at is None else decision.send_at.isoformat()
    return Conflict(
        f"decision {decision.decision_id} was to go out at {planned}; now, at {now.isoformat()}, rule "
        f"{closing.rule_id!r} ({closing.kind}) closes {decision.channel}{until}: if it is not out, release it and ask "
        "again",
        code="not_claimable_now",
        errors={"send_at": [f"{planned}; allowed now: what rule {closing.rule_id!r} leaves open"]},
    )


def _why(decision: Decision) -> str:
    """What brought the status about, where something is known of it; what was sent may have been given back before."""
    if decision.status == "assumed_sent" and decision.close_reason in (HEARD, HEARD_LATE):
        return " (an event says that it went out)"
    if decision.status == "assumed_sent":
        minutes = GRACE // timedelta(minutes=1)
        return f" (not confirmed within {minutes} minutes of its time; a release gives back what was not sent)"
    return f" ({decision.close_reason})" if decision.close_reason and decision.status != "sent" else ""


def is_overdue(decision: Decision, now: datetime) -> bool:
    """Whether the time of a reservation, and of its claim, has passed unconfirmed."""
    if decision.status not in OPEN or decision.send_at is None:
        return False
    return max(decision.send_at, decision.claimed_at or decision.send_at) < now - GRACE


def settle_overdue(writer: Writer, decision: Decision, now: datetime) -> Decision:
    """Settles an overdue reservation: as its campaign says, unless an event says that it went out.

    ``assume_sent``: it counts as sent. ``release``: it expires, its place in the caps is free, the sender learns of it.
    What was stopped by its time, never claimed and never heard of was not sent: it is revoked, either way.
    """
    unclaimed_since = decision.send_at if decision.status == "reserved" else None
    reason = None if unclaimed_since is None else stopped_since(writer, decision, unclaimed_since)
    campaign = writer.campaign(decision.workspace_id, decision.campaign_id)
    if reason is None and (campaign is None or campaign.unconfirmed == "assume_sent"):
        return assume_sent(writer, decision, now, heard=False)
    if heard_of(writer, decision):
        return assume_sent(writer, decision, now, heard=True)
    return _expire(writer, decision, now) if reason is None else revoke(writer, decision, reason=reason, now=now)


def _expire(writer: Writer, decision: Decision, now: datetime) -> Decision:
    """Ends a reservation whose time has passed: its place in the caps is free, the sender learns of it."""
    expired = replace(decision, status="expired", closed_at=now, close_reason=UNCONFIRMED)
    writer.update_decision(expired, None)
    of = {"decision_id": decision.decision_id, "campaign_id": decision.campaign_id}
    writer.add_change(decision.workspace_id, "expired", now, **of, detail=UNCONFIRMED)
    return expired


def confirm(
    services: Services,
    workspace_id: str,
    decision_id: str,
    sent_at: datetime | None,
    provider: str | None,
    message_id: str | None,
) -> Decision:
    """Records that the message went out (``sent_at`` None = now); joins events that named it by message id.

    The first confirm holds: a later one adds the provider's message id where there is none yet and moves nothing. A
    message that was given back, called off or displaced counts again from here on, at its real time.

    Raises:
        Invalid: there was no message to send, or ``sent_at`` lies in the future or before the decision.
        Conflict: code ``confirmed_otherwise``, an earlier confirm named another provider or message id.
    """
    now = services.clock()
    provider, message_id = normalised(provider, message_id)

    def work(writer: Writer) -> Decision:
        decision = _found(writer, workspace_id, decision_id)
        if decision.send_at is None:
            raise Invalid.field("decision_id", f"{decision_id} is {decision.status}: it has no message to confirm")
        told = message_id
        if decision.snapshot.erased and message_id is not None:
            told = _hidden(writer, services.salt, decision, provider or decision.provider, message_id)
        provider_, message_id_ = _named(decision, provider, told)
        return _confirmed(writer, replace(decision, provider=provider_, message_id=message_id_), decision, sent_at, now)

    return _write(services, workspace_id, decision_id, work)


def _confirmed(writer: Writer, named: Decision, before: Decision, sent_at: datetime | None, now: datetime) -> Decision:
    """Stores that a message went out, ``named`` as far as it is, and what follows from it.

    Raises:
        Invalid: ``sent_at`` lies in the future or before the decision.
    """
    if sent_at is not None:
        _require_time(before, sent_at, now)
    confirmed = replace(named, status="sent", sent_at=before.sent_at or sent_at or now, counted_at=out_at(before, now))
    if confirmed != before:
        # Before it is stored as sent: what is counted anew here must not hold it, since ``note_sent`` adds it.
        joined = judge_anew(writer, before, confirmed, writer.match_events(before.workspace_id, confirmed))
        confirmed = replace(confirmed, joined_at=now if joined else before.joined_at)
        writer.update_decision(confirmed, message_of(confirmed))
        apply_opt_outs(writer, confirmed, joined, now)
        note_engagement(writer, confirmed, joined)
        note_sent(writer, before, confirmed)
        note_message(writer, before, confirmed, joined)
    return confirmed


def _require_time(decision: Decision, sent_at: datetime, now: datetime) -> None:
    """Refuses a time to come, and one before the decision, with which the message would leave the windows of caps that
    it counts against."""
    earliest, latest = _earliest(decision, now), now + CLOCK_SKEW
    if sent_at > latest:
        raise Invalid.field("sent_at", f"{sent_at.isoformat()} is in the future; allowed: up to {latest.isoformat()}")
    if decision.sent_at is None and sent_at < earliest:
        raise Invalid.field(
            "sent_at",
            f"{sent_at.isoformat()} is before the decision of {decision.decided_at.isoformat()}; "
            f"allowed: from {earliest.isoformat()}",
        )


def _earliest(decision: Decision, now: datetime) -> datetime:
    """When its message went out at the earliest. A file may have been decided as of a time to come, and its messages
    sent before."""
    return min(decision.decided_at, now) - CLOCK_SKEW


def _hidden(writer: Writer, salt: bytes, decision: Decision, provider: str | None, message_id: str) -> str:
    """What stands for the message id of an erased person. If it is theirs, what waited under the id itself goes: a
    later confirm may name somebody else's."""
    hidden = hidden_message_id(salt, decision.workspace_id, provider or "", message_id)
    if decision.message_id in (None, hidden):
        named = replace(decision, provider=provider, message_id=message_id)
        waiting = writer.match_events(decision.workspace_id, named)
        writer.drop_events(decision.workspace_id, [event.event_id for event in waiting])
    return hidden


def _named(decision: Decision, provider: str | None, message_id: str | None) -> tuple[str | None, str | None]:
    """The provider and its message id after a confirm: those of an earlier one hold, but for a provider that was named
    alone, since a message id comes with its own.

    Raises:
        Conflict: it names others than are stored.
    """
    stored = {"provider": decision.provider, "message_id": decision.message_id}
    told = {"provider": provider, "message_id": message_id}
    if decision.message_id is None and message_id is not None:
        return provider or decision.provider, message_id
    others = [name for name, one in told.items() if one is not None and stored[name] not in (None, one)]
    if others:
        hidden = "another one is stored, which was erased"
        errors = {
            name: [hidden if decision.snapshot.erased else f"{shown(told[name])}; stored: {shown(stored[name])}"]
            for name in others
        }
        raise Conflict(
            f"decision {decision.decision_id} was confirmed otherwise before: "
            f"{', '.join(f'{name} {messages[0]}' for name, messages in errors.items())}",
            code="confirmed_otherwise",
            errors=errors,
        )
    return decision.provider or provider, decision.message_id


def release(services: Services, workspace_id: str, decision_id: str, reason: str | None) -> Decision:
    """Gives a reservation back (or a ``no_send`` that the caller won't honour); the caps are free again.

    Raises:
        Conflict: the message is out already, or was called off otherwise.
    """
    now = services.clock()

    def work(writer: Writer) -> Decision:
        decision = _found(writer, workspace_id, decision_id)
        if decision.status == "released":
            return decision
        if decision.status not in ("reserved", "claimed", "no_send", "assumed_sent"):
            raise Conflict(
                f"decision {decision_id} is {decision.status} and can't be released",
                code=f"not_releasable_{decision.status}",
                errors={"status": [f"{decision.status}; allowed: reserved, claimed, no_send, assumed_sent"]},
            )
        # Never without a reason: a closed decision that has none was assumed sent.
        why = RELEASED if decision.snapshot.erased else reason or RELEASED
        released = replace(decision, status="released", closed_at=now, close_reason=why)
        writer.update_decision(released, None)
        note_sent(writer, decision, released)
        note_message(writer, decision, released)
        return released

    return _write(services, workspace_id, decision_id, work)


def record_send(services: Services, message: Message) -> bool:
    """Counts a message that another system sent; False when it counts already. Under a decision's id it is that
    decision's message, and confirms it.

    Raises:
        Invalid: its recipient was erased, or it is a decision's and lies in the future.
        Conflict: code ``id_reused``, another message of theirs is known by this id.
    """
    now = services.clock()

    def work(writer: Writer) -> bool:
        if gone(writer, services.salt, message.workspace_id, [message.recipient_id]):
            raise refusal(message.recipient_id)
        decision = writer.decision(message.workspace_id, message.message_ref)
        if decision is not None and decision.recipient_id == message.recipient_id and decision.send_at is not None:
            # It is out, whatever its clock says; from before the decision it would leave the caps that it fills.
            at = message.at if message.at >= _earliest(decision, now) else min(decision.decided_at, now)
            _confirmed(writer, decision, decision, at, now)
            return decision.status not in COUNTED
        counted = writer.add_message(replace(message, cost=cost_to_count(writer, message)))
        if not counted:
            require_same(writer, message)
        return counted

    return services.store.write(work, recipients=[(message.workspace_id, message.recipient_id)])


def _found(writer: Writer, workspace_id: str, decision_id: str) -> Decision:
    decision = writer.decision(workspace_id, decision_id)
    if decision is None:
        raise NotFound(f"no decision {decision_id!r} in this workspace")
    return decision


def _write(services: Services, workspace_id: str, decision_id: str, work: Work) -> Decision:
    with services.store.read() as reader:
        decision = reader.decision(workspace_id, decision_id)
    if decision is None:
        raise NotFound(f"no decision {decision_id!r} in this workspace")
    return services.store.write(work, recipients=[(workspace_id, decision.recipient_id)])
