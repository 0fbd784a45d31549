"""The audit counts what counted at each reservation: places given back, other systems, confirms, overrides, order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from simulations.holdings import Entry
from storage.log import Event, Message, Status
from storage.port import Store
from storage.records import (
    Cap,
)
from tests.simulations.planted import (
    DAY,
    HOUR,
    NOW,
    SHOP,
    audited,
    broken,
    log,
    message_of,
    put_rule,
    reserved,
    spaced,
)


@pytest.mark.parametrize("idle", [{"enabled": False}, {"dry_run": True}, {"archived": True}])
def test_a_rule_that_is_off_binds_nothing(store: Store, idle: dict[str, bool]) -> None:
    put_rule(store, Cap(limit=0, calendar="day"), **idle)
    log(store, reserved("d0", NOW + HOUR))
    assert audited(store).clean


@pytest.mark.parametrize("status", ["released", "revoked", "displaced", "expired"])
def test_a_place_given_back_counts_until_then_and_not_after(store: Store, status: Status) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    log(
        store,
        reserved("back", NOW + 10 * HOUR, NOW, status=status, closed_at=NOW + 2 * HOUR),
        reserved("too-soon", NOW + 30 * HOUR, NOW + HOUR, status="released", closed_at=NOW + 90 * timedelta(minutes=1)),
        reserved("over", NOW + 11 * HOUR, NOW + 100 * timedelta(minutes=1), status=status, closed_at=NOW + 3 * HOUR),
        reserved("fits", NOW + 12 * HOUR, NOW + 4 * HOUR),
    )
    assert broken(audited(store)) == [("cap", "too-soon"), ("cap", "over")]


def test_of_two_reserved_at_once_the_later_is_charged(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    second = timedelta(seconds=1)
    log(store, reserved("a", NOW + HOUR, NOW), reserved("b", NOW + 2 * HOUR, NOW + second))
    assert broken(audited(store)) == [("cap", "b")]


def test_an_order_that_the_log_lacks_is_told_and_not_guessed(store: Store) -> None:
    """A release a second after the decision: which was committed first can't be told from the times."""
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    second = timedelta(seconds=1)
    log(
        store,
        reserved("a", NOW + HOUR, NOW, status="released", closed_at=NOW + 3 * second),
        reserved("b", NOW + 2 * HOUR, NOW + 2 * second),
    )
    report = audited(store)
    assert report.clean
    assert report.tallies["the-rule", "cap"] == {"kept": 1, "unknown": 1}
    place_a, back_a = Entry(1, "u1", "a", NOW + HOUR), Entry(2, "u1", "a", None)
    kept = audited(store, place_a, back_a, Entry(3, "u1", "b", NOW + 2 * HOUR))
    assert kept.exact
    assert kept.clean
    assert kept.unknown == 0
    over = audited(store, place_a, Entry(2, "u1", "b", NOW + 2 * HOUR), replace(back_a, position=3))
    assert broken(over) == [("cap", "b")]


def test_one_that_was_given_back_at_once_is_charged_with_none_reserved_at_the_same_time(store: Store) -> None:
    """The earlier by time may have been committed after the later one had been given back."""
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    second = timedelta(seconds=1)
    log(
        store,
        reserved("a", NOW + HOUR, NOW),
        reserved("b", NOW + 2 * HOUR, NOW + second, status="released", closed_at=NOW + 2 * second),
    )
    report = audited(store)
    assert report.clean
    assert report.unknown == 1


