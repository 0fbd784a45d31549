"""The set-up of a workspace as decisions need it, read once and kept until its ``config_version`` moves."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from optimizer.bandit.eligibility import longest_reach, needs_holidays, needs_unanswered, risk_limits
from optimizer.bandit.spoken import outcome_names
from optimizer.errors import Invalid
from optimizer.service.optout import MappedRefusals, mapped_refusals
from storage.log import items_of
from storage.port import Reader
from storage.records import Attribute, Campaign, Mode, Workspace
from storage.rules import RiskLimit, Rule
from storage.usage import scarce

_STRICTNESS: dict[Mode, int] = {"live": 0, "shadow": 1, "baseline_only": 2, "paused": 3}


def stricter(one: Mode, other: Mode) -> Mode:
    """The stricter of two modes: paused over baseline_only over shadow over live."""
    return one if _STRICTNESS[one] >= _STRICTNESS[other] else other


@dataclass(frozen=True, slots=True)
class Spoken:
    """What the campaigns of a workspace, archived ones too, make of types of events: a refusal of some, and which
    ``types`` they map to outcomes or take for outcomes themselves."""

    refusals: MappedRefusals
    types: frozenset[str]


@dataclass(frozen=True)
class View:
    """One version of a workspace's set-up: its rules that are in use (dry runs too), its attributes, its campaigns.

    Campaigns are read when first asked for, and what is asked of the rules is answered once a version.
    """

    version: int
    workspace: Workspace
    rules: tuple[Rule, ...]
    attributes: dict[str, Attribute]
    _campaigns: dict[str, Campaign] = field(default_factory=dict)
    _limits: dict[tuple[str, bool], tuple[RiskLimit, ...]] = field(default_factory=dict)
    _spoken: list[Spoken] = field(default_factory=list)

    @cached_property
    def scarce(self) -> tuple[Rule, ...]:
        """The rules that share one limit among all recipients."""
        return tuple(rule for rule in self.rules if scarce(rule))

    @cached_property
    def adaptive(self) -> bool:
        """Whether a cap looks at how many messages a recipient left unanswered."""
        return needs_unanswered(self.rules)

    @cached_property
    def dated(self) -> bool:
        """Whether a rule looks at public holidays."""
        return needs_holidays(self.rules)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The attributes that the model may not use."""
        return frozenset(name for name, attribute in self.attributes.items() if not attribute.use_in_model)

    @cached_property
    def reach(self) -> timedelta:
        """How far from a send time the caps look."""
        return longest_reach(self.rules)

    def limits(self, campaign: Campaign, *, dry_run: bool = False) -> tuple[RiskLimit, ...]:
        """What fatigue rules ask of a policy of this campaign, as it stands in this version, or would on a dry run."""
        key = campaign.campaign_id, dry_run
        if key not in self._limits:
            self._limits[key] = risk_limits(self.rules, campaign, dry_run=dry_run)
        return self._limits[key]

    def knows(self, campaign_id: str) -> bool:
        """Whether the campaign of that id was read before."""
        return campaign_id in self._campaigns

    def standing(self, reader: Reader, campaign_id: str) -> Campaign | None:
        """The campaign of that id, archived or not; None when there is none, which is not remembered: callers can name
        any number of those."""
        known = self._campaigns.get(campaign_id)
        if known is None:
            known = reader.campaign(self.workspace.workspace_id, campaign_id)
            if known is not None:
                self._campaigns[campaign_id] = known
        return known

    def spoken(self, reader: Reader) -> Spoken:
        """What its campaigns make of types of events; ``reader`` must see this version."""
        if not self._spoken:
            workspace_id = self.workspace.workspace_id
            campaigns = list(items_of(lambda at: reader.campaigns(workspace_id, limit=500, cursor=at)))
            types = frozenset(name for one in campaigns for name in (*outcome_names(one), *one.event_mapping))
            self._spoken.append(Spoken(mapped_refusals(campaigns), types))
        return self._spoken[0]

    def campaign(self, reader: Reader, campaign_id: str) -> Campaign:
        """The campaign of that id; ``Invalid`` when there is none or it is archived."""
        campaign = self.standing(reader, campaign_id)
        if campaign is None:
            raise Invalid.field(
                "campaign_id", f"no campaign {campaign_id!r} in this workspace", code="unknown_campaign"
            )
        if campaign.status == "archived":
            raise Invalid.field("campaign_id", f"campaign {campaign_id!r} is archived", code="archived_campaign")
        return campaign


class Catalog:
    """Caches the ``View`` of each workspace that was read last; safe between threads."""

    def __init__(self) -> None:
        self._views: dict[str, View] = {}
        self._lock = threading.Lock()

    def newest(self, workspace_id: str) -> View | None:
        """The set-up that was read last; it may have changed since."""
        with self._lock:
            return self._views.get(workspace_id)

    def view(self, reader: Reader, workspace_id: str, *, keep: bool = True) -> View:
        """The set-up as ``reader``'s snapshot has it.

        ``keep`` must be False inside a write transaction: what it sees may still be rolled back, and its version number
        would then be given to another set-up.
        """
        version = reader.config_version(workspace_id)
        known = self.newest(workspace_id)
        if known is not None and known.version == version:
            return known
        workspace = reader.workspace(workspace_id)
        if workspace is None:
            raise Invalid.field("workspace", f"no workspace {workspace_id!r}", code="unknown_workspace")
        view = View(
            version=version,
            workspace=workspace,
            rules=tuple(r for r in reader.rules(workspace_id) if r.enabled and not r.archived),
            attributes={a.name: a for a in reader.attributes(workspace_id)},
        )
        if not keep:
            return view
        with self._lock:
            self._views[workspace_id] = view  # of a lower version, too: after a restore it is the newest
        return view
