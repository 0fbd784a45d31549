"""What can be priced: the campaigns of a workspace that serve a learned policy, and the rules that bind any of them.

A campaign that is archived, paused or not live asks for nothing that a price is for. What it asked for lately is no
demand, its policy keeps the prices that it has, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from optimizer.service.catalog import stricter
from optimizer.service.served import learned
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, Workspace
from storage.rules import Cap, Rule
from storage.usage import scarce


@dataclass(frozen=True)
class Priceable:
    """The campaigns of a workspace that serve a learned policy now, and the rules that bind any of them."""

    workspace_id: str
    now: datetime
    pointers: Mapping[str, Pointer]
    policies: Mapping[str, Policy]
    campaigns: Mapping[str, Campaign]
    rules: tuple[Rule, ...]

    @property
    def shared(self) -> list[Rule]:
        """Capacity and budget rules that take of a campaign's messages."""
        return [r for r in self.rules if scarce(r) and self._takes(r)]

    @property
    def caps(self) -> list[Rule]:
        """Caps and gaps that take of a campaign's messages."""
        return [r for r in self.rules if isinstance(r.parameters, Cap) and self._takes(r)]

    def _takes(self, rule: Rule) -> bool:
        return any(taking(rule, campaign) for campaign in self.campaigns.values())


def taking(rule: Rule, campaign: Campaign) -> tuple[str, ...]:
    """The channels on which the campaign's messages pay the rule's price: those that it binds and counts."""
    return tuple(
        channel.id
        for channel in campaign.channels
        if all(
            selector.admits(channel=channel.id, category=campaign.category, campaign_id=campaign.campaign_id)
            for selector in (rule.applies_to, rule.counts)
        )
    )


def priceable(reader: Reader, workspace_id: str, now: datetime) -> Priceable:
    """Which campaigns of a workspace serve a learned policy now, and the rules that act."""
    workspace = reader.workspace(workspace_id)
    served = {pointer.campaign_id: pointer for pointer in learned(reader, workspace_id)}
    known = {name: reader.campaign(workspace_id, name) for name in served}
    campaigns = {name: one for name, one in known.items() if one is not None and _asks(one, workspace)}
    pointers = {name: served[name] for name in campaigns}
    policies = {name: reader.policy(workspace_id, pointer.policy_id) for name, pointer in pointers.items()}
    rules = tuple(r for r in reader.rules(workspace_id) if r.enabled and not r.archived and not r.dry_run)
    return Priceable(
        workspace_id,
        now,
        pointers,
        {name: policy for name, policy in policies.items() if policy is not None},
        campaigns,
        rules,
    )


def _asks(campaign: Campaign, workspace: Workspace | None) -> bool:
    """Whether the campaign's policy answers requests now."""
    mode = campaign.mode if workspace is None else stricter(campaign.mode, workspace.mode)
    return campaign.status == "active" and mode == "live"
