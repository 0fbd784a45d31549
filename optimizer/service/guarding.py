"""What serves is held to its campaign's guardrails by the messages that it sends.

The gate lets a policy through whose guardrails hold by decisions that another one drew. Whether they do is known once
it sends: each message is staked, a day after its send, against "at most ``max_rate`` of the messages do harm" (see
``sequences.Wager``). Where that is clearly untrue, what served before takes over, and is held to the same. Who is to
blame isn't asked: where the world has changed, what served before goes the same way, down to the cold start, and the
change feed tells somebody that people leave. ``max_increase`` compares with another policy: ``canary`` watches it while
both share the traffic.

Harms late in a policy's life would be outweighed by all of its good days, so wagers end after as many messages as are
allowed a hundred harms, and begin anew. While its rate is within the limit (at all times: one that is above it on
weekends breaks it), a policy is ever convicted with probability at most ``GateLimits.watch_error``, over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import blake2b
from typing import Any

from optimizer.bandit.evidence import Condition, GateLimits
from optimizer.bandit.gate import spend
from optimizer.bandit.rewards import planned_start
from optimizer.bandit.sequences import Wager
from optimizer.bandit.spoken import window_hours
from optimizer.service.apart import Apart, settled
from optimizer.service.canary import put_back, served_before
from optimizer.service.feedback import Logged, feedback_rows
from optimizer.service.publish import rolled_back
from optimizer.service.served import gated_of, learned, members, policy_of
from optimizer.service.stakes import least
from optimizer.service.told import LATE_COMMIT, last_told
from optimizer.service.wiring import Services
from storage.log import COUNTED
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, JsonObject

_ERROR = GateLimits().watch_error
#: From a message's send until it is staked, or as long as its harms count. What is told later is not seen here.
KNOWN_AFTER_HOURS = 24.0
#: A wager ends after as many messages as are allowed so many harms: a rate half as high again as its limit is found
#: out within fifty of these, one of twice the limit within fifteen.
ALLOWED_HARMS = 100
#: Rows are read so often: those of several days may still be waiting.
LOOKED_AFTER = timedelta(hours=1)
#: A look that remembers none before it reads no more than this.
LOOK_BACK = timedelta(days=7)


@dataclass(frozen=True)
class Guard:
    """What is known of a policy's harms after a look.

    Attributes:
        policy_id: the gated policy of its line.
        asked: what is watched, as a hash: a change starts the watch anew.
        wagers: by outcome, the one that runs. blocks: which one of the policy's life it is, from 1.
        seen: (when it was staked as epoch seconds, decision id) of the last message.
        since: decisions older than this (epoch seconds) have all been seen. opened: those older than this don't count:
            the policy was put into service again, or the limits changed.
        at: when rows were last read, in epoch seconds.
    """

    policy_id: str
    asked: str
    wagers: Mapping[str, Wager]
    blocks: Mapping[str, int]
    seen: tuple[float, str] = (0.0, "")
    since: float = 0.0
    opened: float = 0.0
    at: float = 0.0

    @classmethod
    def begun(cls, policy_id: str, asked: str, limits: Mapping[str, float], opened: float = 0.0) -> Guard:
        """A watch before its first message. ``limits``: the share of messages that may do harm, by outcome."""
        wagers = {name: Wager(least(limit)) for name, limit in limits.items()}
        return cls(policy_id, asked, wagers, dict.fromkeys(limits, 1), opened=opened)

    def error(self, name: str) -> float:
        """What this wager may be wrong with."""
        return spend(self.blocks[name], _ERROR / len(self.wagers))

    @property
    def convicted(self) -> list[str]:
        """The outcomes whose limit is shown not to be kept."""
        return [name for name, wager in self.wagers.items() if wager.worse(self.error(name))]

    def conditions(self, limits: Mapping[str, float]) -> dict[str, Condition]:
        """By outcome, the wager against its part of the error."""
        return {name: self._condition(name, limit) for name, limit in limits.items()}

    def _condition(self, name: str, limit: float) -> Condition:
        wager, error = self.wagers[name], self.error(name)
        told = f"{name} after {limit - wager.mean:.2%} of {wager.rows:,} messages, {limit:.2%} are allowed"
        return Condition(f"guardrails.{name}.rate", not wager.worse(error), wager.p, error, told)

    def after(self, limits: Mapping[str, float], rows: Sequence[Logged]) -> Guard:
        """The state after these messages, in the order in which they are staked; after a conviction none counts."""
        state = self
        for name, limit in limits.items():
            whole = math.ceil(ALLOWED_HARMS / least(limit))
            increments = [limit - float(_harmed(row, name)) for row in rows]
            while increments and name not in state.convicted:
                room = whole - state.wagers[name].rows
                if room == 0:
                    state = state._with(name, Wager(least(limit)), state.blocks[name] + 1)
                    continue
                state = state._with(name, state.wagers[name].after(increments[:room]), state.blocks[name])
                increments = increments[room:]
        return state

    def _with(self, name: str, wager: Wager, block: int) -> Guard:
        return replace(self, wagers={**self.wagers, name: wager}, blocks={**self.blocks, name: block})

    def to_json(self) -> dict[str, Any]:
        """For the run's verdict; ``from_json`` gives an equal one."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: JsonObject) -> Guard:
        """What ``to_json`` wrote."""
        wagers = {name: Wager.from_json(told) for name, told in data["wagers"].items()}
        return cls(**{**data, "wagers": wagers, "seen": (float(data["seen"][0]), str(data["seen"][1]))})


