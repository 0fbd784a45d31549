"""What events say went out counts against every rule, though nobody confirmed it and whatever its campaign says."""

from __future__ import annotations

from datetime import timedelta

import pytest

from optimizer.errors import Conflict
from optimizer.service import settle, setup, upkeep
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.wiring import Services
from storage.records import Channel, EventMapping
from storage.rules import Cap
from tests.service.asking import ask, put_rule
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import EVERYTHING, counted, reserve, stored, unanswered, used


@pytest.fixture
def releasing(services: Services) -> Services:
    mapping = {"Read": EventMapping("opened")}
    mails = campaign(channels=(Channel("email"),), unconfirmed="release", event_mapping=mapping, allow_no_send=False)
    setup.put_campaign(services, mails)
    setup.put_rule(services, EVERYTHING)
    return services


def tell(services: Services, clock: FakeClock, kind: str, name: str, *, automated: bool = False) -> None:
    event = EventInput(type=kind, occurred_at=clock.now, decision_id=name, event_id=kind + name, automated=automated)
    ingest(services, WORKSPACE, [event])


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["delivered", "opened", "clicked", "Read"])
def test_it_counts_whether_the_event_comes_before_or_after_the_hour_is_over(
    releasing: Services, clock: FakeClock, kind: str, late: bool
) -> None:
    reserve(releasing, "d")
    clock.forward(hours=6.5)
    if not late:
        tell(releasing, clock, kind, "d")
    clock.forward(hours=1)
    upkeep.expire(releasing, WORKSPACE)
    if late:
        assert (stored(releasing, "d").status, counted(releasing), used(releasing)) == ("expired", (), 0)
        tell(releasing, clock, kind, "d")
        tell(releasing, clock, kind, "d")
    assert stored(releasing, "d").status == "assumed_sent"
    assert ([one.message_ref for one in counted(releasing)], used(releasing)) == (["d"], 1)
    assert unanswered(releasing) == (kind == "delivered")


@pytest.mark.parametrize("kinds", [("failed", "delivered"), ("delivered", "failed")])
@pytest.mark.parametrize("together", [False, True])
def test_what_failed_is_not_out_however_it_is_told(
    releasing: Services, clock: FakeClock, kinds: tuple[str, str], together: bool
) -> None:
    reserve(releasing, "d")
    clock.forward(hours=7.5)
    upkeep.expire(releasing, WORKSPACE)
    told = [EventInput(type=kind, occurred_at=clock.now, decision_id="d", event_id=kind) for kind in kinds]
    for envelope in [told] if together else [[one] for one in told]:
        ingest(releasing, WORKSPACE, envelope)
    assert stored(releasing, "d").status in ("expired", "released")
    assert (counted(releasing), used(releasing)) == ((), 0)


def test_a_machines_open_says_so_too(releasing: Services, clock: FakeClock) -> None:
    reserve(releasing, "d")
    clock.forward(hours=6.5)
    tell(releasing, clock, "opened", "d", automated=True)
    clock.forward(hours=1)
    upkeep.expire(releasing, WORKSPACE)
    assert stored(releasing, "d").status == "assumed_sent"


@pytest.mark.parametrize("kind", ["converted", "bounced", "Page Viewed"])
def test_what_does_not_say_that_it_went_out_leaves_it_expired(releasing: Services, clock: FakeClock, kind: str) -> None:
    reserve(releasing, "d", channel="push")
    clock.forward(hours=6.5)
    tell(releasing, clock, kind, "d")
    clock.forward(hours=1)
    upkeep.expire(releasing, WORKSPACE)
    tell(releasing, clock, "Page Closed", "d")
    assert (stored(releasing, "d").status, counted(releasing)) == ("expired", ())


@pytest.mark.parametrize("unconfirmed", ["assume_sent", "release"])
def test_a_late_first_claim_does_not_make_undone_what_was_delivered(
    services: Services, clock: FakeClock, unconfirmed: str
) -> None:
    setup.put_campaign(services, campaign(unconfirmed=unconfirmed))
    reserve(services, "d")
    clock.forward(hours=6.5)
    tell(services, clock, "delivered", "d")
    clock.forward(hours=1)
    for _ in range(2):
        with pytest.raises(Conflict, match="an event says that it went out") as refused:
            settle.claim(services, WORKSPACE, "d")
        assert refused.value.code == "not_claimable_assumed_sent"
    assert [one.message_ref for one in counted(services)] == ["d"]


@pytest.mark.parametrize("late", [False, True])
def test_a_sender_that_only_reports_deliveries_stays_within_its_caps(
    releasing: Services, clock: FakeClock, late: bool
) -> None:
    put_rule(releasing, "daily", "cap", Cap(limit=1, rolling_hours=24.0))
    first = ask(releasing, immediate=True)
    for hours in (2, 0) if late else (0, 2):
        if not hours:
            tell(releasing, clock, "delivered", first.decision_id)
        clock.forward(hours=hours)
        upkeep.expire(releasing, WORKSPACE)
    assert [ask(releasing, immediate=True).status for _ in range(2)] == ["withheld", "withheld"]
    clock.forward(hours=24)
    assert ask(releasing, immediate=True).status == "reserved"


def test_a_confirm_still_says_when_it_went_out_and_a_release_that_it_did_not(
    releasing: Services, clock: FakeClock
) -> None:
    for name in ("sent", "unsent"):
        reserve(releasing, name)
    clock.forward(hours=8)
    upkeep.expire(releasing, WORKSPACE)
    for name in ("sent", "unsent"):
        tell(releasing, clock, "delivered", name)
    at = clock.now - timedelta(hours=1)
    assert settle.confirm(releasing, WORKSPACE, "sent", at, None, None).sent_at == at
    settle.release(releasing, WORKSPACE, "unsent", "a test")
    assert [(one.message_ref, one.at) for one in counted(releasing)] == [("sent", at)]
    assert (used(releasing), unanswered(releasing)) == (1, 1)
