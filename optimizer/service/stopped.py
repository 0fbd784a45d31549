"""What keeps a message from going out that was reserved before somebody stopped it.

A pause, an archiving, a withdrawn variant or channel: none of them looks for what is reserved. The claim asks, right
before sending; what nobody ever claims is asked for once its time has passed.
"""

from __future__ import annotations

from datetime import datetime

from storage.log import Decision
from storage.port import Reader
from storage.records import Campaign, Workspace

#: Why a reservation was revoked.
WORKSPACE_PAUSED, CAMPAIGN_PAUSED, CAMPAIGN_ARCHIVED = "workspace:paused", "campaign:paused", "campaign:archived"
VARIANT_PAUSED, VARIANT_ARCHIVED, CHANNEL_WITHDRAWN = "variant:paused", "variant:archived", "channel:withdrawn"
#: All of these.
STOPPED = (
    WORKSPACE_PAUSED,
    CAMPAIGN_PAUSED,
    CAMPAIGN_ARCHIVED,
    VARIANT_PAUSED,
    VARIANT_ARCHIVED,
    CHANNEL_WITHDRAWN,
)


def stopped(reader: Reader, decision: Decision) -> str | None:
    """What keeps the reservation from going out now: one of ``STOPPED``; None = nothing."""
    workspace = reader.workspace(decision.workspace_id)
    if workspace is not None and workspace.mode == "paused":
        return WORKSPACE_PAUSED
    campaign = reader.campaign(decision.workspace_id, decision.campaign_id)
    return None if campaign is None else stopped_whole(campaign) or _withdrawn(campaign, decision)


def stopped_since(reader: Reader, decision: Decision, since: datetime) -> str | None:
    """What has kept the reservation from going out from ``since`` to now; None = nothing, or not all the time.

    Only a pause or an archiving: a sender that claims nothing may well have sent a variant that was left out.
    """
    workspace = reader.workspace(decision.workspace_id)
    if workspace is not None and _paused_since(workspace, since):
        return WORKSPACE_PAUSED
    campaign = reader.campaign(decision.workspace_id, decision.campaign_id)
    while campaign is not None and (reason := stopped_whole(campaign)) is not None:
        if campaign.updated_at <= since:
            return reason
        campaign = reader.campaign(decision.workspace_id, decision.campaign_id, campaign.version - 1)
    return None


def _paused_since(workspace: Workspace, since: datetime) -> bool:
    return workspace.mode == "paused" and workspace.mode_since is not None and workspace.mode_since <= since


def stopped_whole(campaign: Campaign) -> str | None:
    """What keeps all of a campaign's messages from going out, whatever the workspace's mode; None = nothing."""
    if campaign.status == "archived":
        return CAMPAIGN_ARCHIVED
    return CAMPAIGN_PAUSED if campaign.mode == "paused" else None


def _withdrawn(campaign: Campaign, decision: Decision) -> str | None:
    """What the campaign no longer offers of a reservation; a variant that is left out of it is kept, archived."""
    status = next((variant.status for variant in campaign.variants if variant.id == decision.variant_id), "active")
    if status != "active":
        return VARIANT_PAUSED if status == "paused" else VARIANT_ARCHIVED
    return None if decision.channel in {channel.id for channel in campaign.channels} else CHANNEL_WITHDRAWN
