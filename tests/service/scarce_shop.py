"""A campaign whose people ask for more than there is, for the tests of demand and of prices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.config import Settings
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.wiring import Services, open_services
from storage.log import Decision
from storage.records import Channel, OutcomeWeight
from storage.rules import Capacity, Rule
from tests.service.conftest import WORKSPACE, FakeClock, campaign

PEOPLE = 300
HOURLY = Rule(WORKSPACE, "hourly", "capacity", Capacity(15, 60))


def spring(**changes: Any) -> Any:
    values = {
        "channels": (Channel("email", 0.01),),
        "objective": {"clicked": OutcomeWeight(1.0)},
        "spread_within_slot": False,
    }
    return campaign(**values | changes)


def ask(services: Services, people: int, run: str, *, to: str = "spring", hours: float = 6.0) -> list[Decision]:
    """One question each; every third person is keen."""
    now = services.clock()
    rows = [
        DecisionRequest(
            to,
            f"p{i}",
            context={"keen": i % 3 == 0},
            window=(now, now + timedelta(hours=hours)),
            request_id=f"{run}/{i}",
        )
        for i in range(people)
    ]
    return [d for d in services.decider.decide_batch(WORKSPACE, rows, run) if isinstance(d, Decision)]


def respond(services: Services, decided: list[Decision], seed: int) -> None:
    """Keen people click on .6 of their messages, the others on .15."""
    rng = np.random.default_rng(seed)
    events = [
        EventInput(type="clicked", occurred_at=d.send_at + timedelta(minutes=1), decision_id=d.decision_id)
        for d in decided
        if d.send_at is not None and rng.random() < (0.6 if d.snapshot.context["keen"] else 0.15)
    ]
    ingest(services, WORKSPACE, events)


@contextmanager
def opened(folder: Path, clock: FakeClock) -> Iterator[Services]:
    settings = Settings(database=f"sqlite:///{folder}/test.db", gate=False)
    services = open_services(settings, clock, seed=7, watch=False)
    try:
        yield services
    finally:
        services.close()
