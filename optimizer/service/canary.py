"""The canary: a newly published share of a mixture is watched, and rolled back by itself when it is clearly worse.

The gate publishes a candidate as one component of a mixture, at first a tenth. From then on each decision that the
mixture draws tells of both: with π = (1 − α)·π_before + α·π_canary, the probabilities of the logged action under either
component are known exactly, so every row is a paired comparison, whoever of the two "drew" it. At each refresh the rows
that have closed since the last look are added to wagers (``bandit.sequences``): on the reward, and on each guardrail.
All of them together ever roll back a canary that is not worse with probability at most ``GateLimits.watch_error``, at
every look, whatever the sample size. A wager's state is kept with the training run, so a look reads only new rows.

Watched is every mixture that still holds what it is to replace, not only the first rung. Rows are the treated group's
under the policy and its refreshed revisions, in the order in which they close; closing depends on no action, so no row
is chosen by what was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np

from optimizer.bandit.evidence import LARGEST_ERROR, Condition, GateLimits, Replays
from optimizer.bandit.gate import watched
from optimizer.bandit.sequences import Wager
from optimizer.service.apart import Apart, settled
from optimizer.service.evidence import newest_and_rest, predicted_rewards, vector_of
from optimizer.service.feedback import Logged, closes, feedback_rows
from optimizer.service.ids import COLD_POLICY
from optimizer.service.learning import predecessor
from optimizer.service.pacing import of_shared
from optimizer.service.publish import rolled_back
from optimizer.service.replay import Replayer, plan_of, situation_of
from optimizer.service.served import gated_of, learned, members, policy_of
from optimizer.service.stakes import Compared, Stakes, asked_of, stakes_of
from optimizer.service.told import LATE_COMMIT, last_told
from optimizer.service.wiring import Services
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, JsonObject

_LIMITS = GateLimits()
#: Closed decisions under a canary before another candidate may follow it. Retrains come every few hours and judge on
#: nearly the same rows, so that what has passed once passes again: from a tenth to everything within half a day, before
#: any outcome of the canary's own choices is known. A canary that earns nothing is found out within 240 decisions where
#: 30 in 100 bring something, within 680 where 10 do (see ``sequences.Wager``).
LEAST_WATCHED = 1_000
#: Moves of a campaign's policies that are looked through for those that put a canary back.
_MOVES = 100


@dataclass(frozen=True)
class Watch:
    """What is known of a canary after a look.

    Attributes:
        policy_id: the gated policy that made it a canary.
        alpha: its share.
        stakes: bounds of the rewards, and what is asked (a change of the objective starts the watch anew).
        wagers: by name of what is watched.
        seen: (closing time as epoch seconds, decision id) of the last row.
        since: decisions older than this (epoch seconds) have all been seen. opened: decisions older than this don't
            count: somebody has put the canary back into service since; 0 = nobody has.
        replays: how propensities replay. error: how far they were off when more were than rounding explains; 0 = never.
    """

    policy_id: str
    alpha: float
    stakes: Stakes
    wagers: Mapping[str, Wager]
    seen: tuple[float, str] = (0.0, "")
    since: float = 0.0
    replays: Replays = field(default_factory=Replays)
    error: float = 0.0
    opened: float = 0.0

    @property
    def conditions(self) -> list[Condition]:
        """Each wager against its part of the error."""
        share = _LIMITS.watch_error / max(1, len(self.wagers))
        return [watched(f"canary.{name}", wager, share) for name, wager in self.wagers.items()]

    @property
    def rows(self) -> int:
        """Decisions compared so far."""
        return max((wager.rows for wager in self.wagers.values()), default=0)

    def to_json(self) -> dict[str, Any]:
        """For the run's verdict; ``from_json`` gives an equal one."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: JsonObject) -> Watch:
        """What ``to_json`` wrote."""
        wagers = {name: Wager.from_json(told) for name, told in data["wagers"].items()}
        seen = (float(data["seen"][0]), str(data["seen"][1]))
        replays = Replays.from_json(data.get("replays"))
        stakes = Stakes.from_json(data["stakes"])
        return cls(**{**data, "stakes": stakes, "wagers": wagers, "seen": seen, "replays": replays})


