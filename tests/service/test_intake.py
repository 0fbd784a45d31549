"""What came in is counted by day, source and result, and stored some seconds later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest

from optimizer.service import intake
from optimizer.service.intake import Tally
from optimizer.service.requests import IngestReport, RejectedEvent
from storage.errors import StoreUnavailable
from storage.intake import Intake
from storage.port import Store

NOW = datetime(2026, 7, 1, 23, 59, tzinfo=UTC)


@dataclass
class Shelf:
    """A store that only counts, and can be down."""

    down: bool = False
    stored: list[Intake] = field(default_factory=list)
    forgot: list[date] = field(default_factory=list)

    def write(self, work: Callable[[Any], None]) -> None:
        if self.down:
            raise StoreUnavailable("the disk is full")
        work(self)

    def count_intake(self, added: list[Intake]) -> None:
        self.stored += added

    def drop_intake(self, before: date) -> None:
        self.forgot.append(before)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(intake, "FLUSH_SECONDS", 3600.0)
    return Shelf()


@contextmanager
def tally(shelf: Shelf, now: list[datetime]) -> Iterator[Tally]:
    made = Tally(cast(Store, shelf), lambda: now[-1])
    yield made
    made.stop()


REPORT = IngestReport(5, 2, 1, (RejectedEvent(3, "future", "…"), RejectedEvent(4, "future", "…")))


def test_reports_add_up_and_are_stored_together(shelf: Shelf) -> None:
    now = [NOW]
    with tally(shelf, now) as counted:
        counted.report("w", "api", REPORT)
        counted.report("w", "api", REPORT, unknown=1)
        assert shelf.stored == []
        now.append(NOW + timedelta(minutes=2))
        counted.count("w", "mailgun", {"forged": 1, "nothing": 0})
        counted.flush()
        counted.flush()
    first, second = NOW.date(), NOW.date() + timedelta(days=1)
    assert {(one.day, one.source, one.result): one.count for one in shelf.stored} == {
        (first, "api", "matched"): 8,
        (first, "api", "unmatched"): 2,
        (first, "api", "duplicate"): 4,
        (first, "api", "rejected.future"): 4,
        (first, "api", "unknown_type"): 1,
        (second, "mailgun", "forged"): 1,
    }
    assert shelf.forgot == [second - intake.KEPT], "old days are forgotten once a day"


def test_what_cannot_be_stored_now_is_stored_later(shelf: Shelf) -> None:
    shelf.down = True
    with tally(shelf, [NOW]) as counted:
        counted.count("w", "api", {"matched": 1})
        counted.flush()
        counted.count("w", "api", {"matched": 2})
        shelf.down = False
    assert [one.count for one in shelf.stored] == [3], "and stopping stores what waits"


def test_counting_alone_has_it_stored(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "FLUSH_SECONDS", 0.0)
    with tally(shelf, [NOW]) as counted:
        counted.count("w", "api", {"matched": 1})
        timer = counted._timer
        if timer is not None:
            timer.join(20)
        assert [one.count for one in shelf.stored] == [1]
