"""Personalizer's error form: ``{"error": {"code", "message", "target"?, "innerError"?}}`` (Azure's specification)."""

from __future__ import annotations

import logging

import orjson
from flask import Response, g
from werkzeug.exceptions import HTTPException

from optimizer import errors
from optimizer.errors import SendtideError
from optimizer.web import problems
from storage.errors import StoreError, StoreUnavailable

log = logging.getLogger("sendtide.web")

#: Status by error class; a subclass comes before its base. Azure has no 409, 413, 415 or 422 here.
_STATUS: dict[type[SendtideError], int] = {
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.TooLarge: 400,
    errors.UnsupportedMedia: 400,
    errors.Unreadable: 400,
    errors.Invalid: 400,
}
_CODES = {
    errors.Unauthenticated: "401",
    errors.Forbidden: "InvalidApiAccess",
    errors.NotFound: "ResourceNotFound",
    errors.TooLarge: "PayloadSizeExceeded",
}
#: v1.0 knows these codes alone; the finer one stands in ``innerError``.
_OLD = {400: "BadRequest", 404: "ResourceNotFound", 500: "InternalServerError", 503: "InternalServerError"}


def respond(status: int, code: str, message: str, *, target: str | None = None, old: bool = False) -> Response:
    """An error as an answer. ``old``: in the codes of v1.0."""
    error: dict[str, object] = {"code": code, "message": message}
    if target is not None:
        error["target"] = target
    if old and status in _OLD and _OLD[status] != code:
        error = {**error, "code": _OLD[status], "innerError": {"code": code}}
    response = Response(orjson.dumps({"error": error}), status, content_type="application/json")
    response.headers["x-ms-error-code"] = code
    return response


def of(fault: Exception, *, old: bool) -> Response:
    """Any error as an answer; what isn't the caller's is a 500 that tells nothing."""
    if isinstance(fault, SendtideError):
        status = next((s for kind, s in _STATUS.items() if isinstance(fault, kind)), None)
        if status is not None:
            return respond(status, _code(fault), fault.detail, target=next(iter(fault.errors), None), old=old)
    if isinstance(fault, StoreError):
        log.error("store: %s", fault)
        told = problems.of_store_error(fault)
        code = "Conflict" if told["status"] == 409 else "InternalServerError"
        response = respond(told["status"], code, told["detail"], old=old)
        if told["status"] == 503:
            seconds = fault.retry_after_seconds if isinstance(fault, StoreUnavailable) else 30
            response.headers["Retry-After"] = str(seconds)
        return response
    if isinstance(fault, HTTPException) and fault.code is not None and fault.code < 500:
        return respond(fault.code, "BadRequest", fault.description or "bad request", old=old)
    log.error("unexpected error in request %s", g.get("request_id", ""), exc_info=fault)
    return respond(500, "InternalServerError", "something went wrong on our side; X-Request-Id finds it", old=old)


def _code(fault: SendtideError) -> str:
    """The error's own code where it is one of Azure's (they are written as one word in capitals), else its class's."""
    if fault.code[:1].isupper():
        return fault.code
    return next((code for kind, code in _CODES.items() if isinstance(fault, kind)), "InvalidRequest")
