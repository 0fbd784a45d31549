"""Decisions: ask, ask for many, claim, confirm, release, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson
from flask import current_app

from optimizer.errors import Forbidden, Invalid, NotFound, SendtideError
from optimizer.service import settle
from optimizer.service.cells import values_in
from optimizer.service.explain import explain
from optimizer.service.requests import DecisionRequest
from optimizer.web import body, examples, metrics, problems, render
from optimizer.web.operation import ORJSON, Answer, Call, Operations, Told
from optimizer.web.paging import own_cursor
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Nothing
from optimizer.web.schemas.decisions import (
    ConfirmIn,
    DecisionIn,
    DecisionOut,
    DecisionRecordOut,
    DecisionsIn,
    DecisionsOut,
    DecisionsPage,
    DecisionsQuery,
    ReleaseIn,
    RowIn,
    request_of,
)
from optimizer.web.schemas.explanations import ExplanationOut
from optimizer.web.validation import load
from storage.log import Decision
from storage.records import JsonObject

api = Operations("decisions", "Decide")
_LINE = DecisionIn()
_ROW = RowIn()


@api.operation(
    "POST",
    "/v1/decisions",
    "Decide for one recipient",
    body=DecisionIn,
    answers={
        201: Told(DecisionOut, "Decided and, where it is a message, reserved."),
        200: Told(
            DecisionOut, "The decision of an earlier request with this request id, as it stands now; or a preview."
        ),
    },
    scope="decide",
    idempotency=True,
    problems=(409,),
    example=examples.DECISION,
)
def decide(call: Call) -> Answer:
    """Which message to send to this recipient, on which channel, when, or nothing. `propensity` is the probability that
    the action had under the policy, this request's eligible set and this group."""
    request = _authorised(call, _with_key(call.loaded, call.idempotency_key))
    decision, created = call.services.decider.decide(call.workspace_id, request)
    fresh = created and not request.preview
    if fresh:
        metrics.of(current_app).count_decisions([decision])
    return Answer(render.decision(decision), 201 if fresh else 200)


@api.operation(
    "POST",
    "/v1/decisions/batch",
    "Decide for many recipients",
    body=DecisionsIn,
    media=(body.JSON, body.NDJSON),
    batch=True,
    rows="recipients",
    answers={
        200: Told(
            DecisionsOut,
            "A decision or a problem for every row, in order; as NDJSON one a line.",
            content_types=(body.JSON, body.NDJSON),
        )
    },
    scope="decide",
    idempotency=True,
    problems=(409,),
    example=examples.DECISIONS,
)
def decide_batch(call: Call) -> Answer:
    """Rows are decided in order: a recipient named twice sees the first reservation. A bad row never spoils the others.
    As `application/x-ndjson`, every line is a request as for a single decision. With an `Idempotency-Key` the same
    batch again answers the same, and another one is refused with 409 before any of its rows is decided. Where the store
    fails after some rows were recorded, each row from there on is answered with a problem of status 503."""
    lines = call.media == body.NDJSON
    requests = _lines(call) if lines else _rows(call)
    started = call.services.clock()
    outcomes = call.services.decider.answer_batch(call.workspace_id, requests, call.idempotency_key)
    _count(requests, outcomes, started)
    shown = [_outcome(one, index) for index, one in enumerate(outcomes)]
    if not lines:
        return Answer({"decisions": shown})
    raw = b"".join(orjson.dumps(one, option=ORJSON | orjson.OPT_APPEND_NEWLINE) for one in shown)
    return Answer(raw, content_type=body.NDJSON)


def _outcome(one: Decision | SendtideError, index: int) -> dict[str, Any]:
    return render.decision(one) if isinstance(one, Decision) else problems.of_error(one, index=index)


def _rows(call: Call) -> list[DecisionRequest | SendtideError]:
    envelope = {k: v for k, v in call.loaded.items() if k not in ("recipients", "context")}
    common = _authorised(call, request_of({**envelope, "recipient_id": ""}))
    context = call.loaded["context"]
    requests: list[DecisionRequest | SendtideError] = []
    for index, row in enumerate(call.loaded["recipients"]):
        try:
            own = load(_ROW, row, f"recipients.{index}.")
            own["context"] = _over(context, own["context"], f"recipients.{index}.context")
        except Invalid as error:
            requests.append(error)
            continue
        requests.append(replace(common, **own))
    return requests


def _over(shared: JsonObject, own: JsonObject, path: str) -> JsonObject:
    """A row's own context over that of its batch: together as large as that of a single request, no larger."""
    if not shared or not own:
        return own or shared
    context = {**shared, **own}
    size = sum(map(values_in, context.values()))
    if size > limits.ATTRIBUTES:
        raise Invalid.field(
            path,
            f"with the batch's it holds {size} values; allowed: {limits.ATTRIBUTES}, those in lists and objects "
            "counted",
        )
    return context


def _lines(call: Call) -> list[DecisionRequest | SendtideError]:
    settings = call.holder.settings
    lines = body.lines(call.raw, settings.max_batch_rows)
    requests: list[DecisionRequest | SendtideError] = []
    with body.in_turn(call.raw, settings.max_body_bytes):
        for line in lines:
            try:
                requests.append(_authorised(call, load(_LINE, body.parse_object(line))))
            except SendtideError as error:
                requests.append(error)
    return requests


