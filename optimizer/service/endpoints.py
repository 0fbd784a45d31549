"""Outgoing webhooks as they are set up: where changes go, signed with what, and how far that is."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from optimizer.errors import Invalid, NotFound
from optimizer.service.outbound import check_url
from optimizer.service.wiring import Services
from storage.endpoints import Delivery, Endpoint
from storage.log import ChangeKind
from storage.port import Reader, Writer

SECRET_PREFIX = "whsec_"  # noqa: S105  what every secret starts with
#: Bytes of a secret (Standard Webhooks: 24 to 64), and how many an endpoint may have, so that they can be changed.
SECRET_BYTES, MOST_SECRETS = range(24, 65), 5
#: Endpoints of a workspace.
MOST_ENDPOINTS = 50
#: The type of a webhook by the kind of its change.
TYPES: Mapping[ChangeKind, str] = {
    "revoked": "decision.revoked",
    "displaced": "decision.displaced",
    "expired": "decision.expired",
    "promoted": "policy.promoted",
    "rolled_back": "policy.rolled_back",
}
KINDS: Mapping[str, ChangeKind] = {name: kind for kind, name in TYPES.items()}
assert set(TYPES) == set(get_args(ChangeKind))  # noqa: S101  a new kind needs a type


@dataclass(frozen=True, slots=True)
class State:
    """An endpoint, how far pushing to it is, and how many changes of the feed it has not seen."""

    endpoint: Endpoint
    delivery: Delivery
    behind: int


@dataclass(frozen=True, slots=True)
class EndpointInput:
    """An endpoint as a caller tells it. No ``secrets``: those that it has, or a new one."""

    url: str
    kinds: tuple[ChangeKind, ...]
    secrets: tuple[str, ...] = ()
    enabled: bool = True


def check_secret(text: str) -> str:
    """The secret, if it is one: ``whsec_`` and 24 to 64 bytes in base64.

    Raises:
        Invalid: names what is allowed, and not the secret.
    """
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or len(key) not in SECRET_BYTES:
        raise Invalid.field("secrets", "each must be whsec_ followed by 24 to 64 bytes in base64")
    return text


def new_secret() -> str:
    """A fresh secret of 256 bits."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def put_endpoint(
    services: Services, workspace_id: str, endpoint_id: str, told: EndpointInput
) -> tuple[State, str | None, bool]:
    """Stores an endpoint; returns it, the secret that was made for it, if any, and whether it is new.

    What has failed so far is forgotten, so it is tried at once. A new endpoint gets what changes from now on.

    Raises:
        Invalid: the URL or a secret is not allowed, or there are too many endpoints.
    """
    check_url(told.url, private=services.settings.private_webhooks)
    given = tuple(check_secret(one) for one in told.secrets)
    made = None if given else new_secret()
    now = services.clock()

    def work(writer: Writer) -> tuple[State, str | None, bool]:
        stored = _find(writer, workspace_id, endpoint_id)
        if stored is None and len(writer.endpoints(workspace_id)) >= MOST_ENDPOINTS:
            raise Invalid(f"the workspace has {MOST_ENDPOINTS} endpoints; allowed: no more", code="too_many")
        kept = given or (stored.secrets if stored is not None else (made or "",))
        endpoint = Endpoint(
            workspace_id=workspace_id,
            endpoint_id=endpoint_id,
            url=told.url,
            secrets=kept,
            kinds=told.kinds,
            created_at=now if stored is None else stored.created_at,
            updated_at=now,
            enabled=told.enabled,
        )
        writer.put_endpoint(endpoint)
        known = writer.delivery(workspace_id, endpoint_id)
        delivery = Delivery(workspace_id, endpoint_id, writer.newest_change(workspace_id)) if known is None else known
        writer.put_delivery(replace(delivery, failures=0, failing_since=None, next_at=None, stopped=None))
        return state(writer, endpoint), made if stored is None else None, stored is None

    return services.store.write(work)


def drop_endpoint(services: Services, workspace_id: str, endpoint_id: str) -> None:
    """Deletes an endpoint; ``NotFound`` when there is none."""
    if not services.store.write(lambda writer: writer.drop_endpoint(workspace_id, endpoint_id)):
        raise NotFound(f"no webhook endpoint {endpoint_id!r} in this workspace")


def read_endpoint(services: Services, workspace_id: str, endpoint_id: str) -> State:
    """One endpoint with its delivery; ``NotFound`` when there is none."""
    with services.store.read() as reader:
        endpoint = _find(reader, workspace_id, endpoint_id)
        if endpoint is None:
            raise NotFound(f"no webhook endpoint {endpoint_id!r} in this workspace")
        return state(reader, endpoint)


def all_states(reader: Reader, workspace_id: str) -> Sequence[State]:
    """Every endpoint of a workspace with its delivery, by id."""
    return [state(reader, endpoint) for endpoint in reader.endpoints(workspace_id)]


def state(reader: Reader, endpoint: Endpoint) -> State:
    """How far pushing to an endpoint is."""
    workspace_id = endpoint.workspace_id
    newest = reader.newest_change(workspace_id)
    found = reader.delivery(workspace_id, endpoint.endpoint_id)
    delivery = found or Delivery(workspace_id, endpoint.endpoint_id, newest)
    return State(endpoint, delivery, max(0, newest - delivery.position))


def told_until(reader: Reader, workspace_id: str) -> int | None:
    """The position up to which every endpoint that is pushed to has been told (None = there is none). One that was
    disabled, or has stopped, holds up nothing: that may be for good."""
    states = all_states(reader, workspace_id)
    running = [one.delivery for one in states if one.endpoint.enabled and one.delivery.stopped is None]
    return min((delivery.position for delivery in running), default=None)


def _find(reader: Reader, workspace_id: str, endpoint_id: str) -> Endpoint | None:
    return next((one for one in reader.endpoints(workspace_id) if one.endpoint_id == endpoint_id), None)
