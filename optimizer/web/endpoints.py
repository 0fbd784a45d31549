"""Outgoing webhooks: where the change feed is pushed to."""

from __future__ import annotations

from typing import Any

from optimizer.service import endpoints
from optimizer.service.endpoints import TYPES, State
from optimizer.web import render
from optimizer.web.operation import Answer, Call, Operations, Told
from optimizer.web.paging import sliced
from optimizer.web.schemas.body import PageQuery
from optimizer.web.schemas.endpoints import EndpointIn, EndpointOut, EndpointsPage, PutEndpointOut

api = Operations("endpoints", "Push")
_PATH = "/v1/webhook-endpoints/{endpoint_id}"
_EXAMPLE = {"url": "https://sender.example.com/sendtide", "events": ["decision.displaced", "decision.revoked"]}


@api.operation(
    "PUT",
    _PATH,
    "Push changes to an address",
    body=EndpointIn,
    answers={
        200: Told(PutEndpointOut, "Replaced; what has failed is tried again at once."),
        201: Told(PutEndpointOut, "It gets what changes from now on."),
    },
    scope="admin",
    example=_EXAMPLE,
)
def put_webhook_endpoint(call: Call) -> Answer:
    """The change feed, signed by Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`), in order
    and at least once: a repetition has the same `webhook-id`. Anything but 2xx is tried again, up to three days; 410
    stops it. The address must be a public one."""
    state, secret, created = endpoints.put_endpoint(
        call.services, call.workspace_id, call.path["endpoint_id"], call.loaded
    )
    headers = {} if secret is None else {"Cache-Control": "no-store"}
    return Answer({**_shown(state), "secret": secret}, 201 if created else 200, headers=headers)


@api.operation("GET", _PATH, "Read a webhook endpoint", answers={200: EndpointOut}, scope="admin", problems=(404,))
def get_webhook_endpoint(call: Call) -> Answer:
    """Where it goes and how far delivery is; never a secret."""
    return Answer(_shown(endpoints.read_endpoint(call.services, call.workspace_id, call.path["endpoint_id"])))


@api.operation(
    "GET",
    "/v1/webhook-endpoints",
    "List webhook endpoints",
    query=PageQuery,
    answers={200: EndpointsPage},
    scope="admin",
)
def list_webhook_endpoints(call: Call) -> Answer:
    """By id, each with how far delivery is."""
    with call.services.store.read() as reader:
        found = endpoints.all_states(reader, call.workspace_id)
    items, cursor = sliced(
        found, lambda s: s.endpoint.endpoint_id, limit=call.query["limit"], cursor=call.query["cursor"]
    )
    return Answer(render.page("endpoints", [_shown(one) for one in items], cursor))


@api.operation("DELETE", _PATH, "Delete a webhook endpoint", answers={204: None}, scope="admin", problems=(404,))
def delete_webhook_endpoint(call: Call) -> Answer:
    """Nothing more is sent; an attempt that is under way ends by itself."""
    endpoints.drop_endpoint(call.services, call.workspace_id, call.path["endpoint_id"])
    return Answer(status=204)


def _shown(state: State) -> dict[str, Any]:
    endpoint, delivery = state.endpoint, state.delivery
    return {
        "endpoint_id": endpoint.endpoint_id,
        "url": endpoint.url,
        "events": [TYPES[kind] for kind in endpoint.kinds],
        "enabled": endpoint.enabled,
        "secrets": len(endpoint.secrets),
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "delivery": {
            "position": delivery.position,
            "behind": state.behind,
            "delivered": delivery.delivered,
            "failures": delivery.failures,
            "failing_since": delivery.failing_since,
            "next_attempt_at": delivery.next_at,
            "last_attempt_at": delivery.last_at,
            "last_status": delivery.last_status,
            "last_error": delivery.last_error,
            "stopped": delivery.stopped,
        },
    }
