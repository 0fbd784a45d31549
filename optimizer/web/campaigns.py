"""Campaigns: put, patch, read, archive."""

from __future__ import annotations

from typing import Any

from optimizer.errors import NotFound
from optimizer.service import setup
from optimizer.service.changing import change_campaign
from optimizer.web import body, examples, render
from optimizer.web.operation import Answer, Call, Operations
from optimizer.web.paging import own_cursor
from optimizer.web.schemas.body import PageQuery
from optimizer.web.schemas.campaigns import CampaignIn, CampaignOut, CampaignsPage, KeptCampaignIn, campaign_of
from optimizer.web.schemas.factors import FACTORS
from optimizer.web.versions import expected_version, patched
from storage.port import Reader
from storage.records import Campaign

api = Operations("campaigns", "Set-up")
_SCHEMA, _KEPT = CampaignIn(), KeptCampaignIn()
_PATH = "/v1/campaigns/{campaign_id}"


@api.operation(
    "PUT",
    _PATH,
    "Create or replace a campaign",
    body=CampaignIn,
    answers={200: CampaignOut, 201: CampaignOut},
    scope="admin",
    preconditions=True,
    etag=True,
    example=examples.CAMPAIGN,
)
def put_campaign(call: Call) -> Answer:
    """Replaces the campaign as a whole. A variant left out is archived and keeps what was learned.

    A text that replaces another under the same variant id is read as if it had been sent all along, so it inherits what
    the other earned: give new copy an id of its own.

    `If-None-Match: *` only creates, `If-Match` only replaces that version.
    """
    expected = expected_version(call, lambda reader: _version(reader, call))
    stored, created = setup.put_campaign(call.services, _made(call, call.loaded), expected)
    return Answer(render.campaign(stored), 201 if created else 200, etag=stored.version)


@api.operation(
    "PATCH",
    _PATH,
    "Change a campaign",
    body=CampaignIn,
    media=(body.MERGE_PATCH, body.JSON),
    answers={200: CampaignOut},
    scope="admin",
    preconditions=True,
    etag=True,
    problems=(404,),
    example={"priority": 70},
)
def patch_campaign(call: Call) -> Answer:
    """A JSON Merge Patch (RFC 7386) on the document as GET shows it; lists are replaced whole."""

    campaign_id = call.path["campaign_id"]
    schema = _KEPT if FACTORS.isdisjoint(call.document) else _SCHEMA
    with call.services.store.read() as reader:
        before = reader.campaign(call.workspace_id, campaign_id)
    of = patched(call, schema, before, render.campaign, f"campaign {campaign_id!r}")
    stored = change_campaign(call.services, call.workspace_id, campaign_id, lambda found: _made(call, of(found)))
    return Answer(render.campaign(stored), etag=stored.version)


@api.operation(
    "GET",
    _PATH,
    "Read a campaign",
    answers={200: CampaignOut},
    scope="read",
    etag=True,
    problems=(404,),
)
def get_campaign(call: Call) -> Answer:
    """The campaign with all its variants, the archived ones too."""
    with call.services.store.read() as reader:
        stored = reader.campaign(call.workspace_id, call.path["campaign_id"])
    if stored is None:
        raise NotFound(f"no campaign {call.path['campaign_id']!r} in this workspace")
    if call.preconditions.unchanged(stored.version):
        return Answer(status=304, etag=stored.version)
    return Answer(render.campaign(stored), etag=stored.version)


@api.operation("GET", "/v1/campaigns", "List campaigns", query=PageQuery, answers={200: CampaignsPage}, scope="read")
def list_campaigns(call: Call) -> Answer:
    """All campaigns by id, archived ones included."""
    with own_cursor(), call.services.store.read() as reader:
        page = reader.campaigns(call.workspace_id, limit=call.query["limit"], cursor=call.query["cursor"])
    return Answer(render.page("campaigns", [render.campaign(c) for c in page.items], page.cursor))


@api.operation(
    "DELETE",
    _PATH,
    "Archive a campaign",
    answers={204: None},
    scope="admin",
    preconditions=True,
    problems=(404,),
)
def archive_campaign(call: Call) -> Answer:
    """It answers no more requests; its log and what was learned stay. Doing it again changes nothing."""
    campaign_id = call.path["campaign_id"]
    expected = expected_version(call, lambda reader: _version(reader, call))
    setup.archive_campaign(call.services, call.workspace_id, campaign_id, expected)
    return Answer(status=204)


def _made(call: Call, loaded: dict[str, Any]) -> Campaign:
    return campaign_of(
        loaded, workspace_id=call.workspace_id, campaign_id=call.path["campaign_id"], now=call.services.clock()
    )


def _version(reader: Reader, call: Call) -> int:
    stored = reader.campaign(call.workspace_id, call.path["campaign_id"])
    return stored.version if stored is not None else 0
