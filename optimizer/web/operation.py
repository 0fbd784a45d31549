"""One thin decorator: what a route takes and answers is written once; the request and the document both follow it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from flask import Blueprint, Response, current_app, g, request
from marshmallow import Schema, ValidationError, fields

from optimizer.errors import Forbidden, Invalid, TooLarge, Unauthenticated
from optimizer.service.setup import authenticate
from optimizer.service.wiring import Services
from optimizer.web import body as bodies
from optimizer.web.etags import Preconditions, etag
from optimizer.web.holder import ServiceHolder
from optimizer.web.schemas.fields import Id
from optimizer.web.validation import load
from storage.records import ApiKey, Scope

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
#: How answers are written: times in UTC end in Z.
ORJSON = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
_PARAMETER = re.compile(r"\{(\w+)\}")

#: Ids that may hold a ``/`` (a recipient's, an attribute's name are other systems' ids); the rest are our callers' own.
_WITH_SLASH = frozenset({"recipient_id", "name"})
_ABOUT = {
    "campaign_id": "The campaign.",
    "recipient_id": "The recipient.",
    "rule_id": "The rule.",
    "name": "The attribute.",
    "decision_id": "The decision.",
    "policy_id": "The policy.",
    "run_id": "The training run.",
    "key_id": "The key.",
    "endpoint_id": "The webhook endpoint.",
    "source_id": "The webhook source.",
}
PATH_FIELDS = {name: Id(about, addressed=name not in _WITH_SLASH, dots=True) for name, about in _ABOUT.items()}
#: The same for a PUT, so that it makes nothing that its address doesn't lead to. Who a recipient is others say.
_MADE_FIELDS = {
    name: Id(about, addressed=name not in _WITH_SLASH, dots=name == "recipient_id") for name, about in _ABOUT.items()
}
IDEMPOTENCY_KEY = Id("The same again answers the same and does nothing more.")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler answers. ``payload`` is made JSON unless it is bytes; ``etag`` is a version."""

    payload: Any = None
    status: int = 200
    etag: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = bodies.JSON


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as the document tells it."""

    schema: type[Schema] | None = None
    description: str = ""
    content_types: tuple[str, ...] = (bodies.JSON,)


@dataclass(frozen=True)
class Operation:
    """A route: how it is called, what it answers, which problems can occur.

    ``scope`` None: no key is needed. ``problems`` are the statuses beyond those that follow from the rest. ``rows``
    names the list of a batch's body, whose length is checked before anything else of it. ``payload`` is the JSON Schema
    of a body that the handler reads itself, since its sender signs the bytes; any query is welcome there.
    ``idempotency``: an ``Idempotency-Key`` is kept. ``repeats``: a second call would do more than the first, and no key
    is kept that could tell, so one is refused; every other route may be called again.
    """

    method: Method
    path: str
    operation_id: str
    summary: str
    description: str
    tag: str
    answers: Mapping[int, Told]
    scope: Scope | None
    body: type[Schema] | None = None
    payload: Mapping[str, Any] | None = None
    media: tuple[str, ...] = (bodies.JSON,)
    body_optional: bool = False
    batch: bool = False
    rows: str | None = None
    query: type[Schema] | None = None
    preconditions: bool = False
    idempotency: bool = False
    repeats: bool = False
    etag: bool = False
    problems: tuple[int, ...] = ()
    store: bool = True
    example: Any = None

    @property
    def parameters(self) -> list[str]:
        """The names of the path's parameters, in order."""
        return _PARAMETER.findall(self.path)

    @property
    def flask_rule(self) -> str:
        """The path as Flask writes it."""

        def converter(found: re.Match[str]) -> str:
            return f"<{'path:' if found[1] in _WITH_SLASH else ''}{found[1]}>"

        return _PARAMETER.sub(converter, self.path)


@dataclass(slots=True)
class Call:
    """A request that passed the gate: key, parameters and body are checked. ``key`` is None where none is needed."""

    holder: ServiceHolder
    key: ApiKey | None
    path: dict[str, str]
    query: dict[str, Any]
    media: str = ""
    raw: bytes = b""
    document: Any = None
    loaded: Any = None

    @property
    def services(self) -> Services:
        """The service of this process."""
        return self.holder.get()

    @property
    def workspace_id(self) -> str:
        """The key's workspace."""
        if self.key is None:
            raise Unauthenticated("this route needs a key")
        return self.key.workspace_id

    def may(self, scope: Scope) -> bool:
        """Whether there is a key that has this scope."""
        return self.key is not None and self.key.may(scope)

    @property
    def preconditions(self) -> Preconditions:
        """``If-Match`` and ``If-None-Match``."""
        return Preconditions.of(request.headers)

    @property
    def idempotency_key(self) -> str | None:
        """The ``Idempotency-Key`` header."""
        given = request.headers.get("Idempotency-Key")
        if given is None:
            return None
        try:
            return IDEMPOTENCY_KEY.deserialize(given)
        except ValidationError as error:
            raise Invalid.field("header.Idempotency-Key", f"{error.messages[0]} Got {given!r:.80}.") from None


Handler = Callable[[Call], Answer]


