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
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from optimizer.bandit.tolls import Price, prices_of
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.policy import LivePolicy
from optimizer.model.training.options import outgrown
from optimizer.model.training.settled import Settled
from optimizer.model.training.train import Trained, anchor, follow
from optimizer.model.training.train import refresh as refit
from optimizer.service import settledrows
from optimizer.service.annealing import exploration_numbers
from optimizer.service.apart import Apart, attempted, attempted_for_all
from optimizer.service.departure import DIVERGENCE_ROWS, allowed, divergence, judged_on, nearer_mixture
from optimizer.service.drifting import changes, look
from optimizer.service.driftstate import Drift
from optimizer.service.feedback import Hazards, Log, delays_json, examples, judgeable, load, usable
from optimizer.service.fitting import Job, model_of
from optimizer.service.footing import Footing, footing_of, known_of, told_as
from optimizer.service.ids import COLD_POLICY
from optimizer.service.pacing import KNOWN_AT, worth_revising
from optimizer.service.priceable import priceable
from optimizer.service.pricing import moved, publish_prices, with_prices, work_out
from optimizer.service.progress import progressed
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.replay import on_known_clock
from optimizer.service.served import GATED, Served, following, origins_of
from optimizer.service.serving import load_policy
from optimizer.service.settledrows import SettledRows, comparable, settled_until
from optimizer.service.soundness import sound
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.log import Decision
from storage.policies import Artifact, Component, Pointer, Policy
from storage.port import Reader
from storage.records import Campaign, JsonObject


@dataclass(frozen=True)
class _Read:
    """What a refresh works on.

    Attributes:
        log: the whole log, or the rows since ``before``, as known ``at`` that time.
        served: what campaigns serve, by campaign.
        before: what the settled rows say, where it is kept.
        drift: what the drift detectors know, by campaign.
        until: up to when the rows of ``log`` are settled, where it is worth keeping what they say.
        refused: campaigns whose data is absurd (see ``soundness``): none of their rows is in ``log``.
        job: what trains anew. fitted: artifact that is served, footing, whether it may be trained anew -> what became
            of it; told: artifact of a retrain (``told_as``) -> what settled rows say.
        columns: the rows by where they begin, with the number of settled ones.
    """

    log: Log
    at: datetime
    served: Mapping[str, Served]
    before: SettledRows | None
    drift: Mapping[str, Drift]
    until: datetime | None
    refused: frozenset[str]
    job: Callable[[], Job]
    fitted: dict[tuple[str, Footing, bool], Artifact] = field(default_factory=dict)
    told: dict[str, Settled] = field(default_factory=dict)
    columns: dict[float | None, tuple[Examples, int | None]] = field(default_factory=dict)

    @property
    def hazards(self) -> Hazards:
        """How outcomes become known."""
        return self.log.hazards if self.before is None else self.before.hazards

    def data(self, footing: Footing) -> tuple[Examples, int | None]:
        """The rows that a model of that footing is refitted on, as columns, and how many of them are settled (None =
        it isn't worth keeping what they say)."""
        if footing.since not in self.columns:
            rows = footing.rows(self.log.rows, changes(self.drift))
            settled = [r for r in rows if self.until is not None and r.decision.decided_at < self.until]
            count = None if self.until is None else len(usable(settled, self.log.campaigns))
            self.columns[footing.since] = examples(rows, self.log.campaigns, self.hazards), count
        return self.columns[footing.since]

    def numbers(self, campaign_id: str) -> JsonObject:
        """The exploration numbers of a campaign."""
        facts = None if self.before is None else self.before.facts.get(campaign_id)
        return exploration_numbers(self.log.of(campaign_id), self.drift.get(campaign_id), facts)


