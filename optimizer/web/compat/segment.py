"""The Segment tracking API, as its SDKs speak it with ``host=…/segment``.

Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/. The write key is an API key
with the scope ``track``, as the user name of Basic authentication, or as ``writeKey`` in the body. Too large or
unreadable is 400 there, never 413 or 415; whatever an SDK should try again is 503.

SDKs of apps and browsers call each path by its first letter, with JSON as ``text/plain`` and the key in the body
(analytics-kotlin ``HTTPClient``, analytics-next ``plugins/segmentio``): a browser sends that without asking first.
Pages of any origin may post and read what came of it: who posts is told by the key alone and never by a cookie.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, request

from optimizer.errors import Forbidden, Invalid, SendtideError, TooLarge, Unauthenticated, Unreadable
from optimizer.service.eventtypes import well_spelled
from optimizer.service.ingest import ingest
from optimizer.service.optout import OF_PEOPLE
from optimizer.service.requests import EventInput, RejectedEvent, Told
from optimizer.service.webhooks.parsing import parse
from optimizer.service.wiring import Services
from optimizer.web import body, metrics, problems
from optimizer.web.compat.segment_messages import CALLS, Envelope, moment, read
from optimizer.web.holder import ServiceHolder
from optimizer.web.operation import allowed
from optimizer.web.schemas import limits
from storage.errors import StoreError, StoreUnavailable

log = logging.getLogger("sendtide.web")
api = Blueprint("segment", __name__)
_BASE = "/segment/v1"
#: What our errors are there; everything else that a caller gets wrong is 400.
_STATUS: Mapping[type[SendtideError], int] = {Unauthenticated: 401, Forbidden: 403}


def _view(call: str | None) -> Callable[[], Response]:
    """The view of a call; None = a batch of them."""

    def view() -> Response:
        try:
            return _answer(_receive(call))
        except SendtideError as error:
            return _refuse(error)
        except StoreError as error:
            return _unstored(error)

    return view


def _receive(call: str | None) -> list[RejectedEvent]:
    """Stores what the request reports; returns what of a batch was refused."""
    holder: ServiceHolder = current_app.extensions["sendtide"]
    services = holder.get()
    secret = _secret()
    workspace_id = None if secret is None else allowed(services, secret, "track").workspace_id
    # An SDK throws a whole batch away that any 4xx answered: half an emoji in one message must not lose the others.
    document = body.as_object(parse(_body(limits.SEGMENT_MESSAGE if call else limits.SEGMENT_BATCH)))
    if workspace_id is None:
        workspace_id = allowed(services, _written(document), "track").workspace_id
    envelope = Envelope(_context(document), _sent_at(document), services.clock())
    messages = [document] if call else _messages(document)
    inputs, told = _read(messages, call, envelope)
    return _store(services, workspace_id, inputs, told, alone=call is not None)


def _store(
    services: Services,
    workspace_id: str,
    inputs: list[EventInput | RejectedEvent],
    told: dict[int, Told],
    *,
    alone: bool,
) -> list[RejectedEvent]:
    # Names are the pages' own, so a "Click" is one; a refusal that is misspelled would silence nobody.
    report = ingest(services, workspace_id, well_spelled(services, workspace_id, inputs, OF_PEOPLE), told)
    metrics.of(current_app).count_events(report)
    services.intake.report(workspace_id, "segment", report)
    rejected = list(report.rejected)
    if rejected:
        log.info("segment messages refused", extra={"refused": len(rejected), "code": rejected[0].code})
    if rejected and alone:
        raise Invalid(rejected[0].detail, code=rejected[0].code)
    return rejected


def _read(
    messages: list[Any], call: str | None, envelope: Envelope
) -> tuple[list[EventInput | RejectedEvent], dict[int, Told]]:
    """Every message as an event or its refusal, and what some tell of their recipient, by place."""
    inputs: list[EventInput | RejectedEvent] = []
    told: dict[int, Told] = {}
    for index, message in enumerate(messages):
        try:
            event, about = read(message, call, envelope)
        except Invalid as error:
            inputs.append(RejectedEvent(index, error.code, error.detail))
            continue
        inputs.append(event)
        if about is not None:
            told[index] = about
    return inputs, told


def _secret() -> str | None:
    """The key of Basic authentication; None = there is no such header, so the body must have it."""
    if "Authorization" not in request.headers:
        return None
    try:
        given = request.authorization
    except ValueError:  # not even ASCII
        given = None
    if given is None or given.type != "basic" or not given.username:
        raise Unauthenticated("send 'Authorization: Basic' with the write key as user name and no password")
    return given.username


def _written(document: Mapping[str, Any]) -> str:
    key = document.get("writeKey")
    if not isinstance(key, str) or not key:
        raise Unauthenticated("no write key: send it as user name of 'Authorization: Basic', or as writeKey")
    return key


def _body(limit: int) -> bytes:
    """The body, unpacked if it is gzip; never more than ``limit`` bytes of it."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    raw = body.read(limit)
    if encoding == "identity":
        return raw
    if encoding != "gzip":
        raise Unreadable(f"Content-Encoding is {encoding!r:.80}; allowed: gzip")
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacking.decompress(raw, limit + 1)
    except zlib.error as fault:
        raise Unreadable(f"the body is not gzip: {fault}") from None
    if len(unpacked) > limit:
        raise TooLarge(f"the body has more than {limit} bytes; allowed: {limit}")
    if not unpacking.eof:
        raise Unreadable("the body ends in the middle of its gzip stream")
    return unpacked


