"""Builds the WSGI app. Nothing is opened here: the service opens on first use in each process, after the fork."""

from __future__ import annotations

import os
from collections.abc import Sequence

from flask import Flask

from optimizer.config import Settings
from optimizer.service.webhooks.certificates import Certificates
from optimizer.service.wiring import Clock, open_services, utc_now
from optimizer.web import (
    campaigns,
    decisions,
    docs,
    endpoints,
    events,
    health,
    learning,
    manners,
    problems,
    recipients,
    reports,
    rules,
    scores,
    webhooks,
    workspace,
)
from optimizer.web.any_id import AnyId
from optimizer.web.compat import personalizer, segment, segment_document
from optimizer.web.console import console
from optimizer.web.console.addresses import AnyIdInPath, IdInPath
from optimizer.web.console.entry import to_console
from optimizer.web.holder import ServiceHolder
from optimizer.web.metrics import Metrics
from optimizer.web.openapi import Document
from optimizer.web.operation import Operations

#: Every area of the API, in the order of the document.
AREAS: Sequence[Operations] = (
    decisions.api,
    events.api,
    *webhooks.AREAS,
    campaigns.api,
    rules.api,
    recipients.api,
    learning.api,
    scores.api,
    endpoints.api,
    reports.api,
    workspace.api,
    health.api,
    docs.api,
)

#: APIs of others that we speak, each with its part of the document: their errors have their own form.
FOREIGN = ((segment.api, segment_document.PATHS),)


def create_app(settings: Settings | None = None, *, clock: Clock = utc_now, seed: int | str | None = None) -> Flask:
    """The WSGI app.

    ``app.extensions["sendtide"]`` is the ``ServiceHolder``: ``warm()`` after a fork, ``close()`` at a worker's end.

    Args:
        settings: left out, those of the environment.
        clock: what time it is, aware UTC; for tests and simulations.
        seed: makes ids, groups and draws of a new installation repeatable.

    Raises:
        ConfigError: a ``SENDTIDE_`` variable is unknown or can't be parsed.
    """
    chosen = Settings.from_environment(os.environ) if settings is None else settings
    app = Flask(__name__, static_url_path="/static")
    # Ids are taken as they are: no merging of slashes, and the body limit of each route is the operation's.
    app.url_map.merge_slashes = False
    app.url_map.converters |= {"path": AnyId, "id": IdInPath, "any_id": AnyIdInPath}
    app.extensions["sendtide"] = ServiceHolder(chosen, lambda: open_services(chosen, clock, seed))
    app.extensions["sendtide_metrics"] = Metrics()
    app.extensions["sendtide_store_check"] = health.StoreCheck()
    app.extensions["sendtide_certificates"] = Certificates()
    operations = [operation for area in AREAS for operation in area.listed]
    app.extensions["sendtide_openapi"] = Document(operations, chosen.public_url, [paths for _, paths in FOREIGN])
    for area in (*AREAS, *(blueprint for blueprint, _ in FOREIGN)):
        app.register_blueprint(area)
    personalizer.install(app)
    app.register_blueprint(console)
    app.add_url_rule("/", "to_console", to_console, methods=["GET"], provide_automatic_options=False)
    problems.install(app)
    manners.install(app)
    return app
