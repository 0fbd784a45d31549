"""Outgoing webhooks."""

from __future__ import annotations

from storage.codec import DELIVERY, ENDPOINT
from storage.endpoints import Delivery, Endpoint
from storage.sql.learning_tables import FEED
from storage.sql.setup_tables import SetupReader


class EndpointReader(SetupReader):
    """Queries on endpoints."""

    def endpoints(self, workspace_id: str) -> tuple[Endpoint, ...]:
        """See ``storage.endpoint_port``."""
        rows = self._rows("SELECT document FROM endpoints WHERE workspace_id = ? ORDER BY endpoint_id", (workspace_id,))
        return tuple(ENDPOINT.unpack(row[0]) for row in rows)

    def delivery(self, workspace_id: str, endpoint_id: str) -> Delivery | None:
        """See ``storage.endpoint_port``."""
        row = self._row(
            "SELECT document FROM deliveries WHERE workspace_id = ? AND endpoint_id = ?", (workspace_id, endpoint_id)
        )
        return None if row is None else DELIVERY.unpack(row[0])

    def newest_change(self, workspace_id: str) -> int:
        """See ``storage.endpoint_port``."""
        return self._counter(workspace_id, FEED)


class EndpointWriter(EndpointReader):
    """Changes of endpoints."""

    def put_endpoint(self, endpoint: Endpoint) -> None:
        """See ``storage.endpoint_port``."""
        self._put("endpoints", endpoint.workspace_id, endpoint.endpoint_id, ENDPOINT.pack(endpoint))

    def drop_endpoint(self, workspace_id: str, endpoint_id: str) -> bool:
        """See ``storage.endpoint_port``."""
        key = (workspace_id, endpoint_id)
        self._query("DELETE FROM deliveries WHERE workspace_id = ? AND endpoint_id = ?", key)
        return self._query("DELETE FROM endpoints WHERE workspace_id = ? AND endpoint_id = ?", key).rowcount > 0

    def put_delivery(self, delivery: Delivery) -> None:
        """See ``storage.endpoint_port``."""
        self._put("deliveries", delivery.workspace_id, delivery.endpoint_id, DELIVERY.pack(delivery))

    def _put(self, table: str, workspace_id: str, endpoint_id: str, document: bytes) -> None:
        self._upsert(table, {"workspace_id": workspace_id, "endpoint_id": endpoint_id}, {"document": document})
