"""How far somebody has come from nothing to a first campaign, decision and webhook; the webhook sources on the way."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count, islice
from typing import Final

from optimizer.bandit.groups import assign
from optimizer.first_start import EXAMPLE
from optimizer.service.feedback import all_campaigns
from optimizer.service.intake import KEPT
from optimizer.service.sources import put_source
from optimizer.service.wiring import Services
from storage.intake import Intake
from storage.log import Decision, Event
from storage.port import Reader
from storage.records import Campaign
from storage.webhooks import Vendor, WebhookSource

#: Decisions that are looked through for the newest event.
_RECENT: Final = 20
#: The vendor whose secrets are ours to make; Postmark's are a name and a password of one's own.
_MADE: Final = ("standard", "postmark")


def new_secret(vendor: str) -> str | None:
    """A secret for a vendor that takes one of ours; None where it is the vendor who gives one."""
    if vendor not in _MADE:
        return None
    if vendor == "postmark":
        return f"sendtide:{secrets.token_urlsafe(24)}"
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def new_source(
    services: Services, workspace_id: str, vendor: Vendor, given: Sequence[str], topics: Sequence[str] = ()
) -> WebhookSource:
    """Makes a source under an id that nobody can guess.

    Raises:
        Invalid: what the vendor's signatures can't be checked with.
    """
    name = f"hooks-{secrets.token_hex(4)}"
    made, _ = put_source(services, WebhookSource(workspace_id, name, vendor, tuple(given), tuple(topics)), 0)
    return made


# --- How far somebody is


@dataclass(frozen=True, slots=True)
class Heard:
    """What came from a vendor so far, at all of its sources together, since counts don't tell them apart: events that
    count, deliveries that weren't signed, events that can't be used."""

    vendor: Vendor
    sources: tuple[WebhookSource, ...]
    events: int
    forged: int
    rejected: int


@dataclass(frozen=True)
class Progress:
    """How far a workspace is with a campaign.

    Attributes:
        campaign: the one that it is about; None = there is none.
        decision: its newest with a message, else its newest; None = none was asked for.
        event: the newest event of one of its newest decisions.
        own, decided, answered: whether the workspace ever had a campaign that isn't the example, has any decision, and
            an event of one: what was done with another campaign stays done.
        rejected: events that callers of the API reported and that could not be used.
        heard: the vendors that have webhook sources, in the order of their first, with what came from each.
        person: a made-up recipient whom the policy chooses for, so that a first decision isn't a holdout's.
    """

    campaign: Campaign | None
    decision: Decision | None = None
    event: Event | None = None
    own: bool = False
    decided: bool = False
    answered: bool = False
    rejected: int = 0
    heard: tuple[Heard, ...] = ()
    person: str = "customer-1"

    @property
    def confirmed(self) -> bool:
        """Whether the decision's message went out."""
        return self.decision is not None and self.decision.sent_at is not None


def progress(services: Services, reader: Reader, workspace_id: str, campaign_id: str | None, now: datetime) -> Progress:
    """How far a workspace is with a campaign; where none such is active, with the newest, paused ones last."""
    counts = reader.intake(workspace_id, (now - KEPT).date())
    campaign = _campaign(reader, workspace_id, campaign_id)
    begun = Progress(
        campaign,
        own=any(one.campaign_id != EXAMPLE for one in reader.campaigns(workspace_id, limit=2).items),
        decided=bool(reader.decisions(workspace_id, limit=1).items),
        answered=reader.has_answers(workspace_id),
        heard=_heard(reader.webhook_sources(workspace_id), counts),
    )
    if campaign is None:
        return begun
    recent = reader.decisions(workspace_id, limit=_RECENT, campaign_id=campaign.campaign_id).items
    events = [event for one in recent for event in reader.events(workspace_id, one)]
    asked = {one.recipient_id for one in recent}
    return replace(
        begun,
        decision=next((one for one in recent if one.variant_id is not None), recent[0] if recent else None),
        event=max(events, key=lambda one: one.received_at, default=None),
        rejected=sum(c.count for c in counts if c.source == "api" and c.result.startswith("rejected")),
        person=_person(services, campaign, asked),
    )


def _heard(sources: Sequence[WebhookSource], counts: Sequence[Intake]) -> tuple[Heard, ...]:
    def count(vendor: Vendor, *results: str) -> int:
        return sum(c.count for c in counts if c.source == vendor and c.result.partition(".")[0] in results)

    return tuple(
        Heard(
            vendor,
            tuple(one for one in sources if one.vendor == vendor),
            count(vendor, "matched", "unmatched", "duplicate"),
            count(vendor, "forged"),
            count(vendor, "rejected"),
        )
        for vendor in dict.fromkeys(one.vendor for one in sources)
    )


def _campaign(reader: Reader, workspace_id: str, campaign_id: str | None) -> Campaign | None:
    chosen = None if campaign_id is None else reader.campaign(workspace_id, campaign_id)
    if chosen is not None and chosen.status == "active":
        return chosen
    active = [one for one in all_campaigns(reader, workspace_id) if one.status == "active"]
    return max(active, key=_standing, default=None)


def _standing(campaign: Campaign) -> tuple[bool, bool, datetime, str]:
    """What runs first, what is one's own before the example of the first start, the newest."""
    return campaign.mode != "paused", campaign.campaign_id != EXAMPLE, campaign.created_at, campaign.campaign_id


def _person(services: Services, campaign: Campaign, asked: set[str]) -> str:
    """The first of some made-up names who is treated and wasn't asked about just now."""
    names = (f"customer-{number}" for number in islice(count(1), 200))
    ids = campaign.workspace_id, campaign.campaign_id
    treated = (n for n in names if n not in asked and assign(services.salt, *ids, n, campaign.groups) == "treated")
    return next(treated, "customer-1")
