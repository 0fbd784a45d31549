"""One retrain: read the log, train, judge off policy, publish or reject. (``refreshing`` is what happens in between.)

One model is trained per workspace, pooled over its campaigns; the verdict and the pointer are per campaign. A
campaign's first policy replaces random choices and is judged by cross-fitted likelihood; a later one against its
incumbent, on rows that neither was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from optimizer.bandit.evidence import Condition, Verdict
from optimizer.bandit.tolls import with_prices
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.model.training.train import Trained
from optimizer.service.annealing import exploration_numbers
from optimizer.service.apart import Apart, attempted, fallen
from optimizer.service.canary import not_watched_enough
from optimizer.service.drifting import look
from optimizer.service.driftstate import Drift
from optimizer.service.evidence import pair
from optimizer.service.feedback import Log, Logged, delays_json, judgeable, load, people, told, usable
from optimizer.service.fitting import Job, as_known, cross_fitted, retype, settled
from optimizer.service.heldout import held_out, place
from optimizer.service.ids import COLD_POLICY
from optimizer.service.judging import first_rows, first_verdict, later_verdict, too_few, untold
from optimizer.service.pacing import anchored_still, next_try, taken_back, too_soon
from optimizer.service.publish import artifact_of, mixture, new_policy, publish, reject
from optimizer.service.replay import Replayer
from optimizer.service.rereading import reading
from optimizer.service.runs import LEAST_RECIPIENTS, LEAST_ROWS
from optimizer.service.served import gated_of, policy_of
from optimizer.service.serving import load_policy
from optimizer.service.soundness import sound, unconfirmed
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Component, Pointer, Policy, TrainingRun
from storage.port import Reader
from storage.records import Campaign, JsonObject


def retrain(
    services: Services,
    workspace_id: str,
    campaign_id: str | None = None,
    run: TrainingRun | None = None,
    apart: Apart | None = None,
    seen: Mapping[str, JsonObject] | None = None,
) -> list[dict[str, Any]]:
    """Trains and judges; publishes or rejects for each campaign.

    Args:
        services: the wired service. workspace_id: whose log.
        campaign_id: only this campaign's policy (None = all that are active).
        run: the training run that asked, kept with the policy.
        apart: keeps what fails for a campaign, which is not answered for then (None = it is raised).
        seen: what the run has seen of canaries, by campaign (cf. ``canary.watch``; None = what earlier runs told).

    Returns:
        For each campaign ``campaign_id, decision, policy_id, alpha, reason, conditions, rungs, rows, data, drift``:
        ``data`` is what is wrong with the features, ``drift`` what its detectors know (None before the first policy),
        ``decision`` publish, reject, skipped (few rows or people), waits (``pacing``), superseded, refused (bad data).
    """
    now, gate = services.clock(), services.settings.gate
    with reading(services.store, lambda reader: load(reader, workspace_id, now)) as (reader, log):
        drift = look(services, reader, workspace_id, campaign_id, log, apart)
        active = [c for c in log.campaigns.values() if c.status == "active" and campaign_id in (None, c.campaign_id)]
        wanted = [c for c in active if not fallen(apart, c.campaign_id)]
        enough = [c for c in wanted if len(_teaching(gate, log, c)) >= LEAST_ROWS]
        answers = [_skipped(c, log) for c in wanted if c not in enough]
        asked = None if campaign_id is None else log.campaigns.get(campaign_id)
        if asked is not None and asked.status != "active":
            answers.append(_answer(asked, "skipped", f"the campaign is {asked.status}", len(_matured(log, asked))))
        if run is not None:
            reasons = [_waiting(gate, reader, run, log, c, drift.get(c.campaign_id), now) for c in enough]
            early = [(c, why) for c, why in zip(enough, reasons, strict=True) if why is not None]
            answers += [_answer(c, "waits", why, len(_matured(log, c))) for c, why in early]
            enough = [c for c, why in zip(enough, reasons, strict=True) if why is None]
        fit, refused = sound(log) if enough else (log, {})
        answers += [_refused(c, refused[c.campaign_id], _matured(log, c)) for c in enough if c.campaign_id in refused]
        left = [c for c in enough if c.campaign_id not in refused]
        if left:
            made = Job.of(services, reader, workspace_id, fit, run.run_id if run is not None else None, drift)
            job = replace(settled(made), seen=seen or {})
            drift = dict(job.drift)
            judged = [attempted(apart, c.campaign_id, partial(_retrain_campaign, job, reader, c)) for c in left]
            answers += [one for one in judged if one is not None]
    if left:
        retype(job)
    known = {name: one.to_json() for name, one in drift.items()}
    return [{**answer, "drift": known.get(answer["campaign_id"])} for answer in answers]


def _waiting(
    gate: bool, reader: Reader, run: TrainingRun, log: Log, campaign: Campaign, drift: Drift | None, now: datetime
) -> str | None:
    """Why a retrain leaves a campaign alone, if it does: a scheduled one for lack of anything new, too."""
    back = taken_back(reader, campaign, run, gate=gate)
    if back is not None or run.trigger != "schedule":
        return back
    if gate:
        return too_soon(reader, campaign, _matured(log, campaign), now)
    changed = None if drift is None else drift.changed
    return anchored_still(reader, campaign, _teaching(gate, log, campaign), changed, now)


def _matured(log: Log, campaign: Campaign) -> list[Logged]:
    return [r for r in judgeable(log.of(campaign.campaign_id), campaign) if r.trainable and r.matured]


def _teaching(gate: bool, log: Log, campaign: Campaign) -> list[Logged]:
    """The rows that must be enough: matured ones, which a gate can judge by; without a gate all that may be learned."""
    if gate:
        return _matured(log, campaign)
    return [r for r in usable(log.of(campaign.campaign_id), log.campaigns) if r.started]


def _retrain_campaign(job: Job, reader: Reader, campaign: Campaign) -> dict[str, Any]:
    answer = _judged(job, reader, campaign)
    return answer if job.quality is None else {**answer, "data": job.quality.to_json()}


def _judged(job: Job, reader: Reader, campaign: Campaign) -> dict[str, Any]:
    mine = _matured(job.log, campaign)
    pointer = reader.pointer(job.workspace_id, campaign.campaign_id)
    cold = pointer is None or pointer.policy_id == COLD_POLICY
    try:
        if not job.services.settings.gate:
            serving = load_policy(reader, job.workspace_id, COLD_POLICY if pointer is None else pointer.policy_id, {})
            return _publish(job, campaign, pointer, job.fit(job.log.rows), None, len(mine), serving)
        if cold and not campaign.begins_with_baseline:
            return _first(job, reader, campaign, pointer, len(mine))
        return _later(job, reader, campaign, pointer, mine)
    except VersionConflict:
        return _answer(campaign, "superseded", "the campaign's policy was moved during the run", len(mine))


def _skipped(campaign: Campaign, log: Log) -> dict[str, Any]:
    rows, lacking = len(_matured(log, campaign)), unconfirmed(log.of(campaign.campaign_id))
    return _answer(campaign, "skipped", f"{rows} matured rows; {LEAST_ROWS} are needed{lacking}", rows)


def _few_people(rows: Sequence[Logged]) -> str | None:
    """Why nothing can be judged on rows of a handful of people, if they are of so few. It spends none of the error."""
    count = people(rows)
    if not rows:
        return "no row has a known propensity, by which guardrails are judged"
    if count >= LEAST_RECIPIENTS:
        return None
    return (
        f"the {len(rows)} rows to judge by are of too few recipients: {count}, and {LEAST_RECIPIENTS} are needed, "
        "since a policy is judged on people that it has not learned from"
    )


def _refused(campaign: Campaign, failed: Sequence[Condition], rows: Sequence[Logged]) -> dict[str, Any]:
    """Training is refused: no candidate is made or judged, so no error is spent, and the incumbent stays."""
    reason = "data refused, nothing was trained and the incumbent stays: " + "; ".join(
        f"{c.name}: {c.detail}" for c in failed
    )
    return {**_answer(campaign, "refused", reason, len(rows)), "conditions": [asdict(c) for c in failed]}


def _first(job: Job, reader: Reader, campaign: Campaign, pointer: Pointer | None, matured: int) -> dict[str, Any]:
    logged = job.log.of(campaign.campaign_id)
    if (few := _few_people([row for row in first_rows(logged, campaign) if row.trainable])) is not None:
        return _answer(campaign, "skipped", few, matured)
    replayer = Replayer(reader, job.services.salt)
    tries = next_try(reader, campaign)
    policy_for = partial(_cross_fitted_policy, job, _numbers(job, campaign))
    verdict = first_verdict(replayer, logged, campaign, job.attributes, tries, policy_for)
    if verdict.decision == "reject":
        return _reject(job, campaign, pointer, verdict, matured)
    return _publish(job, campaign, pointer, job.fit(job.log.rows), verdict, matured)


def _later(
    job: Job, reader: Reader, campaign: Campaign, pointer: Pointer | None, mine: Sequence[Logged]
) -> dict[str, Any]:
    policy_id = pointer.policy_id if pointer is not None else COLD_POLICY
    serving = None if pointer is None else policy_of(reader, pointer)
    gated = None if serving is None else gated_of(reader, serving)
    if (waiting := not_watched_enough(reader, gated, campaign, job.now, job.seen)) is not None:
        return _answer(campaign, "skipped", waiting, len(mine))
    replayer = Replayer(reader, job.services.salt)
    logged, changed = job.log.of(campaign.campaign_id), job.changed.get(campaign.campaign_id)
    cold = policy_id == COLD_POLICY
    held = held_out(logged, campaign, cold=cold, changed=changed, made_under=replayer.campaign)
    if (few := too_few(held, campaign) or _few_people(held)) is not None:
        return _answer(campaign, "skipped", few, len(mine))
    start = place(held[0])
    earlier = [r for r in job.log.rows if place(r) < start]
    unseen = [r for r in logged if place(r) >= start]
    learned = len(usable([r for r in logged if place(r) < start], job.log.campaigns))
    if learned < LEAST_ROWS:
        return _answer(campaign, "skipped", f"{learned} rows to learn from; {LEAST_ROWS} are needed", len(mine))
    trained = job.fit(earlier)
    incumbent = load_policy(reader, job.workspace_id, policy_id, as_known(job, reader, campaign, policy_id, earlier))
    candidate_model = RewardModel.load(trained.blob)
    # Both explore as what is published now would, at the incumbent's prices: it is models that are compared.
    candidate = _live(candidate_model, with_prices(_numbers(job, campaign), incumbent.prices))
    incumbent = replace(incumbent, exploration=candidate.exploration)
    told = pair(replayer, held, campaign, incumbent, candidate, cross_fitted(job, earlier, held))
    rung = _rung(gated)
    models = _mainly(incumbent), candidate_model
    without = untold(reader, job.workspace_id)
    tries = next_try(reader, campaign)
    verdict = later_verdict(replayer, held, campaign, told, tries, rung, models, without=without)
    if verdict.decision == "reject":
        return _reject(job, campaign, pointer, verdict, len(mine), earlier)
    return _publish(job, campaign, pointer, trained, verdict, len(mine), incumbent, earlier, unseen)


def _rung(gated: Policy | None) -> float:
    """The share of the gated mixture that its newest component holds: the ladder's next step starts there.

    A policy that is whole has no step to go on from: what comes after it is a new line, and a canary first. What a
    refresh lets a refitted model have (``refreshing``) is no step of the ladder.
    """
    if gated is None or len(gated.mixture) < 2 or gated.mixture[-1].artifact_id is None:
        return 0.0
    return gated.mixture[-1].weight


def _cross_fitted_policy(job: Job, numbers: JsonObject, rows: Sequence[Logged]) -> Callable[[Logged], LivePolicy]:
    """Candidates by fold of recipients: each row gets the one that was not trained on its recipient."""
    model_of, live = cross_fitted(job, (), rows), cache(partial(_live, numbers=numbers))
    return lambda row: live(model_of(row))


def _numbers(job: Job, campaign: Campaign) -> JsonObject:
    """The exploration numbers of a policy that is judged and published now."""
    return exploration_numbers(job.log.of(campaign.campaign_id), job.drift.get(campaign.campaign_id))


def _live(model: RewardModel, numbers: JsonObject) -> LivePolicy:
    """A policy that is all this model, not stored."""
    part = Component(1.0, "candidate")
    return LivePolicy(policy_id="candidate", mixture=(part,), models=(model,), exploration=numbers)


def _mainly(live: LivePolicy) -> RewardModel | None:
    """The model that most of the traffic is chosen by; None = the cold start. A model that holds a small share beside
    the cold start (cf. ``LivePolicy.heaviest_model``) has yet to prove itself: no candidate is measured by it."""
    return max(zip(live.mixture, live.models, strict=True), key=lambda pair: pair[0].weight)[1]


def _publish(
    job: Job,
    campaign: Campaign,
    pointer: Pointer | None,
    trained: Trained,
    verdict: Verdict | None,
    rows: int,
    incumbent: LivePolicy | None = None,
    seen: Sequence[Logged] | None = None,
    unseen: Sequence[Logged] = (),
) -> dict[str, Any]:
    """Makes a trained model serve. ``seen``: what it was trained on (None = the whole log); ``unseen``: the campaign's
    rows that it wasn't: the next refresh teaches it these."""
    artifact = artifact_of(job.workspace_id, trained.blob, trained.feature_hash, job.now)
    alpha = verdict.alpha if verdict is not None else 1.0
    numbers = _numbers(job, campaign)
    numbers = {**numbers, "told": numbers["told"] - told(unseen)}
    policy = new_policy(
        job.workspace_id,
        campaign.campaign_id,
        job.now,
        mixture(incumbent.mixture if incumbent is not None else (), artifact.artifact_id, alpha),
        parent=pointer,
        exploration=with_prices(numbers, incumbent.prices if incumbent is not None else ()),
        verdict={**_verdict_json(job, campaign, verdict, seen), "delays": delays_json(campaign, job.log.hazards)},
        run_id=job.run_id,
    )
    publish(job.services, [artifact], policy, pointer, job.now)
    reason = verdict.reason if verdict is not None else "published without a gate"
    return _answer(campaign, "publish", reason, rows, policy, verdict)


def _reject(
    job: Job,
    campaign: Campaign,
    pointer: Pointer | None,
    verdict: Verdict,
    rows: int,
    seen: Sequence[Logged] | None = None,
) -> dict[str, Any]:
    policy = new_policy(
        job.workspace_id,
        campaign.campaign_id,
        job.now,
        (),
        parent=pointer,
        exploration={},
        verdict=_verdict_json(job, campaign, verdict, seen),
        run_id=job.run_id,
    )
    return _answer(campaign, "reject", verdict.reason, rows, reject(job.services, policy), verdict)


def _verdict_json(job: Job, campaign: Campaign, verdict: Verdict | None, seen: Sequence[Logged] | None) -> JsonObject:
    told = asdict(verdict) if verdict is not None else {"decision": "publish", "reason": "published without a gate"}
    told |= {"rows": len(_matured(job.log, campaign))}
    rows = job.log.rows if seen is None else seen
    told |= {"period": [row.decision.decided_at for row in (rows[0], rows[-1])] if rows else []}
    return told if job.quality is None else {**told, "data": job.quality.to_json()}


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
        "rungs": [asdict(rung) for rung in verdict.rungs] if verdict is not None else [],
    }
