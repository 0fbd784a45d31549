"""The audit judges conditions of variants, and what a message displaced."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from storage.log import Decision
from storage.port import Store
from storage.records import Campaign, Channel, EventMapping, Requirement, Variant
from storage.rules import Cap
from tests.simulations.planted import (
    DAY,
    HOUR,
    NOW,
    SHOP,
    audited,
    broken,
    changed,
    heard,
    log,
    put_rule,
    released,
    reserved,
    tally,
)

OPENED = Requirement("spring", "opened", happened=True, within_hours=24, variant_id="hello")
IGNORED = replace(OPENED, happened=False)
MINUTE = timedelta(minutes=1)


def put_next(store: Store, *required: Requirement) -> None:
    """A campaign ``next`` whose variant has conditions."""
    mine = Campaign(SHOP, "next", (Variant("hello", requires=required),), (Channel("email"),), NOW, NOW)
    store.write(lambda w: w.put_campaign(mine))


def follow_up(ref: str, at: datetime) -> Decision:
    return reserved(ref, at + HOUR, at, campaign_id="next")


def sent(store: Store, ref: str, at: datetime, **changes: Any) -> None:
    log(store, reserved(ref, at, at - HOUR, **changes))
    changed(store, ref, "sent", sent_at=at)


def test_what_had_to_happen_must_have_been_known_and_in_time(store: Store) -> None:
    put_next(store, OPENED)
    log(store, follow_up("nothing-sent", NOW))
    sent(store, "one", NOW)
    log(store, follow_up("not-yet", NOW + HOUR))
    heard(store, "one", "opened", NOW + HOUR)
    log(store, follow_up("after", NOW + 2 * HOUR))
    report = audited(store)
    assert broken(report) == [("requires", "nothing-sent"), ("requires", "not-yet")]
    assert tally(report, "requires") == {"violated": 2, "kept": 1}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, True),
        ({"automated": True}, False),
        ({"type": "clicked"}, False),
        ({"occurred_at": NOW + 24 * HOUR}, True),
        ({"occurred_at": NOW + 24 * HOUR + timedelta(microseconds=1)}, False),
        ({"occurred_at": NOW - HOUR}, True),  # of this very message: it went out before the time that was told
        ({"occurred_at": NOW - HOUR - timedelta(minutes=5)}, True),  # a clock that lags
        ({"occurred_at": NOW - HOUR - timedelta(minutes=5, microseconds=1)}, False),
    ],
)
def test_an_answer_is_a_persons_of_the_right_kind_and_within_the_span(
    store: Store, fields: dict[str, Any], kept: bool
) -> None:
    put_next(store, OPENED)
    sent(store, "one", NOW)
    heard(store, "one", "opened", NOW + HOUR, **fields)
    log(store, follow_up("next", NOW + 30 * HOUR))
    assert broken(audited(store)) == ([] if kept else [("requires", "next")])


def test_what_must_not_have_happened_is_known_only_when_the_span_is_over(store: Store) -> None:
    put_next(store, IGNORED)
    sent(store, "one", NOW)
    log(store, follow_up("too-soon", NOW + 23 * HOUR), follow_up("over", NOW + 24 * HOUR))
    heard(store, "one", "opened", NOW + HOUR)
    log(store, follow_up("opened", NOW + 25 * HOUR))
    assert broken(audited(store)) == [("requires", "too-soon"), ("requires", "opened")]


def test_only_the_last_message_that_went_out_counts(store: Store) -> None:
    put_next(store, OPENED, replace(OPENED, variant_id=None))
    sent(store, "one", NOW)
    heard(store, "one", "opened", NOW + HOUR)
    log(store, reserved("planned", NOW + 3 * HOUR), reserved("given-back", NOW + 2 * HOUR))
    log(store, follow_up("behind-given-back", NOW + 2 * HOUR))
    released(store, "given-back")
    log(store, follow_up("before-planned", NOW + 3 * HOUR - MINUTE))
    log(store, follow_up("behind-planned", NOW + 3 * HOUR))
    heard(store, "planned", "opened", NOW + 4 * HOUR)
    log(store, follow_up("opened-too", NOW + 4 * HOUR))
    report = audited(store)
    assert broken(report) == [("requires", "behind-given-back"), ("requires", "behind-planned")]
    assert tally(report, "requires") == {"violated": 2, "kept": 2}


def test_an_answer_by_the_providers_id_may_have_waited_for_the_confirm(store: Store) -> None:
    put_next(store, OPENED)
    log(store, reserved("one", NOW, NOW - HOUR))
    log(store, follow_up("silence", NOW + 2 * HOUR))
    heard(store, "one", "opened", NOW + HOUR, message_id="m1", provider="p")
    log(store, follow_up("perhaps", NOW + 2 * HOUR))
    changed(store, "one", "sent", sent_at=NOW)
    log(store, follow_up("joined", NOW + 2 * HOUR))
    report = audited(store)
    assert broken(report) == [("requires", "silence")]
    assert tally(report, "requires") == {"violated": 1, "kept": 1, "unknown": 1}


def test_events_mean_what_the_campaign_maps_them_to_and_may_name_the_recipient_only(store: Store) -> None:
    put_next(store, replace(OPENED, outcome="converted"))
    mapping = {"Order Completed": EventMapping("converted")}
    put_campaign(store, "spring", 2, event_mapping=mapping)
    sent(store, "one", NOW, campaign_version=2)
    log(store, reserved("current", None, campaign_version=2), follow_up("before", NOW + HOUR))
    heard(store, "one", "Order Completed", NOW + HOUR, decision_id=None)
    log(store, follow_up("after", NOW + 2 * HOUR))
    report = audited(store)
    assert broken(report) == [("requires", "before")]
    assert tally(report, "requires") == {"violated": 1, "kept": 1}


@pytest.fixture
def shop(store: Store) -> Store:
    """A cap of one a day, and a campaign that may displace ``spring``."""
    put_rule(store, Cap(limit=1, rolling_hours=24.0))
    put_campaign(store, "urgent", priority=90)
    return store


def put_campaign(store: Store, name: str, version: int = 1, **fields: Any) -> None:
    mine = Campaign(SHOP, name, (Variant("hello"),), (Channel("email"),), NOW, NOW, version, **fields)
    store.write(lambda w: w.put_campaign(mine))


def displaced(store: Store, ref: str, by: str = "urgent") -> None:
    changed(store, ref, "displaced", closed_at=NOW, close_reason=f"displaced by {by}")


def urgent(send_at: datetime = NOW + 2 * HOUR, gone: tuple[str, ...] = ("low",), **changes: Any) -> Decision:
    return reserved("urgent", send_at, **{"campaign_id": "urgent", "displaced": gone, **changes})


def test_a_displacement_that_was_allowed_and_needed_is_kept(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR))
    displaced(shop, "low")
    log(shop, urgent())
    report = audited(shop)
    assert report.clean
    assert tally(report, "priority") == {"kept": 1}
    assert report.displaced == 1


@pytest.mark.parametrize(
    ("lower", "said"),
    [
        ({"priority": 90}, "lower priority"),
        ({"displaceable": False}, "isn't displaceable"),
    ],
)
def test_a_campaign_of_no_lower_priority_or_not_displaceable_is_displaced_wrongly(
    shop: Store, lower: dict[str, Any], said: str
) -> None:
    put_campaign(shop, "other", **lower)
    log(shop, reserved("low", NOW + HOUR, campaign_id="other"))
    displaced(shop, "low")
    log(shop, urgent())
    report = audited(shop)
    assert broken(report) == [("priority", "urgent")]
    assert said in report.breaches[0].detail


def test_a_priority_that_may_have_changed_meanwhile_is_unknown(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR))
    displaced(shop, "low")
    log(shop, urgent())
    put_campaign(shop, "spring", 2, priority=95)
    report = audited(shop)
    assert report.clean
    assert tally(report, "priority") == {"unknown": 1}


def test_one_that_is_unknown_makes_the_whole_unknown(shop: Store) -> None:
    put_campaign(shop, "other")
    log(shop, reserved("low", NOW + HOUR), reserved("lower", NOW + 25 * HOUR, campaign_id="other"))
    displaced(shop, "low")
    displaced(shop, "lower")
    log(shop, urgent(gone=("low", "lower")))
    put_campaign(shop, "other", 2, priority=95)
    report = audited(shop)
    assert report.clean
    assert tally(report, "priority") == {"unknown": 1}


def test_what_was_claimed_or_past_is_not_to_be_displaced(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR, claimed_at=NOW))
    displaced(shop, "low")
    log(shop, urgent())
    assert broken(audited(shop)) == [("priority", "urgent")]


def test_a_message_whose_time_had_come_is_not_to_be_displaced(shop: Store) -> None:
    log(shop, reserved("low", NOW, NOW - DAY))
    displaced(shop, "low")
    log(shop, urgent())
    assert broken(audited(shop)) == [("priority", "urgent")]


def test_a_place_is_taken_by_the_commit_that_frees_it(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR))
    displaced(shop, "low")
    log(shop, reserved("between", None), urgent())
    report = audited(shop)
    assert broken(report) == [("priority", "urgent")]
    assert "another commit" in report.breaches[0].detail


def test_nothing_is_displaced_without_need(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR), reserved("far", NOW + 9 * DAY))
    displaced(shop, "low")
    displaced(shop, "far")
    log(shop, urgent(gone=("low", "far")))
    report = audited(shop)
    assert broken(report) == [("priority", "urgent")]
    assert report.breaches[0].others == ("far",)


@pytest.mark.parametrize(
    ("planned", "verdict"),
    [(NOW - HOUR, "unknown"), (NOW - HOUR + MINUTE, "kept"), (NOW + 3 * HOUR, "kept")],
)
def test_a_need_that_hangs_on_a_message_of_uncertain_end_is_unknown(
    shop: Store, planned: datetime, verdict: str
) -> None:
    """Given back after its time, and confirmed later: an hour after that time it may have expired before."""
    put_rule(shop, Cap(limit=2, rolling_hours=24.0), version=2)
    log(shop, reserved("other", planned, NOW - DAY), reserved("low", NOW + HOUR))
    displaced(shop, "low")
    log(shop, urgent())
    released(shop, "other", NOW + 9 * HOUR)
    changed(shop, "other", "sent", sent_at=planned)
    report = audited(shop)
    assert report.clean
    assert tally(report, "priority") == {verdict: 1}


def test_a_displaced_message_and_its_taker_name_each_other(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR), reserved("lower", NOW + 9 * DAY))
    displaced(shop, "low", by="somebody")
    displaced(shop, "lower")
    log(shop, urgent(gone=("low", "never-there")))
    report = audited(shop)
    assert sorted(broken(report)) == [("priority", "low"), ("priority", "lower"), ("priority", "urgent")]


def test_the_confirm_of_a_displaced_message_is_listed_and_no_breach(shop: Store) -> None:
    log(shop, reserved("low", NOW + HOUR))
    displaced(shop, "low")
    log(shop, urgent())
    changed(shop, "low", "sent", sent_at=NOW + HOUR)
    report = audited(shop)
    assert report.clean
    assert report.otherwise["sent_after_close"] == ["low"]


def test_an_answer_that_may_have_waited_for_a_late_confirm_is_unknown(store: Store) -> None:
    put_next(store, OPENED)
    log(store, reserved("one", NOW, NOW - HOUR))
    changed(store, "one", "assumed_sent", closed_at=NOW)
    heard(store, "one", "opened", NOW + HOUR, message_id="m1", provider="p")
    log(store, follow_up("next", NOW + 2 * HOUR))
    changed(store, "one", "sent", sent_at=NOW)
    report = audited(store)
    assert report.clean
    assert tally(report, "requires") == {"unknown": 1}


def test_an_answer_to_a_message_of_uncertain_end_is_unknown(store: Store) -> None:
    put_next(store, OPENED)
    log(store, reserved("one", NOW, NOW - HOUR, status="released", closed_at=NOW))
    heard(store, "one", "opened", NOW + HOUR)
    log(store, follow_up("next", NOW + 2 * HOUR))
    report = audited(store)
    assert report.clean
    assert tally(report, "requires") == {"unknown": 1}
