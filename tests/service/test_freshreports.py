"""Reports for those who can't wait: nobody is kept, nothing is made twice at a time, what is old is made anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optimizer.errors import NotFound
from optimizer.service.freshreports import Fresh, FreshReports

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
LONG = 10.0


class Ticks:
    """Seconds that pass by a fixed step with every look."""

    def __init__(self, step: float) -> None:
        self.at, self.step = 0.0, step

    def __call__(self) -> float:
        self.at += self.step
        return self.at


@pytest.fixture
def reports() -> Iterator[FreshReports]:
    made = FreshReports(timer=Ticks(3.0))
    yield made
    made.stop()


def test_who_has_patience_gets_a_report_that_is_made_quickly(reports: FreshReports) -> None:
    assert reports.latest("a", NOW, lambda: {"n": 1}, LONG) == Fresh({"n": 1}, pending=False)


def test_who_has_none_gets_nothing_yet_and_the_report_later(reports: FreshReports) -> None:
    begun, finish = threading.Event(), threading.Event()

    def slow() -> dict[str, Any]:
        begun.set()
        assert finish.wait(LONG)
        return {"n": 1}

    assert reports.latest("a", NOW, slow, 0.0) == Fresh(None, pending=True)
    assert begun.wait(LONG)
    never = pytest.fail
    assert reports.latest("a", NOW, lambda: never("made twice at a time"), 0.0) == Fresh(None, pending=True)
    finish.set()
    assert reports.latest("a", NOW, lambda: never("made anew though fresh"), LONG).report == {"n": 1}


def test_an_old_report_is_shown_while_a_newer_one_is_made(reports: FreshReports) -> None:
    reports.latest("a", NOW, lambda: {"n": 1}, LONG)
    # It took three seconds, so it is fresh for twenty times as long.
    fresh = reports.latest("a", NOW + timedelta(seconds=59), lambda: {"n": 2}, LONG)
    assert fresh == Fresh({"n": 1}, pending=False)
    finish = threading.Event()

    def slow() -> dict[str, Any]:
        assert finish.wait(LONG)
        return {"n": 2}

    later = NOW + timedelta(seconds=60)
    assert reports.latest("a", later, slow, 0.0) == Fresh({"n": 1}, pending=True)
    finish.set()
    assert reports.latest("a", later, slow, LONG) == Fresh({"n": 2}, pending=False)


def test_a_report_that_takes_minutes_is_kept_for_ten() -> None:
    reports = FreshReports(timer=Ticks(120.0))
    reports.latest("a", NOW, lambda: {"n": 1}, LONG)
    assert reports.latest("a", NOW + timedelta(minutes=9, seconds=59), lambda: {"n": 2}, LONG).report == {"n": 1}
    assert reports.latest("a", NOW + timedelta(minutes=10), lambda: {"n": 2}, LONG).report == {"n": 2}
    reports.stop()


def test_a_report_that_fails_is_tried_again_by_the_next_who_asks(
    reports: FreshReports, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> dict[str, Any]:
        raise NotFound("gone")

    assert reports.latest("a", NOW, fail, LONG) == Fresh(None, pending=False)
    assert "gone" in caplog.text
    assert reports.latest("a", NOW, lambda: {"n": 1}, LONG).report == {"n": 1}


def test_a_bug_in_one_report_stops_no_other(reports: FreshReports, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError("a bug")

    assert reports.latest("a", NOW, broken, LONG) == Fresh(None, pending=False)
    assert "a bug" in caplog.text
    assert reports.latest("b", NOW, lambda: {"n": 1}, LONG).report == {"n": 1}


def test_only_so_many_are_kept(reports: FreshReports) -> None:
    for n in range(70):
        reports.latest(n, NOW, lambda n=n: {"n": n}, LONG)  # type: ignore[misc]  # bound now
    assert reports.latest(69, NOW, lambda: {"n": -1}, LONG).report == {"n": 69}
    assert reports.latest(0, NOW, lambda: {"n": -1}, LONG).report == {"n": -1}


def test_one_that_was_never_asked_stops_quietly() -> None:
    FreshReports().stop()
