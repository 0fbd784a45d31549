"""Builds the OpenAPI 3.1 document from the operations and their schemas, once, when it is first asked for.

Every operation lists exactly the statuses that can occur: there is no ``default`` answer, since with one a check of
statuses against the document can never fail.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from optimizer.web.body import JSON, MERGE_PATCH, NDJSON
from optimizer.web.operation import IDEMPOTENCY_KEY, PATH_FIELDS, Operation, Told
from optimizer.web.problems import CONTENT_TYPE
from optimizer.web.schemas.body import Problem
from optimizer.web.schemas.containers import Either

Json = dict[str, Any]

_ABOUT = """Sendtide decides for each person which message to send, on which channel, when, or nothing at all.

**Keys.** `Authorization: Bearer KEY`; a key belongs to one workspace. Scopes: `decide`, `feedback` (implies `track`),
`track` (Segment's SDKs alone), `read`, `admin` (implies all). **Times** are RFC 3339 with an offset; answers in UTC.
**Lists** take `limit` and `cursor`, as their parameters say. **Writes** of what has a version (campaigns, rules,
recipients, webhook sources, the workspace) honour
`If-Match` and `If-None-Match: *`. **Errors** are `application/problem+json`. **Modes** of a campaign and of the
workspace: `live`; `shadow` answers the baseline and logs what would have been chosen; `baseline_only`; `paused` answers
`withheld`, as the two before it do in a campaign without a baseline. Of the two modes the stricter wins.
**Not here:** `/personalizer/…`, the API of Azure Personalizer, as its own specification describes it.
"""
_TAGS = {
    "Set-up": "Campaigns and rules.",
    "Recipients": "Who may be written to, and what is known of them.",
    "Decide": "Ask what to send, and say what became of it.",
    "Feedback": "Report what happened.",
    "Webhooks": "Where vendors report, each in its own words and with its own signature instead of a key.",
    "Learn": "Training runs, policies, changes.",
    "Compatible": "Other services' APIs, as their SDKs speak them; errors are in their form.",
    "Push": "The change feed, sent to you as it grows.",
    "Workspace": "The switch over everything, and keys.",
    "Operate": "Health, metrics, this document. No key needed.",
}
_PROBLEMS = {
    400: "Unreadable: not JSON, not UTF-8, nested too deep, or not an object.",
    401: "No key, or one that is unknown or revoked; of a webhook, its vendor didn't sign it.",
    403: "The key lacks the scope; of a webhook, its source was deleted.",
    404: "No such thing in this workspace.",
    406: "The webhook's source was deleted; don't send it again.",
    409: "It contradicts what is stored; `code` says how.",
    410: "The webhook's source was deleted; don't send it again.",
    412: "`If-Match` or `If-None-Match` named another version than the stored one.",
    413: "The body or the batch is over its limit.",
    415: "A content type that this route doesn't read.",
    422: "Readable, but not allowed; `errors` names each field, what was given and what is allowed.",
    503: "The store (or a vendor's server that is needed) can't be used right now; nothing was recorded, or, where "
    "`detail` says that it went away during a commit, all of it or nothing. Try again after `Retry-After` seconds.",
}


class Document:
    """The document of an app's operations; built on first use, kept as bytes."""

    def __init__(self, operations: Iterable[Operation], server: str | None, foreign: Iterable[Json] = ()) -> None:
        """``foreign`` are paths that are described as they are: APIs of others that we speak."""
        self._operations = tuple(operations)
        self._server = server
        self._foreign = tuple(foreign)
        self._lock = threading.Lock()
        self._raw: bytes | None = None

    def raw(self) -> bytes:
        """The document as JSON."""
        with self._lock:
            if self._raw is None:
                self._raw = orjson.dumps(build(self._operations, self._server, self._foreign))
            return self._raw


def build(operations: Iterable[Operation], server: str | None = None, foreign: Iterable[Json] = ()) -> Json:
    """The document as a dict."""
    plugin = MarshmallowPlugin(schema_name_resolver=_component_name)
    spec = APISpec(
        title="Sendtide",
        version="1",
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": _ABOUT, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        servers=[{"url": server or "/"}],
        tags=[{"name": name, "description": about} for name, about in _TAGS.items()],
    )
    assert plugin.converter is not None  # noqa: S101  APISpec has just initialised the plugin
    for extra in (_either, _no_null_default, _raw):
        plugin.converter.add_attribute_function(extra)  # type: ignore[no-untyped-call]  # apispec leaves it untyped
    spec.components.security_scheme("key", {"type": "http", "scheme": "bearer", "description": "An API key."})
    spec.components.security_scheme(
        "writeKey", {"type": "http", "scheme": "basic", "description": "An API key as user name, no password."}
    )
    spec.components.header("RequestId", {"description": "Names this answer in the log.", "schema": {"type": "string"}})
    writer = _Writer(spec, plugin)
    writer.problems()
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = writer.operation(operation)
    for path, methods in paths.items():
        spec.path(path=path, operations=methods)
    document: Json = spec.to_dict()
    for described in foreign:
        document["paths"].update(described)
    return document


def _component_name(schema: type[Schema] | Schema) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__


def _either(converter: Any, field: fields.Field[Any], **_: Any) -> Json:
    if not isinstance(field, Either):
        return {}
    return {"oneOf": [dict(field.form), converter.field2property(field.nested)]}


def _no_null_default(_: Any, field: fields.Field[Any], ret: Json) -> Json:
    """``load_default=None`` means "left out", and is no default that a caller may send unless null is allowed."""
    if not field.allow_none and ret.get("default", 0) is None:
        del ret["default"]
    return {}


def _raw(converter: Any, field: fields.Field[Any], **_: Any) -> Json:
    """A ``Raw`` field with ``of`` or ``anyOf`` in its metadata is one of those schemas."""
    if "anyOf" in field.metadata:
        return {"anyOf": [_reference(converter, one) for one in field.metadata["anyOf"]]}
    return _reference(converter, field.metadata["of"]) if "of" in field.metadata else {}


def _reference(converter: Any, schema: type[Schema]) -> Json:
    """The schema as a reference; one with ``variants`` is one of several, told apart by ``kind``."""
    variants: Mapping[str, type[Schema]] | None = getattr(schema, "variants", None)
    if variants is None:
        found: Json = converter.resolve_nested_schema(schema)
        return found
    references = {kind: converter.resolve_nested_schema(one) for kind, one in variants.items()}
    mapping = {kind: found["$ref"] for kind, found in references.items()}
    return {
        "oneOf": list(references.values()),
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    }


class _Writer:
    """Writes operations into one spec."""

    def __init__(self, spec: APISpec, plugin: MarshmallowPlugin) -> None:
        self._spec = spec
        self._converter: Any = plugin.converter

    def problems(self) -> None:
        """One shared answer for each status of a problem."""
        schema = self._schema(Problem)
        for status, about in _PROBLEMS.items():
            headers: Json = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
            if status == 503:
                headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}, "required": True}
            if status == 401:
                headers["WWW-Authenticate"] = {"schema": {"type": "string"}, "required": True}
            self._spec.components.response(
                f"Problem{status}",
                {"description": about, "headers": headers, "content": {CONTENT_TYPE: {"schema": schema}}},
            )

    def operation(self, operation: Operation) -> Json:
        """The operation object."""
        written: Json = {
            "operationId": operation.operation_id,
            "summary": operation.summary,
            "description": operation.description,
            "tags": [operation.tag],
            "parameters": self._parameters(operation),
            "responses": self._responses(operation),
            "security": [{"key": []}] if operation.scope is not None else [],
        }
        if operation.scope is not None:
            written["description"] += f" Needs the scope `{operation.scope}`."
        if operation.body is not None or operation.payload is not None:
            written["requestBody"] = self._body(operation)
        return {name: value for name, value in written.items() if value or name == "security"}

    def _schema(self, schema: type[Schema]) -> Json:
        return _reference(self._converter, schema)

    def _property(self, field: fields.Field[Any]) -> Json:
        found: Json = self._converter.field2property(field)
        return found

    def _parameters(self, operation: Operation) -> list[Json]:
        found = [
            {"name": name, "in": "path", "required": True, "schema": self._property(PATH_FIELDS[name])}
            for name in operation.parameters
        ]
        if operation.query is not None:
            for name, field in operation.query().load_fields.items():
                found.append({"name": name, "in": "query", "required": False, "schema": self._property(field)})
        if operation.idempotency:
            found.append(_header("Idempotency-Key", self._property(IDEMPOTENCY_KEY)))
        if operation.preconditions:
            found.append(_header("If-Match", _tag("Only that version, or `*`: only if there is one.")))
        if operation.preconditions or (operation.method == "GET" and operation.etag):
            about = "`*`: only if there is none." if operation.preconditions else "304 if that is still the version."
            found.append(_header("If-None-Match", _tag(about)))
        return found

    def _body(self, operation: Operation) -> Json:
        content: Json = {}
        for media in operation.media:
            shown: Json
            if operation.method == "PATCH":
                shown = {"schema": {"type": "object", "description": "A merge patch on the document of a PUT."}}
            elif media == NDJSON:
                shown = {"schema": {"type": "string", "description": "One DecisionIn a line."}}
            elif operation.body is not None:
                shown = {"schema": self._schema(operation.body)}
            else:
                shown = {"schema": dict(operation.payload or {})}
            if operation.example is not None and media in (JSON, MERGE_PATCH):
                shown["example"] = operation.example
            content[media] = shown
        return {"required": not operation.body_optional, "content": content}

    def _responses(self, operation: Operation) -> Json:
        found: Json = {str(s): self._answer(operation, s, told) for s, told in operation.answers.items()}
        if operation.method == "GET" and operation.etag:
            found["304"] = {"description": "Not changed since the version of `If-None-Match`."}
        for status in sorted(problem_statuses(operation)):
            found[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
        return found

    def _answer(self, operation: Operation, status: int, told: Told) -> Json:
        headers: Json = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
        if operation.etag:
            headers["ETag"] = {"description": "The version.", "schema": {"type": "string"}}
        answer: Json = {"description": told.description or HTTPStatus(status).phrase, "headers": headers}
        if status != 204:
            answer["content"] = {media: {"schema": self._content(told, media)} for media in told.content_types}
        return answer

    def _content(self, told: Told, media: str) -> Json:
        if told.schema is not None and media == JSON:
            return self._schema(told.schema)
        return {"type": "object"} if media == JSON else {"type": "string"}


def problem_statuses(operation: Operation) -> set[int]:
    """The statuses of the problems that this operation can answer."""
    found = set(operation.problems)
    if operation.scope is not None:
        found |= {401, 403}
    if operation.store:
        found |= {503}
    if operation.body is not None:
        found |= {400, 413, 415, 422}
    if operation.preconditions:
        found |= {412}
    if operation.payload is not None:
        return found | {400, 413, 415, 422}
    # A query parameter that isn't known is refused on every other route, so 422 can always occur.
    return found | {422}


def _header(name: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "schema": schema}


def _tag(about: str) -> Json:
    return {"type": "string", "description": about, "examples": ['"3"']}
