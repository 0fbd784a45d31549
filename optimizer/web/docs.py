"""The OpenAPI document and the page that shows it, offline and without inline script."""

from __future__ import annotations

from flask import current_app, render_template

from optimizer.web.operation import Answer, Call, Operations, Told

api = Operations("docs", "Operate")


@api.operation(
    "GET",
    "/openapi.json",
    "This document",
    answers={200: Told(None, "OpenAPI 3.1.")},
    scope=None,
    store=False,
)
def openapi_document(_: Call) -> Answer:
    """Made from the schemas that check requests."""
    return Answer(current_app.extensions["sendtide_openapi"].raw(), headers={"Cache-Control": "no-cache"})


@api.operation(
    "GET",
    "/docs",
    "This document for people",
    answers={200: Told(None, "A page.", content_types=("text/html",))},
    scope=None,
    store=False,
)
def docs_page(_: Call) -> Answer:
    """Shows the document and sends requests from it."""
    return Answer(render_template("docs.html").encode(), content_type="text/html; charset=utf-8")
