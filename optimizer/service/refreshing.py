"""The refresh between retrains: the last layer's posterior follows newly arrived outcomes; once these have outgrown
what features and prior precisions were learned from, all of the model is learned anew.

It publishes a revision with an id of its own. A revision must stay within a bound (``departure.allowed``) of the gated
policy that it came from (mean total variation over recent contexts, both with the revision's prices and exploration:
what is scarce now is no departure from what was learned). A model that goes farther gets such a share of the traffic
that the whole stays within: (1 − s)·π_gated + s·π_refitted is s times as far. So learning goes on between gates, and
the log shows the next one what the newer model does. Of a canary's mixture, whose shares are the gate's, the canary
alone follows then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from optimizer.bandit.tolls import Price, prices_of, with_prices
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.model.training.options import outgrown
from optimizer.model.training.train import Trained, anchor, follow
from optimizer.model.training.train import refresh as refit
from optimizer.service.apart import Apart, attempted, attempted_for_all
from optimizer.service.departure import allowed, divergence, judged_on, nearer_mixture
from optimizer.service.drifting import changes
from optimizer.service.feedback import delays_json
from optimizer.service.fitting import Job, model_of
from optimizer.service.footing import Footing, Known, footing_of, known_of, told_as
from optimizer.service.pacing import KNOWN_AT, alarms_of, known_until, worth_revising
from optimizer.service.priceable import priceable
from optimizer.service.pricing import moved, publish_prices, work_out
from optimizer.service.progress import progressed
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.refreshlog import Read, keep, read_log, recent
from optimizer.service.served import Served, following, learned, origins_of
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Artifact, Component, Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, JsonObject


def refresh(
    services: Services, workspace_id: str, campaign_id: str | None = None, apart: Apart | None = None
) -> list[dict[str, Any]]:
    """Refits every served model on the outcomes that have arrived; publishes a revision where that is worth it.

    A revision carries the prices of this moment (``pricing``); where the model stays, prices that moved are published
    alone. Of a long log only the rows since are read, where what the others say is kept (``settledrows``).

    Args:
        services: the wired service. workspace_id: whose models.
        campaign_id: only this campaign's (None = all).
        apart: keeps what fails for a campaign, which is not answered for then (None = it is raised). Where prices fail,
            those that are in force stay.

    Returns:
        For each campaign with a learned policy ``campaign_id, decision, policy_id, divergence, rows, prices`` (the
        rules that have one under the policy that serves now). ``decision`` is publish, repriced (prices alone),
        unchanged (nothing is known that is worth a revision, see ``pacing``), waits (a canary that went too far),
        superseded or skipped.
    """
    with services.store.read() as reader:
        pointers = learned(reader, workspace_id, campaign_id)
        if not pointers:
            return []
        read = read_log(services, reader, workspace_id, campaign_id, pointers, apart)
        served = priceable(reader, workspace_id, services.clock())
        prices = attempted_for_all(apart, "prices", partial(work_out, services, reader, served, apart=apart))
        tried = [
            attempted(apart, p.campaign_id, partial(_refresh_campaign, services, reader, read, p, prices))
            for p in pointers
        ]
        answers = [one for one in tried if one is not None]
    keep(services, workspace_id, read)
    drift = {name: one.to_json() for name, one in read.drift.items()}
    return [{**answer, "drift": drift.get(answer["campaign_id"])} for answer in answers]


def _refresh_campaign(
    services: Services, reader: Reader, read: Read, pointer: Pointer, prices: Mapping[str, tuple[Price, ...]] | None
) -> dict[str, Any]:
    served, campaign = read.served.get(pointer.campaign_id), read.log.campaigns.get(pointer.campaign_id)
    if served is None or campaign is None:
        return _answer(pointer, "skipped", 0)
    if pointer.campaign_id in read.refused:
        _keep_settled(reader, read, pointer, served)
        return _answer(pointer, "skipped", 0)
    policy, numbers = served.policy, read.numbers(pointer.campaign_id)
    own = (prices or {}).get(pointer.campaign_id, prices_of(policy.exploration))
    if not (worth_revising(policy, numbers, campaign, read.at) or _outgrown(read, served)):
        _keep_settled(reader, read, pointer, served)
        return _repriced(services, pointer, policy, own, _answer(pointer, "unchanged", numbers["rows"]))
    return _revised(services, reader, read, pointer, served, campaign, numbers, own)


def _keep_settled(reader: Reader, read: Read, pointer: Pointer, served: Served) -> None:
    """Refits a model that stays, for what is kept of it alone: what settled rows say."""
    if read.until is not None:
        _refitted(reader, read, pointer, served, anew=False)


def _revised(
    services: Services,
    reader: Reader,
    read: Read,
    pointer: Pointer,
    served: Served,
    campaign: Campaign,
    numbers: JsonObject,
    prices: Sequence[Price],
) -> dict[str, Any]:
    """Refits what a campaign serves, and publishes as much of it as is within the bound."""
    now, policy, count = services.clock(), served.policy, numbers["rows"]
    parts, artifacts, models = _refitted(reader, read, pointer, served, anew=True)
    whole = new_policy(
        pointer.workspace_id,
        pointer.campaign_id,
        now,
        parts,
        parent=pointer,
        exploration=with_prices(numbers, prices),
        verdict={},
        run_id=None,
        gated_id=served.gated.policy_id,
    )
    ancestor = load_policy(reader, policy.workspace_id, served.gated.policy_id, {})
    gated = replace(ancestor, exploration=whole.exploration)
    distance_of = partial(divergence, reader, services, campaign, recent(reader, read, campaign), gated)
    refitted = distance_of(LivePolicy.of(whole, models))
    judged, known_at = judged_on(pointer, policy, served.gated, count), read.at.timestamp()
    progress = None
    if services.settings.gate and not campaign.guardrails:
        progress = progressed(reader, campaign, pointer, served, ancestor, read.log.of(campaign.campaign_id), read.at)
    most = allowed(judged, count, free=progress is not None and progress.better)
    if not services.settings.gate or refitted <= most:
        revision, distance = whole, refitted
    elif (nearer := _within(most, whole, refitted, ancestor, models, distance_of)) is not None:
        revision, distance = nearer
    elif alarms_of(policy.exploration) == alarms_of(numbers):
        return _repriced(services, pointer, policy, prices, _answer(pointer, "waits", count, divergence=refitted))
    else:
        # The model waits for the gate, the alarm doesn't: the same model goes on at another rate of exploration.
        as_before = {**whole.exploration, "told": policy.exploration.get("told")}
        revision, distance = replace(whole, mixture=policy.mixture, exploration=as_before), 0.0
        known_at = known_until(policy)
    verdict = {
        "divergence": distance,
        "limit": most,
        "refitted": refitted,
        "judged": judged,
        "revision": True,
        KNOWN_AT: known_at,
        **({} if progress is None else {"progress": progress.to_json()}),
        "delays": delays_json(campaign, read.hazards),
    }
    new = [one for one in artifacts if one.artifact_id in {part.artifact_id for part in revision.mixture}]
    try:
        publish(services, new, replace(revision, verdict=verdict), pointer, now)
    except VersionConflict:
        return _answer(pointer, "superseded", count, divergence=distance)
    return _answer(pointer, "publish", count, policy_id=revision.policy_id, divergence=distance, prices=prices)


def _within(
    most: float,
    whole: Policy,
    refitted: float,
    ancestor: LivePolicy,
    models: Mapping[str, RewardModel],
    distance_of: Callable[[LivePolicy], float],
) -> tuple[Policy, float] | None:
    """A revision that went too far (``refitted``), nearer to its gated ancestor, and how far that is; None = farther
    than ``most`` still."""
    nearer = replace(whole, mixture=nearer_mixture(ancestor.mixture, whole.mixture, most / refitted))
    older = zip(ancestor.mixture, ancestor.models, strict=True)
    known = {part.artifact_id: model for part, model in older if part.artifact_id and model}
    distance = distance_of(LivePolicy.of(nearer, {**known, **models}))
    return (nearer, min(distance, most)) if distance <= most + 1e-9 else None


def _repriced(
    services: Services, pointer: Pointer, policy: Policy, prices: Sequence[Price], answer: dict[str, Any]
) -> dict[str, Any]:
    """What became of a campaign whose model stays; its prices are published where they moved."""
    if not moved(prices_of(policy.exploration), prices, services.clock()):
        return {**answer, "prices": [price.rule_id for price in prices_of(policy.exploration)]}
    priced = publish_prices(services, pointer, policy, prices)
    decision = "repriced" if priced["decision"] == "publish" and answer["decision"] == "unchanged" else None
    return {**answer, **priced, "decision": decision or answer["decision"]}


def _refitted(
    reader: Reader, read: Read, pointer: Pointer, served: Served, *, anew: bool
) -> tuple[tuple[Component, ...], list[Artifact], dict[str, RewardModel]]:
    """The gated policy's mixture with every model refitted on the rows of its footing; ``anew``: or trained anew,
    unless it is a canary's, whose shares are the gate's: it might have to wait, and would be trained every minute."""
    origins, gated = origins_of(served.policy, served.gated), served.gated
    anew = anew and len(gated.mixture) == 1
    parts, artifacts, models = [], [], {}
    for component, of in zip(following(served.policy, gated), gated.mixture, strict=True):
        name = component.artifact_id
        stored = None if name is None else reader.artifact(pointer.workspace_id, name)
        if name is None or stored is None:
            parts.append(Component(of.weight, name))
            continue
        footing = footing_of(known_of(stored.blob), pointer.campaign_id, changes(read.drift))
        if (name, footing, anew) not in read.fitted:
            read.fitted[name, footing, anew] = _refit(read, stored, origins[name], footing, pointer, anew)
        artifact = read.fitted[name, footing, anew]
        artifacts.append(artifact)
        models[artifact.artifact_id] = RewardModel.load(artifact.blob)
        parts.append(Component(of.weight, artifact.artifact_id))
    return tuple(parts), artifacts, models


def _refit(read: Read, stored: Artifact, origin: str, footing: Footing, pointer: Pointer, anew: bool) -> Artifact:
    """A model after the outcomes that have arrived; ``origin``: the artifact of the retrain that it came from."""
    data, settled = read.data(footing)
    if len(data) == 0:
        return stored
    known = known_of(stored.blob)
    if footing.anchor is not None:
        trained = anchor(stored.blob, data, pointer.campaign_id, footing.anchor, settled)
    elif read.before is not None:
        trained = follow(stored.blob, read.before.models[told_as(origin, footing, known)], data, settled)
    elif anew and _to_learn_anew(read, known, footing):
        trained = _anew(read.job(), data, settled)
    else:
        trained = refit(stored.blob, data, settled)
    if trained.settled is not None:
        read.told[told_as(origin, footing, known_of(trained.blob))] = trained.settled
    return artifact_of(stored.workspace_id, trained.blob, trained.feature_hash, pointer.moved_at)


def _anew(job: Job, data: Examples, settled: int | None) -> Trained:
    """A model of all rows whose features and precisions are learned anew. It draws anew, too, as a retrain's would:
    a bank of draws that only follows looks in the same few directions for ever."""
    trained = model_of(data, job.attributes, job.encoder, job.options, changed=job.changed)
    return trained if settled is None else refit(trained.blob, data, settled)


def _outgrown(read: Read, served: Served) -> bool:
    """Whether a model is worth learning anew, which takes all of a log: of a long one that is read once a day."""
    if read.before is not None or read.until is None or len(served.gated.mixture) > 1:
        return False
    models = ((known, footing_of(known, served.campaign_id, changes(read.drift))) for known, _ in served.models)
    return any(_to_learn_anew(read, known, footing) for known, footing in models)


def _to_learn_anew(read: Read, known: Known, footing: Footing) -> bool:
    return read.before is None and footing.since is None and outgrown(len(read.data(footing)[0]), known.learned)


def _answer(
    pointer: Pointer,
    decision: str,
    rows: int,
    *,
    policy_id: str | None = None,
    divergence: float | None = None,
    prices: Sequence[Price] = (),
) -> dict[str, Any]:
    return {
        "campaign_id": pointer.campaign_id,
        "decision": decision,
        "rows": rows,
        "policy_id": policy_id,
        "divergence": divergence,
        "prices": [price.rule_id for price in prices],
    }
