"""Is the process alive, is it ready, what does it count. None of these needs a key."""

from __future__ import annotations

import hmac
import threading
import time
from dataclasses import asdict

from flask import current_app
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from optimizer.errors import Unauthenticated
from optimizer.service.wiring import Services
from optimizer.web import metrics
from optimizer.web.operation import Answer, Call, Operations, Told, bearer
from optimizer.web.schemas.learning import HealthOut, ReadyOut
from storage.errors import StoreError, StoreUnavailable
from storage.port import Store
from storage.records import ApiKey

api = Operations("health", "Operate")
#: Seconds for which callers without a key are told the outcome of the last check.
_HOLDS = 1.0


class StoreCheck:
    """Whether the store takes writes, as callers without a key are told it: each check is a write, and there may be any
    number of them. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._fault: StoreUnavailable | None = None

    def __call__(self, store: Store) -> None:
        """Checks the store at most once a second.

        Raises:
            StoreUnavailable: it took no write at the last check.
        """
        with self._lock:
            if time.monotonic() - self._at >= _HOLDS:
                self._fault = _fault_of(store)
                self._at = time.monotonic()
            fault = self._fault
        if fault is not None:
            raise StoreUnavailable(str(fault), fault.retry_after_seconds)


def _fault_of(store: Store) -> StoreUnavailable | None:
    try:
        store.check()
    except StoreUnavailable as fault:
        return fault
    return None


@api.operation("GET", "/healthz", "Is the process alive", answers={200: HealthOut}, scope=None, store=False)
def healthz(_: Call) -> Answer:
    """Says nothing of the store: a store that is down is no reason to restart this process."""
    return Answer({"status": "ok"})


@api.operation("GET", "/readyz", "Is it ready", answers={200: ReadyOut}, scope=None)
def readyz(call: Call) -> Answer:
    """200 when the store can be read and takes writes: tried anew for a caller with a key, at most once a second for
    those without. A policy that can't be loaded is counted in `faults`, and told in `policies` to a caller with a key
    of its workspace; the one before it is served on, so the service stays ready."""
    key = _known_key(call.services)
    if key is None:
        check: StoreCheck = current_app.extensions["sendtide_store_check"]
        check(call.services.store)
    else:
        call.services.store.check()
    served = call.services.policies.status()
    return Answer(
        {
            "status": "ready",
            "served": len(served),
            "faults": sum(one.fault is not None for one in served),
            "policies": [asdict(one) for one in served if key is not None and one.workspace_id == key.workspace_id],
        }
    )


def _known_key(services: Services) -> ApiKey | None:
    """The key that the caller sends, if it is one; none is needed, so a wrong one is no error."""
    secret = bearer()
    key = None if secret is None else services.keys(secret)
    return None if key is None or key.revoked_at is not None else key


@api.operation(
    "GET",
    "/metrics",
    "Prometheus metrics",
    answers={200: Told(None, "Prometheus' text format.", content_types=("text/plain",))},
    scope=None,
    store=False,
    problems=(401,),
)
def prometheus(call: Call) -> Answer:
    """Counts and times of all workers, by the ids of all workspaces, campaigns, rules and endpoints. It needs no key;
    where `SENDTIDE_METRICS_TOKEN` is set, that is the bearer token to send."""
    token = call.holder.settings.metrics_token
    if token is not None and not hmac.compare_digest(token.encode(), (bearer() or "").encode()):
        raise Unauthenticated("send 'Authorization: Bearer TOKEN' with the token of SENDTIDE_METRICS_TOKEN")
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
