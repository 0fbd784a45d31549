"""Rows that wait for the same purchase are bet on together, not one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.drift import Detectors
from optimizer.bandit.rewards import Outcome
from optimizer.service import driftratios, setup
from optimizer.service.feedback import Logged, load
from optimizer.service.replay import Replayer
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.log import Decision
from storage.records import Campaign, Channel, OutcomeWeight
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

SHOP = campaign(
    channels=(Channel("email"),),
    objective={"converted": OutcomeWeight(1.0)},
    attribution_hours={"converted": 72.0},
)


def ask(services: Services, name: str) -> None:
    services.decider.decide(WORKSPACE, DecisionRequest("spring", name, immediate=True))


@pytest.fixture
def shop(services: Services) -> Services:
    setup.put_campaign(services, SHOP)
    return services


def test_a_row_has_its_share_of_what_is_reported_of_its_person(shop: Services, clock: FakeClock) -> None:
    setup.put_campaign(shop, replace(SHOP, campaign_id="autumn"))
    for name, hours in (("a", 0), ("b", 24), ("a", 24), ("a", 0), ("a", 48), ("a", 96)):
        clock.forward(hours=hours)
        ask(shop, name)
    clock.forward(hours=1)
    with shop.store.read() as reader:
        rows = load(reader, WORKSPACE, clock.now).of("spring")
        share = driftratios.shares(Replayer(reader, shop.salt), SHOP, rows)
        late = driftratios.shares(Replayer(reader, shop.salt), SHOP, rows[-2:])
    found = [(row.decision.recipient_id, round(1 / one)) for row, one in zip(rows, share, strict=True)]
    # Two are made at once, each beside the other and the first one; a day after that has closed they are open still.
    assert sorted(found[2:4]) == [("a", 3), ("a", 3)]
    assert [found[i] for i in (0, 1, 4, 5)] == [("a", 1), ("b", 1), ("a", 3), ("a", 1)]
    assert late.tolist() == share[-2:].tolist(), "whatever a look has read"


class Streams:
    """A log in memory of people who are asked again and again (``replay.Past``)."""

    def __init__(self, rows: Sequence[Logged]) -> None:
        self.rows: dict[str, list[Decision]] = {}
        for row in reversed(rows):
            self.rows.setdefault(row.decision.recipient_id, []).append(row.decision)

    def asked(self, campaign: Campaign, recipient_id: str) -> Iterator[Decision]:
        del campaign
        return iter(self.rows[recipient_id])


def often(row: Logged, people: int, days: int, chance: float, seed: int) -> list[Logged]:
    """Each is asked twenty times a day. They buy at a rate by which a purchase falls into a window with ``chance``."""
    rng = np.random.default_rng(seed)
    gap, window = timedelta(hours=1.2), 72.0
    rate = -np.log1p(-chance) / window
    rows = []
    for person in range(people):
        bought = np.cumsum(rng.exponential(1.0 / rate, int(days * 24 * rate * 2 + 20)))
        for k in range(20 * days):
            hour = k * gap.total_seconds() / 3600.0
            happened = bool(np.any((bought >= hour) & (bought < hour + window)))
            at = START + k * gap
            decision = replace(
                row.decision,
                decision_id=f"dec_{k:05}_{person:03}",
                recipient_id=f"p{person}",
                decided_at=at,
                send_at=at,
                snapshot=replace(row.decision.snapshot, window_start=at, window_end=at),
            )
            rows.append(replace(row, decision=decision, outcomes={"converted": Outcome(happened, None, None, True)}))
    return sorted(rows, key=lambda one: one.decision.decision_id)


def always(chance: float) -> Callable[[Any, Sequence[Decision]], list[dict[str, float]]]:
    """Predictions that are the same for everybody."""

    def predicted(past: Any, decisions: Sequence[Decision]) -> list[dict[str, float]]:
        del past
        return [{"converted": chance}] * len(decisions)

    return predicted


def each_alone(past: Any, campaign: Campaign, rows: Sequence[Logged]) -> Any:
    """As if rows of one person had nothing in common."""
    del past, campaign
    return np.ones(len(rows))


def alarms(ratios: Any, rows: Sequence[Logged]) -> int:
    detectors = Detectors.start([str(i) for i in range(ratios.shape[1])], 1e6)
    return len(detectors.after(ratios, driftratios.times(rows))[1])


def test_people_who_are_asked_often_raise_no_false_alarm(
    shop: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prediction is right: an alarm comes in a million rows. Row by row one comes in a thousand."""
    ask(shop, "a")
    clock.forward(hours=1)
    with shop.store.read() as reader:
        (row,) = load(reader, WORKSPACE, clock.now).rows
    rows = often(row, people=5, days=160, chance=0.3, seed=1)
    monkeypatch.setattr(driftratios, "predicted_outcomes", always(0.3))
    past: Any = Streams(rows)
    ratios, _ = driftratios.calibration(past, SHOP, {}, rows)
    assert alarms(ratios, rows) == 0
    monkeypatch.setattr(driftratios, "shares", each_alone)
    alone, _ = driftratios.calibration(past, SHOP, {}, rows)
    assert alarms(alone, rows) > 15
    # What is no longer right is still noticed.
    monkeypatch.undo()
    monkeypatch.setattr(driftratios, "predicted_outcomes", always(0.08))
    assert alarms(driftratios.calibration(past, SHOP, {}, rows)[0], rows) > 0
