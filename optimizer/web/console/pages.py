"""How a page of the console is made: who asks is known, allowed and protected before its function runs.

A page is a function of a ``Visit`` that returns HTML (``visit.show``) or an answer of its own. Reading needs the scope
``read``; what changes something is a POST with the session's token and, by default, the scope ``admin``, and leaves a
line in the audit log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, g, render_template, request, url_for
from werkzeug.exceptions import HTTPException, NotFound

from optimizer.errors import Forbidden, SendtideError
from optimizer.service.explainwords import capitalize_first
from optimizer.service.wiring import Services
from optimizer.web import body, problems
from optimizer.web.console import filters
from optimizer.web.console.language import DEFAULT, LANGUAGES, Language
from optimizer.web.console.navigation import links
from optimizer.web.console.session import COOKIE, PATH, Seal, Session, hand_out, key_of, seal_of, take_back
from optimizer.web.holder import ServiceHolder
from storage.errors import StoreError
from storage.records import ApiKey, Scope

log = logging.getLogger("sendtide.web")
audit = logging.getLogger("sendtide.audit")

#: No inline script or style, nothing from elsewhere; forms go nowhere else.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
LANGUAGE_COOKIE, THEME_COOKIE = "sendtide_language", "sendtide_theme"
THEMES = ("auto", "light", "dark")
#: Bodies of forms are small.
_MOST_BYTES: Final = 256 * 1024


@dataclass(frozen=True)
class Visit:
    """A request to the console of somebody who is known."""

    services: Services
    seal: Seal
    session: Session
    key: ApiKey
    language: Language

    @property
    def workspace_id(self) -> str:
        """The key's workspace: nothing of another is ever seen."""
        return self.key.workspace_id

    @property
    def now(self) -> datetime:
        """The time of the request."""
        return self.services.clock()

    @property
    def by(self) -> str:
        """Who asks, for the change feed; as the API tells it."""
        return f"key {self.key.key_id} ({self.key.name})"

    def may(self, scope: Scope) -> bool:
        """Whether the key has this scope."""
        return self.key.may(scope)

    def show(self, template: str, status: int = 200, **facts: Any) -> Response:
        """A page of the console, with its frame."""
        frame = {
            "visit": self,
            "token": self.seal.token(self.session),
            "links": links(self.may),
            "now": self.now,
            **look(self.language),
        }
        return Response(
            render_template(f"console/{template}", **frame, **facts), status, content_type="text/html; charset=utf-8"
        )


View = Callable[..., Response]


class Pages(Blueprint):
    """The console's blueprint. Pages are registered by ``page`` and ``action``."""

    def page(self, path: str, *, scope: Scope = "read") -> Callable[[View], View]:
        """Registers ``GET path``; who isn't signed in is sent to do so and comes back."""

        def register(view: View) -> View:
            def guarded(**path_parts: str) -> Response:
                visit = visitor(holder().get())
                if visit is None:
                    wanted = here()
                    return see("sign_in", next=wanted if wanted != PATH else None)
                _allow(visit, scope)
                return view(visit, **path_parts)

            self.add_url_rule(path, view.__name__, guarded, methods=["GET"], provide_automatic_options=False)
            return view

        return register

    def action(self, path: str, *, scope: Scope = "admin", audited: bool = True) -> Callable[[View], View]:
        """Registers ``POST path``: a form of this session by somebody who may. What it did is noted in the audit log;
        ``audited`` is false for what changes nothing."""

        def register(view: View) -> View:
            def guarded(**path_parts: str) -> Response:
                visit = visitor(holder().get())
                if visit is None:
                    return see("sign_in")
                check_token(visit.seal, visit.session)
                _allow(visit, scope)
                answer = view(visit, **path_parts)
                if audited and answer.status_code < HTTPStatus.BAD_REQUEST:
                    audit.info("console", extra=_audited(visit, view.__name__, path_parts))
                return answer

            self.add_url_rule(path, view.__name__, guarded, methods=["POST"], provide_automatic_options=False)
            return view

        return register


console = Pages("console", __name__, url_prefix=PATH)
console.add_app_template_filter(capitalize_first, "capitalize_first")


def holder() -> ServiceHolder:
    """The service of this process, opened or not."""
    found: ServiceHolder = current_app.extensions["sendtide"]
    return found


def note(**facts: str) -> None:
    """Adds to the audit line of the action that runs what its path doesn't tell."""
    g.noted = {**g.get("noted", {}), **facts}


def see(endpoint: str, **parts: Any) -> Response:
    """Sends the browser on to a page."""
    return go_on(url_for(f"console.{endpoint}", **parts))


def go_on(address: str) -> Response:
    """Sends the browser on to an address of ours."""
    return Response(status=HTTPStatus.SEE_OTHER, headers={"Location": address})


