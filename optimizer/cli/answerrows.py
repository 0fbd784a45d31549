"""``sendtide decide``: a row of a file as a request, and its answer as a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optimizer.errors import SendtideError
from optimizer.service.cells import Cells
from optimizer.service.importrows import request_row

if TYPE_CHECKING:
    from optimizer.service.requests import DecisionRequest
    from storage.log import Decision

#: The columns of an answer, and their types (see ``rowfiles``).
COLUMNS = {
    "line": "bigint",
    "decision_id": "string",
    "request_id": "string",
    "campaign_id": "string",
    "recipient_id": "string",
    "status": "string",
    "group": "string",
    "variant_id": "string",
    "channel": "string",
    "send_at": "time",
    "send_at_local": "string",
    "propensity": "double",
    "policy_id": "string",
    "eligible_actions": "bigint",
    "reasons": "string",
    "metadata": "string",
    "error": "string",
}

#: A row's cells, or why it can't be read.
Cellular = Mapping[str, Any] | SendtideError


def request_of(row: Cellular, campaign: str, request_id: str, *, typed: bool) -> DecisionRequest | SendtideError:
    """What a row asks for; ``request_id`` where it names none itself. What is wrong with it is its answer."""
    try:
        if isinstance(row, SendtideError):
            return row
        return request_row(Cells(row, typed=typed), campaign, request_id)
    except SendtideError as error:
        return error


def answer_row(asked: Cellular, answer: Decision | SendtideError) -> dict[str, Any]:
    """The API's answer, flat: the action's parts stand beside the rest. Every column but ``line`` has a value."""
    from optimizer.web import render

    empty: dict[str, Any] = dict.fromkeys(COLUMNS)
    if isinstance(answer, SendtideError):
        who = asked.get("recipient_id") if isinstance(asked, Mapping) else None
        error = {"code": answer.code, "detail": answer.detail, "errors": answer.errors}
        return {**empty, "recipient_id": None if who is None else str(who), "error": error}
    whole = render.decision(answer)
    flat = {**whole, **(whole["action"] or {})}
    if "send_at_local" in flat:
        flat["send_at_local"] = flat["send_at_local"].isoformat()
    return {**empty, **{name: flat[name] for name in COLUMNS if name in flat}}
