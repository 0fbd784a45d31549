"""Maps both error trees and HTTP's own errors to ``application/problem+json`` (RFC 9457). Nothing else does."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from optimizer import errors
from optimizer.errors import SendtideError
from optimizer.web import body
from storage.errors import AlreadyExists, StoreError, StoreUnavailable, VersionConflict

log = logging.getLogger("sendtide.web")

CONTENT_TYPE = "application/problem+json"

#: When to try again what somebody else's server made impossible.
RETRY_SECONDS = 30

#: HTTP status by error class; a subclass comes before its base.
STATUS: dict[type[SendtideError], int] = {
    errors.Unreadable: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Invalid: 422,
    errors.Unreachable: 503,
    errors.Unrecorded: 503,
}


def problem(
    status: int, code: str, detail: str, fields: dict[str, list[str]] | None = None, **more: Any
) -> dict[str, Any]:
    """A problem document. ``title`` is the same for every problem of one status."""
    return {
        "type": f"/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **({"errors": fields} if fields else {}),
        **more,
    }


def of_error(error: SendtideError, **more: Any) -> dict[str, Any]:
    """The problem of one of the service's errors; one that isn't the caller's is a 500."""
    status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), None)
    if status is None:
        log.error("error that is not the caller's", exc_info=error)
        return problem(500, "internal", "something went wrong on our side", **more)
    return problem(status, error.code, error.detail, error.errors, **more)


def of_store_error(error: StoreError, **more: Any) -> dict[str, Any]:
    """The problem of one of the store's errors."""
    if isinstance(error, VersionConflict | AlreadyExists):
        return problem(409, "conflict", "it was changed at the same time; read it again and retry", **more)
    if isinstance(error, StoreUnavailable) and error.fate_unknown:
        told = "the store went away during a commit: all was recorded or nothing; the same request again finds out"
        return problem(503, "store_unavailable", told, **more)
    # What the store says may name paths and hosts, and /readyz answers anyone: it is in the log, not in the answer.
    return problem(503, "store_unavailable", "the store can't be used right now; nothing was recorded", **more)


def respond(document: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """The HTTP answer of a problem document."""
    document["request_id"] = g.get("request_id", "")
    response = Response(orjson.dumps(document), document["status"], content_type=CONTENT_TYPE)
    response.headers.update(headers or {})
    return response


def install(app: Flask) -> None:
    """Every error of ``app`` leaves as a problem."""
    app.register_error_handler(SendtideError, _on_error)
    app.register_error_handler(StoreError, _on_store_error)
    app.register_error_handler(HTTPException, _on_http)
    app.register_error_handler(Exception, _on_unexpected)


def _on_error(error: SendtideError) -> Response:
    document = of_error(error)
    if document["status"] == 401:
        challenge = error.challenge if isinstance(error, errors.Forged) else 'Bearer realm="sendtide"'
        return respond(document, {"WWW-Authenticate": challenge})
    if document["status"] == 503:
        return respond(document, {"Retry-After": str(RETRY_SECONDS)})
    return respond(document)


def _on_store_error(error: StoreError) -> Response:
    document = of_store_error(error)
    if document["status"] != 503:
        return respond(document)
    log.error("store unavailable: %s", error)
    body.leave_none(current_app.extensions["sendtide"].settings.max_batch_bytes)
    seconds = error.retry_after_seconds if isinstance(error, StoreUnavailable) else RETRY_SECONDS
    return respond(document, {"Retry-After": str(seconds)})


def _on_http(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return Response(status=status, headers=dict(error.get_headers()))
    code = HTTPStatus(status).name.lower()
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    detail = error.description or HTTPStatus(status).phrase
    if status == 404:
        detail = f"no such route: {request.path[:200]}; /openapi.json lists them all"
    if status == 405:
        detail = f"{request.method[:20]} is not allowed here; allowed: {headers.get('Allow', 'see /openapi.json')}"
    return respond(problem(status, code, detail), headers)


def _on_unexpected(error: Exception) -> Response:
    log.error("unexpected error in request %s", g.get("request_id", ""), exc_info=error)
    return respond(problem(500, "internal", "something went wrong on our side; the request id finds it in our log"))
