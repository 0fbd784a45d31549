"""The audit counts what counted at each reservation: places given back, other systems, confirms, overrides, order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from storage.log import HEARD, HEARD_LATE, Event, Message, Status
from storage.port import Store
from storage.rules import Cap
from tests.simulations.planted import (
    DAY,
    HOUR,
    NOW,
    SHOP,
    audited,
    broken,
    changed,
    log,
    message_of,
    put_rule,
    released,
    reserved,
    spaced,
    tally,
)

ONE_A_DAY = Cap(limit=1, rolling_hours=24.0)


@pytest.mark.parametrize("idle", [{"enabled": False}, {"dry_run": True}, {"archived": True}])
def test_a_rule_that_is_off_binds_nothing(store: Store, idle: dict[str, bool]) -> None:
    put_rule(store, Cap(limit=0, calendar="day"), **idle)
    log(store, reserved("d0", NOW + HOUR))
    assert audited(store).clean


@pytest.mark.parametrize("status", ["released", "revoked", "expired"])
def test_a_place_given_back_counts_until_then_and_not_after(store: Store, status: Status) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("back", NOW + 10 * HOUR), reserved("too-soon", NOW + 12 * HOUR))
    changed(store, "back", status, closed_at=NOW, close_reason="x")
    log(store, reserved("over", NOW + 11 * HOUR))
    changed(store, "too-soon", status, closed_at=NOW, close_reason="x")
    changed(store, "over", status, closed_at=NOW, close_reason="x")
    log(store, reserved("fits", NOW + 12 * HOUR))
    report = audited(store)
    assert broken(report) == [("cap", "too-soon"), ("cap", "over")]
    assert report.breaches[1].others == ("too-soon",)
    assert report.unknown == 0


def test_what_an_event_says_went_out_counts_but_for_the_time_in_which_it_had_expired(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("told", NOW + 10 * HOUR), reserved("kept", NOW + 60 * HOUR))
    changed(store, "kept", "assumed_sent", closed_at=NOW + 61 * HOUR, close_reason=HEARD)
    log(store, reserved("over", NOW + 11 * HOUR), reserved("beside", NOW + 61 * HOUR))
    changed(store, "over", "released", closed_at=NOW, close_reason="x")
    changed(store, "told", "expired", closed_at=NOW + 11 * HOUR, close_reason="unconfirmed")
    log(store, reserved("between", NOW + 11 * HOUR))
    changed(store, "told", "assumed_sent", close_reason=HEARD_LATE)
    changed(store, "between", "released", closed_at=NOW, close_reason="x")
    log(store, reserved("again", NOW + 12 * HOUR))
    report = audited(store)
    assert broken(report) == [("cap", "over"), ("cap", "beside"), ("cap", "again")]
    assert report.unknown == 0


@pytest.mark.parametrize("end", ["sent", "released"])
def test_what_was_heard_of_late_and_then_confirmed_or_given_back_is_accused_of_nothing(
    store: Store, end: Status
) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("told", NOW + 10 * HOUR))
    changed(store, "told", "expired", closed_at=NOW + 11 * HOUR, close_reason="unconfirmed")
    log(store, reserved("between", NOW + 11 * HOUR, NOW + 11 * HOUR))
    changed(store, "told", "assumed_sent", close_reason=HEARD_LATE)
    how = {"sent_at": NOW + 10 * HOUR} if end == "sent" else {"closed_at": NOW + 12 * HOUR, "close_reason": "x"}
    changed(store, "told", end, **how)
    assert audited(store).clean


def test_what_was_heard_of_late_given_back_and_then_confirmed_counts_from_the_confirm_on(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("told", NOW + 10 * HOUR))
    changed(store, "told", "expired", closed_at=NOW + 11 * HOUR, close_reason="unconfirmed")
    log(store, reserved("while-expired", NOW + 11 * HOUR, NOW + 11 * HOUR))
    released(store, "while-expired", NOW + 11 * HOUR)
    changed(store, "told", "assumed_sent", close_reason=HEARD_LATE)
    released(store, "told", NOW + 12 * HOUR)
    log(store, reserved("after-release", NOW + 12 * HOUR, NOW + 12 * HOUR))
    assert audited(store).clean
    changed(store, "told", "sent", sent_at=NOW + 10 * HOUR)
    log(store, reserved("over", NOW + 13 * HOUR, NOW + 13 * HOUR))
    assert {breach[1] for breach in broken(audited(store))} == {"over"}


def test_the_order_of_commits_decides_whatever_the_clocks_said(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("first", NOW + HOUR, NOW + DAY), reserved("second", NOW + 2 * HOUR, NOW))
    assert broken(audited(store)) == [("cap", "second")]


def test_an_order_that_the_log_lacks_is_told_and_not_guessed(store: Store) -> None:
    """A row that was closed by a version that noted no mark: before or after the next reservation can't be told."""
    put_rule(store, ONE_A_DAY)
    log(store, reserved("a", NOW + HOUR, status="released", closed_at=NOW), reserved("b", NOW + 2 * HOUR))
    report = audited(store)
    assert report.clean
    assert tally(report) == {"kept": 1, "unknown": 1}


