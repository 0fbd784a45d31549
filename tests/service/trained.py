"""Policies that serve a model of made-up rows, published without a gate."""

from __future__ import annotations

import numpy as np

from optimizer.model.examples import Examples
from optimizer.model.training.train import train
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.wiring import Services
from storage.policies import Component, Policy
from storage.records import Campaign


def rows(campaign: Campaign, n: int, seed: int) -> Examples:
    """The first variant makes "pro" people buy at .5 instead of .1, the others at .2; nobody is told anything else.

    A third of the rows are not sent. ``campaign`` needs a variant and a channel.
    """
    rng = np.random.default_rng(seed)
    pro, sent, first = rng.random(n) < 0.5, rng.random(n) < 2 / 3, rng.random(n) < 0.5
    chance = np.where(~sent, 0.1, np.where(first, np.where(pro, 0.5, 0.1), 0.2))
    variant = np.where(sent, np.where(first, 0, len(campaign.variants) - 1), -1)
    local = 20_000 * 86_400 + rng.integers(0, 7 * 24, n) * 3_600
    clicked = np.where(sent, (rng.random(n) < chance).astype(float), np.nan)
    return Examples(
        [{"plan": "pro" if one else "free"} for one in pro],
        (campaign,),
        np.zeros(n, dtype=np.int64),
        variant.astype(np.int64),
        np.where(sent, 0, -1).astype(np.int64),
        local.astype(np.int64),
        {"converted": (rng.random(n) < chance).astype(float), "clicked": clicked},
        {},
        np.arange(n),
    )


def unsent_known(data: Examples, known: int) -> Examples:
    """The same rows, but that of those not sent only the first so many are there."""
    unsent = np.flatnonzero(~data.sent)[:known]
    return data.take(np.sort(np.concatenate([np.flatnonzero(data.sent), unsent])))


def publish_model(
    services: Services, campaign: Campaign, n: int = 2_000, seed: int = 1, unsent: int | None = None
) -> Policy:
    """Publishes a model of ``rows`` as the campaign's whole policy, and loads it in this process; ``unsent``: how many
    of the rows that were not sent are kept (None = all)."""
    data = rows(campaign, n, seed)
    data = data if unsent is None else unsent_known(data, unsent)
    trained = train(data, attributes=(), seed=seed, network=False)
    return publish_blob(services, campaign, trained.blob, trained.feature_hash, n)


def publish_blob(services: Services, campaign: Campaign, blob: bytes, feature_hash: str, n: int) -> Policy:
    """Publishes a model of n rows as the campaign's whole policy, and loads it in this process."""
    now = services.clock()
    artifact = artifact_of(campaign.workspace_id, blob, feature_hash, now)
    parts = (Component(1.0, artifact.artifact_id),)
    policy = new_policy(
        campaign.workspace_id,
        campaign.campaign_id,
        now,
        parts,
        parent=None,
        exploration={"matured_rows": {variant.id: n for variant in campaign.variants}},
        verdict={"decision": "publish"},
        run_id=None,
    )
    with services.store.read() as reader:
        pointer = reader.pointer(campaign.workspace_id, campaign.campaign_id)
    published = publish(services, [artifact], policy, pointer, now)
    services.policies.refresh_now()
    return published
