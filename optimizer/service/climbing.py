"""What shares a campaign's traffic is given more of it, as soon as the decisions that both had a part in show it to be
better: a canary, or a refitted model beside its gated ancestor.

It is looked at whenever those decisions have grown by a quarter, not only when a retrain has something new to judge. A
look is one more try of the campaign's error, as a candidate is, and is stored with its verdict as one is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from optimizer.bandit.evidence import Verdict
from optimizer.service.apart import Apart, attempted
from optimizer.service.canary import not_watched_enough
from optimizer.service.drifting import changed_at
from optimizer.service.feedback import Logged, feedback_rows, people
from optimizer.service.judging import later_verdict, too_few, untold
from optimizer.service.pacing import KNOWN_AT, judged, known_until, next_try
from optimizer.service.publish import mixture, new_policy, publish, reject
from optimizer.service.replay import Replayer
from optimizer.service.runs import LEAST_RECIPIENTS
from optimizer.service.served import gated_of, learned, line_of, policy_of
from optimizer.service.serving import load_policy
from optimizer.service.sharing import SHARING, paired, shared_rows
from optimizer.service.told import last_told
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Pointer, Policy, TrainingRun
from storage.port import Reader
from storage.records import Campaign, JsonObject

#: Shared decisions before the first look, and by how much they grow until the next.
LEAST_SHARED, GROWTH = 500, 0.25
#: Decisions are counted again after so long, however few outcomes seem to have come: retention takes others away.
COUNTED_FOR = timedelta(days=1)


@dataclass(frozen=True)
class Looks:
    """How far looking at what shares a campaign's traffic has come; without it the next look may come a little early.

    Attributes:
        policy_id: the gated policy whose line is looked at.
        shared: decisions that the last look rested on.
        counted: decisions that there were when they were last counted; at: when that was, in epoch seconds.
        matured: matured rows of the campaign at that time.
    """

    policy_id: str
    shared: int = 0
    counted: int = 0
    at: float = 0.0
    matured: int = 0

    @property
    def needed(self) -> int:
        """Decisions that the next look comes after."""
        return max(LEAST_SHARED, math.ceil((1.0 + GROWTH) * self.shared))


def climb(
    services: Services,
    workspace_id: str,
    campaign_id: str | None = None,
    run: TrainingRun | None = None,
    apart: Apart | None = None,
    seen: Mapping[str, JsonObject] | None = None,
) -> list[dict[str, Any]]:
    """Gives the newest part of every mixture as much of the traffic as it has shown to be good for.

    Args:
        services: the wired service. workspace_id: whose mixtures.
        campaign_id: only this campaign's (None = all).
        run: the training run that looks, kept with the policy.
        apart: keeps what fails for a campaign (None = it is raised).
        seen: what this run has seen of canaries, by campaign (cf. ``canary.watch``; None = what earlier runs told).

    Returns:
        For each campaign that serves a mixture ``campaign_id, decision, policy_id, alpha, reason, conditions, rows,
        looks``; ``decision`` is publish, shares (as before) or superseded (the policy was moved meanwhile).
    """
    if not services.settings.gate:
        return []
    with services.store.read() as reader:
        pointers = learned(reader, workspace_id, campaign_id)
        found = [attempted(apart, p.campaign_id, partial(_climb, services, reader, p, run, seen)) for p in pointers]
    return [one for one in found if one is not None]


def _climb(
    services: Services,
    reader: Reader,
    pointer: Pointer,
    run: TrainingRun | None,
    seen: Mapping[str, JsonObject] | None,
) -> dict[str, Any] | None:
    serving = policy_of(reader, pointer)
    campaign = reader.campaign(pointer.workspace_id, pointer.campaign_id)
    if campaign is None or serving is None or len(serving.mixture) < 2:
        return None
    gated, now = gated_of(reader, serving), services.clock()
    told = last_told(reader, pointer.workspace_id, pointer.campaign_id, "looks", now)
    before = Looks(gated.policy_id)
    before = Looks(**told) if told is not None and told["policy_id"] == before.policy_id else before
    if (waiting := not_watched_enough(reader, gated, campaign, now, seen)) is not None:
        return _answer(serving, before, waiting)
    matured = serving.exploration.get("rows", 0)
    hardly_more = before.counted + max(0, matured - before.matured) < before.needed
    if hardly_more and now.timestamp() - before.at < COUNTED_FOR.total_seconds():
        return _answer(
            serving, before, f"the next look comes after {before.needed:,} decisions that both had a share in"
        )
    rows = _shared(reader, campaign, line_of(reader, serving), now)
    counted = Looks(before.policy_id, before.shared, len(rows), now.timestamp(), matured)
    recipients = people(rows)
    if len(rows) < before.needed or recipients < LEAST_RECIPIENTS:
        reason = f"{len(rows):,} decisions that both had a share in, of {recipients:,} recipients, are too few"
        return _answer(serving, counted, f"{reason}: the next look needs {before.needed:,}, of {LEAST_RECIPIENTS}")
    if (few := too_few(rows, campaign, SHARING)) is not None:  # the next look comes as after any other
        return _answer(serving, replace(counted, shared=len(rows)), few)
    return _judged(services, reader, pointer, serving, campaign, rows, counted, run)


def _shared(reader: Reader, campaign: Campaign, line: Sequence[Policy], now: datetime) -> list[Logged]:
    """The decisions that both had a share in since the line was last put into service.

    Where something followed it and was taken back, what speaks for that once more are later decisions alone.
    """
    own = {policy.policy_id for policy in line}
    since = next(policy for policy in reversed(line) if len(policy.mixture) > 1).created_at
    for policy in judged(reader, campaign):
        if policy.created_at <= since:
            break
        if policy.mixture and policy.policy_id not in own:
            since = policy.created_at
            break
    rows = list(feedback_rows(reader, campaign, since, now))
    return shared_rows(rows, campaign, line, changed_at(reader, campaign, now))


def _judged(
    services: Services,
    reader: Reader,
    pointer: Pointer,
    serving: Policy,
    campaign: Campaign,
    rows: Sequence[Logged],
    counted: Looks,
    run: TrainingRun | None,
) -> dict[str, Any]:
    """One look; it is stored whatever comes of it, and counted by that, unless the policy was moved meanwhile: nothing
    is published then, and it is as if nobody had looked."""
    looked = replace(counted, shared=len(rows))
    newest, live = serving.mixture[-1], load_policy(reader, pointer.workspace_id, serving.policy_id, {})
    model = live.models[-1]
    if model is None or newest.artifact_id is None:
        return _answer(serving, looked, "what it shares the traffic with is not learned")
    replayer, tries = Replayer(reader, services.salt), next_try(reader, campaign)
    told = paired(reader, replayer, rows, campaign)
    without = untold(reader, pointer.workspace_id)
    verdict = later_verdict(replayer, rows, campaign, told, tries, None, (None, model), limits=SHARING, without=without)
    stays = verdict.decision == "reject" or verdict.alpha <= newest.weight
    policy = new_policy(
        pointer.workspace_id,
        pointer.campaign_id,
        services.clock(),
        mixture(serving.mixture[:-1], newest.artifact_id, newest.weight if stays else verdict.alpha),
        parent=pointer,
        exploration=serving.exploration,
        verdict={
            **asdict(verdict),
            "rows": serving.exploration.get("rows", 0),
            "shared": len(rows),
            "period": [rows[0].decision.decided_at, rows[-1].decision.decided_at],
            "delays": serving.verdict.get("delays"),
            KNOWN_AT: known_until(serving),
        },
        run_id=None if run is None else run.run_id,
    )
    if stays:
        reject(services, policy)
        return _answer(serving, looked, f"stays at {newest.weight:.2g}: {verdict.reason}", verdict)
    reason = f"{verdict.reason}, on {len(rows):,} decisions that both had a share in"
    try:
        publish(services, [], policy, pointer, policy.created_at)
    except VersionConflict:
        return {**_answer(serving, counted, reason, verdict), "decision": "superseded"}
    return {**_answer(policy, looked, reason, verdict), "decision": "publish", "alpha": verdict.alpha}


def _answer(policy: Policy, looks: Looks, reason: str, verdict: Verdict | None = None) -> dict[str, Any]:
    return {
        "campaign_id": policy.campaign_id,
        "decision": "shares",
        "reason": reason,
        "rows": looks.counted,
        "policy_id": policy.policy_id,
        "alpha": policy.mixture[-1].weight,
        "conditions": [asdict(c) for c in verdict.conditions] if verdict is not None else [],
        "looks": asdict(looks),
    }