def test_what_was_committed_before_marks_were_noted_counts_and_is_not_judged(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    log(
        store,
        reserved("gone", NOW + HOUR, status="released", closed_at=NOW),
        reserved("sent", NOW + 2 * HOUR, status="sent", sent_at=NOW + 40 * HOUR),
        reserved("waits", NOW + 3 * HOUR),
    )
    with store.read() as reader:
        last = reader.decisions(SHOP, limit=1).items[0].position
    store.write(lambda w: w.put_meta("marked_after", str(last)))
    log(store, reserved("near-waits", NOW + 4 * HOUR), reserved("near-sent", NOW + 41 * HOUR))
    report = audited(store)
    assert broken(report) == [("cap", "near-waits"), ("cap", "near-sent")]
    assert (report.unmarked, report.reservations, report.unknown) == (3, 2, 0)


def test_messages_of_other_systems_count_from_their_report_on(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    foreign = Message(SHOP, "u1", NOW - HOUR, "theirs", "email", "marketing")
    log(store, reserved("before", NOW + HOUR))
    released(store, "before")
    store.write(lambda w: w.add_message(foreign))
    log(store, reserved("after", NOW + HOUR))
    report = audited(store)
    assert broken(report) == [("cap", "after")]
    assert report.breaches[0].others == ("theirs",)
    assert (report.other_systems, report.unknown) == (1, 0)


def test_a_sent_message_counts_at_its_real_time_once_confirmed(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("late", NOW + HOUR), reserved("before", NOW + 25 * HOUR))
    released(store, "before")
    changed(store, "late", "sent", sent_at=NOW + 30 * HOUR)
    log(store, reserved("at-planned", NOW + 2 * HOUR))
    released(store, "at-planned")
    log(store, reserved("at-real", NOW + 52 * HOUR))
    report = audited(store)
    assert broken(report) == [("cap", "at-real")]
    assert report.unknown == 0


def test_a_confirm_after_a_release_counts_again_and_after_an_assumption_all_along(store: Store) -> None:
    put_rule(store, ONE_A_DAY)
    log(store, reserved("given", NOW + HOUR), reserved("assumed", NOW + 10 * DAY))
    released(store, "given")
    changed(store, "assumed", "assumed_sent", closed_at=NOW + 11 * DAY)
    log(store, reserved("beside-given", NOW + 2 * HOUR), reserved("beside-assumed", NOW + 10 * DAY))
    released(store, "beside-given")
    released(store, "beside-assumed")
    changed(store, "given", "sent", sent_at=NOW + HOUR)
    changed(store, "assumed", "sent", sent_at=NOW + 10 * DAY)
    log(store, reserved("after-given", NOW + 2 * HOUR), reserved("after-assumed", NOW + 10 * DAY))
    report = audited(store)
    assert broken(report) == [("cap", "beside-assumed"), ("cap", "after-given"), ("cap", "after-assumed")]
    assert report.unknown == 0


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
    other = reserved("other", NOW + HOUR, cost=5)
    elsewhere = message_of(other)
    assert elsewhere is not None
    unplanned = reserved("unplanned", None)
    stray = replace(elsewhere, message_ref="unplanned", decision_id="unplanned")
    booked = [(lost, None), (kept, place), (other, replace(elsewhere, cost=4)), (unplanned, stray)]
    store.write(lambda w: w.add_decisions(booked))
    assert sorted(broken(audited(store))) == [("books", ref) for ref in ("kept", "lost", "other", "unplanned")]


def test_imported_history_counts_and_is_not_judged(store: Store) -> None:
    put_rule(store, Cap(limit=1, rolling_hours=48.0))
    log(
        store,
        *(reserved(f"i{i}", NOW - DAY, status="sent", sent_at=NOW - DAY, imported=True) for i in range(2)),
        reserved("d0", NOW + HOUR),
    )
    report = audited(store)
    assert broken(report) == [("cap", "d0")]
    assert (report.reservations, report.imported) == (1, 2)


def test_many_messages_of_one_recipient_are_judged_within_reach_only(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    log(store, *spaced(*(NOW + i * 13 * HOUR for i in range(300))), reserved("over", NOW + 100 * 13 * HOUR + HOUR))
    assert broken(audited(store)) == [("cap", "over")]
