"""The set-up that drills run on: two campaigns over the same people, one that has learned and one that hasn't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np

from optimizer.bandit.localtime import DAY
from optimizer.config import Settings
from optimizer.model.examples import NO_SEND, Examples
from optimizer.service import setup
from optimizer.service.publish import artifact_of, new_policy, publish
from optimizer.service.wiring import Services, open_services, utc_now
from storage.policies import Component
from storage.records import Campaign, Channel, Consent, OutcomeWeight, Recipient, Variant
from storage.rules import Cap, QuietHours, Rule

WORKSPACE = "drill"
#: The campaign without a policy (uniform over the eligible) and the one with a learned policy.
UNIFORM, LEARNED = "uniform", "learned"
CAMPAIGNS = (UNIFORM, LEARNED)
VARIANTS = ("sun", "moon")
CHANNELS = ("email", "push")
PLANS = ("free", "pro", "team")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata")
CAP_HOURS = 24.0
SLOT_MINUTES = 360
#: Set up this long before the drill: what is told of a person right before a decision has no certain order in the log.
BEFORE = timedelta(hours=2)
TRAINING_ROWS = 600
#: Outcomes mature in a second or two, so that there is something to learn from within a drill.
ATTRIBUTION_HOURS = 0.0005
#: Recipients that are stored at a time.
_CHUNK = 5_000

#: Training rows for a campaign, by a seed.
MakeUp = Callable[[Campaign, int], Examples]


def recipient_name(i: int) -> str:
    """The id of the i-th recipient."""
    return f"u{i:06}"


def prepare(settings: Settings, recipients: int, cap: int, seed: int, more: Sequence[Rule] = ()) -> str:
    """Makes the workspace: campaigns, rules, people, and a policy for the campaign that has learned.

    Args:
        settings: names the database.
        recipients: how many people.
        cap: messages that one may get in any 24 hours.
        seed: of the installation's draws and of the training.
        more: rules beside the cap and quiet hours.

    Returns:
        The secret of an API key that may do everything.
    """
    services = open_services(settings, lambda: utc_now() - BEFORE, seed=seed, watch=False)
    try:
        setup.ensure_workspace(services, WORKSPACE)
        for campaign_id in CAMPAIGNS:
            setup.put_campaign(services, campaign(campaign_id, services.clock()))
        setup.put_rule(services, Rule(WORKSPACE, "cap", "cap", Cap(limit=cap, rolling_hours=CAP_HOURS)))
        setup.put_rule(services, Rule(WORKSPACE, "night", "quiet_hours", QuietHours("23:00", "06:30")))
        for rule in more:
            setup.put_rule(services, rule)
        for first in range(0, recipients, _CHUNK):
            some = range(first, min(first + _CHUNK, recipients))
            setup.put_recipients(services, WORKSPACE, [_person(i) for i in some])
        publish_learned(services, LEARNED, seed)
        return setup.create_key(services, WORKSPACE, "drill", ["admin"])[1]
    finally:
        services.close()


def campaign(campaign_id: str, now: datetime) -> Campaign:
    """A campaign with few actions, so that a wrong re-draw moves the share of each of them visibly."""
    return Campaign(
        workspace_id=WORKSPACE,
        campaign_id=campaign_id,
        variants=tuple(Variant(name) for name in VARIANTS),
        channels=tuple(Channel(name) for name in CHANNELS),
        created_at=now,
        updated_at=now,
        slot_minutes=SLOT_MINUTES,
        objective={"clicked": OutcomeWeight(fixed=1.0)},
        attribution_hours={"clicked": ATTRIBUTION_HOURS},
    )


def _person(i: int) -> Recipient:
    return Recipient(
        workspace_id=WORKSPACE,
        recipient_id=recipient_name(i),
        timezone=ZONES[i % len(ZONES)],
        attributes={"plan": PLANS[i % len(PLANS)]},
        channels={"push": Consent(True)},
    )


def publish_learned(services: Services, campaign_id: str, seed: int, made_up: MakeUp | None = None) -> None:
    """Trains on made-up rows (None = clicks) and publishes, as a retrain would, without asking the gate."""
    from optimizer.model.training.train import train

    now = services.clock()
    with services.store.read() as reader:
        mine = reader.campaign(WORKSPACE, campaign_id)
        attributes = reader.attributes(WORKSPACE)
    if mine is None:
        raise LookupError(f"campaign {campaign_id!r} is not there yet")
    trained = train((made_up or made_up_clicks)(mine, seed), attributes=attributes, seed=seed, network=False)
    artifact = artifact_of(WORKSPACE, trained.blob, trained.feature_hash, now)
    policy = new_policy(
        WORKSPACE,
        campaign_id,
        now,
        (Component(0.7, artifact.artifact_id), Component(0.3, None)),
        parent=None,
        exploration={"matured_rows": dict.fromkeys(VARIANTS, 1000)},
        verdict={"decision": "publish", "reason": "drill"},
        run_id=None,
    )
    publish(services, [artifact], policy, None, now)


def made_up_clicks(mine: Campaign, seed: int) -> Examples:
    """Clicks that like one variant in the morning and the other in the evening, and prefer push for some plans."""
    rng, rows = np.random.default_rng(seed), TRAINING_ROWS
    variant = rng.integers(NO_SEND, len(VARIANTS), rows)
    channel = np.where(variant == NO_SEND, NO_SEND, rng.integers(0, len(CHANNELS), rows))
    local = rng.integers(0, 14, rows) * DAY + rng.integers(0, DAY, rows)
    plan = rng.integers(0, len(PLANS), rows)
    morning = local % DAY < DAY // 2
    chance = 0.1 + 0.4 * (morning == (variant == 0)) + 0.2 * ((channel == 1) & (plan == 1))
    clicked = np.where(variant == NO_SEND, 0.05, chance) > rng.random(rows)
    return Examples(
        contexts=[{"plan": PLANS[int(p)]} for p in plan],
        campaigns=(mine,),
        campaign=np.zeros(rows, np.int64),
        variant=variant.astype(np.int64),
        channel=channel.astype(np.int64),
        local=local.astype(np.int64),
        outcome={"clicked": clicked.astype(np.float64)},
        value={"clicked": np.full(rows, np.nan)},
        cluster=np.arange(rows, dtype=np.int64),
    )
