"""Evaluations and feature importances: asked for here, carried out by the scheduler."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from flask import Response, request

from optimizer.errors import Invalid
from optimizer.service.ids import fresh
from optimizer.service.personalizer import evaluations, importances
from optimizer.service.personalizer.evaluations import Evaluation
from optimizer.service.personalizer.importances import Importance
from optimizer.web.compat.personalizer import bodies, shapes
from optimizer.web.compat.personalizer.routes import Call, answer, done, route
from optimizer.web.compat.personalizer.versions import Version

T = TypeVar("T")

_INTERVALS = (5, 60, 360, 720, 1440)
_PAGE = 100
_MOST = 2**31 - 1
_FILTER = re.compile(r"(?:metadata=)?(\w{1,40})\s+eq\s+'(\w{1,40})'")
#: What ``filter`` may compare.
_OF_EVALUATIONS: Mapping[str, Callable[[Evaluation], str]] = {
    "evaluationType": lambda one: one.kind,
    "status": lambda one: one.status,
}
_OF_IMPORTANCES: Mapping[str, Callable[[Importance], str]] = {"status": lambda one: one.status}
_CODE = "InvalidRequest"


@route(("POST",), "/evaluations", "admin")
def post_evaluation(call: Call) -> Response:
    """Asks for an evaluation; the id is made here (v1.0 and v1.1)."""
    made = _made(call, fresh("evaluation"))
    response = answer(_details(call, made), 201)
    # A path, as Azure's service told it: who was written for that puts the endpoint in front.
    response.headers["Location"] = f"{request.path}/{made.id}"
    return response


@route(("PUT",), "/evaluations/<path:evaluation_id>", "admin")
def put_evaluation(call: Call) -> Response:
    """Asks for an evaluation under an id."""
    return answer(_details(call, _made(call, call.path["evaluation_id"])))


def _made(call: Call, evaluation_id: str) -> Evaluation:
    asked = bodies.evaluation(call.raw(), evaluation_id)
    return evaluations.create(call.services, call.workspace_id, asked)


def _details(call: Call, found: Evaluation) -> shapes.Json:
    """An evaluation without its series, as lists have it."""
    if call.version is Version.V2022:
        return shapes.evaluation_details(found)
    return shapes.early_evaluation(found, call.version, series=False)


@route(("GET",), "/evaluations", "read")
def list_evaluations(call: Call) -> Response:
    """All evaluations, newest first; before 2022 a bare array."""
    with call.services.store.read() as reader:
        found = evaluations.SHELF.listed(reader, call.workspace_id)
    if call.version is not Version.V2022:
        return answer([_details(call, one) for one in found])
    return answer(_page(call, [_details(call, one) for one in _filtered(found, _OF_EVALUATIONS)]))


@route(("GET",), "/evaluations/<path:evaluation_id>", "read")
def get_evaluation(call: Call) -> Response:
    """One evaluation with its results."""
    with call.services.store.read() as reader:
        found = evaluations.SHELF.find(reader, call.workspace_id, call.path["evaluation_id"])
    if call.version is not Version.V2022:
        return answer(shapes.early_evaluation(found, call.version))
    minutes = _number("intervalInMinutes", 5)
    if minutes not in _INTERVALS:
        raise Invalid.field("intervalInMinutes", f"must be one of {', '.join(map(str, _INTERVALS))}", code=_CODE)
    window = request.args.get("window", "Expanding").lower()
    if window not in ("expanding", "rolling"):
        raise Invalid.field("window", "must be Expanding or Rolling", code=_CODE)
    told = shapes.evaluation(found, _time("startTime"), _time("endTime"), minutes, expanding=window == "expanding")
    return answer(told)


@route(("DELETE",), "/evaluations/<path:evaluation_id>", "admin")
def delete_evaluation(call: Call) -> Response:
    """Deletes an evaluation."""
    evaluations.SHELF.delete(call.services, call.workspace_id, call.path["evaluation_id"])
    return done()


@route(("PUT",), "/featureImportances/<path:job_id>", "admin")
def put_importance(call: Call) -> Response:
    """Asks which features matter."""
    asked = bodies.importance(call.raw(), call.path["job_id"])
    return answer(shapes.importance_details(importances.create(call.services, call.workspace_id, asked)))


@route(("GET",), "/featureImportances", "read")
def list_importances(call: Call) -> Response:
    """All feature importance jobs, newest first."""
    with call.services.store.read() as reader:
        found = importances.SHELF.listed(reader, call.workspace_id)
    return answer(_page(call, [shapes.importance_details(one) for one in _filtered(found, _OF_IMPORTANCES)]))


@route(("GET",), "/featureImportances/<path:job_id>", "read")
def get_importance(call: Call) -> Response:
    """One feature importance job with its scores."""
    with call.services.store.read() as reader:
        return answer(shapes.importance(importances.SHELF.find(reader, call.workspace_id, call.path["job_id"])))


@route(("DELETE",), "/featureImportances/<path:job_id>", "admin")
def delete_importance(call: Call) -> Response:
    """Deletes a feature importance job."""
    importances.SHELF.delete(call.services, call.workspace_id, call.path["job_id"])
    return done()


def _filtered(found: Sequence[T], fields: Mapping[str, Callable[[T], str]]) -> Sequence[T]:
    """Those that ``filter`` lets through: a comparison of one of ``fields`` with a word.

    Raises:
        Invalid: it is no such comparison.
    """
    text = request.args.get("filter")
    if not text:
        return found
    told = _FILTER.fullmatch(text.strip())
    if told is None or told[1] not in fields:
        allowed = ", ".join(f"{name} eq '…'" for name in fields)
        raise Invalid.field("filter", f"{text!r:.60}; allowed: {allowed}", code=_CODE)
    return [one for one in found if fields[told[1]](one) == told[2]]


def _page(call: Call, found: Sequence[T]) -> dict[str, Any]:
    """A page of a list: ``skip`` from the front, at most ``top`` in all, at most ``maxpagesize`` at a time."""
    skip, top = _number("skip", 0), _number("top", _MOST)
    size = min(max(_number("maxpagesize", _PAGE), 1), _PAGE)
    shown = found[skip : skip + min(top, size)]
    left = min(len(found) - skip, top) - len(shown)
    if left <= 0:
        return {"value": shown}
    query = {**request.args.to_dict(), "skip": skip + len(shown), "top": left}
    base = call.holder.settings.public_url or request.host_url.rstrip("/")
    return {"value": shown, "nextLink": f"{base}{request.path}?{urlencode(query)}"}


def _number(name: str, otherwise: int) -> int:
    text = request.args.get(name)
    if text is None or not text:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise Invalid.field(name, f"{text!r:.40} is not a whole number from 0", code=_CODE)
    return min(int(text), _MOST)


def _time(name: str) -> datetime | None:
    text = request.args.get(name)
    if not text:
        return None
    try:
        return bodies.aware(name, msgspec.convert(text.replace(" ", "+"), datetime))
    except msgspec.ValidationError as fault:
        raise Invalid.field(name, f"{text!r:.40} is no time: {fault}", code=_CODE) from None