def _with_key(request: DecisionRequest, key: str | None) -> DecisionRequest:
    """The request with the header's id; the same thing said twice must be the same."""
    if key is None or request.request_id == key:
        return request
    if request.request_id is not None:
        raise Invalid.field(
            "request_id", f"is {request.request_id!r}, but Idempotency-Key is {key!r}; allowed: one of them"
        )
    return replace(request, request_id=key)


def _authorised(call: Call, request: DecisionRequest) -> DecisionRequest:
    if request.override_rules and not call.may("admin"):
        raise Forbidden(
            "override_rules needs the scope admin",
            errors={"override_rules": ["Must be false without the scope admin."]},
        )
    return request


def _count(
    requests: Sequence[DecisionRequest | SendtideError], outcomes: Sequence[Decision | SendtideError], started: datetime
) -> None:
    """Counts the new decisions of a batch: neither previews nor those that an earlier run of it made, and one whose
    request id two rows share once."""
    fresh = {
        made.decision_id: made
        for asked, made in zip(requests, outcomes, strict=True)
        if isinstance(asked, DecisionRequest)
        and isinstance(made, Decision)
        and not asked.preview
        and made.decided_at >= started
    }
    metrics.of(current_app).count_decisions(list(fresh.values()))


@api.operation(
    "GET",
    "/v1/decisions",
    "List decisions",
    query=DecisionsQuery,
    answers={200: DecisionsPage},
    scope="read",
)
def list_decisions(call: Call) -> Answer:
    """Newest first."""
    with own_cursor(), call.services.store.read() as reader:
        page = reader.decisions(call.workspace_id, **call.query)
    return Answer(render.page("decisions", [render.decision(d) for d in page.items], page.cursor))


@api.operation(
    "GET",
    "/v1/decisions/{decision_id}",
    "Read a decision",
    answers={200: DecisionRecordOut},
    scope="read",
    problems=(404,),
)
def get_decision(call: Call) -> Answer:
    """Everything that is stored of it: enough to recompute its propensity and its draw."""
    with call.services.store.read() as reader:
        stored = reader.decision(call.workspace_id, call.path["decision_id"])
    if stored is None:
        raise NotFound(f"no decision {call.path['decision_id']!r} in this workspace")
    return Answer(render.decision_record(stored))


@api.operation(
    "GET",
    "/v1/decisions/{decision_id}/explanation",
    "Explain a decision",
    answers={200: ExplanationOut},
    scope="read",
    problems=(404,),
)
def explain_decision(call: Call) -> Answer:
    """What each feature adds to the score of the chosen action over others, what was masked and by which rule, and what
    exploration did: in a sentence, and in numbers that add up. Recomputed from the record."""
    return Answer(explain(call.services, call.workspace_id, call.path["decision_id"]))


@api.operation(
    "POST",
    "/v1/decisions/{decision_id}/claim",
    "Claim right before sending",
    body=Nothing,
    body_optional=True,
    answers={200: DecisionOut},
    scope="decide",
    problems=(404, 409),
)
def claim_decision(call: Call) -> Answer:
    """200: send it. 409: don't, it was revoked, displaced, released or has expired; `detail` says which. While the
    campaign or the workspace is paused, or once the campaign is archived or no longer offers the variant or the
    channel, a claim revokes; so does a first one that is late and comes in quiet hours or a blackout: ask again. What
    was claimed before is `not_claimable_now` there: if it is not out, release it and ask again. A first claim that
    comes more than an hour late expires the reservation; was it settled by then as `assumed_sent`, a release gives it
    back."""
    return Answer(render.decision(settle.claim(call.services, call.workspace_id, call.path["decision_id"])))


@api.operation(
    "POST",
    "/v1/decisions/{decision_id}/confirm",
    "Confirm that it went out",
    body=ConfirmIn,
    body_optional=True,
    answers={200: DecisionOut},
    scope="decide",
    problems=(404, 409),
    example=examples.CONFIRM,
)
def confirm_decision(call: Call) -> Answer:
    """A fact, and never refused for the decision's status: not after a release or an expiry either. The first one
    holds; a later one may add the message id that it lacked. 409 with the code `confirmed_otherwise`: another provider
    or message id is stored."""
    told = call.loaded
    decision = settle.confirm(
        call.services,
        call.workspace_id,
        call.path["decision_id"],
        told["sent_at"],
        told["provider"],
        told["message_id"],
    )
    return Answer(render.decision(decision))


@api.operation(
    "POST",
    "/v1/decisions/{decision_id}/release",
    "Give a reservation back",
    body=ReleaseIn,
    body_optional=True,
    answers={200: DecisionOut},
    scope="decide",
    problems=(404, 409),
    example={"reason": "out of stock"},
)
def release_decision(call: Call) -> Answer:
    """The message won't go out; the caps are free again. After a failed send: release, then ask again."""
    decision = settle.release(call.services, call.workspace_id, call.path["decision_id"], call.loaded["reason"] or None)
    return Answer(render.decision(decision))
