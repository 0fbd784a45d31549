"""Late and repeated events about archived decisions leave what they would have left had nothing been archived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.archiving import archive
from optimizer.service.erasing import erase
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput, VendorEvent
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
    yield opened
    opened.close()


def report(services: Services, event_id: str, *, kind: str = "converted", **named: str) -> tuple[int, int]:
    """An event of seven hours after the start; how many were accepted, and how many known already."""
    one = EventInput(kind, after(hours=7), event_id=event_id, value=39.5, **named)  # type: ignore[arg-type]
    told = ingest(services, WORKSPACE, [one])
    assert not told.rejected
    return told.accepted, told.duplicates


def archive_march(services: Services) -> None:
    """Both messages, with what is known of them; the newest event of all would stay."""
    report(services, "newest", recipient_id="u2", kind="Page Viewed")
    assert archive(services, WORKSPACE, APRIL).decisions == 2


def rhythm(services: Services) -> list[tuple[str, int, float]]:
    with services.store.read() as reader:
        sums = reader.rhythms(WORKSPACE, ["u1"])["u1"]
    return sorted((one.kind, one.hour, one.weight) for one in sums)


def test_an_answered_message_is_not_tallied_as_answered_again(services: Services) -> None:
    before = rhythm(services)
    assert {kind for kind, _, _ in before} == {"sent", "answered"}
    archive_march(services)
    assert report(services, "second", decision_id="a", kind="clicked") == (1, 0)
    assert rhythm(services) == before


@pytest.mark.parametrize("again", [{"recipient_id": "u1"}, {"decision_id": "b"}, {"decision_id": "a"}])
def test_an_archived_event_is_known_again(services: Services, again: dict[str, str]) -> None:
    assert report(services, "order-77", decision_id="a") == (1, 0)
    archive_march(services)
    before = heard(services)
    assert report(services, "order-77", **again) == (0, 1)
    assert report(services, "another", **again) == (1, 0)
    one = EventInput("converted", after(hours=7), event_id="order-77", value=39.5, **again)  # type: ignore[arg-type]
    both = [one, replace(one, event_id="a third")]
    told = ingest(services, WORKSPACE, both)
    assert (told.accepted, told.duplicates) == (1, 1)
    assert [one for one in heard(services) if one[1] not in ("another", "a third")] == before
    assert erase(services, WORKSPACE, "u1").decisions == 2


def test_a_vendors_archived_event_is_known_again(services: Services) -> None:
    def said(name: str) -> tuple[int, int]:
        one = VendorEvent(
            "clicked", after(hours=7), event_id="sg-1", decision_id=name, vendor="sendgrid", words={"sg": 1}
        )
        told = ingest(services, WORKSPACE, [one])
        return told.accepted, told.duplicates

    assert said("a") == (1, 0)
    archive_march(services)
    assert said("b") == (0, 1)
    assert said("a") == (0, 1)


def heard(services: Services) -> list[tuple[str, str]]:
    """The log's events, with the decisions that they count for."""
    with services.store.read() as reader:
        rows = list(reader.feedback(WORKSPACE))
    return sorted((row.decision.decision_id, event.event_id) for row in rows for event in row.events)
