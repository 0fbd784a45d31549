"""One retrain: read the log, train, judge off policy, publish or reject. (``refreshing`` is what happens in between.)

One model is trained per workspace, pooled over its campaigns; the verdict and the pointer are per campaign. A
campaign's first policy replaces random choices and is judged by cross-fitted likelihood; a later one against its
incumbent, on rows that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from optimizer.bandit.evidence import Verdict
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.model.training.train import Trained, train
from optimizer.service.evidence import pair
from optimizer.service.feedback import Log, Logged, examples, load, matured_rows
from optimizer.service.ids import COLD_POLICY
from optimizer.service.judging import first_verdict, fold_of, later_verdict
from optimizer.service.publish import artifact_of, mixture, new_policy, publish, reject
from optimizer.service.replay import Replayer
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.log import Component, Pointer, Policy, TrainingRun
from storage.port import Reader
from storage.records import Attribute, Campaign, JsonObject

#: Fewer matured rows than this teach nothing that a gate could confirm.
LEAST_ROWS = 200
#: The share of the log, newest last, that a later candidate is not trained on: it is judged there.
HELD_OUT = 0.3
#: The newest held-out rows that are replayed at most: enough for every test, and bounded in time.
MOST_JUDGED = 20_000
#: Folds of the reward model that doubly robust estimates lean on.
FOLDS = 2
#: Rows over which the exploration rate falls to a half: rate x 1 / (1 + n / ANNEAL_ROWS).
ANNEAL_ROWS = 20_000


@dataclass(frozen=True)
class Job:
    """What one retrain works on."""

    services: Services
    workspace_id: str
    log: Log
    attributes: tuple[Attribute, ...]
    now: datetime
    run_id: str | None

    def fit(self, rows: Sequence[Logged], *, network: bool = True) -> Trained:
        """A model of these rows."""
        data = examples(rows, self.log.campaigns)
        return train(data, attributes=self.attributes, seed=len(rows), network=network)


def retrain(
    services: Services, workspace_id: str, campaign_id: str | None = None, run: TrainingRun | None = None
) -> list[dict[str, Any]]:
    """Trains and judges; publishes or rejects for each campaign.

    Args:
        services: the wired service.
        workspace_id: whose log.
        campaign_id: only this campaign's policy (None = all that are active).
        run: the training run that asked, kept with the policy.

    Returns:
        For each campaign ``campaign_id, decision, policy_id, alpha, reason, conditions, rows``.
    """
    now = services.clock()
    with services.store.read() as reader:
        log = load(reader, workspace_id, now)
        attributes = reader.attributes(workspace_id)
        job = Job(services, workspace_id, log, attributes, now, run.run_id if run is not None else None)
        wanted = [c for c in log.campaigns.values() if c.status == "active" and campaign_id in (None, c.campaign_id)]
        return [_retrain_campaign(job, reader, campaign) for campaign in wanted]


def _retrain_campaign(job: Job, reader: Reader, campaign: Campaign) -> dict[str, Any]:
    mine = [r for r in job.log.of(campaign.campaign_id) if r.trainable and r.matured]
    if len(mine) < LEAST_ROWS:
        return _answer(campaign, "skipped", f"{len(mine)} matured rows; {LEAST_ROWS} are needed", len(mine))
    pointer = reader.pointer(job.workspace_id, campaign.campaign_id)
    cold = pointer is None or pointer.policy_id == COLD_POLICY
    try:
        if not job.services.settings.gate:
            return _publish(job, campaign, pointer, job.fit(job.log.rows), None, len(mine))
        if cold and not (campaign.cold_start == "around_baseline" and campaign.baseline is not None):
            return _first(job, reader, campaign, pointer, len(mine))
        return _later(job, reader, campaign, pointer, mine)
    except VersionConflict:
        return _answer(campaign, "superseded", "the campaign's policy was moved during the run", len(mine))


def _tries(reader: Reader, workspace_id: str, campaign_id: str) -> int:
    """How many candidates of this campaign have been judged before: the gate's error rate is spent over all of them."""
    tries, cursor = 0, None
    while True:
        page = reader.policies(workspace_id, limit=500, cursor=cursor, campaign_id=campaign_id)
        tries += sum(not policy.revision for policy in page.items)
        cursor = page.cursor
        if cursor is None:
            return tries


