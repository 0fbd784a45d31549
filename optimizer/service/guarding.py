"""A policy that has all of the traffic is watched, too: do its messages keep within the campaign's guardrails?

The gate lets a policy through whose guardrails hold by decisions that another one drew. Whether they hold is known once
it sends: each message is staked, a day after its send, against "at most ``max_rate`` of the messages do harm" (see
``sequences.Wager``). Where that is clearly untrue, what served before takes over, unless the same decisions say that it
would do as much harm in its place: it may be the world that has changed. Then the policy stays, and somebody is told.

``max_increase`` compares with another policy: it is watched while both share the traffic (``canary``).

What harms late in a policy's life would be outweighed by all of its good days, so wagers end after as many messages as
are allowed a hundred harms, and begin anew. Over all of them, a policy that keeps within its limits is ever convicted
with probability at most ``GateLimits.watch_error``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import numpy as np

from optimizer.bandit.evidence import Condition, GateLimits
from optimizer.bandit.gate import spend, watched
from optimizer.bandit.rewards import window_hours
from optimizer.bandit.sequences import Wager
from optimizer.service.apart import Apart, attempted
from optimizer.service.canary import before, put_back
from optimizer.service.evidence import policy_probability
from optimizer.service.feedback import Logged, feedback_rows
from optimizer.service.publish import roll_back
from optimizer.service.replay import Replayer
from optimizer.service.served import gated_of, learned, members, policy_of
from optimizer.service.serving import load_policy
from optimizer.service.stakes import asked_of
from optimizer.service.told import LATE_COMMIT, last_told
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, JsonObject

_ERROR = GateLimits().watch_error
#: From a message's send until it is staked, or as long as its harms count. What harms later is not seen here.
KNOWN_AFTER_HOURS = 24.0
#: A wager ends after as many messages as are allowed so many harms: a rate half as high again as its limit is found
#: out within fifty of these, one of twice the limit within fifteen.
ALLOWED_HARMS = 100
#: A limit of 0 leaves no room to bet with; a thousandth is as good as none.
_LEAST_LIMIT = 1e-3
#: Rows are read so often: those of several days may still be waiting.
LOOKED_AFTER = timedelta(hours=1)
#: The newest messages by which a convicted policy is compared with what served before.
COMPARED = 10_000


@dataclass(frozen=True)
class Guard:
    """What is known of a policy's harms after a look.

    Attributes:
        policy_id: the gated policy of its line.
        asked: what is watched, as a hash; a change starts the watch anew.
        wagers: by outcome, the one that runs. blocks: which one of the policy's life it is, from 1.
        stays: by outcome, why the policy stays though this wager has convicted it.
        seen: (when it was staked as epoch seconds, decision id) of the last message.
        since: decisions older than this (epoch seconds) have all been seen. opened: those older than this don't count:
            somebody has put the policy back into service since; 0 = nobody has.
        at: when rows were last read, in epoch seconds.
    """

    policy_id: str
    asked: str
    wagers: Mapping[str, Wager]
    blocks: Mapping[str, int]
    stays: Mapping[str, str] = field(default_factory=dict)
    seen: tuple[float, str] = (0.0, "")
    since: float = 0.0
    opened: float = 0.0
    at: float = 0.0

    @classmethod
    def begun(cls, policy_id: str, asked: str, limits: Mapping[str, float], opened: float = 0.0) -> Guard:
        """A watch before its first message. ``limits``: the share of messages that may do harm, by outcome."""
        wagers = {name: _begun(limit) for name, limit in limits.items()}
        return cls(policy_id, asked, wagers, dict.fromkeys(limits, 1), opened=opened)

    @property
    def conditions(self) -> dict[str, Condition]:
        """By outcome, the wager against its part of the error."""
        share = _ERROR / max(1, len(self.wagers))
        return {
            name: watched(f"guardrails.{name}.rate", wager, spend(self.blocks[name], share))
            for name, wager in self.wagers.items()
        }

    @property
    def convicted(self) -> list[str]:
        """The outcomes whose limit is shown not to be kept."""
        return [name for name, condition in self.conditions.items() if not condition.passed]

    def after(self, limits: Mapping[str, float], rows: Sequence[Logged]) -> Guard:
        """The state after these messages, in the order in which they are staked."""
        wagers, blocks, stays = dict(self.wagers), dict(self.blocks), dict(self.stays)
        for name, limit in limits.items():
            if wagers[name].rows >= ALLOWED_HARMS / max(limit, _LEAST_LIMIT):
                wagers[name], blocks[name] = _begun(limit), blocks[name] + 1
                stays.pop(name, None)
            wagers[name] = wagers[name].after([limit - float(_harmed(row, name)) for row in rows])
        return replace(self, wagers=wagers, blocks=blocks, stays=stays)

    def to_json(self) -> dict[str, Any]:
        """For the run's verdict; ``from_json`` gives an equal one."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: JsonObject) -> Guard:
        """What ``to_json`` wrote."""
        wagers = {name: Wager(**{**w, "capital": tuple(w["capital"])}) for name, w in data["wagers"].items()}
        return cls(**{**data, "wagers": wagers, "seen": (float(data["seen"][0]), str(data["seen"][1]))})


