"""The refresh between retrains: the last layer's posterior follows newly arrived outcomes.

It publishes a revision with an id of its own. A revision must stay within ``MOST_DIVERGENCE`` of the gated policy that
it came from (mean total variation over recent contexts); beyond that nothing is published and the next gate decides.
Both are compared at the revision's prices: what is scarce now is no departure from what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from optimizer.bandit.tolls import Price, prices_of
from optimizer.model.inference import RewardModel
from optimizer.model.policy import Asked, LivePolicy, distribution
from optimizer.model.training.train import refresh as refit
from optimizer.service.drifting import Drift, changes, look
from optimizer.service.feedback import Log, Logged, delays_json, examples, load
from optimizer.service.forgetting import remembered
from optimizer.service.ids import COLD_POLICY
from optimizer.service.pricing import moved, priceable, publish_prices, with_prices, work_out
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.replay import Replayer, plan_of, situation_of
from optimizer.service.retrain import exploration_numbers
from optimizer.service.serving import load_policy
from optimizer.service.wiring import Services
from storage.errors import VersionConflict
from storage.policies import Artifact, Component, Pointer, Policy
from storage.port import Reader
from storage.records import Campaign

#: How far a revision may move from its gated ancestor: mean total variation over recent contexts.
MOST_DIVERGENCE = 0.25
#: Recent decisions over which that divergence is measured.
DIVERGENCE_ROWS = 200


def refresh(services: Services, workspace_id: str, campaign_id: str | None = None) -> list[dict[str, Any]]:
    """Refits every served model on the outcomes that have arrived; publishes a revision where something changed.

    A revision carries the prices of this moment (``pricing``). Where the model stays as it is, prices that moved are
    published alone.

    Returns:
        For each campaign with a learned policy ``campaign_id, decision, policy_id, divergence, rows, prices`` (the
        rules that have one under the policy that serves now). ``decision`` is publish, repriced (prices alone),
        unchanged, waits (too far from the gated policy), superseded or skipped.
    """
    now = services.clock()
    with services.store.read() as reader:
        learned = [
            p
            for p in reader.pointers()
            if p.workspace_id == workspace_id and p.policy_id != COLD_POLICY and campaign_id in (None, p.campaign_id)
        ]
        if not learned:
            return []
        log = load(reader, workspace_id, now)
        prices = work_out(services, reader, priceable(reader, workspace_id, now))
        drift = look(services, reader, workspace_id, campaign_id)
        answers = [_refresh_campaign(services, reader, log, pointer, prices, drift) for pointer in learned]
    return [{**a, "drift": drift[a["campaign_id"]].to_json() if a["campaign_id"] in drift else None} for a in answers]


def _refresh_campaign(
    services: Services,
    reader: Reader,
    log: Log,
    pointer: Pointer,
    prices: Mapping[str, tuple[Price, ...]],
    drift: Mapping[str, Drift],
) -> dict[str, Any]:
    now = services.clock()
    policy = reader.policy(pointer.workspace_id, pointer.policy_id)
    campaign = log.campaigns.get(pointer.campaign_id)
    if policy is None or campaign is None:
        return _answer(pointer, "skipped", 0)
    own = prices.get(pointer.campaign_id, ())
    mine = [r for r in log.of(pointer.campaign_id) if r.trainable and r.matured]
    numbers = exploration_numbers(log.of(pointer.campaign_id), drift.get(pointer.campaign_id))
    alike = policy.exploration.get("drift") == numbers.get("drift")
    if policy.exploration.get("told") == numbers["told"] and alike:
        return _repriced(services, pointer, policy, own, _answer(pointer, "unchanged", len(mine)))
    parts, artifacts, models = _refitted(reader, log, pointer, policy, drift)
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
    ancestor = _ancestor(reader, policy)
    gated = replace(ancestor, exploration=with_prices(ancestor.exploration, own))
    distance = _divergence(reader, services, campaign, mine, LivePolicy.of(revision, models), gated)
    if services.settings.gate and distance > MOST_DIVERGENCE:
        answer = _answer(pointer, "waits", len(mine), divergence=distance)
        if alike:
            return _repriced(services, pointer, policy, own, answer)
        # The model waits for the gate, the alarm doesn't: the same model goes on at another rate of exploration.
        revision, artifacts, distance = replace(revision, mixture=policy.mixture), [], 0.0
    near = {"revision": True, "divergence": distance, "limit": MOST_DIVERGENCE}
    revision = replace(revision, verdict={**near, "delays": delays_json(campaign, log.hazards)})
    try:
        publish(services, artifacts, revision, pointer, now)
    except VersionConflict:
        return _answer(pointer, "superseded", len(mine), divergence=distance)
    return _answer(pointer, "publish", len(mine), policy_id=revision.policy_id, divergence=distance, prices=own)


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
    reader: Reader, log: Log, pointer: Pointer, policy: Policy, drift: Mapping[str, Drift]
) -> tuple[tuple[Component, ...], list[Artifact], dict[str, RewardModel]]:
    """The policy's mixture with every model refitted on all rows with a running clock that are remembered."""
    rows = remembered([r for r in log.rows if r.started], changes(drift))
    data = examples(rows, log.campaigns, log.hazards)
    parts, artifacts, models = [], [], {}
    for component in policy.mixture:
        stored = reader.artifact(pointer.workspace_id, component.artifact_id) if component.artifact_id else None
        if stored is None:
            parts.append(component)
            continue
        trained = refit(stored.blob, data)
        artifact = artifact_of(pointer.workspace_id, trained.blob, trained.feature_hash, pointer.moved_at)
        artifacts.append(artifact)
        models[artifact.artifact_id] = RewardModel.load(artifact.blob)
        parts.append(Component(component.weight, artifact.artifact_id))
    return tuple(parts), artifacts, models


def _ancestor(reader: Reader, policy: Policy) -> LivePolicy:
    """The gated policy that a line of revisions started from."""
    while policy.revision and policy.parent_id is not None:
        parent = reader.policy(policy.workspace_id, policy.parent_id)
        if parent is None:
            break
        policy = parent
    return load_policy(reader, policy.workspace_id, policy.policy_id, {})


def _divergence(
    reader: Reader,
    services: Services,
    campaign: Campaign,
    rows: Sequence[Logged],
    revision: LivePolicy,
    gated: LivePolicy,
) -> float:
    """Mean total variation between two policies over the newest decisions' contexts and eligible sets, in [0, 1]."""
    replayer = Replayer(reader, services.salt)
    distances = []
    for row in [r for r in rows if r.evaluable][-DIVERGENCE_ROWS:]:
        made = plan_of(row.decision, replayer.campaign(row.decision))
        s = situation_of(row.decision, campaign)
        one, other = (
            distribution(live, campaign, Asked(made.space, made.mask, s.context, s.effects)).probability
            for live in (revision, gated)
        )
        distances.append(0.5 * float(np.abs(one - other).sum()))
    return float(np.mean(distances)) if distances else 0.0


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