def watch(
    services: Services, workspace_id: str, campaign_id: str | None = None, apart: Apart | None = None
) -> list[dict[str, Any]]:
    """Looks at every canary; rolls back those that are clearly worse.

    Args:
        services: the wired service. workspace_id: whose canaries.
        campaign_id: only this campaign's (None = all).
        apart: keeps what fails for a campaign (None = it is raised).

    Returns:
        For each campaign whose mixture holds a canary ``campaign_id, decision, policy_id, reason, rows, conditions,
        watch``; ``decision`` is watched, rolled_back, superseded (the policy was moved meanwhile) or untrusted (the log
        doesn't replay).
    """
    now = services.clock()
    served = partial(learned, workspace_id=workspace_id, campaign_id=campaign_id)
    return settled(services.store, apart, served, partial(_look, services, now), partial(_settle, services, now))


def _settle(services: Services, now: datetime, pointer: Pointer, looked: tuple[Watch, str]) -> dict[str, Any]:
    found, parent = looked
    failed = [c for c in found.conditions if not c.passed]
    decision, reason = "watched", f"not shown to be worse at {found.alpha:g} over {found.rows} decisions"
    if found.error > LARGEST_ERROR:
        decision = "untrusted"
        reason = f"not judged: a recomputed propensity is {found.error:.2g} off the logged one"
    elif failed:
        told = "; ".join(f"{c.name}: p {c.figure:.2g}, limit {c.limit:.2g}, {c.detail}" for c in failed)
        reason = f"canary {found.policy_id} at {found.alpha:g} is clearly worse, back to {parent}: {told}"
        decision, reason = rolled_back(services, pointer, parent, now, reason)
    return {
        "campaign_id": pointer.campaign_id,
        "decision": decision,
        "policy_id": found.policy_id,
        "reason": reason,
        "rows": found.rows,
        "conditions": [asdict(c) for c in found.conditions],
        "watch": found.to_json(),
    }


def _look(services: Services, now: datetime, reader: Reader, pointer: Pointer) -> tuple[Watch, str] | None:
    """The state after this look, and what serves if the canary is taken back; None where the campaign serves none."""
    campaign = reader.campaign(pointer.workspace_id, pointer.campaign_id)
    serving = policy_of(reader, pointer)
    if campaign is None or serving is None or len(serving.mixture) < 2:
        return None
    gated = gated_of(reader, serving)
    if len(gated.mixture) < 2:  # a refitted model that goes too far shares the traffic with its gated one: no canary
        return None
    state, opened = _remembered(reader, gated, campaign, now), put_back(reader, gated)
    if state is None or state.opened < opened:
        state = replace(_opened(reader, gated, campaign, now), opened=opened)
    fresh, waiting = [], [now.timestamp()]
    since = datetime.fromtimestamp(
        max(state.since, state.opened, gated.created_at.timestamp()), gated.created_at.tzinfo
    )
    rows = list(feedback_rows(reader, campaign, since, now))
    own = {policy.policy_id for policy in members(reader, gated, rows)}
    for row in rows:
        if row.decision.policy_id in own and row.drawn and row.decision.group == "treated":
            key = _closing(campaign, row)
            if key[0] > now.timestamp():
                waiting.append(row.decision.decided_at.timestamp())
            elif key > state.seen:
                fresh.append((key, row))
    fresh.sort(key=lambda pair: pair[0])
    state = replace(state, since=min(waiting) - LATE_COMMIT)
    return _added(Replayer(reader, services.salt), state, campaign, fresh), served_before(reader, gated)


def not_watched_enough(
    reader: Reader,
    gated: Policy | None,
    campaign: Campaign,
    now: datetime,
    seen: Mapping[str, JsonObject] | None = None,
) -> str | None:
    """Why no candidate may follow yet where a canary is served; None = one may. ``gated``: what the serving policy's
    line started from (None = nothing learned serves); ``seen``: what this run has seen, by campaign.

    One may, too, where there is nothing to watch by: no wager, or propensities that don't replay.
    """
    if gated is None or len(gated.mixture) < 2 or gated.mixture[-1].weight > min(_LIMITS.ladder) + 1e-9:
        return None
    state = _remembered(reader, gated, campaign, now, (seen or {}).get(campaign.campaign_id))
    if state is not None and (state.rows >= LEAST_WATCHED or not state.wagers or state.error > LARGEST_ERROR):
        return None
    rows = 0 if state is None else state.rows
    return (
        f"the canary {gated.policy_id} is watched first: outcomes of {rows:,} decisions under it are known, and "
        f"{LEAST_WATCHED:,} are needed before another candidate may follow"
    )


