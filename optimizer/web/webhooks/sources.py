"""Webhook sources: put, read, list, delete."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from optimizer.service import sources
from optimizer.web import examples, render
from optimizer.web.operation import Answer, Call, Operations
from optimizer.web.paging import sliced
from optimizer.web.schemas.body import PageQuery
from optimizer.web.schemas.webhooks import SourceIn, SourceOut, SourcesPage
from optimizer.web.versions import expected_version
from storage.port import Reader
from storage.webhooks import WebhookSource

api = Operations("webhook_sources", "Webhooks")
_PATH = "/v1/webhook-sources/{source_id}"
_UNKNOWN_ADDRESS = (
    "Twilio signs the address that it calls, and SENDTIDE_PUBLIC_URL doesn't say it: behind a proxy, or with another "
    "host or scheme, every delivery is refused as forged."
)


@api.operation(
    "PUT",
    _PATH,
    "Create or replace a webhook source",
    body=SourceIn,
    answers={200: SourceOut, 201: SourceOut},
    scope="admin",
    preconditions=True,
    etag=True,
    problems=(409,),
    example=examples.SOURCE,
)
def put_webhook_source(call: Call) -> Answer:
    """From then on the vendor may post to `url`. The id is part of that address, so it is unique in the whole
    installation and stays this workspace's for good: 409 where another has it."""
    expected = expected_version(call, lambda reader: _version(reader, call))
    source = WebhookSource(workspace_id=call.workspace_id, source_id=call.path["source_id"], **call.loaded)
    stored, created = sources.put_source(call.services, source, expected)
    return Answer(_shown(call, stored), 201 if created else 200, etag=stored.version)


@api.operation(
    "GET", _PATH, "Read a webhook source", answers={200: SourceOut}, scope="admin", etag=True, problems=(404,)
)
def get_webhook_source(call: Call) -> Answer:
    """The source; of its secrets only fingerprints."""
    stored = sources.source_of(call.services, call.workspace_id, call.path["source_id"])
    if call.preconditions.unchanged(stored.version):
        return Answer(status=304, etag=stored.version)
    return Answer(_shown(call, stored), etag=stored.version)


@api.operation(
    "GET", "/v1/webhook-sources", "List webhook sources", query=PageQuery, answers={200: SourcesPage}, scope="admin"
)
def list_webhook_sources(call: Call) -> Answer:
    """All sources by id."""
    with call.services.store.read() as reader:
        stored = reader.webhook_sources(call.workspace_id)
    items, cursor = sliced(stored, lambda s: s.source_id, limit=call.query["limit"], cursor=call.query["cursor"])
    return Answer(render.page("webhook_sources", [_shown(call, one) for one in items], cursor))


@api.operation(
    "DELETE",
    _PATH,
    "Delete a webhook source",
    answers={204: None},
    scope="admin",
    preconditions=True,
    problems=(404,),
)
def delete_webhook_source(call: Call) -> Answer:
    """Its address takes nothing any more; its secrets are gone."""
    expected = expected_version(call, lambda reader: _version(reader, call))
    sources.delete_source(call.services, call.workspace_id, call.path["source_id"], expected)
    return Answer(status=204)


def _version(reader: Reader, call: Call) -> int:
    stored = reader.webhook_source(call.path["source_id"])
    mine = stored is not None and not stored.deleted and stored.workspace_id == call.workspace_id
    return stored.version if stored is not None and mine else 0


def _shown(call: Call, source: WebhookSource) -> dict[str, Any]:
    path = f"/v1/webhooks/{source.vendor}/{quote(source.source_id, safe='')}"
    return {
        "source_id": source.source_id,
        "vendor": source.vendor,
        "url": f"{call.holder.settings.public_url or ''}{path}",
        "fingerprints": [sources.fingerprint(call.services, secret) for secret in source.secrets],
        "topic_arns": list(source.topic_arns),
        "note": _UNKNOWN_ADDRESS if source.vendor == "twilio" and not call.holder.settings.public_url else "",
        "created_at": source.created_at,
        "updated_at": source.updated_at,
    }
