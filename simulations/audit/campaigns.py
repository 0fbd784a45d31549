"""Campaigns as they were: by version, and which versions may have been current at a position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from storage.log import Decision, items_of
from storage.port import Reader
from storage.records import Campaign

_PAGE = 500


@dataclass
class Campaigns:
    """Every version of every campaign, read when first asked for; ``seen`` notes which a decision was made under."""

    reader: Reader
    workspace_id: str
    _versions: dict[tuple[str, int], Campaign | None] = field(default_factory=dict)
    _uses: dict[str, dict[int, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))
    _newest: dict[str, int] = field(default_factory=dict)

    def at(self, campaign_id: str | None, version: int) -> Campaign | None:
        """One version of a campaign."""
        key = (campaign_id or "", version)
        if key not in self._versions:
            self._versions[key] = self.reader.campaign(self.workspace_id, *key)
        return self._versions[key]

    def seen(self, decision: Decision) -> None:
        """Notes that a version was current when a decision was committed."""
        uses, version, at = self._uses[decision.campaign_id], decision.campaign_version, decision.position
        first, last = uses.get(version, (at, at))
        uses[version] = (min(first, at), max(last, at))

    def possibly_current(self, campaign_id: str | None, position: int) -> list[Campaign]:
        """The versions that may have been current at a position: from the last one seen by then to the next one."""
        name = campaign_id or ""
        if name not in self._newest:
            newest = self.reader.campaign(self.workspace_id, name)
            self._newest[name] = newest.version if newest is not None else 0
        uses = self._uses[name].items()
        first = max((version for version, (start, _) in uses if start <= position), default=1)
        last = min((version for version, (_, end) in uses if end >= position), default=self._newest[name])
        found = (self.at(name, version) for version in range(first, last + 1))
        return [campaign for campaign in found if campaign is not None]

    def meanings(self, campaign_id: str | None, event_type: str, position: int) -> frozenset[str]:
        """The outcomes that an event of this type may have meant for a campaign at a position."""
        current = self.possibly_current(campaign_id, position)
        return frozenset(_meaning(campaign, event_type) for campaign in current) or frozenset({event_type})

    def required(self) -> frozenset[tuple[str, str]]:
        """(campaign id, event type) of all that any version of any campaign may require of earlier messages."""
        everything = list(self._all())
        wanted = {(r.campaign_id, r.outcome) for c in everything for v in c.variants for r in v.requires}
        if not wanted:
            return frozenset()
        mapped = ((c.campaign_id, type_, to.outcome) for c in everything for type_, to in c.event_mapping.items())
        return frozenset(wanted | {(name, type_) for name, type_, outcome in mapped if (name, outcome) in wanted})

    def mapped_to(self, outcomes: Collection[str]) -> frozenset[tuple[str | None, str]]:
        """(campaign id, event type) of all that any version of any campaign makes one of these outcomes; each once
        more under None, for events that name no campaign."""
        return frozenset(
            (name, type_)
            for c in self._all()
            for type_, to in c.event_mapping.items()
            if to.outcome in outcomes
            for name in (c.campaign_id, None)
        )

    def _all(self) -> Iterator[Campaign]:
        for current in items_of(lambda at: self.reader.campaigns(self.workspace_id, limit=_PAGE, cursor=at)):
            stored = (self.at(current.campaign_id, version) for version in range(1, current.version + 1))
            yield from (campaign for campaign in stored if campaign is not None)


def _meaning(campaign: Campaign, event_type: str) -> str:
    mapping = campaign.event_mapping.get(event_type)
    return event_type if mapping is None else mapping.outcome
