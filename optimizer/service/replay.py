"""Replaying a logged decision: the same code on what was stored gives the same vector and the same draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit import exploration
from optimizer.bandit.actions import ActionSpace
from optimizer.bandit.localtime import known_zone, zone
from optimizer.errors import NotFound
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.service.choose import Plan, Situation, probabilities, space_of
from optimizer.service.ids import IMPORTED_POLICY
from optimizer.service.serving import load_policy
from storage.log import Decision, items_of
from storage.port import Reader
from storage.records import Campaign

#: Policies that are held at a time: a young campaign is refreshed many times a day, and a gate replays days.
MOST_HELD = 32
#: Decisions whose vectors are held at a time.
_TOGETHER = 512
#: Decisions about one person that are read at once.
_PAGE = 20


class Past(Protocol):
    """What logged decisions were made under: from a store (``Replayer``), or from a log in memory."""

    def campaign(self, decision: Decision) -> Campaign:
        """The campaign in the version that the decision was made under."""

    def policy(self, workspace_id: str, policy_id: str) -> LivePolicy:
        """The policy that drew it."""

    def asked(self, campaign: Campaign, recipient_id: str) -> Iterable[Decision]:
        """The campaign's decisions about a person, newest first; none where whatever is reported names its decision."""


@dataclass
class Replayer:
    """Recomputes logged decisions on one reader; keeps campaigns and the last policies that it has loaded."""

    reader: Reader
    salt: bytes
    _campaigns: dict[tuple[str, str, int], Campaign] = field(default_factory=dict)
    _policies: dict[tuple[str, str], LivePolicy] = field(default_factory=dict)
    _models: dict[str, RewardModel] = field(default_factory=dict)

    def campaign(self, decision: Decision) -> Campaign:
        """The campaign in the version that the decision was made under."""
        key = (decision.workspace_id, decision.campaign_id, decision.campaign_version)
        if key not in self._campaigns:
            campaign = self.reader.campaign(*key)
            if campaign is None:
                raise NotFound(f"campaign {key[1]!r} has no version {key[2]}: {decision.decision_id} can't be replayed")
            self._campaigns[key] = campaign
        return self._campaigns[key]

    def policy(self, workspace_id: str, policy_id: str) -> LivePolicy:
        """A stored policy, loaded."""
        key = (workspace_id, policy_id)
        live = self._policies.pop(key, None)
        if live is None:
            live = load_policy(self.reader, workspace_id, policy_id, self._models)
        self._policies[key] = live  # last: the most recently used
        if len(self._policies) > MOST_HELD:
            del self._policies[next(iter(self._policies))]
            named = {part.artifact_id for held in self._policies.values() for part in held.mixture}
            self._models = {name: model for name, model in self._models.items() if name in named}
        return live

    def asked(self, campaign: Campaign, recipient_id: str) -> Iterator[Decision]:
        """See ``Past``."""
        named = partial(self.reader.decisions, campaign.workspace_id, limit=_PAGE, recipient_id=recipient_id)
        return items_of(lambda at: named(campaign_id=campaign.campaign_id, cursor=at))

    def vector(self, decision: Decision) -> NDArray[np.float64]:
        """The whole probability vector (K,) that the decision was drawn from; all zero when it was withheld."""
        return next(vectors(self, [decision]))

    def draw(self, decision: Decision) -> int | None:
        """The action that the stored seed draws from the recomputed vector; None when it was withheld."""
        if decision.action is None:
            return None
        number = exploration.draw_uniform(self.salt, decision.decision_id, decision.snapshot.attempt)
        return exploration.sample(self.vector(decision), number)


def vectors(past: Past, decisions: Sequence[Decision]) -> Iterator[NDArray[np.float64]]:
    """The probability vectors (K,) that decisions were drawn from, in their order; all zero where one was withheld."""
    for start in range(0, len(decisions), _TOGETHER):
        some = decisions[start : start + _TOGETHER]
        found: dict[int, NDArray[np.float64]] = {}
        for places, campaign, live in alike(past, some):
            rows = [(situation_of(some[i], campaign), plan_of(some[i], campaign)) for i in places]
            found.update(zip(places, probabilities(rows, live), strict=True))
        yield from (found[i] if i in found else _unasked(d, past.campaign(d)) for i, d in enumerate(some))


def alike(past: Past, decisions: Sequence[Decision]) -> Iterator[tuple[list[int], Campaign, LivePolicy]]:
    """Places of decisions that one policy drew under one version of a campaign, without the withheld and imported."""
    groups: dict[tuple[str, str, str, int], list[int]] = {}
    for i, d in enumerate(decisions):
        if d.action is not None and d.policy_id != IMPORTED_POLICY:
            groups.setdefault((d.workspace_id, d.policy_id, d.campaign_id, d.campaign_version), []).append(i)
    for (workspace_id, policy_id, _, _), places in groups.items():
        yield places, past.campaign(decisions[places[0]]), past.policy(workspace_id, policy_id)


def _unasked(decision: Decision, campaign: Campaign) -> NDArray[np.float64]:
    made = plan_of(decision, campaign)
    return np.zeros(made.space.size) if decision.action is None else exploration.uniform(made.mask)


def on_known_clock(decision: Decision) -> bool:
    """Whether this host knows the zone that a decision was made in; on another clock nothing can be made of it."""
    return known_zone(decision.snapshot.timezone) is not None


def local_seconds(decision: Decision) -> int:
    """The recipient's wall clock at the planned send (at the decision for ``no_send``), in seconds as if UTC."""
    at = decision.send_at if decision.send_at is not None else decision.decided_at
    epoch = int(at.timestamp())
    return epoch + zone(decision.snapshot.timezone).offset(epoch)


def situation_of(decision: Decision, campaign: Campaign) -> Situation:
    """The situation that a decision was made in, from its record.

    Raises:
        NotFound: its zone is not known on this host; on another clock it would be another situation.
    """
    snapshot = decision.snapshot
    where = known_zone(snapshot.timezone)
    if where is None:
        raise NotFound(f"this host knows no zone {snapshot.timezone!r}: {decision.decision_id} can't be replayed")
    return Situation(
        decision_id=decision.decision_id,
        campaign=campaign,
        variants=snapshot.variants,
        channels=snapshot.channels,
        window=(snapshot.window_start, snapshot.window_end),
        zone=where,
        zone_source=snapshot.timezone_source,
        group=decision.group,
        mode=decision.mode,
        decided_at=decision.decided_at,
        immediate=snapshot.immediate,
        context=snapshot.context,
        effects=snapshot.effects,
        limits=snapshot.limits,
        floored=snapshot.floored,
    )


def plan_of(decision: Decision, campaign: Campaign) -> Plan:
    """The action space and the eligible set that a decision was drawn over, from its record."""
    return Plan(space=space_logged(decision, campaign), mask=eligible_logged(decision), reasons=decision.reasons)


def space_logged(decision: Decision, campaign: Campaign) -> ActionSpace:
    """The action space of a record; that of a baseline of before they moved within a day has days for slots."""
    situation = situation_of(decision, campaign)
    space = space_of(situation)
    return space if space.size == decision.actions else space_of(situation, moves=False)


def eligible_logged(decision: Decision) -> NDArray[np.bool_]:
    """The eligible set of a record, (K,) bool."""
    bits = np.unpackbits(np.frombuffer(decision.eligible, dtype=np.uint8), count=decision.actions)
    return bits.astype(np.bool_)
