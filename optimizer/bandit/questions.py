"""What is asked of eligibility: one question, and many of one shape as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.caps import Whereabouts
from optimizer.bandit.localtime import DAY, Zone
from storage.log import Answer, Message
from storage.records import Campaign, Recipient
from storage.swift import swift

#: (N x S) cells that are judged at once: arrays of as many stay in a core's cache.
_CELLS = 1 << 15
#: Questions whose first slots lie further apart aren't judged together: arrays over the days between would be long.
_ERA = 1024 * DAY


@swift
@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """All that the eligible set of one decision depends on, beside the rules and what is used of shared limits.

    Attributes:
        space: the actions; its send times are the very ones that would be answered.
        campaign: gives category, id, costs and what its variants require.
        recipient: gives consent, suppressions and country.
        messages: the recipient's, at least within ``span(rules, space)``, in any order; those outside change nothing.
        zone: the recipient's.
        now: the moment of the decision, seconds since 1970 (what ``requires`` is judged at).
        unanswered: how many messages the recipient left unanswered (see ``needs_unanswered``).
        answers: the last message of each campaign and variant that was sent to the recipient by ``now``.
        holidays: of each of ``countries(rules, recipient)``, local days since 1970-01-01, from the first slot's to 32
            days after the last one's.
    """

    space: ActionSpace
    campaign: Campaign
    recipient: Recipient
    messages: Sequence[Message]
    zone: Zone
    now: int = 0
    unanswered: int = 0
    answers: Sequence[Answer] = ()
    holidays: Mapping[str, frozenset[int]] = field(default_factory=dict)


class Batch:
    """N questions about one campaign and the same variants, channels and number of slots, as arrays.

    Attributes:
        questions: the questions, at least one with at least one message action.
        send_at: (N, S) int64 seconds since 1970.
        local: (N, S) int64 local seconds.
        where: last slots and zones.
    """

    __slots__ = ("campaign", "local", "questions", "send_at", "space", "where")

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.campaign = questions[0].campaign
        self.space = questions[0].space
        count, slots = len(questions), self.space.slots
        if count == 1:
            self.send_at, self.local = self.space.send_at[None], self.space.local[None]
        else:
            self.send_at = np.concatenate([q.space.send_at for q in questions]).reshape(count, slots)
            self.local = np.concatenate([q.space.local for q in questions]).reshape(count, slots)
        zones: dict[Zone, int] = {}
        zone = np.array([zones.setdefault(q.zone, len(zones)) for q in questions])
        last = self.send_at[:, -1]
        self.where = Whereabouts(int(self.send_at[:, 0].min()), int(last.max()), last, tuple(zones), zone)

    def __len__(self) -> int:
        return len(self.questions)


def batches(questions: Sequence[Question]) -> Iterator[tuple[list[int], Batch]]:
    """The questions that have a message action, in batches of one shape, each with its places in ``questions``."""
    groups: dict[object, list[int]] = {}
    campaigns: dict[int, int] = {}
    facets: dict[object, int] = {}
    for place, question in enumerate(questions):
        space, campaign = question.space, question.campaign
        if not space.messages:
            continue
        facet = campaigns.get(id(campaign))
        if facet is None:
            facet = campaigns[id(campaign)] = facets.setdefault(_facet(campaign), len(facets))
        era = int(space.send_at[0]) // _ERA
        key = facet, space.variants, space.channels, len(space.send_at), space.no_send, era
        groups.setdefault(key, []).append(place)
    for places in groups.values():
        rows = max(1, _CELLS // questions[places[0]].space.slots)
        for start in range(0, len(places), rows):
            part = places[start : start + rows]
            yield part, Batch([questions[place] for place in part])


def _facet(campaign: Campaign) -> object:
    """What of a campaign plays a part in its eligible sets."""
    variants = tuple((v.id, v.cost, v.requires) for v in campaign.variants)
    return campaign.campaign_id, campaign.category, variants, tuple((c.id, c.cost) for c in campaign.channels)
