"""Feedback: events, and the sends of other systems."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import current_app

from optimizer.errors import Invalid
from optimizer.service import settle
from optimizer.service.eventtypes import well_spelled
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput, IngestReport, RejectedEvent
from optimizer.web import examples, metrics
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.events import EventIn, EventsIn, IngestOut, SendIn, SendOut
from optimizer.web.validation import load
from storage.log import Message

api = Operations("events", "Feedback")
_EVENT = EventIn()
#: How far ahead of our clock a send may be reported: its system may have planned it.
_SEND_AHEAD = timedelta(days=366)


@api.operation(
    "POST",
    "/v1/events",
    "Report what happened",
    body=EventsIn,
    batch=True,
    rows="events",
    answers={202: Told(IngestOut, "Durably stored, but for those in `rejected`.")},
    scope="feedback",
    example=examples.EVENTS,
)
def post_events(call: Call) -> Answer:
    """Any order, any number of times. A bad event is listed in `rejected`; one whose decision is unknown is kept and
    joined when the decision or its confirm arrives."""
    read = [_read(row, index) for index, row in enumerate(call.loaded["events"])]
    report = ingest(call.services, call.workspace_id, well_spelled(call.services, call.workspace_id, read))
    metrics.of(current_app).count_events(report)
    call.services.intake.report(call.workspace_id, "api", report)
    return Answer(_told(report), 202)


def _read(row: object, index: int) -> EventInput | RejectedEvent:
    try:
        event: EventInput = load(_EVENT, row, f"events.{index}.")
    except Invalid as error:
        return RejectedEvent.of(index, error)
    return event


def _told(report: IngestReport) -> dict[str, Any]:
    """What became of an envelope of events."""
    return {
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "unmatched": report.unmatched,
        "rejected": [_rejected(one) for one in report.rejected],
    }


def _rejected(one: RejectedEvent) -> dict[str, Any]:
    place = f"events.{one.index}"  # which the border's own errors name already
    errors = {path if path.startswith(place) else f"{place}.{path}": told for path, told in one.errors.items()}
    return {"index": one.index, "code": one.code, "detail": one.detail, "errors": errors}


@api.operation(
    "POST",
    "/v1/sends",
    "Report a message of another system",
    body=SendIn,
    answers={201: Told(SendOut, "It counts from now on."), 200: Told(SendOut, "It was known already.")},
    scope="feedback",
    problems=(409,),
    example=examples.SEND,
)
def post_send(call: Call) -> Answer:
    """It counts against the caps: a message of another system, or the baseline that a client sent while Sendtide
    couldn't be reached. A decision's id as `id` means that decision's message, and confirms it. Otherwise the same
    `id` of the same recipient with another time, channel, category, campaign or variant is 409."""
    told = call.loaded
    latest = call.services.clock() + _SEND_AHEAD
    if told["sent_at"] > latest:
        raise Invalid.field(
            "sent_at", f"{told['sent_at'].isoformat()} is too far ahead; allowed: up to {latest.isoformat()}"
        )
    message = Message(
        workspace_id=call.workspace_id,
        recipient_id=told["recipient_id"],
        at=told["sent_at"],
        message_ref=told["id"],
        channel=told["channel"],
        category=told["category"],
        campaign_id=told["campaign_id"],
        variant_id=told["variant_id"],
    )
    counted = settle.record_send(call.services, message)
    return Answer({"id": told["id"], "counted": counted}, 201 if counted else 200)