def _first(job: Job, reader: Reader, campaign: Campaign, pointer: Pointer | None, matured: int) -> dict[str, Any]:
    replayer = Replayer(reader, job.services.salt)
    tries = _tries(reader, job.workspace_id, campaign.campaign_id) + 1
    policy_for = partial(_cross_fitted_policy, job)
    logged = job.log.of(campaign.campaign_id)
    verdict = first_verdict(replayer, logged, campaign, job.attributes, tries, policy_for)
    if verdict.decision == "reject":
        return _reject(job, campaign, pointer, verdict, matured)
    return _publish(job, campaign, pointer, job.fit(job.log.rows), verdict, matured)


def _later(
    job: Job, reader: Reader, campaign: Campaign, pointer: Pointer | None, mine: Sequence[Logged]
) -> dict[str, Any]:
    replayer = Replayer(reader, job.services.salt)
    evaluable = comparable(job.log.of(campaign.campaign_id), cold=pointer is None or pointer.policy_id == COLD_POLICY)
    held = evaluable[int(len(evaluable) * (1 - HELD_OUT)) :][-MOST_JUDGED:]
    if len(held) < LEAST_ROWS:
        return _answer(campaign, "skipped", f"{len(held)} held-out rows; {LEAST_ROWS} are needed", len(mine))
    start = held[0].decision.decided_at
    earlier = [r for r in job.log.rows if r.decision.decided_at < start]
    trained = job.fit(earlier)
    policy_id = pointer.policy_id if pointer is not None else COLD_POLICY
    models: dict[str, RewardModel] = {}
    incumbent = load_policy(reader, job.workspace_id, policy_id, models)
    candidate_model = RewardModel.load(trained.blob)
    candidate = _live(candidate_model, mine)
    paired = pair(replayer, held, campaign, incumbent, candidate, cross_fitted(job, earlier, held))
    tries = _tries(reader, job.workspace_id, campaign.campaign_id) + 1
    rung = _rung(reader, job.workspace_id, pointer)
    verdict = later_verdict(replayer, held, campaign, paired, tries, rung, (_heaviest(incumbent), candidate_model))
    if verdict.decision == "reject":
        return _reject(job, campaign, pointer, verdict, len(mine))
    return _publish(job, campaign, pointer, trained, verdict, len(mine), incumbent.mixture)


def comparable(rows: Sequence[Logged], *, cold: bool) -> list[Logged]:
    """The rows that a candidate and the incumbent are compared on.

    Once a learned policy serves, rows that uniform choices drew (the cold start's, the random group's) would give the
    incumbent itself importance weights far over the gate's limit, in any large action space, and block every step. So
    they are left out then, by policy and by group, never by the action drawn: that keeps every estimate unbiased.
    """
    evaluable = [r for r in rows if r.evaluable]
    if cold:
        return evaluable
    return [r for r in evaluable if r.decision.group == "treated" and r.decision.policy_id != COLD_POLICY]


def _rung(reader: Reader, workspace_id: str, pointer: Pointer | None) -> float:
    """The share of the mixture that the incumbent's newest component holds: the ladder's next step starts there."""
    policy = reader.policy(workspace_id, pointer.policy_id) if pointer is not None else None
    if policy is None or not policy.mixture or policy.mixture[-1].artifact_id is None:
        return 0.0
    return policy.mixture[-1].weight