class Operations(Blueprint):
    """A blueprint that remembers its operations for the document."""

    def __init__(self, name: str, tag: str) -> None:
        super().__init__(name, __name__)
        self.tag = tag
        self.listed: list[Operation] = []

    def operation(
        self,
        method: Method,
        path: str,
        summary: str,
        *,
        answers: Mapping[int, Told | type[Schema] | None],
        scope: Scope | None,
        **facts: Any,
    ) -> Callable[[Handler], Handler]:
        """Registers a handler as the route ``method path``; ``facts`` are fields of ``Operation``.

        The handler's name is the operation id, its docstring the description.
        """

        def register(handler: Handler) -> Handler:
            made = Operation(
                method=method,
                path=path,
                operation_id=handler.__name__,
                summary=summary,
                description=" ".join((handler.__doc__ or "").split()),
                tag=self.tag,
                answers={s: a if isinstance(a, Told) else Told(a) for s, a in answers.items()},
                scope=scope,
                **facts,
            )
            self.listed.append(made)
            view = _view(made, handler)
            self.add_url_rule(
                made.flask_rule, made.operation_id, view, methods=[method], provide_automatic_options=False
            )
            return handler

        return register


def _view(operation: Operation, handler: Handler) -> Callable[..., Response]:
    """The Flask view: everything that can be prepared is prepared here, once."""
    body_schema = operation.body() if operation.body is not None else None
    query_schema = operation.query() if operation.query is not None else None
    path_schema = _path_schema(operation)

    def view(**path: str) -> Response:
        holder: ServiceHolder = current_app.extensions["sendtide"]
        key = None if operation.scope is None else _allowed_key(holder.get(), operation.scope)
        if operation.repeats and "Idempotency-Key" in request.headers:
            raise Invalid.field("header.Idempotency-Key", "not kept on this route: the same again does it once more")
        if path_schema is not None:
            load(path_schema, path, "path.")
        if operation.payload is not None:
            call = Call(holder, key, path, {}, bodies.check_type(operation.media))
            call.raw = bodies.read(holder.settings.max_body_bytes)
            return _response(handler(call))
        call = Call(holder, key, path, _query(query_schema))
        if body_schema is not None:
            _read_body(call, operation, body_schema)
        return _response(handler(call))

    return view


def _path_schema(operation: Operation) -> Schema | None:
    known = _MADE_FIELDS if operation.method == "PUT" else PATH_FIELDS
    members: dict[str, fields.Field[Any]] = {name: known[name] for name in operation.parameters}
    return Schema.from_dict(members, name="Path")() if members else None


def _allowed_key(services: Services, scope: Scope) -> ApiKey:
    secret = bearer()
    if secret is None:
        raise Unauthenticated("no key; send 'Authorization: Bearer KEY'")
    return allowed(services, secret, scope)


def bearer() -> str | None:
    """What the request sends as its bearer token, None = nothing."""
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() or None if kind.lower() == "bearer" else None


def allowed(services: Services, secret: str, scope: Scope) -> ApiKey:
    """The key of a secret, noted for the log of this request.

    Raises:
        Unauthenticated: unknown or revoked.
        Forbidden: it lacks the scope.
    """
    key = authenticate(services, secret)
    g.workspace_id, g.key_id = key.workspace_id, key.key_id
    if not key.may(scope):
        needed = scope if scope == "admin" else f"{scope} (or admin)"
        raise Forbidden(
            f"the key {key.key_id} has the scopes {', '.join(key.scopes)}; this needs {needed}",
            errors={"scope": [f"Needs {scope}."]},
        )
    return key


def _query(schema: Schema | None) -> dict[str, Any]:
    if schema is None:
        if request.args:
            names = ", ".join(sorted(request.args))[:200]
            raise Invalid(
                f"unknown query parameters: {names}; allowed: none",
                errors={f"query.{name[:64]}": ["Unknown; allowed: none."] for name in request.args},
            )
        return {}
    given = request.args.to_dict(flat=False)
    for name, values in given.items():
        if len(values) > 1:
            raise Invalid.field(f"query.{name[:64]}", "given more than once; allowed: once")
    loaded: dict[str, Any] = load(schema, {name: values[0] for name, values in given.items()}, "query.")
    return loaded


def _read_body(call: Call, operation: Operation, schema: Schema) -> None:
    """Reads, parses and loads the body into ``call``; NDJSON and merge patches are left to the handler to load."""
    settings = call.holder.settings
    limit = settings.max_batch_bytes if operation.batch else settings.max_body_bytes
    if operation.body_optional and not request.content_length and "Transfer-Encoding" not in request.headers:
        call.document = {}
    else:
        call.media = bodies.check_type(operation.media)
        call.raw = bodies.read(limit)
        if call.media == bodies.NDJSON:
            return
    with bodies.in_turn(call.raw, settings.max_body_bytes):
        if call.document is None:
            call.document = bodies.parse_object(call.raw)
        if operation.method == "PATCH":
            return
        if operation.rows is not None:
            _check_rows(call.document.get(operation.rows), settings.max_batch_rows)
        call.loaded = load(schema, call.document)


def _check_rows(rows: Any, most: int) -> None:
    """``TooLarge`` when a batch has more rows than allowed."""
    if isinstance(rows, list) and len(rows) > most:
        raise TooLarge(f"the batch has {len(rows)} rows; allowed: {most}")


def _response(answer: Answer) -> Response:
    payload = answer.payload
    raw = payload if isinstance(payload, bytes) else b"" if payload is None else orjson.dumps(payload, option=ORJSON)
    response = Response(raw, answer.status, content_type=answer.content_type)
    if payload is None:
        del response.headers["Content-Type"]
    if answer.etag is not None:
        response.headers["ETag"] = etag(answer.etag)
    for name, value in answer.headers.items():
        response.headers[name] = value
    return response
