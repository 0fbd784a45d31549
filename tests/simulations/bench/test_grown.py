"""A log made large: as many rows as it says, and a service that goes on with it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.ingest import ingest
from optimizer.service.requests import DecisionRequest, EventInput
from optimizer.service.wiring import open_services
from simulations.bench import shop
from simulations.bench.grown import multiply
from simulations.clock import SteppingClock
from storage.records import Campaign, Channel, GroupShares, Variant

ROWS, COPIES = 20, 6


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Twenty decisions with an event each."""
    settings = replace(Settings(), database=shop.database_in(tmp_path))
    services = open_services(settings, SteppingClock(shop.START), seed=1, watch=False)
    setup.ensure_workspace(services, shop.WORKSPACE)
    campaign = Campaign(
        shop.WORKSPACE, "c", (Variant("a"),), (Channel("email"),), shop.START, shop.START, groups=GroupShares()
    )
    setup.put_campaign(services, campaign)
    for request in shop.requests(0, ROWS):
        decision, _ = services.decider.decide(shop.WORKSPACE, request)
        event = EventInput("viewed", shop.START, event_id=f"e {decision.decision_id}", decision_id=decision.decision_id)
        ingest(services, shop.WORKSPACE, [event])
    services.close()
    return tmp_path / "bench.db"


def count(database: Path, table: str) -> int:
    with sqlite3.connect(database) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def test_everything_is_there_so_many_times_more(database: Path) -> None:
    messages = count(database, "messages")
    multiply(database, COPIES, people=2)
    assert count(database, "decisions") == ROWS * (COPIES + 1)
    assert count(database, "events") == ROWS * (COPIES + 1)
    assert count(database, "messages") == messages * (COPIES + 1)
    assert count(database, "recipients") == ROWS * 3


def test_the_service_goes_on_with_it(database: Path) -> None:
    multiply(database, COPIES)
    with shop.reopened(database.parent, shop.START + timedelta(days=10)) as services:
        decision, new = services.decider.decide(shop.WORKSPACE, DecisionRequest("c", "00001.u3"))
        assert new
        with services.store.read() as reader:
            page = reader.decisions(shop.WORKSPACE, limit=3, recipient_id="00001.u3")
            (copied,) = [one for one in page.items if one.decision_id != decision.decision_id]
            assert copied.status in ("sent", "no_send", "withheld")
            assert copied.decided_at < shop.START
            assert len(reader.events(shop.WORKSPACE, copied)) == 1
