"""The set-up of the rules drill: three campaigns, a rule of every kind, and people of whom some said no.

Limits that all recipients share grow with the number of decisions, so that they run out in a small run as they do in a
large one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np

from optimizer.config import Settings
from optimizer.model.examples import NO_SEND, Examples
from optimizer.service import setup
from optimizer.service.wiring import Services, open_services, utc_now
from simulations.drills.scene import (
    BEFORE,
    PLANS,
    VARIANTS,
    WORKSPACE,
    ZONES,
    campaign,
    made_up_clicks,
    publish_learned,
    recipient_name,
)
from storage.records import Campaign, Channel, Consent, Recipient, Suppression, Variant
from storage.rules import MICROS, Adapt, Blackout, Budget, Cap, Capacity, Fatigue, QuietHours, Rule, WarmUpStep
from storage.rules import Selector as Only

#: By rising priority: uniform over the eligible, learned, and transactional (which displaces and is not displaced).
DIGEST, OFFER, RECEIPT = "digest", "offer", "receipt"
CAMPAIGNS = (DIGEST, OFFER, RECEIPT)
#: Windows start within this many days.
DAYS = 5
#: What a message costs, in the campaigns' currency: an email, a push, and the second variant more than the first.
EMAIL_COST, PUSH_COST, SECOND_COST = 0.001, 0.004, 0.002
#: How much there is for each decision made: emails an hour, pushes a day, money a day.
EMAILS_AN_HOUR, PUSHES_A_DAY, MONEY_A_DAY = 0.002, 0.006, 0.00007
_COUNTRIES = ("DE", "US", "IN")
_CHUNK = 5_000


@dataclass(frozen=True)
class Size:
    """How large a run is; see the flags of the command."""

    processes: int = 8
    threads: int = 4
    decisions: int = 1_000_000
    recipients: int = 100_000
    seed: int = 1
    mutant_decisions: int = 40_000

    @property
    def singles(self) -> int:
        """How many decisions are asked for one by one; the rest comes in batches."""
        return self.decisions // 5

    def smaller(self) -> Size:
        """The size of a run with a fault: as many decisions for each recipient."""
        fewer = min(self.decisions, self.mutant_decisions)
        return replace(self, decisions=fewer, recipients=max(1, self.recipients * fewer // self.decisions))


def first_window(now: datetime) -> datetime:
    """When the first windows start: a full hour, late enough that no window is clipped during a run."""
    return now.replace(minute=0, second=0, microsecond=0) + BEFORE


def prepare(settings: Settings, size: Size) -> datetime:
    """Makes the workspace; returns when the first windows start."""
    start = first_window(utc_now())
    services = open_services(settings, lambda: utc_now() - BEFORE, seed=size.seed, watch=False)
    try:
        setup.ensure_workspace(services, WORKSPACE)
        for name in CAMPAIGNS:
            setup.put_campaign(services, _campaign(name, services.clock()))
        for rule in rules(size.decisions, start.date()):
            setup.put_rule(services, rule)
        _put_people(services, size.recipients)
        publish_learned(services, OFFER, size.seed, clicks_and_refusals)
    finally:
        services.close()
    return start


def rules(decisions: int, first_day: date) -> tuple[Rule, ...]:
    """The rules for a run of so many decisions whose windows start on this day."""
    third_day = (first_day + timedelta(days=2)).isoformat()
    pushes = max(2, round(PUSHES_A_DAY * decisions))
    warm_up = (WarmUpStep(1, pushes // 2), WarmUpStep(3, pushes * 2 // 3))
    return (
        Rule(WORKSPACE, "week", "cap", Cap(4, rolling_hours=168.0)),
        Rule(WORKSPACE, "day", "cap", Cap(2, calendar="day", adapt=Adapt(1, 1))),
        Rule(WORKSPACE, "gap", "gap", Cap(1, rolling_hours=6.0)),
        Rule(WORKSPACE, "night", "quiet_hours", QuietHours("22:00", "07:00")),
        Rule(WORKSPACE, "closed", "blackout", Blackout((third_day,), True)),
        Rule(
            WORKSPACE,
            "emails",
            "capacity",
            Capacity(max(1, round(EMAILS_AN_HOUR * decisions)), 60),
            Only(channels=("email",)),
            Only(channels=("email",)),
        ),
        Rule(
            WORKSPACE,
            "pushes",
            "capacity",
            Capacity(pushes, 1440, warm_up, first_day.isoformat()),
            Only(channels=("push",)),
            Only(channels=("push",)),
        ),
        Rule(WORKSPACE, "money", "budget", Budget(round(MONEY_A_DAY * decisions * MICROS), "day", "Europe/Berlin")),
        Rule(WORKSPACE, "risk", "fatigue", Fatigue("unsubscribed", 0.06)),
    )


def _campaign(name: str, now: datetime) -> Campaign:
    base = campaign(name, now)
    first, second = VARIANTS
    return replace(
        base,
        variants=(Variant(first), Variant(second, cost=SECOND_COST)),
        channels=(Channel("email", EMAIL_COST), Channel("push", PUSH_COST)),
        category="transactional" if name == RECEIPT else "marketing",
        priority={DIGEST: 20, OFFER: 50, RECEIPT: 90}[name],
        displaceable=name != RECEIPT,
    )


def _put_people(services: Services, recipients: int) -> None:
    for first in range(0, recipients, _CHUNK):
        some = range(first, min(first + _CHUNK, recipients))
        setup.put_recipients(services, WORKSPACE, [_person(i) for i in some])


def _person(i: int) -> Recipient:
    """Three zones and their countries; one in eleven allows no push, one in thirteen refused the marketing."""
    return Recipient(
        workspace_id=WORKSPACE,
        recipient_id=recipient_name(i),
        timezone=ZONES[i % len(ZONES)],
        attributes={"plan": PLANS[i % len(PLANS)], "country": _COUNTRIES[i % len(ZONES)]},
        channels={"push": Consent(i % 11 != 0)},
        suppressed=(Suppression("*", "marketing"),) if i % 13 == 0 else (),
    )


def clicks_and_refusals(mine: Campaign, seed: int) -> Examples:
    """Made-up clicks, and people who unsubscribe after pushes rather than after emails."""
    clicks = made_up_clicks(mine, seed)
    chance = np.where(clicks.channel == 1, 0.12, 0.01)
    refused = (np.random.default_rng(seed + 1).random(len(clicks)) < chance).astype(np.float64)
    refused[clicks.channel == NO_SEND] = np.nan
    return replace(
        clicks,
        outcome={**clicks.outcome, "unsubscribed": refused},
        value={**clicks.value, "unsubscribed": np.full(len(clicks), np.nan)},
    )