def _messages(document: Mapping[str, Any]) -> list[Any]:
    messages = document.get("batch")
    if not isinstance(messages, list):
        raise Invalid.field("batch", "missing, or not a list of messages")
    if len(messages) > limits.SEGMENT_ROWS:
        raise TooLarge(f"the batch has {len(messages)} messages; allowed: {limits.SEGMENT_ROWS}")
    return messages


def _context(document: Mapping[str, Any]) -> Mapping[str, Any]:
    context = document.get("context")
    return context if isinstance(context, dict) else {}


def _sent_at(document: Mapping[str, Any]) -> Any:
    """When the request was sent; a time that can't be read corrects nothing."""
    try:
        return moment(document, "sentAt")
    except Invalid:
        return None


def _answer(rejected: list[RejectedEvent]) -> Response:
    answer: dict[str, Any] = {"success": True}
    if rejected:
        answer["rejected"] = rejected
    return Response(orjson.dumps(answer), 200, content_type=body.JSON)


def _refuse(error: SendtideError) -> Response:
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 400)
    refusal = _refusal(status, error.code, error.detail)
    if status == 401:
        refusal.headers["WWW-Authenticate"] = 'Basic realm="sendtide"'
    return refusal


def _unstored(error: StoreError) -> Response:
    """503 for a race that was lost, too: SDKs throw away what any 4xx answered, and the same again succeeds."""
    told = problems.of_store_error(error)
    log.error("store unavailable: %s", error)
    refusal = _refusal(503, told["code"], told["detail"])
    retry = error.retry_after_seconds if isinstance(error, StoreUnavailable) else problems.RETRY_SECONDS
    refusal.headers["Retry-After"] = str(retry)
    return refusal


def _refusal(status: int, code: str, message: str) -> Response:
    document = {"success": False, "code": code, "message": message}
    return Response(orjson.dumps(document), status, content_type=body.JSON)


@api.after_request
def _open_to_pages(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "*"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
        response.headers["Access-Control-Max-Age"] = "7200"  # as long as browsers keep it at most
    return response


for _name, _call in (("batch", None), *((call, call) for call in CALLS)):
    for _path in (_name, _name[0]):
        api.add_url_rule(
            f"{_BASE}/{_path}",
            _path,
            _view(_call),
            methods=["POST", "OPTIONS"],
            provide_automatic_options=True,  # answers OPTIONS itself
            strict_slashes=False,
        )