def _closing(campaign: Campaign, row: Logged) -> tuple[float, str]:
    return closes(campaign, row.decision).timestamp(), row.decision.decision_id


def _remembered(
    reader: Reader, gated: Policy, campaign: Campaign, now: datetime, newest: JsonObject | None = None
) -> Watch | None:
    """The state that the last look left, if it watched the same policy and asked the same; ``newest``: where that look
    is of this run (None = it lies with an earlier one).

    Bounds of increments are never below those that hold today: a wager that was begun with a smaller one goes on with
    smaller stakes, and stays a supermartingale, since they are set before the rows that they are staked on.
    """
    told = newest if newest is not None else last_told(reader, gated.workspace_id, gated.campaign_id, "watch", now)
    if told is None or told["policy_id"] != gated.policy_id:
        return None
    found = Watch.from_json(told)
    if found.stakes.asked != asked_of(campaign):
        return None
    bounds = found.stakes.wagers(campaign, found.alpha)
    held = {name: replace(w, highest=max(w.highest, bounds[name].highest)) for name, w in found.wagers.items()}
    return replace(found, wagers=held)


def put_back(reader: Reader, gated: Policy) -> float:
    """When somebody last put a gated policy, or a revision of it, into service again, in epoch seconds; 0 = nobody has.

    The change feed knows. The pointer may have moved on since: to what a refresh, or new prices, made of it.
    """
    for move in reader.policy_changes(gated.workspace_id, limit=_MOVES, campaign_id=gated.campaign_id):
        if move.at <= gated.created_at:
            break
        policy = reader.policy(gated.workspace_id, move.policy_id or COLD_POLICY)
        if policy is not None and gated.policy_id in (policy.policy_id, policy.gated_id):
            return move.at.timestamp()
    return 0.0


def served_before(reader: Reader, gated: Policy) -> str:
    """The policy that served before a gated one's model had any share: what it climbed from holds the same model.

    A refitted model that climbed had shared the traffic with its own gated ancestor, which is what it is worse than.
    """
    while of_shared(gated):
        parent = reader.policy(gated.workspace_id, gated.parent_id or COLD_POLICY)
        if parent is None:
            break
        gated = gated_of(reader, parent)
        if len(gated.mixture) < 2:
            return gated.policy_id
    return predecessor(reader, gated.workspace_id, gated.policy_id)


def _opened(reader: Reader, gated: Policy, campaign: Campaign, now: datetime) -> Watch:
    """A watch before its first row: rewards are bounded by the objective, and by what was logged before the canary."""
    earlier = [
        row.reward
        for row in feedback_rows(reader, campaign, None, now)
        if row.matured and row.decision.decided_at < gated.created_at
    ]
    stakes = stakes_of(campaign, np.array(earlier, dtype=np.float64), asked_of(campaign))
    alpha = gated.mixture[-1].weight
    return Watch(gated.policy_id, alpha, stakes, stakes.wagers(campaign, alpha))


def _added(
    replayer: Replayer, state: Watch, campaign: Campaign, fresh: Sequence[tuple[tuple[float, str], Logged]]
) -> Watch:
    if not fresh:
        return state
    increments: dict[str, list[float]] = {name: [] for name in state.wagers}
    errors = []
    for _, row in fresh:
        compared = _compare(replayer, row)
        errors.append(compared.error)
        if compared.error > LARGEST_ERROR:  # bounds of increments hold for true propensities alone
            continue
        for name, value in state.stakes.increments(campaign, row, compared).items():
            increments[name].append(value)
    replays = state.replays.after(errors)
    state = replace(state, seen=fresh[-1][0], replays=replays, error=max(state.error, replays.error))
    if state.error > LARGEST_ERROR:  # nothing is judged any more
        return state
    return replace(state, wagers={name: wager.after(increments[name]) for name, wager in state.wagers.items()})


def _compare(replayer: Replayer, row: Logged) -> Compared:
    """A row under the canary and under the rest of the very policy that drew it, q̂ by that policy's own model."""
    decision = row.decision
    campaign = replayer.campaign(decision)
    live = replayer.policy(decision.workspace_id, decision.policy_id)
    newest, rest = newest_and_rest(live)
    made, s = plan_of(decision, campaign), situation_of(decision, campaign)
    canary, before = vector_of(newest, s, made), vector_of(rest, s, made)
    predicted, alpha = predicted_rewards(live, s, made), live.mixture[-1].weight
    return Compared(decision.action or 0, decision.propensity or 0.0, canary, before, predicted, alpha)