def test_messages_of_other_systems_count_from_their_report_on(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    foreign = Message(SHOP, "u1", NOW - HOUR, "theirs", "email", "marketing")
    store.write(lambda w: w.add_message(foreign))
    log(store, reserved("d0", NOW + HOUR))
    by_time = audited(store)
    assert by_time.clean
    assert by_time.other_systems == 1
    assert by_time.tallies["the-rule", "cap"]["unknown"] == 1  # it may have been reported after the decision
    before = audited(store, Entry(1, "u1", "theirs", NOW - HOUR), Entry(2, "u1", "d0", NOW + HOUR))
    assert broken(before) == [("cap", "d0")]
    after = audited(store, Entry(1, "u1", "d0", NOW + HOUR), Entry(2, "u1", "theirs", NOW - HOUR))
    assert after.clean
    assert after.unknown == 0


def test_a_sent_message_counts_at_its_real_time_once_confirmed(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    late = NOW + 30 * HOUR
    log(
        store,
        reserved("late", NOW + HOUR, NOW, status="sent", sent_at=late),
        reserved("before", NOW + 25 * HOUR, NOW + 2 * HOUR, status="released", closed_at=NOW + 3 * HOUR),
        reserved("after", NOW + 52 * HOUR, NOW + 40 * HOUR),
    )
    report = audited(store)
    assert report.clean  # when the confirm came is not in the log
    assert report.tallies["the-rule", "cap"] == {"kept": 2, "unknown": 1}
    planned, real = Entry(1, "u1", "late", NOW + HOUR), Entry(4, "u1", "late", late)
    rest = (Entry(2, "u1", "before", NOW + 25 * HOUR), Entry(3, "u1", "before", None))
    exact = audited(store, planned, real, *rest, Entry(5, "u1", "after", NOW + 52 * HOUR))
    assert broken(exact) == [("cap", "after")]


def test_rules_overridden_by_request_are_listed_apart(store: Store) -> None:
    put_rule(store, Cap(limit=0, calendar="day"))
    log(store, reserved("d0", NOW + HOUR, overridden=("the-rule",)))
    report = audited(store)
    assert report.clean
    assert report.overridden == [("d0", "the-rule")]


def test_what_the_sender_did_otherwise_is_listed_apart(store: Store) -> None:
    minute = timedelta(minutes=1)
    log(
        store,
        reserved("on-time", NOW + HOUR, status="sent", sent_at=NOW + HOUR + minute),
        reserved("early", NOW + HOUR, status="sent", sent_at=NOW + HOUR - 10 * minute),
        reserved("late", NOW + HOUR, status="sent", sent_at=NOW + 3 * HOUR),
        reserved("back", NOW + HOUR, status="sent", sent_at=NOW + HOUR, closed_at=NOW + minute, close_reason="x"),
        reserved("assumed", NOW + HOUR, status="sent", sent_at=NOW + HOUR, closed_at=NOW + 3 * HOUR),
        reserved("nothing", None),
        reserved("gone", NOW + HOUR, status="released", closed_at=NOW + minute),
    )
    events = [
        Event(SHOP, f"e-{ref}", "delivered", NOW + HOUR, NOW + HOUR, matched=True, decision_id=ref, recipient_id="u1")
        for ref in ("nothing", "gone", "on-time")
    ]
    store.write(lambda w: w.add_events(events))
    report = audited(store)
    assert report.clean
    assert {what: sorted(ids) for what, ids in report.otherwise.items()} == {
        "sent_early": ["early"],
        "sent_late": ["late"],
        "sent_after_close": ["back"],
        "sent_unreserved": ["gone", "nothing"],
    }


def test_books_that_contradict_the_decisions_are_found(store: Store) -> None:
    lost, kept = reserved("lost", NOW + HOUR), reserved("kept", NOW + HOUR, status="released", closed_at=NOW)
    place = message_of(replace(kept, status="reserved"))
    store.write(lambda w: w.add_decisions([(lost, None), (kept, place)]))
    assert sorted(broken(audited(store))) == [("books", "kept"), ("books", "lost")]


def test_earlier_reservations_are_counted_and_not_judged(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    log(store, *spaced(NOW + 10 * HOUR, NOW + 11 * HOUR, NOW + 12 * HOUR))
    report = audited(store, since=NOW + 2 * HOUR)
    assert broken(report) == [("cap", "d2")]
    assert report.earlier == 2


def test_imported_history_is_not_judged(store: Store) -> None:
    put_rule(store, Cap(limit=0, calendar="day"))
    log(store, reserved("d0", NOW - DAY, status="sent", sent_at=NOW - DAY, imported=True))
    report = audited(store)
    assert report.clean
    assert (report.reservations, report.imported) == (0, 1)
