"""The part of the protocol of a store (see ``storage.port``) that outgoing webhooks need."""

from __future__ import annotations

from typing import Protocol

from storage.endpoints import Delivery, Endpoint


class EndpointQueries(Protocol):
    """Queries on endpoints; confined to one workspace."""

    def endpoints(self, workspace_id: str) -> tuple[Endpoint, ...]:
        """All endpoints, by id."""

    def delivery(self, workspace_id: str, endpoint_id: str) -> Delivery | None:
        """How far pushing to an endpoint is; None where nothing is noted."""

    def newest_change(self, workspace_id: str) -> int:
        """The position of the newest change that the feed ever had, stored or gone with its age (0 = none)."""


class EndpointChanges(EndpointQueries, Protocol):
    """Changes of endpoints."""

    def put_endpoint(self, endpoint: Endpoint) -> None:
        """Inserts or replaces."""

    def drop_endpoint(self, workspace_id: str, endpoint_id: str) -> bool:
        """Deletes an endpoint and its delivery; False when there is none."""

    def put_delivery(self, delivery: Delivery) -> None:
        """Inserts or replaces."""