def guard(
    services: Services, workspace_id: str, campaign_id: str | None = None, apart: Apart | None = None
) -> list[dict[str, Any]]:
    """Looks at every policy that has all of its campaign's traffic; takes back those that break a guardrail.

    Args:
        services: the wired service. workspace_id: whose policies.
        campaign_id: only this campaign's (None = all).
        apart: keeps what fails for a campaign (None = it is raised).

    Returns:
        For each campaign with a ``max_rate`` whose policy is whole ``campaign_id, decision, policy_id, reason, rows,
        conditions, guard``; ``decision`` is guarded, rolled_back, crossed (what served before would do as much harm, so
        the policy stays) or superseded (the policy was moved meanwhile). None where there is no gate.
    """
    if not services.settings.gate:
        return []
    now = services.clock()
    with services.store.read() as reader:
        looks = [
            (pointer, *found)
            for pointer in learned(reader, workspace_id, campaign_id)
            if (found := attempted(apart, pointer.campaign_id, partial(_look, services, reader, pointer, now)))
            is not None
        ]
    settled = [
        attempted(apart, pointer.campaign_id, partial(_settle, services, pointer, found, earlier, now))
        for pointer, found, earlier in looks
    ]
    return [one for one in settled if one is not None]


def _settle(services: Services, pointer: Pointer, found: Guard, earlier: str, now: datetime) -> dict[str, Any]:
    conditions = found.conditions
    decision, reason = "guarded", "no guardrail is shown to be broken"
    if guilty := [name for name in found.convicted if name not in found.stays]:
        told = "; ".join(f"{name}: p {conditions[name].figure:.2g}, {conditions[name].detail}" for name in guilty)
        decision, reason = "rolled_back", f"policy {found.policy_id} breaks a guardrail, back to {earlier}: {told}"
        try:
            roll_back(services, pointer, earlier, now, reason)
        except VersionConflict:
            decision, reason = "superseded", "the campaign's policy was moved during the look"
    elif found.convicted:
        decision, reason = "crossed", "; ".join(found.stays.values())
    return {
        "campaign_id": pointer.campaign_id,
        "decision": decision,
        "policy_id": found.policy_id,
        "reason": reason,
        "rows": max(wager.rows for wager in found.wagers.values()),
        "conditions": [asdict(c) for c in conditions.values()],
        "guard": found.to_json(),
    }


def _look(services: Services, reader: Reader, pointer: Pointer, now: datetime) -> tuple[Guard, str] | None:
    """The state after this look, and what serves if the policy is taken back; None where there is nothing to watch."""
    campaign, serving = reader.campaign(pointer.workspace_id, pointer.campaign_id), policy_of(reader, pointer)
    limits = {} if campaign is None else _limits(campaign)
    if campaign is None or serving is None or not limits:
        return None
    gated = gated_of(reader, serving)
    if len(gated.mixture) > 1:
        return None
    state = _remembered(reader, gated, campaign, limits, now)
    earlier = before(reader, gated)
    if timedelta() <= now - datetime.fromtimestamp(state.at, now.tzinfo) < LOOKED_AFTER:
        return state, earlier
    since = datetime.fromtimestamp(max(state.since, state.opened, gated.created_at.timestamp()), now.tzinfo)
    rows, waiting = _staked(reader, gated, campaign, since, now)
    fresh = [(key, row) for key, row in rows if key > state.seen]
    state = replace(state, since=waiting - LATE_COMMIT, at=now.timestamp())
    if fresh:
        state = replace(state.after(limits, [row for _, row in fresh]), seen=fresh[-1][0])
    for name in [name for name in state.convicted if name not in state.stays]:
        why = _as_harmful(services, reader, gated, campaign, name, earlier, now)
        if why is not None:
            state = replace(state, stays={**state.stays, name: why})
    return state, earlier


