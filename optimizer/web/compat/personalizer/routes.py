"""The routes of Azure Personalizer, as its SDKs call them: paths, methods and success codes of Azure's specification
(Azure/azure-rest-api-specs, ``specification/cognitiveservices/data-plane/Personalizer``).

Every operation is there under the path of every ``Version``. The key is ``Ocp-Apim-Subscription-Key`` or
``Authorization: Bearer``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, current_app, g, request

from optimizer.errors import Forbidden, NotFound, Unauthenticated
from optimizer.service import setup
from optimizer.service.wiring import Services
from optimizer.web import body
from optimizer.web.compat.personalizer import envelope
from optimizer.web.compat.personalizer.leading import SingleSlash
from optimizer.web.compat.personalizer.versions import Version
from optimizer.web.holder import ServiceHolder
from storage.records import Scope

PREFIX = "/personalizer"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

blueprint = Blueprint("personalizer", __name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose key was checked. ``path`` holds ids."""

    holder: ServiceHolder
    services: Services
    workspace_id: str
    version: Version
    path: dict[str, str]

    def raw(self, limit: int | None = None) -> bytes:
        """The body, within a limit."""
        return body.read(limit or self.holder.settings.max_body_bytes)


Handler = Callable[[Call], Response]


def route(methods: Sequence[str], path: str, scope: Scope) -> Callable[[Handler], Handler]:
    """Registers a handler under every version."""

    def register(handler: Handler) -> Handler:
        for version in Version:
            for number, under in enumerate(version.value, start=1):
                blueprint.add_url_rule(
                    f"{PREFIX}{under}{path}",
                    f"{handler.__name__}_{version.name}_{number}",
                    _view(handler, scope, version),
                    methods=list(methods),
                    provide_automatic_options=False,
                )
        return handler

    return register


def _view(handler: Handler, scope: Scope, version: Version) -> Callable[..., Response]:
    def view(**path: str) -> Response:
        try:
            holder: ServiceHolder = current_app.extensions["sendtide"]
            services = holder.get()
            workspace_id = _workspace(services, scope)
            for name, value in path.items():
                if len(value) > _LONGEST_ID:
                    raise NotFound(f"{name} is longer than {_LONGEST_ID} characters")
            return handler(Call(holder, services, workspace_id, version, path))
        except Exception as fault:  # noqa: BLE001  every error leaves in Personalizer's own form
            return envelope.of(fault, old=version is Version.V1_0)

    return view


_LONGEST_ID = 256


def _workspace(services: Services, scope: Scope) -> str:
    secret = request.headers.get("Ocp-Apim-Subscription-Key", "").strip()
    if not secret:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        secret = given.strip() if kind.lower() == "bearer" else ""
    if not secret:
        raise Unauthenticated("no key; send it as Ocp-Apim-Subscription-Key")
    key = setup.authenticate(services, secret)
    g.workspace_id, g.key_id = key.workspace_id, key.key_id
    if not key.may(scope):
        raise Forbidden(f"the key {key.key_id} has the scopes {', '.join(key.scopes)}; this needs {scope} (or admin)")
    return key.workspace_id


def answer(payload: Any, status: int = 200) -> Response:
    """A JSON answer."""
    raw = orjson.dumps(payload, option=orjson.OPT_UTC_Z)
    return Response(raw, status, content_type="application/json")


def done(status: int = 204) -> Response:
    """An answer without a body."""
    response = Response(b"", status)
    del response.headers["Content-Type"]
    return response


def _unknown(rest: str = "") -> Response:
    old = f"/{rest}".startswith(tuple(f"{under}/" for under in Version.V1_0.value))
    return envelope.respond(404, "ResourceNotFound", f"no such operation: {request.method} /{rest[:200]}", old=old)


blueprint.add_url_rule(f"{PREFIX}/<path:rest>", "unknown", _unknown, methods=list(_METHODS))


def install(app: Flask) -> None:
    """Adds the routes to ``app``; a doubled slash in front, which endpoints with a final slash make, is forgiven."""
    # Imported for what they register.
    from optimizer.web.compat.personalizer import events, jobs, settings  # noqa: F401

    app.register_blueprint(blueprint)
    app.wsgi_app = SingleSlash(app.wsgi_app, PREFIX)  # type: ignore[method-assign]  # Flask's documented way
