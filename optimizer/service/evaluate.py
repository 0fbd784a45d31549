"""Off-policy report of a stored policy: what it would have earned on the logged decisions, by every estimator.

Rows decided after the policy was made are preferred: it can't have been trained on them. Where they are too few, all
rows are used and the report says so. Values are conditional on the logged eligible sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.ope import Estimate, direct, doubly_robust, importance_weight, ips, snips, switch_dr
from optimizer.errors import Invalid, NotFound
from optimizer.service.evidence import Paired, pair
from optimizer.service.feedback import Logged, load
from optimizer.service.ids import COLD_POLICY
from optimizer.service.replay import Replayer
from optimizer.service.retrain import LEAST_ROWS, MOST_JUDGED, Job, cross_fitted
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services

#: Importance weights above this are dropped by Switch-DR, and the model believed instead.
SWITCH_AT = 10.0


def evaluate(services: Services, workspace_id: str, policy_id: str) -> dict[str, Any]:
    """Evaluates a stored policy beside what its campaign's cold start would have earned.

    Returns:
        ``policy_id, campaign_id, rows, unseen, logged, policy, cold_start``: ``logged`` is the mean reward as it was,
        the last two are estimates by name (ips, snips, dm, dr, switch_dr), each with interval and effective sample
        size.

    Raises:
        NotFound: no such policy.
        Invalid: it was rejected (its model is not kept), or too few rows are matured.
    """
    now = services.clock()
    with services.store.read() as reader:
        policy = reader.policy(workspace_id, policy_id)
        if policy is None:
            raise NotFound(f"no policy {policy_id!r} in this workspace")
        if not policy.mixture:
            raise Invalid.field("policy_id", f"{policy_id} was rejected: only its verdict is kept, not its model")
        log = load(reader, workspace_id, now)
        mine = [r for r in log.of(policy.campaign_id) if r.evaluable]
        newer = [r for r in mine if r.decision.decided_at >= policy.created_at]
        unseen = len(newer) >= LEAST_ROWS
        rows = (newer if unseen else mine)[-MOST_JUDGED:]
        if len(rows) < LEAST_ROWS:
            raise Invalid.field("policy_id", f"{len(rows)} matured rows to evaluate on; {LEAST_ROWS} are needed")
        job = Job(services, workspace_id, log, reader.attributes(workspace_id), now, None)
        live = load_policy(reader, workspace_id, policy_id, {})
        cold = load_policy(reader, workspace_id, COLD_POLICY, {})
        replayer = Replayer(reader, services.salt)
        paired = pair(replayer, rows, log.campaigns[policy.campaign_id], cold, live, cross_fitted(job, (), rows))
    return {
        "policy_id": policy_id,
        "campaign_id": policy.campaign_id,
        "rows": len(rows),
        "unseen": unseen,
        "logged": _logged(rows, paired),
        "policy": _estimates(paired, paired.p_candidate, paired.value_candidate),
        "cold_start": _estimates(paired, paired.p_incumbent, paired.value_incumbent),
    }


def _logged(rows: Sequence[Logged], paired: Paired) -> dict[str, Any]:
    return asdict(ips(paired.reward, np.ones(len(rows)), paired.cluster))


def _estimates(
    paired: Paired, probability: NDArray[np.float64], value: NDArray[np.float64]
) -> dict[str, dict[str, Any]]:
    weight = importance_weight(probability, paired.propensity)
    reward, q, cluster = paired.reward, paired.q_logged, paired.cluster
    found: dict[str, Estimate] = {"ips": ips(reward, weight, cluster)}
    if weight.any():
        found["snips"] = snips(reward, weight, cluster)
    found["dm"] = direct(value, cluster)
    found["dr"] = doubly_robust(reward, weight, q, value, cluster)
    found["switch_dr"] = switch_dr(reward, weight, q, value, SWITCH_AT, cluster)
    return {name: asdict(estimate) for name, estimate in found.items()}