def here() -> str:
    """The address of the page that is asked for; of the overview where it is none that can be come back to."""
    if request.endpoint is None or request.method != "GET" or "rest" in (request.view_args or {}):
        return PATH
    path = url_for(request.endpoint, **(request.view_args or {}))
    # The query is the visitor's: ``url_for`` would take names such as ``_scheme`` or ``endpoint`` for its own.
    query = urlencode(list(request.args.items(multi=True)))
    return f"{path}?{query}" if query else path


def visitor(services: Services) -> Visit | None:
    """Who asks; None where nobody is signed in (any more)."""
    seal = seal_of(services)
    session = seal.opened(request.cookies.get(COOKIE), services.clock())
    if session is None or session.key_id is None:
        return None
    with services.store.read() as reader:
        key = key_of(reader, session)
    if key is None:
        return None
    g.workspace_id, g.key_id = key.workspace_id, key.key_id
    return Visit(services, seal, session, key, language())


def check_token(seal: Seal, session: Session | None) -> None:
    """Refuses a form that doesn't carry its session's token.

    Raises:
        Forbidden: it carries none, or another's.
    """
    if session is None or not seal.is_token(session, request.form.get("token", "")):
        raise Forbidden("the form was not made by this session; load the page again and retry", code="bad_token")


def language() -> Language:
    """The language that was chosen, else the browser's first that there is, else English."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return LANGUAGES[chosen if chosen in LANGUAGES else request.accept_languages.best_match(LANGUAGES) or DEFAULT]


def look(words: Language) -> dict[str, Any]:
    """What every page needs to be drawn, whoever asks."""
    theme = request.cookies.get(THEME_COOKIE, "")
    return {
        "t": words,
        "say": filters.Sayings(words),
        "languages": LANGUAGES,
        "theme": theme if theme in THEMES else THEMES[0],
        "themes": THEMES,
        "here": here(),
    }


def _allow(visit: Visit, scope: Scope) -> None:
    if not visit.may(scope):
        raise Forbidden(f"the key {visit.key.name!r} lacks the scope {scope}")


def _audited(visit: Visit, action: str, parts: dict[str, str]) -> dict[str, Any]:
    """Who did what, to what. Recipients are people: their ids stay out of logs."""
    named = {name: value for name, value in parts.items() if name != "recipient_id"}
    return {
        "action": action,
        "workspace": visit.workspace_id,
        "key": visit.key.key_id,
        "key_name": visit.key.name,
        "request_id": g.request_id,
        **named,
        **g.get("noted", {}),
    }


@console.before_request
def _limit() -> None:
    request.max_content_length = _MOST_BYTES


@console.after_request
def _headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-store"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


@console.route("/", methods=["GET"])
def _without_slash() -> Response:
    return see("overview")


@console.route("/<path:rest>", methods=["GET"])
def _nowhere(rest: str) -> Response:  # noqa: ARG001  whatever it is
    raise NotFound


def refused(status: int, detail: str, code: str = "") -> Response:
    """A page that says what went wrong, headed by the words of its code, else of its status."""
    words = language()
    heading = next((name for name in (f"refused.{code}", f"refused.{status}") if name in words.words), "refused.title")
    told = {"status": status, "heading": words(heading), "detail": detail, "request_id": g.get("request_id", "")}
    page = render_template("console/refused.html", **told, **look(words))
    return Response(page, status, content_type="text/html; charset=utf-8")


@console.errorhandler(SendtideError)
def _on_error(error: SendtideError) -> Response:
    told = problems.of_error(error)
    return refused(told["status"], told["detail"], told["code"])


@console.errorhandler(body.Malformed)
def _on_malformed(error: Exception) -> Response:
    return _on_error(body.malformed(error))  # a form is read by Flask, not by ``body``


@console.errorhandler(StoreError)
def _on_store_error(error: StoreError) -> Response:
    told = problems.of_store_error(error)
    if told["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
        log.error("store unavailable: %s", error)
    return refused(told["status"], told["detail"], told["code"])


@console.errorhandler(HTTPException)
def _on_http(error: HTTPException) -> Response:
    status = error.code or 500
    return refused(status, HTTPStatus(status).phrase)


@console.errorhandler(Exception)
def _on_unexpected(error: Exception) -> Response:
    log.error("unexpected error in request %s", g.get("request_id", ""), exc_info=error)
    return refused(500, "something went wrong on our side; the request id finds it in our log")


def sign(response: Response, seal: Seal, session: Session) -> Response:
    """The answer, with the cookie of a session."""
    public = holder().settings.public_url or ""
    hand_out(response, request, seal.sealed(session), secure=public.startswith("https://"))
    return response


def forget(response: Response) -> Response:
    """The answer, with which the session ends."""
    take_back(response)
    return response