def refresh(
    services: Services, workspace_id: str, campaign_id: str | None = None, apart: Apart | None = None
) -> list[dict[str, Any]]:
    """Refits every served model on the outcomes that have arrived; publishes a revision where something changed.

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
        learned = [
            p
            for p in reader.pointers()
            if p.workspace_id == workspace_id and p.policy_id != COLD_POLICY and campaign_id in (None, p.campaign_id)
        ]
        if not learned:
            return []
        read = _read(services, reader, workspace_id, campaign_id, learned, apart)
        served = priceable(reader, workspace_id, services.clock())
        prices = attempted_for_all(apart, "prices", partial(work_out, services, reader, served, apart=apart))
        tried = [
            attempted(apart, p.campaign_id, partial(_refresh_campaign, services, reader, read, p, prices))
            for p in learned
        ]
        answers = [one for one in tried if one is not None]
    _keep(services, workspace_id, read)
    drift = {name: one.to_json() for name, one in read.drift.items()}
    return [{**answer, "drift": drift.get(answer["campaign_id"])} for answer in answers]


def _keep(services: Services, workspace_id: str, read: _Read) -> None:
    """Keeps what settled rows say, for the next refresh, where it is worth it."""
    if read.until is None or not read.told:
        return
    if read.before is None:
        changed = changes(read.drift)
        kept = SettledRows.of(read.log, read.until, services.clock(), changed, read.told, read.refused)
    else:
        kept = read.before.followed(read.log, read.until, changes(read.drift), read.told)
    kept.write(services, workspace_id)


def _read(
    services: Services,
    reader: Reader,
    workspace_id: str,
    campaign_id: str | None,
    learned: Sequence[Pointer],
    apart: Apart | None,
) -> _Read:
    """The rows since what is kept, if that fits; else the whole log."""
    now = services.clock()
    served = {p.campaign_id: one for p in learned if (one := Served.of(reader, p)) is not None}
    models = frozenset(name for one in served.values() for name in one.told_as)
    before = settledrows.read(services, workspace_id, models)
    log = load(reader, workspace_id, now, since=None if before is None else before.until)
    drift = look(services, reader, workspace_id, campaign_id, log, apart)
    if before is not None:
        stand = all(one.stands(changes(drift)) for name, one in served.items() if name in log.campaigns)
        if not (stand and before.holds_for(log, changes(drift))):
            before, log = None, load(reader, workspace_id, now)
    refused = frozenset(sound(log)[1]) if before is None else before.refused
    log = log.without(refused)
    job = cache(partial(Job.of, services, reader, workspace_id, log, None, drift))
    return _Read(log, now, served, before, drift, settled_until(log.rows, now, before), refused, job)


def _refresh_campaign(
    services: Services, reader: Reader, read: _Read, pointer: Pointer, prices: Mapping[str, tuple[Price, ...]] | None
) -> dict[str, Any]:
    now = services.clock()
    served, campaign = read.served.get(pointer.campaign_id), read.log.campaigns.get(pointer.campaign_id)
    if served is None or campaign is None:
        return _answer(pointer, "skipped", 0)
    policy, origin = served.policy, served.gated
    if pointer.campaign_id in read.refused:
        if read.until is not None:
            _refitted(reader, read, pointer, served, anew=False)  # what settled rows say of this model is kept
        return _answer(pointer, "skipped", 0)
    own = prices_of(policy.exploration) if prices is None else prices.get(pointer.campaign_id, ())
    numbers = read.numbers(pointer.campaign_id)
    count = numbers["rows"]
    alike = policy.exploration.get("drift") == numbers.get("drift")
    if alike and not worth_revising(policy, numbers["told"], read.at):
        if read.until is not None:
            _refitted(reader, read, pointer, served, anew=False)  # what settled rows say of this model is kept
        return _repriced(services, pointer, policy, own, _answer(pointer, "unchanged", count))
    parts, artifacts, models = _refitted(reader, read, pointer, served, anew=True)
    revision = new_policy(
        pointer.workspace_id,
        pointer.campaign_id,
        now,
        parts,
        parent=pointer,
        exploration=with_prices(numbers, own),
        verdict={},
        run_id=None,
        revision=True,
    )
    ancestor = load_policy(reader, policy.workspace_id, origin.policy_id, {})
    gated = replace(ancestor, exploration=revision.exploration)
    apart = partial(divergence, reader, services, campaign, _recent(reader, read, campaign), gated)
    distance = refitted = apart(LivePolicy.of(revision, models))
    judged = judged_on(pointer, policy, origin, count)
    progress = None
    if services.settings.gate and not campaign.guardrails:
        progress = progressed(reader, campaign, pointer, policy, ancestor, read.log.of(campaign.campaign_id), read.at)
    most = allowed(judged, count, free=progress is not None and progress.better)
    if services.settings.gate and distance > most:
        nearer = replace(revision, mixture=nearer_mixture(origin.mixture, parts, most / distance))
        older = zip(ancestor.mixture, ancestor.models, strict=True)
        known = {part.artifact_id: model for part, model in older if part.artifact_id and model}
        closer = apart(LivePolicy.of(nearer, {**known, **models}))
        if closer <= most + 1e-9:
            revision, distance = nearer, min(closer, most)
    if services.settings.gate and distance > most:
        answer = _answer(pointer, "waits", count, divergence=distance)
        if alike:
            return _repriced(services, pointer, policy, own, answer)
        # The model waits for the gate, the alarm doesn't: the same model goes on at another rate of exploration.
        revision, distance = replace(revision, mixture=policy.mixture), 0.0
    near = {"revision": True, GATED: origin.policy_id, KNOWN_AT: read.at.timestamp(), "judged": judged}
    near |= {"divergence": distance, "limit": most, "refitted": refitted}
    more = {} if progress is None else {"progress": progress.to_json()}
    revision = replace(revision, verdict={**near, **more, "delays": delays_json(campaign, read.hazards)})
    new = [one for one in artifacts if one.artifact_id in {part.artifact_id for part in revision.mixture}]
    try:
        publish(services, new, revision, pointer, now)
    except VersionConflict:
        return _answer(pointer, "superseded", count, divergence=distance)
    return _answer(pointer, "publish", count, policy_id=revision.policy_id, divergence=distance, prices=own)


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
    reader: Reader, read: _Read, pointer: Pointer, served: Served, *, anew: bool
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


def _refit(read: _Read, stored: Artifact, origin: str, footing: Footing, pointer: Pointer, anew: bool) -> Artifact:
    """A model after the outcomes that have arrived; ``origin``: the artifact of the retrain that it came from."""
    data, settled = read.data(footing)
    if len(data) == 0:
        return stored
    known = known_of(stored.blob)
    if footing.anchor is not None:
        trained = anchor(stored.blob, data, pointer.campaign_id, footing.anchor, settled)
    elif read.before is not None:
        trained = follow(stored.blob, read.before.models[told_as(origin, footing, known)], data, settled)
    elif anew and footing.since is None and outgrown(len(data), known.learned):
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


def _recent(reader: Reader, read: _Read, campaign: Campaign) -> list[Decision]:
    """The newest decisions that policies may be compared on under the campaign as it is, by time."""
    rows = judgeable(filter(comparable, read.log.of(campaign.campaign_id)), campaign)
    since = [r.decision for r in rows][-DIVERGENCE_ROWS:]
    if read.before is None or len(since) == DIVERGENCE_ROWS:
        return since
    names = read.before.recent.get(campaign.campaign_id, ())[len(since) - DIVERGENCE_ROWS :]
    found = [reader.decision(campaign.workspace_id, name) for name in names]
    return [*(one for one in found if one is not None and on_known_clock(one)), *since]


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
