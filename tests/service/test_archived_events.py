"""Late and repeated events about archived decisions leave what they would have left had nothing been archived."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.archiving import archive
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.settle import confirm
from optimizer.service.wiring import Services, open_services
from tests.service.asking import ask
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import after, reserve

APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def services(database: str, clock: FakeClock, tmp_path: Path) -> Iterator[Services]:
    """Messages ``a`` and ``b`` of ``u1`` went out in March; it is May, and somebody else was asked about."""
    opened = open_services(Settings(database=database, archive_folder=str(tmp_path / "archive")), clock, 7, watch=False)
    setup.ensure_workspace(opened, WORKSPACE)
    setup.put_campaign(opened, campaign())
    for name in ("a", "b"):
        reserve(opened, name)
    clock.forward(hours=8)
    for name in ("a", "b"):
        confirm(opened, WORKSPACE, name, after(hours=6), "ses", f"message of {name}")
    report(opened, "first", decision_id="a", kind="opened")
    clock.forward(days=60)
    ask(opened, "u2")
    report(opened, "newest", recipient_id="u2", kind="Page Viewed")
    yield opened
    opened.close()


def report(services: Services, event_id: str, *, kind: str = "converted", **named: str) -> tuple[int, int]:
    """An event of seven hours after the start; how many were accepted, and how many known already."""
    one = EventInput(kind, after(hours=7), event_id=event_id, value=39.5, **named)  # type: ignore[arg-type]
    told = ingest(services, WORKSPACE, [one])
    assert not told.rejected
    return told.accepted, told.duplicates


def rhythm(services: Services) -> list[tuple[str, int, float]]:
    with services.store.read() as reader:
        sums = reader.rhythms(WORKSPACE, ["u1"])["u1"]
    return sorted((one.kind, one.hour, one.weight) for one in sums)


def test_an_answered_message_is_not_tallied_as_answered_again(services: Services) -> None:
    before = rhythm(services)
    assert {kind for kind, _, _ in before} == {"sent", "answered"}
    assert archive(services, WORKSPACE, APRIL).decisions == 2
    assert report(services, "second", decision_id="a", kind="clicked") == (1, 0)
    assert rhythm(services) == before
