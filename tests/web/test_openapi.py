"""The OpenAPI document: complete, exact, and true of what the service answers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

import jsonschema_rs
import orjson
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from optimizer.config import Settings
from optimizer.web import create_app, openapi
from optimizer.web.app import AREAS, FOREIGN
from optimizer.web.compat import personalizer
from storage.webhooks import Vendor
from tests.web.conftest import CAMPAIGN, NOW, Caller, key

DOCUMENT = openapi.build([one for area in AREAS for one in area.listed], None, [paths for _, paths in FOREIGN])
EVERY = sorted((path, method) for path, methods in DOCUMENT["paths"].items() for method in methods)
#: Our own; other services' APIs have their own manners and their own tests.
OPERATIONS = [(path, method) for path, method in EVERY if not any(path in paths for _, paths in FOREIGN)]
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
)
CAP = {"kind": "cap", "limit": 3, "window": {"rolling_hours": 168}}
NUMBERS = itertools.count()
WEBHOOKS = {f"/v1/webhooks/{vendor}/{{source_id}}" for vendor in get_args(Vendor)}
PROBLEMS = {"400", "401", "403", "404", "406", "409", "410", "412", "413", "415", "422", "503"}


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def test_every_route_is_documented_and_every_documented_route_exists(app: Flask) -> None:
    """But for other services' APIs (their owners' specifications describe them, and their errors have another form) and
    the console, which is for people, and to which the bare address leads."""
    routes = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static" and not rule.rule.startswith((f"{personalizer.PREFIX}/", "/console"))
        for method in (rule.methods or set()) - {"HEAD"}
    }
    assert routes == {*EVERY, ("/", "get")}


def test_no_operation_has_a_default_response_and_problems_are_problem_json() -> None:
    for path, method in OPERATIONS:
        responses = operation(path, method)["responses"]
        assert "default" not in responses
        for status in responses:
            if status >= "400":
                assert responses[status] == {"$ref": f"#/components/responses/Problem{status}"}
        assert {s for s in responses if s >= "400"} <= PROBLEMS
    for response in DOCUMENT["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]


def test_operations_say_what_follows_from_their_kind() -> None:
    for path, method in OPERATIONS:
        told = operation(path, method)
        assert told["summary"]
        assert told["description"]
        assert told["tags"]
        responses = set(told["responses"])
        if told["security"]:
            assert responses >= {"401", "403", "503"}, (path, method)
        elif path in WEBHOOKS:
            assert responses >= {"401", "404", "503"}, (path, method)
        elif path == "/metrics":
            assert "401" in responses
        else:
            assert not responses & {"401", "403"}
        assert ("requestBody" in told) == (responses >= {"400", "413", "415"}), (path, method)
        names = {p["name"] for p in told.get("parameters", [])}
        assert ("If-Match" in names) == ("412" in responses), (path, method)
    ids = [operation(path, method)["operationId"] for path, method in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_open_routes_are_those_of_the_contract() -> None:
    without = {path for path, method in OPERATIONS if not operation(path, method)["security"]}
    assert without == {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", *WEBHOOKS}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for below in node.values():
            yield from _references(below)
    elif isinstance(node, list):
        for below in node:
            yield from _references(below)


def test_references_resolve_and_schemas_are_json_schema() -> None:
    for reference in set(_references(DOCUMENT)):
        at: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.meta.validate({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"})
        assert schema["type"] == "object", name
    used = {r.rsplit("/", 1)[1] for r in _references(DOCUMENT) if "/schemas/" in r}
    assert used == set(DOCUMENT["components"]["schemas"])


def test_the_served_document_is_that_one_and_needs_no_key(nobody: Caller) -> None:
    assert orjson.loads(nobody("GET", "/openapi.json").data) == DOCUMENT


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_examples_are_taken(ready: Caller, path: str, method: str) -> None:
    """Each example, sent as it stands, passes everything that depends on the body alone."""
    content = operation(path, method).get("requestBody", {}).get("content", {})
    for media, shown in content.items():
        if "example" not in shown:
            continue
        ready("PUT", "/v1/campaigns/spring", {**CAMPAIGN, "variants": [{"id": "mens"}, {"id": "womens"}]})
        ready("PUT", "/v1/recipients/u1", {})
        at = re.sub(
            r"\{(\w+)\}", lambda found: {"campaign_id": "spring", "recipient_id": "u1"}.get(found[1], "x"), path
        )
        reply = ready(method.upper(), at, shown["example"], headers={"Content-Type": media})
        assert reply.status_code in (200, 201, 202, 404, 409), reply.get_data(as_text=True)


def test_the_page_loads_nothing_from_elsewhere_and_its_files_are_served(nobody: Caller) -> None:
    page = nobody("GET", "/docs")
    text = page.get_data(as_text=True)
    sources = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert sources
    assert not re.search(r"<script>|<style|\son\w+=|style=", text)
    for source in sources:
        if source != "data:,":
            assert source.startswith("/")
            assert nobody("GET", source).status_code == 200
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]


# Against the running service


@pytest.fixture(scope="module")
def live(module_database: str) -> Iterator[Caller]:
    made = create_app(Settings(database=module_database), clock=lambda: NOW, seed="openapi")
    caller = Caller(made, key(made, "admin"))
    yield caller
    made.extensions["sendtide"].close()


@schemathesis.serializer("application/x-ndjson")
def _ndjson(_: Any, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def known_ids(caller: Caller) -> dict[str, str]:
    """Ids of things that exist, so that more than 404 is seen; fresh ones, since requests change what they name."""
    number = next(NUMBERS)
    caller("PUT", "/v1/workspace", {"mode": "live"})
    caller("PUT", f"/v1/campaigns/c{number}", CAMPAIGN)
    caller("PUT", f"/v1/rules/r{number}", {**CAP, "enabled": False})
    asked = {"campaign_id": f"c{number}", "recipient_id": f"u{number}", "recipient": {"timezone": "Europe/Berlin"}}
    decision = caller("POST", "/v1/decisions", asked).get_json()
    run = caller("POST", "/v1/training-runs", headers={"Idempotency-Key": "known"}).get_json()
    caller("PUT", f"/v1/webhook-sources/s{number}", {"vendor": "mailgun", "secrets": ["key"]})
    return {
        "campaign_id": f"c{number}",
        "recipient_id": f"u{number}",
        "rule_id": f"r{number}",
        "decision_id": decision["decision_id"],
        "run_id": run["run_id"],
        "source_id": f"s{number}",
    }


def with_known_ids(part: Any, ids: dict[str, str]) -> Any:
    return {k: ids.get(k, v) for k, v in part.items()} if isinstance(part, dict) else part


@schemathesis.serializer("text/plain")
def _json_as_text(_: Any, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


@cache
def read_document(app: Flask) -> Any:
    """What schemathesis makes of the served document."""
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


def check(caller: Caller, path: str, method: str, mode: GenerationMode, examples: int) -> list[int]:
    """Calls one operation with generated requests and runs the checks; returns the statuses seen."""
    tested = read_document(caller.app)[path][method.upper()]
    seen: list[int] = []

    @given(case=tested.as_strategy(generation_mode=mode), known=st.booleans())
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def run(case: Any, known: bool) -> None:
        if known:
            ids = known_ids(caller)
            case.path_parameters = with_known_ids(case.path_parameters, ids)
            case.body = with_known_ids(case.body, ids)
        response = case.call(headers={"Authorization": f"Bearer {caller.secret}"})
        seen.append(response.status_code)
        case.validate_response(response, checks=list(CHECKS))

    run()
    return seen


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_generated_requests_get_only_documented_answers(live: Caller, path: str, method: str) -> None:
    assert check(live, path, method, GenerationMode.POSITIVE, 15)


@pytest.mark.parametrize(
    ("path", "method"), [(p, m) for p, m in OPERATIONS if {"requestBody", "parameters"} & set(operation(p, m))]
)
def test_malformed_requests_get_only_documented_answers(live: Caller, path: str, method: str) -> None:
    assert check(live, path, method, GenerationMode.NEGATIVE, 8)


def test_the_generated_requests_reach_the_service(live: Caller) -> None:
    """Guards the test above against testing nothing but refusals."""
    seen = {
        (path, method): set(check(live, path, method, GenerationMode.POSITIVE, 15))
        for path, method in [
            ("/v1/decisions", "post"),
            ("/v1/decisions/batch", "post"),
            ("/v1/events", "post"),
            ("/v1/campaigns/{campaign_id}", "put"),
            ("/v1/rules/{rule_id}", "put"),
            ("/v1/recipients/{recipient_id}", "put"),
        ]
    }
    assert all(any(status < 300 for status in statuses) for statuses in seen.values()), seen


def test_an_undocumented_status_is_found(live: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = "workspace.get_workspace"
    monkeypatch.setitem(live.app.view_functions, planted, lambda: ({}, 418))
    with pytest.raises((FailureGroup, BaseExceptionGroup), match="Undocumented status code") as found:
        check(live, "/v1/workspace", "get", GenerationMode.POSITIVE, 1)
    assert "Received: 418" in str(found.value)


def test_an_undocumented_shape_is_found(live: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(live.app.view_functions, "workspace.get_workspace", lambda: ({"workspace_id": 7}, 200))
    with pytest.raises((FailureGroup, BaseExceptionGroup), match="schema"):
        check(live, "/v1/workspace", "get", GenerationMode.POSITIVE, 1)
