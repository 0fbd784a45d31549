"""One row of an import as what it means: a recipient, an event, a decision request. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any

from optimizer.bandit.consent import misspelled
from optimizer.bandit.localtime import zone_names
from optimizer.errors import Invalid
from optimizer.service.cells import CHANNELS, SUPPRESSIONS, Cells, instant
from optimizer.service.recipients import consents
from optimizer.service.requests import (
    BREADTHS,
    NO_OWN_NAME,
    Breadth,
    DecisionRequest,
    EventInput,
    RecipientPatch,
    ScoreRequest,
)
from storage.records import ANY, Consent, JsonObject, Recipient, Suppression

_RECIPIENT_COLUMNS = frozenset({"recipient_id", "timezone", "suppressed"})
_RECIPIENT_NESTED = frozenset({"attributes", "channels"})
_EVENT_COLUMNS = frozenset(
    {"event_id", "decision_id", "request_id", "provider", "message_id", "recipient_id", "campaign_id"}
    | {"type", "occurred_at", "value", "automated", "hard", "refuses"}
)
_EVENT_NESTED = frozenset({"properties"})
_REQUEST_COLUMNS = frozenset({"recipient_id", "timezone", "request_id"})
_REQUEST_NESTED = frozenset({"attributes", "channels", "context", "metadata"})
_SCORE_COLUMNS = frozenset({"recipient_id", "timezone"})
_SCORE_NESTED = frozenset({"attributes", "channels", "context"})
#: The columns that a row of each kind may have, and those that may be NAME or NAME.PART.
RECIPIENT_ROW = (_RECIPIENT_COLUMNS, _RECIPIENT_NESTED)
EVENT_ROW = (_EVENT_COLUMNS, _EVENT_NESTED)
REQUEST_ROW = (_REQUEST_COLUMNS, _REQUEST_NESTED)
SCORE_ROW = (_SCORE_COLUMNS, _SCORE_NESTED)
_CONSENT_COLUMNS = frozenset({"state", "source", "at"})
_SUPPRESSION_COLUMNS = frozenset({"channel", "category", "source", "at"})
_PLAIN_CONSENTS = {state: Consent(state=state) for state in (True, False)}


def recipient_row(cells: Cells, workspace_id: str) -> Recipient:
    """A recipient: ``recipient_id``, ``timezone``, ``attributes.NAME``, ``channels.NAME`` and ``suppressed``.

    ``suppressed`` is a JSON list of ``{"channel", "category"}`` objects. Consents may be ``true``, ``false`` or
    ``{"state", "source", "at"}`` objects.

    Raises:
        Invalid: names the column, its value and what is allowed.
    """
    cells.refuse_unknown(*RECIPIENT_ROW)
    channels, suppressed = cells.nested("channels"), cells.listed("suppressed")
    _at_most("channels", channels, CHANNELS)
    _well_spelled(channels)
    _at_most("suppressed", suppressed, SUPPRESSIONS)
    return Recipient(
        workspace_id=workspace_id,
        recipient_id=cells.required_id("recipient_id"),
        timezone=_timezone(cells),
        attributes=cells.nested("attributes"),
        channels={name: _consent(name, value) for name, value in channels.items()},
        suppressed=tuple([_suppression(i, one) for i, one in enumerate(suppressed)]),
    )


def event_row(cells: Cells) -> EventInput:
    """An event, with the fields that ``POST /v1/events`` takes as columns, and ``properties.NAME``.

    Raises:
        Invalid: names the column, its value and what is allowed.
    """
    cells.refuse_unknown(*EVENT_ROW)
    occurred_at = cells.instant("occurred_at")
    if occurred_at is None:
        raise Invalid.field("occurred_at", "missing; it is required", code="required")
    hard = cells.switch("hard")
    provider, message_id = cells.id("provider"), cells.id("message_id")
    if message_id is not None and provider is None:
        raise Invalid.field("provider", "missing; message_id needs it", code="required")
    return EventInput(
        type=cells.required_id("type"),
        occurred_at=occurred_at,
        event_id=cells.id("event_id"),
        decision_id=cells.id("decision_id"),
        request_id=cells.id("request_id"),
        provider=provider,
        message_id=message_id,
        recipient_id=cells.id("recipient_id"),
        campaign_id=cells.id("campaign_id"),
        value=cells.worth("value"),
        automated=cells.switch("automated") or False,
        hard=True if hard is None else hard,
        refuses=_breadth(cells.value("refuses")),
        properties=cells.nested("properties"),
    )


def request_row(cells: Cells, campaign_id: str, request_id: str) -> DecisionRequest:
    """A request to decide: ``recipient_id``, and what the caller tells of the recipient and the occasion; a row that
    names no ``request_id`` has the given one.

    Columns: ``request_id``, ``timezone``, ``attributes.NAME``, ``channels.NAME``, ``context.NAME``, ``metadata.NAME``.

    Raises:
        Invalid: names the column, its value and what is allowed.
    """
    cells.refuse_unknown(*REQUEST_ROW)
    return DecisionRequest(
        campaign_id=campaign_id,
        recipient_id=cells.required_id("recipient_id"),
        request_id=cells.id("request_id") or request_id,
        context=_context(cells),
        metadata=cells.nested("metadata"),
        recipient=_told(cells),
    )


def score_row(cells: Cells) -> ScoreRequest:
    """Who is scored: ``recipient_id``, ``timezone``, ``attributes.NAME``, ``channels.NAME``, ``context.NAME``.

    Raises:
        Invalid: names the column, its value and what is allowed.
    """
    cells.refuse_unknown(*SCORE_ROW)
    return ScoreRequest(cells.id("recipient_id"), _context(cells), _told(cells))


def _context(cells: Cells) -> JsonObject:
    context = cells.nested("context")
    for name in context:
        if name.startswith("@"):
            raise Invalid.field(f"context.{name}", NO_OWN_NAME)
    return context


def _told(cells: Cells) -> RecipientPatch | None:
    """What the row tells of its recipient; None = nothing."""
    attributes, channels, timezone = cells.nested("attributes"), cells.switches("channels"), _timezone(cells)
    _at_most("channels", channels, CHANNELS)
    _well_spelled(channels)
    if not (attributes or channels or timezone):
        return None
    return RecipientPatch(timezone=timezone, attributes=attributes, channels=consents(channels))


def _timezone(cells: Cells) -> str | None:
    name = cells.id("timezone")
    if name is not None and name not in zone_names():
        allowed = "an IANA name such as Europe/Berlin or UTC"
        raise Invalid.field("timezone", f"{name!r:.80} is not a time zone: must be {allowed}", code="unknown_zone")
    return name


def _at_most(column: str, found: Sized, most: int) -> None:
    if len(found) > most:
        raise Invalid.field(column, f"{len(found)} values; must hold at most {most}")


def _well_spelled(channels: Iterable[str]) -> None:
    for channel in channels:
        _channel(f"channels.{channel}", channel)


def _channel(column: str, name: str) -> str:
    fault = misspelled(name)
    if fault is not None:
        raise Invalid.field(column, f"{name!r}: {fault}")
    return name


def _consent(channel: str, value: Any) -> Consent:
    if value is True or value is False:
        return _PLAIN_CONSENTS[value]
    if not isinstance(value, Mapping):
        column = f"channels.{channel}"
        return Consent(state=Cells({column: value}, typed=True).required_switch(column))
    told = Cells(value, typed=True)
    told.refuse_unknown(_CONSENT_COLUMNS, frozenset())
    return Consent(state=told.required_switch("state"), source=told.id("source"), at=told.instant("at"))


def _breadth(value: Any) -> Breadth | None:
    found = next((one for one in BREADTHS if one == value), None)
    if value is not None and found is None:
        raise Invalid.field("refuses", f"{value!r:.80} must be one of: {', '.join(BREADTHS)}")
    return found


def _suppression(place: int, value: Any) -> Suppression:
    if not isinstance(value, Mapping):
        raise Invalid.field(f"suppressed.{place}", f"{value!r:.80} must be an object with channel and category")
    told = Cells(value, typed=True)
    told.refuse_unknown(_SUPPRESSION_COLUMNS, frozenset())
    at = told.value("at")
    return Suppression(
        channel=_channel(f"suppressed.{place}.channel", told.id("channel") or ANY),
        category=told.id("category") or ANY,
        source=told.id("source"),
        at=None if at is None else instant(f"suppressed.{place}.at", at),
    )