def cross_fitted(job: Job, earlier: Sequence[Logged], held: Sequence[Logged]) -> Callable[[Logged], RewardModel]:
    """Reward models by fold of recipients: each row gets the one that was not fitted on its recipient."""
    of = fold_of(held, FOLDS)
    fitted = []
    for k in range(FOLDS):
        rows = [r for r in (*earlier, *held) if of.get(r.decision.recipient_id) != k]
        fitted.append(RewardModel.load(job.fit(rows, network=False).blob))
    return lambda row: fitted[of[row.decision.recipient_id]]


def _cross_fitted_policy(job: Job, rows: Sequence[Logged]) -> Callable[[Logged], LivePolicy]:
    """Candidates by fold of recipients: each row gets the one that was not trained on its recipient."""
    model_of = cross_fitted(job, (), rows)
    policies: dict[int, LivePolicy] = {}
    return lambda row: policies.setdefault(id(model_of(row)), _live(model_of(row), rows))


def _live(model: RewardModel, rows: Sequence[Logged]) -> LivePolicy:
    """A policy that is all this model, not stored."""
    part = Component(1.0, "candidate")
    return LivePolicy(policy_id="candidate", mixture=(part,), models=(model,), exploration=exploration_numbers(rows))


def _heaviest(live: LivePolicy) -> RewardModel | None:
    """The model of the heaviest component."""
    heaviest = max(range(len(live.mixture)), key=lambda i: live.mixture[i].weight)
    return live.models[heaviest]


def exploration_numbers(mine: Sequence[Logged]) -> JsonObject:
    """The numbers that a policy's exploration is computed with: annealing, and which variants are still young."""
    return {
        "anneal": 1.0 / (1.0 + len(mine) / ANNEAL_ROWS),
        "matured_rows": matured_rows(mine),
        "rows": len(mine),
    }


def _publish(
    job: Job,
    campaign: Campaign,
    pointer: Pointer | None,
    trained: Trained,
    verdict: Verdict | None,
    rows: int,
    incumbent: tuple[Component, ...] = (),
) -> dict[str, Any]:
    artifact = artifact_of(job.workspace_id, trained.blob, trained.feature_hash, job.now)
    alpha = verdict.alpha if verdict is not None else 1.0
    mine = [r for r in job.log.of(campaign.campaign_id) if r.trainable and r.matured]
    policy = new_policy(
        job.workspace_id,
        campaign.campaign_id,
        job.now,
        mixture(incumbent, artifact.artifact_id, alpha),
        parent=pointer,
        exploration=exploration_numbers(mine),
        verdict=_verdict_json(verdict),
        run_id=job.run_id,
    )
    publish(job.services, [artifact], policy, pointer, job.now)
    reason = verdict.reason if verdict is not None else "published without a gate"
    return _answer(campaign, "publish", reason, rows, policy, verdict)


def _reject(job: Job, campaign: Campaign, pointer: Pointer | None, verdict: Verdict, rows: int) -> dict[str, Any]:
    policy = new_policy(
        job.workspace_id,
        campaign.campaign_id,
        job.now,
        (),
        parent=pointer,
        exploration={},
        verdict=_verdict_json(verdict),
        run_id=job.run_id,
    )
    return _answer(campaign, "reject", verdict.reason, rows, reject(job.services, policy), verdict)


def _verdict_json(verdict: Verdict | None) -> JsonObject:
    return asdict(verdict) if verdict is not None else {"decision": "publish", "reason": "published without a gate"}


def _answer(
    campaign: Campaign,
    decision: str,
    reason: str,
    rows: int,
    policy: Policy | None = None,
    verdict: Verdict | None = None,
) -> dict[str, Any]:
    return {
        "campaign_id": campaign.campaign_id,
        "decision": decision,
        "reason": reason,
        "rows": rows,
        "policy_id": policy.policy_id if policy is not None else None,
        "alpha": verdict.alpha if verdict is not None else (1.0 if decision == "publish" else None),
        "conditions": [asdict(c) for c in verdict.conditions] if verdict is not None else [],
    }
