"""What is measured on: 6 variants x 24 slots x 3 channels (+ no_send), five outcomes, a trained policy, and rules.

A cap, a gap and quiet hours: most recipients are asked about once, so that what is timed is a choice, not a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput, RecipientPatch
from optimizer.service.retrain import retrain
from optimizer.service.wiring import Services, open_services
from simulations.clock import SteppingClock
from storage.log import Decision
from storage.records import Campaign, Channel, Consent, GroupShares, OutcomeWeight, Variant
from storage.rules import Cap, QuietHours, Rule, Selector

WORKSPACE = "bench"
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
#: Logged decisions that the policy is trained on.
TRAINED_ON = 3000
CHANNELS = ("email", "push", "sms")
WORTH = {"opened": 0.1, "clicked": 1.0, "converted": 5.0, "unsubscribed": -20.0, "complained": -40.0}
RULES = (
    Rule(WORKSPACE, "cap", "cap", Cap(3, rolling_hours=168.0)),
    Rule(WORKSPACE, "gap", "gap", Cap(1, rolling_hours=4.0)),
    Rule(WORKSPACE, "quiet", "quiet_hours", QuietHours("23:00", "06:00"), Selector(channels=("push", "sms"))),
)
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata")


@contextmanager
def shop(slot_minutes: int = 60) -> Iterator[Services]:
    """A service on a temporary database with a policy trained on a made-up log."""
    with TemporaryDirectory(prefix="sendtide-bench-") as folder, opened(Path(folder), START, slot_minutes) as services:
        yield services


@contextmanager
def opened(folder: Path, start: datetime, slot_minutes: int = 60) -> Iterator[Services]:
    """The same in a folder, taught from ``start`` on; gate off: it isn't what is timed."""
    clock = SteppingClock(start)
    settings = replace(Settings(), database=database_in(folder), gate=False)
    services = open_services(settings, clock, seed=1, watch=False)
    try:
        _set_up(services, slot_minutes)
        _teach(services, clock)
        yield services
    finally:
        services.close()


@contextmanager
def reopened(folder: Path, at: datetime) -> Iterator[Services]:
    """The same once more, with the clock at ``at``."""
    settings = replace(Settings(), database=database_in(folder), gate=False)
    services = open_services(settings, SteppingClock(at), watch=False)
    try:
        yield services
    finally:
        services.close()


def database_in(folder: Path) -> str:
    """The address of the shop's database."""
    return f"sqlite:///{folder}/bench.db"


def _set_up(services: Services, slot_minutes: int) -> None:
    setup.ensure_workspace(services, WORKSPACE)
    setup.put_campaign(
        services,
        Campaign(
            workspace_id=WORKSPACE,
            campaign_id="c",
            variants=tuple(Variant(f"v{i}") for i in range(6)),
            channels=tuple(Channel(name) for name in CHANNELS),
            created_at=START,
            updated_at=START,
            slot_minutes=slot_minutes,
            objective={name: OutcomeWeight(fixed=value) for name, value in WORTH.items()},
            attribution_hours=dict.fromkeys(WORTH, 1.0),
            groups=GroupShares(),
        ),
    )
    for rule in RULES:
        setup.put_rule(services, rule)


def requests(first: int, count: int) -> list[DecisionRequest]:
    """``count`` requests of as many new recipients, with consent, zone and five features."""
    rng = np.random.default_rng(first)
    yes = {name: Consent(True) for name in CHANNELS}
    made = []
    for i in range(first, first + count):
        patch = RecipientPatch(timezone=ZONES[i % 3], attributes=attributes(rng), channels=yes)
        made.append(DecisionRequest("c", f"u{i}", recipient=patch))
    return made


def attributes(rng: np.random.Generator) -> dict[str, Any]:
    """Five features of a made-up person."""
    return {
        "plan": str(rng.choice(["pro", "free"])),
        "country": str(rng.choice(["DE", "US", "IN"])),
        "age": int(rng.integers(18, 80)),
        "orders": int(rng.poisson(2)),
        "days": float(rng.exponential(30)),
    }


def outcomes(decided: Iterable[object], rng: np.random.Generator) -> list[EventInput]:
    """What comes of the messages among some decisions: e-mail suits those with a plan, the rest those without."""
    chances = {"opened": 0.3, "clicked": 0.1, "converted": 0.03, "unsubscribed": 0.005, "complained": 0.002}
    events = []
    for one in decided:
        if isinstance(one, Decision) and one.send_at is not None:
            lift = 2.0 if (one.channel == "email") == (one.snapshot.context["plan"] == "pro") else 1.0
            events += [
                EventInput(type=kind, occurred_at=one.send_at, decision_id=one.decision_id)
                for kind, chance in chances.items()
                if rng.random() < chance * lift
            ]
    return events


def _teach(services: Services, clock: SteppingClock) -> None:
    """A uniform log with an effect of plan and channel, and one retrain on it."""
    decided = services.decider.decide_batch(WORKSPACE, requests(10_000_000, TRAINED_ON), "teach")
    clock.advance(timedelta(days=3).total_seconds())
    ingest(services, WORKSPACE, outcomes(decided, np.random.default_rng(0)))
    retrain(services, WORKSPACE)
    services.policies.refresh_now()
