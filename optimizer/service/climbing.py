"""What shares a campaign's traffic is given more of it, as soon as the decisions that both had a part in show it to be
better: a canary, or a refitted model beside its gated ancestor.

Looked at is whenever those decisions have grown by a quarter, not only when a retrain has something new to judge. A
look is one try of an error budget of its own (``sharing.SHARING``), over all looks of a campaign together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from optimizer.bandit.evidence import Verdict
from optimizer.service.apart import Apart, attempted
from optimizer.service.canary import lineage_of
from optimizer.service.drifting import changed_at
from optimizer.service.feedback import Logged, feedback_rows, people
from optimizer.service.judging import later_verdict
from optimizer.service.pacing import judged
from optimizer.service.publish import mixture, new_policy, publish
from optimizer.service.replay import Replayer
from optimizer.service.runs import LEAST_RECIPIENTS
from optimizer.service.serving import load_policy
from optimizer.service.sharing import SHARING, paired, shared_rows
from optimizer.service.told import last_told
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Pointer, Policy
from storage.port import Reader
from storage.records import Campaign

#: Shared decisions before the first look, and by how much they grow until the next.
LEAST_SHARED, GROWTH = 500, 0.25


@dataclass(frozen=True)
class Looks:
    """How often it has been looked at what shares a campaign's traffic.

    Attributes:
        looks: over the campaign's life: each is a try.
        policy_id: the gated policy whose line was looked at last.
        rows: outcomes that had come to be known since the traffic was first shared, at the last look.
    """

    looks: int = 0
    policy_id: str = ""
    rows: int = 0


def climb(
    services: Services, workspace_id: str, campaign_id: str | None = None, apart: Apart | None = None
) -> list[dict[str, Any]]:
    """Gives the newest part of every mixture as much of the traffic as it has shown to be good for.

    Args:
        services: the wired service. workspace_id: whose mixtures.
        campaign_id: only this campaign's (None = all).
        apart: keeps what fails for a campaign (None = it is raised).

    Returns:
        For each campaign that serves a mixture ``campaign_id, decision, policy_id, alpha, reason, conditions, rows,
        looks``; ``decision`` is publish, shares (as before) or superseded (the policy was moved meanwhile).
    """
    if not services.settings.gate:
        return []
    now = services.clock()
    with services.store.read() as reader:
        mine = [p for p in reader.pointers() if p.workspace_id == workspace_id and campaign_id in (None, p.campaign_id)]
        found = [attempted(apart, p.campaign_id, partial(_climb, services, reader, p, now)) for p in mine]
    return [one for one in found if one is not None]


def looks_of(reader: Reader, campaign: Campaign) -> Looks:
    """What the last look left with its training run; long ago, what the policies that came of looks say."""
    told = last_told(reader, campaign.workspace_id, campaign.campaign_id, "looks")
    if told is not None:
        return Looks(**told)
    return Looks(max((policy.verdict.get("looks", 0) for policy in judged(reader, campaign)), default=0))


def _climb(services: Services, reader: Reader, pointer: Pointer, now: datetime) -> dict[str, Any] | None:
    campaign, lineage = reader.campaign(pointer.workspace_id, pointer.campaign_id), lineage_of(reader, pointer)
    if campaign is None or not lineage or len(lineage[0].mixture) < 2:
        return None
    serving, gated = lineage[0], lineage[-1]
    first = next(policy for policy in reversed(lineage) if len(policy.mixture) > 1)
    before = looks_of(reader, campaign)
    rows = serving.exploration.get("rows", 0) - first.exploration.get("rows", 0)
    needed = max(LEAST_SHARED, (1.0 + GROWTH) * before.rows if before.policy_id == gated.policy_id else 0.0)
    if rows < needed:
        return _answer(serving, before, rows, f"the next look comes after {needed:,.0f} outcomes under it")
    shared = shared_rows(
        list(feedback_rows(reader, campaign, first.created_at, now)), campaign, lineage, changed_at(reader, campaign)
    )
    if len(shared) < LEAST_SHARED or people(shared) < LEAST_RECIPIENTS:
        looked = Looks(before.looks, gated.policy_id, rows)
        return _answer(serving, looked, rows, f"{len(shared):,} decisions that both had a share in are too few")
    looked = Looks(before.looks + 1, gated.policy_id, rows)
    return _judged(services, reader, pointer, serving, campaign, shared, looked)


def _judged(
    services: Services,
    reader: Reader,
    pointer: Pointer,
    serving: Policy,
    campaign: Campaign,
    rows: Sequence[Logged],
    looked: Looks,
) -> dict[str, Any]:
    newest, live = serving.mixture[-1], load_policy(reader, pointer.workspace_id, serving.policy_id, {})
    model = live.models[-1]
    if model is None or newest.artifact_id is None:
        return _answer(serving, looked, len(rows), "what it shares the traffic with is not learned")
    replayer = Replayer(reader, services.salt)
    told = paired(reader, replayer, rows, campaign)
    verdict = later_verdict(replayer, rows, campaign, told, looked.looks, None, (None, model), limits=SHARING)
    if verdict.decision == "reject" or verdict.alpha <= newest.weight:
        return _answer(serving, looked, len(rows), f"stays at {newest.weight:.2g}: {verdict.reason}", verdict)
    policy = new_policy(
        pointer.workspace_id,
        pointer.campaign_id,
        services.clock(),
        mixture(serving.mixture[:-1], newest.artifact_id, verdict.alpha),
        parent=pointer,
        exploration=serving.exploration,
        verdict={**asdict(verdict), "rows": len(rows), "looks": looked.looks, "delays": serving.verdict.get("delays")},
        run_id=None,
    )
    reason = f"{verdict.reason}, on {len(rows):,} decisions that both had a share in"
    try:
        publish(services, [], policy, pointer, policy.created_at)
    except VersionConflict:
        return {**_answer(serving, looked, len(rows), reason, verdict), "decision": "superseded"}
    answer = _answer(policy, looked, len(rows), reason, verdict)
    return {**answer, "decision": "publish", "alpha": verdict.alpha}


def _answer(policy: Policy, looks: Looks, rows: int, reason: str, verdict: Verdict | None = None) -> dict[str, Any]:
    return {
        "campaign_id": policy.campaign_id,
        "decision": "shares",
        "reason": reason,
        "rows": rows,
        "policy_id": policy.policy_id,
        "alpha": policy.mixture[-1].weight,
        "conditions": [asdict(c) for c in verdict.conditions] if verdict is not None else [],
        "looks": asdict(looks),
    }
