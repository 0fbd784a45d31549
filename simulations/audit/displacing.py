"""Displacements: whether a message took the place of others only where it may, and only of those it had to.

What is proved: each displaced message was this recipient's, reserved and not claimed, still to be sent, of a campaign
that allows it and of lower priority; its place was given back by the very commit that took it; and with it back, the
drawn message would have broken a cap. Whether some other action was open instead is not proved: that is a question
about the whole action space.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from simulations.audit.campaigns import Campaigns
from simulations.audit.holdings import GONE, Held, Neighbours
from simulations.audit.verdicts import KEPT, Judgement, Verdict
from storage.records import Campaign

#: How a displaced decision names the one that took its place.
_NAMED_BY = "displaced by "

#: What the caps and gaps say of a reservation among these messages.
Capped = Callable[[Held, Neighbours], Verdict]


@dataclass(frozen=True)
class Displacing:
    """Judges displacements. ``positions``: of all decisions of the workspace, ascending."""

    campaigns: Campaigns
    positions: Sequence[int]

    def judge(self, judged: Held, messages: Sequence[Held], capped: Capped) -> Judgement:
        """Whether everything that a reservation displaced might and had to go.

        Args:
            judged: a reservation that displaced something.
            messages: all of its recipient, other systems' too.
            capped: whether it would keep every cap among given messages.
        """
        by_ref: Mapping[str, Held] = {held.ref: held for held in messages if held.decided_at is not None}
        verdict = KEPT
        for ref in judged.displaced:
            gone = by_ref.get(ref)
            if gone is None:
                return Judgement("violated", f"displaced {ref}, which reserved nothing of this recipient", (ref,))
            for found in self._objections(judged, gone):
                if found.verdict == "violated":
                    return found
                if found.verdict == "unknown":
                    verdict = found
            if gone.closed_after is None:
                continue
            with_it = capped(judged, Neighbours(_with_back(gone, messages)))
            if with_it == "kept":
                return Judgement("violated", f"displaced {ref}, with which it breaks no cap", (ref,))
            if with_it == "unknown":
                verdict = Judgement("unknown", f"the log doesn't tell whether {ref} had to go", (ref,))
        return verdict

    def _objections(self, judged: Held, gone: Held) -> Iterator[Judgement]:
        who = (gone.ref,)
        if gone.claimed_at is not None or (gone.status in GONE and gone.sent_at is not None):
            yield Judgement("violated", f"displaced {gone.ref}, which was claimed or sent", who)
        if gone.close_reason != _NAMED_BY + judged.ref:
            yield Judgement("violated", f"displaced {gone.ref}, which says {gone.close_reason or gone.status}", who)
        if judged.decided_at is not None and gone.planned <= judged.decided_at:
            yield Judgement("violated", f"displaced {gone.ref}, whose time had come", who)
        if gone.closed_after is None:
            yield Judgement("unknown", "the log doesn't tell when the place was given back", who)
        elif not gone.position < judged.position or not self._right_before(gone.closed_after, judged.position):
            yield Judgement("violated", f"displaced {gone.ref} by another commit", who)
        yield self._by_priority(judged, gone)

    def _right_before(self, mark: int, position: int) -> bool:
        """Whether no decision of the workspace lies between a mark and the position after it."""
        place = bisect_left(self.positions, position)
        before = self.positions[place - 1] if place else 0
        return before <= mark < position

    def _by_priority(self, judged: Held, gone: Held) -> Judgement:
        taker = self.campaigns.at(judged.campaign_id, judged.campaign_version)
        if taker is None:
            return Judgement(
                "unknown", f"campaign {judged.campaign_id} is not stored in version {judged.campaign_version}"
            )
        current = self.campaigns.possibly_current(gone.campaign_id, judged.position)
        verdicts = {_may_go(campaign, taker) for campaign in current}
        if verdicts == {True}:
            return KEPT
        detail = f"displaced {gone.ref} of campaign {gone.campaign_id}, which isn't displaceable or of lower priority"
        return Judgement("violated" if verdicts == {False} else "unknown", detail, (gone.ref,))


def _may_go(campaign: Campaign, taker: Campaign) -> bool:
    return campaign.displaceable and campaign.priority < taker.priority


def _with_back(gone: Held, messages: Sequence[Held]) -> list[Held]:
    """The recipient's messages as if one had not been displaced."""
    return [replace(held, status="reserved", sent_at=None) if held is gone else held for held in messages]


def unaccounted(held: Sequence[Held]) -> Iterator[tuple[Held, Judgement]]:
    """Messages that were displaced by a decision that doesn't say so."""
    takers = {one.ref: one.displaced for one in held if one.displaced}
    for gone in held:
        by = (gone.close_reason or "").removeprefix(_NAMED_BY) if _was_displaced(gone) else None
        if by is not None and gone.ref not in takers.get(by, ()):
            yield gone, Judgement("violated", f"displaced, and {by or 'nobody'} doesn't say by it", (by,))


def _was_displaced(held: Held) -> bool:
    return held.status == "displaced" or (held.close_reason or "").startswith(_NAMED_BY)
