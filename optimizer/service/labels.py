"""Labels of stored opens and clicks: judged anew whenever more is known of their message, or the rules got better.

A label hangs on all events of a decision and on when its message went out, so each arrival may turn earlier ones round.
They are set in the transaction that stores what is new, once for all of it, and what had been concluded from the old
ones is put right: the recipient's rhythm, and the count of unanswered messages, which is counted anew.

Where ``MOST`` opens and clicks of a message are known, those that come are ``TOO_MANY`` without a look at the others,
until something else is told of it. ``sendtide relabel`` counts by the time at which they happened and not at which they
came, so there, and only there, the order of arrival can make a difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from optimizer.service.engagement import engages, recount
from optimizer.service.requests import VendorEvent
from optimizer.service.rhythms import note_answer_changed
from optimizer.service.webhooks.delivery import Signs
from optimizer.service.webhooks.machines import MOST, TOO_MANY, Trace, judge
from optimizer.service.webhooks.vendors import VENDORS
from storage.log import Decision, Event
from storage.port import Writer
from storage.webhooks import Label, Vendor, VendorWords

#: The types that a machine may have made.
JUDGED = frozenset({"opened", "clicked"})


def judge_alone(event: Event, told: VendorEvent) -> Event:
    """An event as it is labelled as long as nothing else is known of its message."""
    if event.type not in JUDGED:
        return event
    trace = _trace(VendorWords(event, told.vendor, told.words))
    return _labelled(event, judge([trace], None, None)[event.event_id])


def judge_anew(writer: Writer, before: Decision, after: Decision, new: Iterable[Event]) -> list[Event]:
    """Judges a decision's opens and clicks; returns ``new`` with the labels that they have now.

    Args:
        writer: the transaction in which ``after`` and ``new`` were stored.
        before: the decision as it was.
        after: as it is now.
        new: events that were not the decision's before.
    """
    fresh, turned = _told_anew(writer, before, after, list(new))
    if turned:
        recount(writer, after.workspace_id, after.recipient_id)
    return fresh


def judge_all_anew(writer: Writer, arrived: Iterable[tuple[Decision, Sequence[Event]]]) -> list[list[Event]]:
    """``judge_anew`` of many decisions, which stayed as they were, and the new events of each."""
    found: list[list[Event]] = []
    turned: set[tuple[str, str]] = set()
    for decision, new in arrived:
        fresh, answers_turned = _told_anew(writer, decision, decision, new)
        found.append(fresh)
        if answers_turned:
            turned.add((decision.workspace_id, decision.recipient_id))
    for person in sorted(turned):  # now, since a count hangs on the labels of all of a recipient's messages
        recount(writer, *person)
    return found


def judge_stored(writer: Writer, decision: Decision) -> dict[str, Label]:
    """Judges a decision's stored events by the rules as they are now; returns the labels that changed, by event id."""
    changed, turned = _judged(writer, decision, decision, frozenset())
    if turned:
        recount(writer, decision.workspace_id, decision.recipient_id)
    return changed


def _told_anew(writer: Writer, before: Decision, after: Decision, fresh: Sequence[Event]) -> tuple[list[Event], bool]:
    """``fresh`` with the labels that they have now, and whether it turned round that an older event is an answer."""
    evidence = before.sent_at != after.sent_at or any(event.type == "delivered" for event in fresh)
    if not evidence and not any(event.type in JUDGED for event in fresh):
        return list(fresh), False
    turned = False
    if not evidence and _are_too_many(writer, after, fresh):
        changed = {event.event_id: TOO_MANY for event in fresh if _is_labelled(event) and not event.automated}
        writer.label_events(after.workspace_id, list(changed.items()))
    else:
        changed, turned = _judged(writer, before, after, {event.event_id for event in fresh})
    return [_labelled(event, changed.get(event.event_id)) for event in fresh], turned


def _are_too_many(writer: Writer, decision: Decision, fresh: Sequence[Event]) -> bool:
    """Whether so many opens and clicks of the message were known before ``fresh`` that none is looked at any more:
    else whoever loops over its links makes each delivery of them read all."""
    new = sum(map(_is_labelled, fresh))
    return writer.labelled(decision.workspace_id, decision.decision_id, limit=MOST + new) >= MOST + new


def _judged(writer: Writer, before: Decision, after: Decision, fresh: Collection[str]) -> tuple[dict[str, Label], bool]:
    """Sets the labels that change and tallies what was concluded from those of events that aren't ``fresh``; returns
    them, and whether that one of these is an answer has turned round: then the recipient's count is to be counted anew,
    even where another one answers, since that was known at another time."""
    words = writer.vendor_words(after.workspace_id, after.decision_id)
    said = [one for one in words if one.event.type in JUDGED]
    if not said:
        return {}, False
    events = [e for e in writer.events(after.workspace_id, after) if e.decision_id == after.decision_id]
    arrived = _delivered_at(one.event for one in words if _signs(one).timed)
    labels = judge([_trace(one) for one in said], after.sent_at, arrived)
    changed = {
        one.event.event_id: label
        for one in said
        if (label := labels[one.event.event_id])
        != Label(one.event.automated, one.event.confidence or 0.0, one.event.reason)
        or one.event.confidence is None
    }
    writer.label_events(after.workspace_id, list(changed.items()))
    old = [event for event in events if event.event_id not in fresh]
    was = [engages(writer, after, event) for event in old]
    now = [engages(writer, after, _labelled(event, changed.get(event.event_id))) for event in old]
    if any(was) != any(now):
        note_answer_changed(writer, before, answered=any(now))
    return changed, was != now


def _is_labelled(event: Event) -> bool:
    return event.confidence is not None


def _labelled(event: Event, label: Label | None) -> Event:
    if label is None:
        return event
    return replace(event, automated=label.automated, confidence=label.confidence, reason=label.reason)


def _trace(one: VendorWords) -> Trace:
    return Trace(one.event.event_id, one.event.type, one.event.occurred_at, _signs(one))


def _signs(one: VendorWords) -> Signs:
    vendor: Vendor = one.vendor  # type: ignore[assignment]  # what was stored came from this table
    return VENDORS[vendor].signs(one.words)


def _delivered_at(events: Iterable[Event]) -> datetime | None:
    """When a vendor first said that the message had arrived: a caller's clock may be another than that of the vendor,
    which times opens and clicks."""
    return min((event.occurred_at for event in events if event.type == "delivered"), default=None)
