"""What the newest part of a mixture has shown, on the decisions that the mixture drew.

Where two models share a campaign's traffic (a canary; a refitted model and its gated ancestor, see ``refreshing``), the
chance of each logged action under either is known, and neither weight exceeds one over its share. So a difference shows
in far fewer rows than it takes to judge a sharp candidate off policy: a row's increment, the doubly robust difference
of the two parts of the very policy that drew it, q̂ by that policy's own model, has the difference of their values as
mean. Models that a refresh replaced meanwhile are older than the rows that they drew: none has learned from its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from optimizer.bandit.evidence import GateLimits
from optimizer.service.evidence import Paired, clusters, newest_and_rest, predicted_rewards, vector_of
from optimizer.service.feedback import Logged, judgeable
from optimizer.service.heldout import MOST_JUDGED
from optimizer.service.replay import Replayer, plan_of, situation_of
from optimizer.service.serving import load_policy
from storage.policies import Policy
from storage.port import Reader
from storage.records import Campaign

#: What shares the traffic is held to what candidates are, but for the effective rows: a row that both had a share in
#: weighs at most one over the share, so that fewer of them carry a verdict.
SHARING = GateLimits(min_effective_rows=300.0)


def shared_rows(
    logged: Sequence[Logged], campaign: Campaign, line: Sequence[Policy], changed: float | None
) -> list[Logged]:
    """The newest rows that a mixture of the line drew, by time; none where what serves now is no mixture.

    ``changed`` is when outcomes last changed, as epoch seconds: what was better before tells nothing.
    """
    if not line or len(line[0].mixture) < 2:
        return []
    mixed = {policy.policy_id for policy in line if len(policy.mixture) > 1}
    since = -math.inf if changed is None else changed
    rows = (r for r in judgeable(logged, campaign) if r.evaluable and r.decision.group == "treated" and r.drawn)
    drawn = [r for r in rows if r.decision.policy_id in mixed and not r.decision.imported]
    return [r for r in drawn if r.decision.decided_at.timestamp() >= since][-MOST_JUDGED:]


def paired(reader: Reader, replayer: Replayer, rows: Sequence[Logged], campaign: Campaign) -> Paired:
    """Rows of ``shared_rows`` under both parts of their policy: the newest as candidate, the rest as incumbent."""
    told = np.array(list(_compared(reader, replayer, rows, campaign)), dtype=np.float64).reshape(-1, 7)
    reward, propensity, p_incumbent, p_candidate, q_logged, v_incumbent, v_candidate = told.T
    return Paired(
        reward=reward,
        propensity=propensity,
        p_incumbent=p_incumbent,
        p_candidate=p_candidate,
        q_logged=q_logged,
        value_incumbent=v_incumbent,
        value_candidate=v_candidate,
        cluster=clusters(rows),
        outcome={},
        predicted={},
    )


def _compared(
    reader: Reader, replayer: Replayer, rows: Sequence[Logged], campaign: Campaign
) -> Iterator[tuple[float, ...]]:
    # A line of refreshes is hundreds of models: one is held at a time.
    for (workspace_id, policy_id), some in groupby(rows, lambda r: (r.decision.workspace_id, r.decision.policy_id)):
        live = load_policy(reader, workspace_id, policy_id, {})
        newest, rest = newest_and_rest(live)
        for row in some:
            decision = row.decision
            made, s = plan_of(decision, replayer.campaign(decision)), situation_of(decision, campaign)
            candidate, incumbent = vector_of(newest, s, made), vector_of(rest, s, made)
            q, action = predicted_rewards(live, s, made), decision.action or 0
            chances = decision.propensity or 0.0, float(incumbent[action]), float(candidate[action])
            yield (row.reward, *chances, float(q[action]), float(incumbent @ q), float(candidate @ q))
