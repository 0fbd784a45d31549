"""What a campaign offers as it is now, and so which of its logged decisions it can still speak of.

A variant that is left out of a campaign is kept, archived; a channel is gone, with what it cost. A decision among
channels of which one is gone can be replayed under the version that it was made under, but no policy can be judged on
it under the campaign as it is: every score of that channel would be missing. Such decisions are left out wherever
policies are compared, scored or priced by the log: by what could be drawn, never by what was, so no estimate is biased.
Training needs less: the action that was carried out.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.log import Decision
from storage.records import Campaign


@dataclass(frozen=True, slots=True)
class Offered:
    """The ids of a campaign's variants, archived ones included, and of its channels."""

    variants: frozenset[str]
    channels: frozenset[str]

    @classmethod
    def of(cls, campaign: Campaign) -> Offered:
        """What this campaign offers."""
        return cls(frozenset(v.id for v in campaign.variants), frozenset(c.id for c in campaign.channels))

    def chosen(self, decision: Decision) -> bool:
        """Whether the action that was chosen is still there; not sending always is."""
        if decision.variant_id is None or decision.channel is None:
            return True
        return decision.variant_id in self.variants and decision.channel in self.channels

    def whole(self, decision: Decision) -> bool:
        """Whether all is still there that the decision chose among, and what it chose."""
        snapshot = decision.snapshot
        among = self.variants.issuperset(snapshot.variants) and self.channels.issuperset(snapshot.channels)
        return among and self.chosen(decision)
