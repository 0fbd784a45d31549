"""Pushes the change feed to webhook endpoints, signed by Standard Webhooks.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (headers, signature,
schedule of attempts, 410). An endpoint gets the changes one after the other, in the order of the feed; how far it is
lies in the store. A change counts as delivered once that is stored after a 2xx answer: so each arrives at least once,
whatever is killed, and a receiver knows a repetition by its ``webhook-id``. One that fails is tried again and holds up
those behind it; nothing is skipped. After three days the endpoint is stopped, and goes on from there when it is put
again.

Any number of processes may push: each takes the endpoint's lease first, and renews it with every change.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import orjson

from optimizer.service.endpoints import SECRET_PREFIX, TYPES
from optimizer.service.ids import derived
from optimizer.service.outbound import TOTAL_SECONDS, Reply, post
from optimizer.service.wiring import Services
from optimizer.service.wrongclock import ahead
from storage.endpoints import Delivery, Endpoint
from storage.log import Change
from storage.port import Reader, Writer

#: After how many seconds a change is tried again, by the number of attempts that failed.
BACKOFF_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: The longest wait that a receiver can ask for.
LONGEST_WAIT = timedelta(days=1)
#: Longer than an attempt can take, so that no other process sends the same meanwhile.
LEASE = timedelta(seconds=4 * TOTAL_SECONDS)
#: Changes that are read at a time.
CHUNK = 100


def due(reader: Reader, workspace_id: str, now: datetime) -> list[Endpoint]:
    """The endpoints of a workspace that have something to be sent now."""
    newest = reader.newest_change(workspace_id)
    found = []
    for endpoint in reader.endpoints(workspace_id):
        delivery = reader.delivery(workspace_id, endpoint.endpoint_id)
        if delivery is None or not endpoint.enabled or delivery.stopped is not None or delivery.position >= newest:
            continue
        if delivery.next_at is None or delivery.next_at <= now or _too_late(endpoint, delivery.next_at, now):
            found.append(endpoint)
    return found


def _too_late(endpoint: Endpoint, next_at: datetime, now: datetime) -> bool:
    """Whether an endpoint is to be tried later than any wait can last: the clock was ahead when it failed."""
    return ahead(f"the next attempt at webhook {endpoint.endpoint_id!r}", next_at - LONGEST_WAIT, now)


def push(services: Services, endpoint: Endpoint, holder: str, going_on: Callable[[], bool] = lambda: True) -> int:
    """Sends an endpoint what it has not seen, until there is no more or an attempt fails; returns how many it took.

    Args:
        services: the wired service.
        endpoint: as it was when it was found due; what has changed since is read anew.
        holder: who pushes, for the lease.
        going_on: asked before each attempt; False ends it.

    Raises:
        StoreUnavailable: how far it is could not be stored; what was sent last will be sent again.
    """
    key = (endpoint.workspace_id, endpoint.endpoint_id)
    lease = f"webhook:{endpoint.workspace_id}:{endpoint.endpoint_id}"
    now = services.clock()
    if not services.store.write(lambda writer: writer.take_lease(lease, holder, now, now + LEASE)):
        return 0
    taken = 0
    try:
        while going_on():
            with services.store.read() as reader:
                found = _next(reader, *key)
            if found is None:
                break
            current, delivery, passed, change = found
            if change is None:
                after = replace(delivery, position=passed)
            else:
                after = _attempt(services, current, replace(delivery, position=passed), change)
            taken += after.delivered - delivery.delivered
            if not _store(services, lease, holder, current, delivery, after) or after.failures or after.stopped:
                break
    finally:
        services.store.write(lambda writer: writer.drop_lease(lease, holder))
    return taken


def _next(reader: Reader, workspace_id: str, endpoint_id: str) -> tuple[Endpoint, Delivery, int, Change | None] | None:
    """The endpoint, its delivery, the position up to which nothing is of its kinds, and the change after that; None:
    there is nothing to do."""
    endpoint = next((one for one in reader.endpoints(workspace_id) if one.endpoint_id == endpoint_id), None)
    delivery = reader.delivery(workspace_id, endpoint_id)
    if endpoint is None or delivery is None or not endpoint.enabled or delivery.stopped is not None:
        return None
    changes = reader.changes(workspace_id, after=delivery.position, limit=CHUNK)
    if not changes:
        return None
    passed = delivery.position
    for change in changes:
        if change.kind in endpoint.kinds:
            return endpoint, delivery, passed, change
        passed = change.position
    return endpoint, delivery, passed, None


def _attempt(services: Services, endpoint: Endpoint, delivery: Delivery, change: Change) -> Delivery:
    """Sends one change; returns how far the endpoint is then."""
    message_id = _message_id(services.salt, endpoint, change)
    body = payload(change)
    started = services.clock()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "sendtide",
        **signed(endpoint, message_id, started, body),
    }
    reply = post(endpoint.url, body, headers, private=services.settings.private_webhooks)
    return settled(delivery, change, reply, services.clock())


def _message_id(salt: bytes, endpoint: Endpoint, change: Change) -> str:
    """The same for each attempt. After a restore positions are given again, to other changes: so it is of all that a
    change says."""
    where = (endpoint.workspace_id, endpoint.endpoint_id, str(change.position))
    what = (change.at.isoformat(), change.kind, change.decision_id, change.campaign_id, change.policy_id)
    return derived("msg", salt, *where, *(part or "" for part in what))


def settled(delivery: Delivery, change: Change, reply: Reply, now: datetime) -> Delivery:
    """How far an endpoint is after an attempt."""
    told = replace(delivery, last_at=now, last_status=reply.status, last_error=reply.error)
    if reply.taken:
        return replace(
            told,
            position=change.position,
            delivered=delivery.delivered + 1,
            failures=0,
            failing_since=None,
            next_at=None,
        )
    failures, since = delivery.failures + 1, delivery.failing_since or now
    failed = replace(told, failures=failures, failing_since=since, next_at=None)
    if reply.status == 410:
        return replace(failed, stopped="the receiver answered 410: it is gone")
    if failures > len(BACKOFF_SECONDS):
        return replace(failed, stopped=f"{failures} attempts failed since {since.isoformat(timespec='seconds')}")
    asked = timedelta(seconds=min(reply.retry_after or 0.0, LONGEST_WAIT.total_seconds()))
    return replace(failed, next_at=now + max(timedelta(seconds=BACKOFF_SECONDS[failures - 1]), asked))


def payload(change: Change) -> bytes:
    """The body of a webhook: what changed, when, and its entry of the change feed."""
    entry = {
        "position": change.position,
        "kind": change.kind,
        "decision_id": change.decision_id,
        "campaign_id": change.campaign_id,
        "policy_id": change.policy_id,
        "replaced_id": change.replaced_id,
        "detail": change.detail,
    }
    document = {"type": TYPES[change.kind], "timestamp": change.at, "data": entry}
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def signed(endpoint: Endpoint, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The headers that prove where a webhook comes from: one signature for each secret, so that they can be changed."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = [_signature(secret, content) for secret in endpoint.secrets]
    return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def _store(services: Services, lease: str, holder: str, endpoint: Endpoint, before: Delivery, after: Delivery) -> bool:
    """Stores how far an endpoint is; False when it is no longer ours to say: the lease was lost, or it was put anew."""
    now = services.clock()

    def work(writer: Writer) -> bool:
        if not writer.take_lease(lease, holder, now, now + LEASE):
            return False
        current = writer.delivery(before.workspace_id, before.endpoint_id)
        if current is None or current.position != before.position:
            return False
        if after.failures and _put_since(writer.endpoints(before.workspace_id), endpoint):
            return False
        writer.put_delivery(after)
        return True

    return services.store.write(work)


def _put_since(stored: Sequence[Endpoint], known: Endpoint) -> bool:
    """Whether the endpoint was put again, which makes a failure one of before."""
    return not any(one.endpoint_id == known.endpoint_id and one.updated_at == known.updated_at for one in stored)