def guard(
    services: Services, workspace_id: str, campaign_id: str | None = None, apart: Apart | None = None
) -> list[dict[str, Any]]:
    """Looks at what serves each campaign that has a ``max_rate``; takes back what breaks it.

    Args:
        services: the wired service. workspace_id: whose policies.
        campaign_id: only this campaign's (None = all).
        apart: keeps what fails for a campaign (None = it is raised).

    Returns:
        For each of these campaigns that a learned policy serves ``campaign_id, decision, policy_id, reason, rows,
        conditions, guard``; ``decision`` is guarded, rolled_back or superseded (the policy was moved meanwhile).
        Nothing where there is no gate.
    """
    if not services.settings.gate:
        return []
    now = services.clock()
    served = partial(learned, workspace_id=workspace_id, campaign_id=campaign_id)
    return settled(services.store, apart, served, partial(_look, now), partial(_settle, services, now))


def _settle(
    services: Services, now: datetime, pointer: Pointer, looked: tuple[Guard, dict[str, float], str]
) -> dict[str, Any]:
    found, limits, earlier = looked
    conditions = found.conditions(limits)
    decision, reason = "guarded", "; ".join(condition.detail for condition in conditions.values())
    if found.convicted:
        told = "; ".join(f"{conditions[name].detail} (p {conditions[name].figure:.2g})" for name in found.convicted)
        reason = f"policy {found.policy_id} breaks a guardrail, back to {earlier}: {told}"
        decision, reason = rolled_back(services, pointer, earlier, now, reason)
    return {
        "campaign_id": pointer.campaign_id,
        "decision": decision,
        "policy_id": found.policy_id,
        "reason": reason,
        "rows": max(wager.rows for wager in found.wagers.values()),
        "conditions": [asdict(c) for c in conditions.values()],
        "guard": found.to_json(),
    }


def _look(now: datetime, reader: Reader, pointer: Pointer) -> tuple[Guard, dict[str, float], str] | None:
    """The state after this look, the limits, and what serves if the policy is taken back; None where there is nothing
    to watch."""
    campaign, serving = reader.campaign(pointer.workspace_id, pointer.campaign_id), policy_of(reader, pointer)
    limits = {} if campaign is None else _limits(campaign)
    if campaign is None or serving is None or not limits:
        return None
    gated = gated_of(reader, serving)
    state, earlier = _remembered(reader, gated, campaign, limits, now), served_before(reader, gated)
    if 0.0 <= now.timestamp() - state.at < LOOKED_AFTER.total_seconds():
        return state, limits, earlier
    rows, waiting = _staked(reader, gated, campaign, limits, state, now)
    state = replace(state, since=waiting - LATE_COMMIT, at=now.timestamp())
    if rows:
        state = replace(state.after(limits, [row for _, row in rows]), seen=rows[-1][0])
    return state, limits, earlier


def _limits(campaign: Campaign) -> dict[str, float]:
    return {name: g.max_rate for name, g in campaign.guardrails.items() if g.max_rate is not None}


def _known_after(campaign: Campaign, limits: Mapping[str, float]) -> float:
    """Hours from a send until it is staked."""
    return min(KNOWN_AFTER_HOURS, max(window_hours(campaign, name) for name in limits))


def _harmed(row: Logged, name: str) -> bool:
    outcome = row.outcomes.get(name)
    return outcome is not None and outcome.happened


def _remembered(reader: Reader, gated: Policy, campaign: Campaign, limits: Mapping[str, float], now: datetime) -> Guard:
    """The state that the last look left, if it watched the same policy by the same limits; else one that begins."""
    told = last_told(reader, gated.workspace_id, gated.campaign_id, "guard", now)
    parts = sorted(limits.items()), _known_after(campaign, limits)
    asked, again = blake2b(repr(parts).encode(), digest_size=8).hexdigest(), put_back(reader, gated)
    opened = max(again, gated.created_at.timestamp(), (now - LOOK_BACK).timestamp())
    if told is not None and told["policy_id"] == gated.policy_id:
        state = Guard.from_json(told)
        if state.asked == asked and state.opened >= again:
            return state
        if state.asked != asked:  # what was sent under other limits breaks none of these
            opened = max(again, now.timestamp())
    return Guard.begun(gated.policy_id, asked, limits, opened)


def _staked(
    reader: Reader, gated: Policy, campaign: Campaign, limits: Mapping[str, float], state: Guard, now: datetime
) -> tuple[list[tuple[tuple[float, str], Logged]], float]:
    """The messages of a policy's line that are to be staked now, each with its place in their order; and when the first
    of those that wait was decided."""
    seconds, fresh, waiting = 3600.0 * _known_after(campaign, limits), [], now.timestamp()
    since = datetime.fromtimestamp(max(state.since, state.opened), now.tzinfo)
    rows = list(feedback_rows(reader, campaign, since, now))
    own = {policy.policy_id for policy in members(reader, gated, rows)}
    for row in rows:
        decision = row.decision
        if decision.policy_id not in own or not row.drawn or decision.group != "treated" or decision.send_at is None:
            continue
        # By the planned time, which a late confirm doesn't move: a message that was staked would come a second time.
        key = (planned_start(decision).timestamp() + seconds, decision.decision_id)
        if key[0] > now.timestamp():
            waiting = min(waiting, decision.decided_at.timestamp())
        elif key > state.seen and _may_have_gone_out(row):
            fresh.append((key, row))
    return sorted(fresh, key=lambda pair: pair[0]), waiting


def _may_have_gone_out(row: Logged) -> bool:
    """Whether a message wasn't called off. One that expired unconfirmed counts: many a sender confirms later than that,
    and if only those counted that somebody answers, all or none of them would do harm."""
    return not row.failed and (row.went_out or row.decision.status in (*COUNTED, "expired"))
