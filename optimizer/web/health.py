"""Is the process alive, is it ready, what does it count. None of these needs a key."""

from __future__ import annotations

from dataclasses import asdict

from flask import current_app
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from optimizer.service.wiring import Services
from optimizer.web import metrics
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.schemas.learning import HealthOut, ReadyOut
from storage.errors import StoreError

api = Operations("health", "Operate")


@api.operation("GET", "/healthz", "Is the process alive", answers={200: HealthOut}, scope=None, store=False)
def healthz(_: Call) -> Answer:
    """Says nothing of the store: a store that is down is no reason to restart this process."""
    return Answer({"status": "ok"})


@api.operation("GET", "/readyz", "Is it ready", answers={200: ReadyOut}, scope=None)
def readyz(call: Call) -> Answer:
    """200 when the store can be read and takes writes. A policy that can't be loaded is told in `fault`; the one before
    it is served on, so the service stays ready."""
    call.services.store.check()
    return Answer({"status": "ready", "policies": [asdict(one) for one in call.services.policies.status()]})


@api.operation(
    "GET",
    "/metrics",
    "Prometheus metrics",
    answers={200: Told(None, "Prometheus' text format.", content_types=("text/plain",))},
    scope=None,
    store=False,
)
def prometheus(call: Call) -> Answer:
    """Counts and times of all workers."""
    services = _services_or_none(call)
    counted = metrics.of(current_app)
    if services is not None:
        counted.show_policies(services, anyhow=True)
    return Answer(counted.text(services), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _services_or_none(call: Call) -> Services | None:
    try:
        return call.services
    except StoreError:
        return None
