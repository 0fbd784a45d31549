"""The audit finds a breach of every kind of rule that is planted in a log, and passes a log that kept them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from simulations.audit.report import as_document, lines
from storage.port import Store
from storage.records import Consent, Suppression
from storage.rules import Cap, QuietHours, Selector, Weekday
from tests.simulations.planted import (
    DAY,
    HOUR,
    NOW,
    audited,
    broken,
    changed,
    heard,
    log,
    person,
    put_rule,
    reserved,
    spaced,
    tally,
)


def test_a_log_that_kept_its_rules_is_clean(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    person(store)
    log(store, *spaced(NOW + 12 * HOUR, NOW + 20 * HOUR, NOW + 44 * HOUR))
    report = audited(store)
    assert report.clean
    assert report.unknown == 0
    assert report.reservations == 3
    assert tally(report) == {"kept": 3}


def test_what_cannot_be_judged_is_not_called_clean(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    person(store)
    log(store, reserved("d0", NOW + 12 * HOUR))
    assert list(lines(audited(store)))[-1] == "clean: every rule held"
    person(store, version=2, changed_after=-1, channels={"sms": Consent(state=True)})
    report = audited(store)
    assert report.unknown > 0
    assert as_document(report)["unknown"] == report.unknown
    assert list(lines(report))[-1] == f"no violations; {report.unknown} judgements can't be made"


def test_a_message_too_many_in_a_rolling_window_is_found(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    log(store, *spaced(NOW + 12 * HOUR, NOW + 20 * HOUR, NOW + 36 * HOUR - timedelta(microseconds=1)))
    report = audited(store)
    assert broken(report) == [("cap", "d2")]
    assert report.breaches[0].others == ("d0", "d1")


def test_a_window_before_and_after_the_new_message_counts(store: Store) -> None:
    put_rule(store, Cap(limit=2, rolling_hours=24.0))
    log(store, *spaced(NOW + 12 * HOUR, NOW + 30 * HOUR, NOW + 20 * HOUR))
    assert broken(audited(store)) == [("cap", "d2")]


def test_a_limit_of_nought_allows_nothing(store: Store) -> None:
    put_rule(store, Cap(limit=0, calendar="day"))
    log(store, reserved("d0", NOW + HOUR))
    assert broken(audited(store)) == [("cap", "d0")]


@pytest.mark.parametrize(
    ("cap", "first", "second", "kept"),
    [
        # Half past eleven at night and half past midnight in Auckland (UTC+13 in March).
        (Cap(limit=1, calendar="day"), "2026-03-04T10:30Z", "2026-03-04T11:30Z", True),
        (Cap(limit=1, calendar="day"), "2026-03-04T11:30Z", "2026-03-05T10:30Z", False),
        # Sunday 8 March and Monday 9 March there.
        (Cap(limit=1, calendar="week"), "2026-03-08T10:00Z", "2026-03-08T12:00Z", True),
        (Cap(1, None, "week", "sun"), "2026-03-08T10:00Z", "2026-03-08T12:00Z", False),
        (Cap(limit=1, calendar="month"), "2026-03-31T10:00Z", "2026-03-31T12:00Z", True),
        (Cap(limit=1, calendar="month"), "2026-03-31T12:00Z", "2026-04-20T12:00Z", False),
    ],
)
def test_calendar_caps_are_judged_in_the_recipients_zone(
    store: Store, cap: Cap, first: str, second: str, kept: bool
) -> None:
    put_rule(store, cap)
    person(store, timezone="Pacific/Auckland")
    times = (datetime.fromisoformat(first), datetime.fromisoformat(second))
    log(store, *spaced(*times, timezone="Pacific/Auckland"))
    assert audited(store).clean == kept


@pytest.mark.parametrize(
    ("days", "at", "kept"),
    [
        (("fri",), "2026-03-06T22:00", False),
        (("fri",), "2026-03-07T07:59", False),  # still Friday's night
        (("fri",), "2026-03-07T08:00", True),
        (("fri",), "2026-03-07T21:00", True),
        (("fri",), "2026-03-06T07:00", True),
        # The clock goes forward on 29 March 2026 in Berlin.
        (("sat",), "2026-03-29T03:30", False),
    ],
)
def test_quiet_hours_are_judged_on_the_recipients_clock(
    store: Store, days: tuple[Weekday, ...], at: str, kept: bool
) -> None:
    put_rule(store, QuietHours("21:00", "08:00", days))
    person(store, timezone="Europe/Berlin")
    local = datetime.fromisoformat(at).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    log(store, reserved("d0", local.astimezone(UTC), timezone="Europe/Berlin"))
    assert broken(audited(store)) == ([] if kept else [("quiet_hours", "d0")])


def test_a_message_without_the_consent_its_channel_needs_is_found(store: Store) -> None:
    person(store, channels={"email": Consent(False), "push": Consent(True)})
    log(
        store,
        reserved("no", NOW + HOUR),
        reserved("never-asked", NOW + HOUR, channel="sms"),
        reserved("yes", NOW + HOUR, channel="push"),
        reserved("not-needed", NOW + HOUR, channel="post"),
        reserved("stranger", NOW + HOUR, channel="sms", recipient_id="u2"),
    )
    found = broken(audited(store))
    assert sorted(found) == [("consent", "never-asked"), ("consent", "no"), ("consent", "stranger")]


@pytest.mark.parametrize(
    ("channel", "category", "kept"),
    [("email", "marketing", False), ("*", "*", False), ("sms", "*", True), ("email", "news", True)],
)
def test_a_message_that_a_refusal_covers_is_found(store: Store, channel: str, category: str, kept: bool) -> None:
    person(store, suppressed=(Suppression(channel, category),))
    log(store, reserved("d0", NOW + HOUR))
    assert broken(audited(store)) == ([] if kept else [("suppression", "d0")])


def test_a_recipient_who_changed_since_is_not_judged_but_for_refusals_that_an_event_recorded(store: Store) -> None:
    log(store, reserved("before", NOW + HOUR))
    heard(store, "before", "unsubscribed", NOW, event_id="e1")
    log(store, reserved("after", NOW + 3 * HOUR))
    refusal = Suppression("email", "marketing", source="event:unsubscribed:e1", at=NOW)
    person(store, suppressed=(refusal,), channels={"email": Consent(False)})
    report = audited(store)
    assert broken(report) == [("suppression", "after")]
    assert tally(report, "suppression") == {"unknown": 1, "violated": 1}
    assert tally(report, "consent") == {"unknown": 2}
    assert tally(report, "timezone") == {"unknown": 2}


def test_what_was_reserved_before_an_event_refused_it_is_judged_and_clean(store: Store) -> None:
    person(store, timezone="Asia/Kolkata", channels={"sms": Consent(state=True)})
    zone: dict[str, Any] = {"timezone": "Asia/Kolkata"}
    log(store, reserved("before", NOW + HOUR, **zone), reserved("text", NOW + HOUR, channel="sms", **zone))
    heard(store, "before", "unsubscribed", NOW, event_id="e1")
    person(
        store,
        version=2,
        changed_after=0,
        timezone="Asia/Kolkata",
        channels={"sms": Consent(state=True)},
        suppressed=(Suppression("email", "marketing", source="event:unsubscribed:e1", at=NOW),),
    )
    report = audited(store)
    assert report.clean
    assert report.unknown == 0
    log(store, reserved("after", NOW + 3 * HOUR, **zone), reserved("other", NOW + HOUR, channel="sms", **zone))
    assert broken(audited(store)) == [("suppression", "after")]


def test_a_refusal_that_was_told_again_is_not_taken_for_one_that_began_then(store: Store) -> None:
    log(store, reserved("one", NOW + HOUR))
    heard(store, "one", "unsubscribed", NOW, event_id="e1")
    log(store, reserved("two", NOW + 3 * HOUR))
    heard(store, "one", "unsubscribed", NOW + HOUR, event_id="e2")
    refusal = Suppression("email", "marketing", source="event:unsubscribed:e2", at=NOW + HOUR)
    person(store, changed_after=0, suppressed=(refusal,))
    log(store, reserved("three", NOW + 4 * HOUR))
    report = audited(store)
    assert broken(report) == [("suppression", "three")]
    assert tally(report, "suppression") == {"kept": 1, "unknown": 1, "violated": 1}


@pytest.mark.parametrize(
    ("kind", "properties", "doubt"),
    [("bounced", {"hard": False}, 0), ("failed", {}, 0), ("bounced", {}, 1), ("failed", {"refuses": "channel"}, 1)],
)
def test_a_failure_that_refuses_nothing_casts_no_doubt(
    store: Store, kind: str, properties: dict[str, bool | str], doubt: int
) -> None:
    log(store, reserved("one", NOW + HOUR))
    heard(store, "one", kind, NOW, event_id="e1", properties=properties)
    log(store, reserved("two", NOW + 3 * HOUR))
    heard(store, "one", "unsubscribed", NOW + HOUR, event_id="e2")
    person(store, changed_after=0, suppressed=(Suppression("email", "*", source="event:unsubscribed:e2", at=NOW),))
    assert audited(store).unknown == doubt


def test_a_refusal_by_an_event_that_the_log_does_not_hold_is_not_called_kept(store: Store) -> None:
    log(store, reserved("one", NOW + HOUR))
    person(store, changed_after=0, suppressed=(Suppression("email", "*", source="event:unsubscribed:gone"),))
    report = audited(store)
    assert tally(report, "suppression") == {"unknown": 1}
    assert tally(report, "consent") == {"kept": 1}


def test_a_refusal_that_names_a_person_alone_speaks_from_its_report_on(store: Store) -> None:
    log(store, reserved("one", NOW + HOUR))
    heard(store, "one", "unsubscribed", NOW + HOUR, event_id="e1", decision_id=None)
    person(store, changed_after=0, suppressed=(Suppression(source="event:unsubscribed:e1"),))
    log(store, reserved("two", NOW + 3 * HOUR))
    report = audited(store)
    assert broken(report) == [("suppression", "two")]
    assert report.unknown == 0


def test_a_refusal_that_waited_for_its_confirm_is_not_held_against_earlier_messages(store: Store) -> None:
    log(store, reserved("one", NOW + HOUR))
    heard(store, "one", "complained", NOW, event_id="e1", message_id="m1", provider="p")
    log(store, reserved("two", NOW + 3 * HOUR))
    changed(store, "one", "sent", sent_at=NOW + HOUR)
    person(store, suppressed=(Suppression("*", "*", source="event:complained:e1"),))
    log(store, reserved("three", NOW + 4 * HOUR))
    report = audited(store)
    assert broken(report) == [("suppression", "three")]
    assert tally(report, "suppression") == {"unknown": 2, "violated": 1}


def test_rules_read_in_another_zone_than_the_recipients_are_found(store: Store) -> None:
    person(store, timezone="Asia/Kolkata")
    log(store, reserved("d0", NOW + HOUR, timezone="UTC"), reserved("d1", NOW + DAY, timezone="Asia/Kolkata"))
    assert broken(audited(store)) == [("timezone", "d0")]


def test_selectors_say_whom_a_rule_binds_and_what_it_counts(store: Store) -> None:
    put_rule(
        store,
        Cap(limit=1, rolling_hours=24.0),
        applies_to=Selector(except_categories=("transactional",)),
        counts=Selector(channels=("email",)),
    )
    log(
        store,
        reserved("mail", NOW + 8 * HOUR, NOW),
        reserved("receipt", NOW + 9 * HOUR, NOW + HOUR, category="transactional"),
        reserved("letter", NOW + 3 * DAY, NOW + 2 * HOUR, channel="post"),
        reserved("second-letter", NOW + 3 * DAY, NOW + 3 * HOUR, channel="post"),
        reserved("over", NOW + 10 * HOUR, NOW + 4 * HOUR, channel="post"),
    )
    report = audited(store)
    assert broken(report) == [("cap", "over")]
    assert report.breaches[0].others == ("mail", "receipt")
