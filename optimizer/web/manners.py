"""What every answer has: a request id, security headers, a line in the access log, a count in the metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from flask import Flask, Response, current_app, g, request

from optimizer.web import metrics
from optimizer.web.holder import ServiceHolder

access = logging.getLogger("sendtide.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: For pages. React sets styles through the CSSOM, which needs no exception; Swagger UI's icons are data URLs.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


def install(app: Flask) -> None:
    """Adds the hooks to ``app``."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.started = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)


def _end(response: Response) -> Response:
    headers = response.headers
    headers["X-Request-Id"] = g.request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    # The console has forms, and so a policy of its own.
    headers.setdefault("Content-Security-Policy", _PAGE_POLICY if response.mimetype == "text/html" else _DATA_POLICY)
    if request.path.startswith("/v1/"):
        headers.setdefault("Cache-Control", "no-store" if request.method != "GET" else "private, no-cache")
    _account(response, time.perf_counter() - g.started)
    return response


def _account(response: Response, seconds: float) -> None:
    # The rule, not the path: a path holds ids, which would make the metrics grow without end.
    route = request.url_rule.rule if request.url_rule is not None else "(none)"
    counted = metrics.of(current_app)
    counted.observe(request.method if request.url_rule is not None else "(any)", route, response.status_code, seconds)
    holder: ServiceHolder = current_app.extensions["sendtide"]
    if holder.opened is not None:
        counted.show_policies(holder.opened)
    if access.isEnabledFor(logging.INFO):
        access.info("request", extra=_line(route, response, seconds))


def _line(route: str, response: Response, seconds: float) -> dict[str, Any]:
    """What is logged of a request: no secret, no body, no id of a person (the path is not in it)."""
    return {
        "request_id": g.request_id,
        "method": request.method,
        "route": route,
        "status": response.status_code,
        "ms": round(seconds * 1000, 2),
        "bytes": response.content_length,
        "workspace": g.get("workspace_id"),
        "key": g.get("key_id"),
    }