def _limits(campaign: Campaign) -> dict[str, float]:
    return {name: g.max_rate for name, g in campaign.guardrails.items() if g.max_rate is not None}


def _begun(limit: float) -> Wager:
    return Wager(max(limit, _LEAST_LIMIT))


def _harmed(row: Logged, name: str) -> bool:
    outcome = row.outcomes.get(name)
    return outcome is not None and outcome.happened


def _remembered(reader: Reader, gated: Policy, campaign: Campaign, limits: Mapping[str, float], now: datetime) -> Guard:
    """The state that the last look left, if it watched the same policy by the same rules; else one that begins."""
    told = last_told(reader, gated.workspace_id, gated.campaign_id, "guard", now)
    opened, asked = put_back(reader, gated), asked_of(campaign)
    if told is not None:
        state = Guard.from_json(told)
        if (state.policy_id, state.asked) == (gated.policy_id, asked) and state.opened >= opened:
            return state
    return Guard.begun(gated.policy_id, asked, limits, opened)


def _staked(
    reader: Reader, gated: Policy, campaign: Campaign, since: datetime, now: datetime
) -> tuple[list[tuple[tuple[float, str], Logged]], float]:
    """The messages of a policy's line since then that are to be staked by now, each with its place in their order; and
    when the first of those that wait was decided."""
    known_after = min(KNOWN_AFTER_HOURS, max(window_hours(campaign, name) for name in _limits(campaign)))
    staked, waiting = [], now.timestamp()
    rows = list(feedback_rows(reader, campaign, since, now))
    own = {policy.policy_id for policy in members(reader, gated, rows)}
    for row in rows:
        decision = row.decision
        if decision.policy_id not in own or not row.drawn or decision.group != "treated" or decision.send_at is None:
            continue
        at = decision.send_at.timestamp() + 3600.0 * known_after
        if at > now.timestamp():
            waiting = min(waiting, decision.decided_at.timestamp())
        elif row.trainable or any(_harmed(row, name) for name in campaign.guardrails):
            staked.append(((at, decision.decision_id), row))
    return sorted(staked, key=lambda pair: pair[0]), waiting


def _as_harmful(
    services: Services,
    reader: Reader,
    gated: Policy,
    campaign: Campaign,
    name: str,
    earlier: str,
    now: datetime,
) -> str | None:
    """Why a policy stays that has broken a guardrail: what served before would do as much harm in its place, by its
    chance of sending the same messages (Horvitz & Thompson 1952). None = it would do less, as far as anybody knows:
    what the policy never sends counts as harmless.
    """
    since = max(gated.created_at, datetime.fromtimestamp(put_back(reader, gated), now.tzinfo))
    rows = [row for _, row in _staked(reader, gated, campaign, since, now)[0]][-COMPARED:]
    instead = load_policy(reader, gated.workspace_id, earlier, {})
    chance = policy_probability(Replayer(reader, services.salt), rows, campaign, lambda _: instead)
    weight = chance / np.array([row.decision.propensity for row in rows])
    harmed = np.array([_harmed(row, name) for row in rows])
    ours, theirs = float(np.mean(harmed)), float(np.mean(weight * harmed))
    if theirs < ours:
        return None
    return (
        f"{name} after {ours:.2%} of {len(rows):,} messages of policy {gated.policy_id}, {_limits(campaign)[name]:.2%} "
        f"are allowed; it stays, since {earlier} would come to {theirs:.2%} in its place"
    )
