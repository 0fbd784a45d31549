"""Signing in with a key, signing out, and choosing how the console looks."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from flask import Response, current_app, g, render_template, request, url_for

from optimizer.errors import Unauthenticated
from optimizer.service.setup import authenticate
from optimizer.web.console.attempts import Attempts
from optimizer.web.console.language import LANGUAGES
from optimizer.web.console.pages import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    THEMES,
    check_token,
    console,
    forget,
    go_on,
    holder,
    language,
    look,
    see,
    sign,
    visitor,
)
from optimizer.web.console.session import COOKIE, PATH, Session, end, seal_of
from storage.records import ApiKey

audit = logging.getLogger("sendtide.audit")

#: Where a sign-in may lead: into the console and nowhere else.
_INSIDE: Final = re.compile(r"/console(/[!-\[\]-~]*)?(\?[!-\[\]-~]*)?")
_DOTS: Final = frozenset({".", ".."})
_YEAR: Final = 365 * 86_400
_LONGEST_KEY: Final = 512


def to_console() -> Response:
    """Whoever opens the bare address, which is all that a start tells some people, wants the console."""
    return go_on(PATH)


@console.route("/sign-in", methods=["GET"])
def sign_in() -> Response:
    """The form."""
    services = holder().get()
    if visitor(services) is not None:
        return _on()
    seal, now = seal_of(services), services.clock()
    session = seal.opened(request.cookies.get(COOKIE), now)
    if session is None or session.key_id is not None:
        session = Session.fresh(now)
    return sign(_form(seal.token(session)), seal, session)


@console.route("/sign-in", methods=["POST"])
def take_key() -> Response:
    """Looks the key up and opens a session; says why where it can't."""
    services = holder().get()
    seal, now = seal_of(services), services.clock()
    session = seal.opened(request.cookies.get(COOKIE), now)
    if session is None or not seal.is_token(session, request.form.get("token", "")):
        session = Session.fresh(now)
        return sign(_form(seal.token(session), HTTPStatus.BAD_REQUEST, "stale"), seal, session)
    try:
        key = authenticate(services, request.form.get("key", "").strip()[:_LONGEST_KEY])
    except Unauthenticated:
        return _wrong(seal.token(session), now)
    if not key.may("read"):
        return _form(seal.token(session), HTTPStatus.FORBIDDEN, "scope")
    _note("sign_in", key)
    return sign(_on(key.workspace_id), seal, session.of(key, now))


def _wrong(token: str, now: datetime) -> Response:
    """What a wrong key is answered. Behind a proxy all have one address, so only wrong keys have to wait."""
    address = request.remote_addr or ""
    waits = attempts().wait_seconds(address, now)
    if waits:
        answer = _form(token, HTTPStatus.TOO_MANY_REQUESTS, "too_many", waits)
        answer.headers["Retry-After"] = str(waits)
        return answer
    attempts().failed(address, now)
    return _form(token, HTTPStatus.UNAUTHORIZED, "unknown")


@console.route("/sign-out", methods=["POST"])
def sign_out() -> Response:
    """Ends the session, for every copy of its cookie."""
    services = holder().get()
    visit = visitor(services)
    if visit is not None:
        check_token(visit.seal, visit.session)
        end(services, visit.session)
        _note("sign_out", visit.key)
    return forget(see("sign_in"))


@console.route("/preferences", methods=["POST"])
def prefer() -> Response:
    """Keeps language and theme in cookies of their own: they are no secret, and last longer than a session."""
    services = holder().get()
    seal = seal_of(services)
    check_token(seal, seal.opened(request.cookies.get(COOKIE), services.clock()))
    answer = _on()
    for cookie, name, known in ((LANGUAGE_COOKIE, "language", LANGUAGES), (THEME_COOKIE, "theme", THEMES)):
        chosen = request.form.get(name, "")
        if chosen in known:
            answer.set_cookie(cookie, chosen, path=PATH, max_age=_YEAR, samesite="Strict", httponly=True)
    return answer


def attempts() -> Attempts:
    """The failed sign-ins of this app's process."""
    found: Attempts = current_app.extensions.setdefault("sendtide_attempts", Attempts())
    return found


def _on(workspace_id: str | None = None) -> Response:
    """To where the visitor wanted to go, if that is a place in the console; who comes to a workspace in which nothing
    was ever decided, and wants nothing else, to the first steps."""
    wanted = request.values.get("next", "")
    if not _inside(wanted) or wanted.startswith(url_for("console.sign_in")):
        return see("start" if workspace_id is not None and _is_new(workspace_id) else "overview")
    return go_on(wanted)


def _inside(wanted: str) -> bool:
    """Whether an address lies in the console; browsers resolve ``..`` before they follow one, percent-encoded too."""
    segments = unquote(wanted.partition("?")[0]).split("/")
    return _INSIDE.fullmatch(wanted) is not None and _DOTS.isdisjoint(segments)


def _is_new(workspace_id: str) -> bool:
    with holder().get().store.read() as reader:
        return not reader.decisions(workspace_id, limit=1).items


def _form(token: str, status: int = HTTPStatus.OK, fault: str | None = None, waits: int = 0) -> Response:
    wanted = request.values.get("next", "")
    page = render_template(
        "console/sign_in.html",
        token=token,
        fault=fault,
        waits=waits,
        next=wanted if _inside(wanted) else "",
        **look(language()),
    )
    return Response(page, status, content_type="text/html; charset=utf-8")


def _note(action: str, key: ApiKey) -> None:
    """A line in the audit log."""
    g.workspace_id, g.key_id = key.workspace_id, key.key_id
    told = {"action": action, "workspace": key.workspace_id, "key": key.key_id, "key_name": key.name}
    audit.info("console", extra={**told, "request_id": g.request_id})
