"""Pauses, archivings and withdrawals after a message was reserved: it doesn't go out, and counts nowhere as sent."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from optimizer.errors import Conflict
from optimizer.service import settle, setup, stopped, upkeep
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.wiring import Services
from storage.records import Campaign, Channel
from tests.service.conftest import WORKSPACE, FakeClock, campaign
from tests.service.reserved import EVERYTHING, after, counted, reserve, stored, told_of, used

WHOLLY = [stopped.WORKSPACE_PAUSED, stopped.CAMPAIGN_PAUSED, stopped.CAMPAIGN_ARCHIVED]


def stop(services: Services, why: str, **changes: object) -> None:
    """Stops what goes out of the campaign ``spring``'s variant ``mens`` on the channel ``email``."""
    mens, womens = campaign().variants
    if why == stopped.WORKSPACE_PAUSED:
        setup.set_mode(services, WORKSPACE, "paused")
    elif why == stopped.CAMPAIGN_PAUSED:
        setup.put_campaign(services, campaign(mode="paused", **changes))
    elif why == stopped.CAMPAIGN_ARCHIVED:
        setup.put_campaign(services, campaign(status="archived", **changes))
    elif why == stopped.VARIANT_PAUSED:
        setup.put_campaign(services, campaign(variants=(replace(mens, status="paused"), womens)))
    elif why == stopped.VARIANT_ARCHIVED:
        setup.put_campaign(services, campaign(variants=(womens,)))
    else:
        setup.put_campaign(services, campaign(channels=(Channel("push"),)))


@pytest.mark.parametrize("why", stopped.STOPPED)
def test_what_was_reserved_before_a_stop_is_revoked_by_its_claim(
    services: Services, spring: Campaign, clock: FakeClock, why: str
) -> None:
    setup.put_rule(services, EVERYTHING)
    reserve(services, "claimed before")
    settle.claim(services, WORKSPACE, "claimed before")
    reserve(services, "due")
    reserve(services, "later", hours=30)
    stop(services, why)
    clock.forward(hours=6)
    for _ in range(2):
        with pytest.raises(Conflict, match=re.escape(f"is revoked ({why})")) as refused:
            settle.claim(services, WORKSPACE, "due")
        assert refused.value.code == "not_claimable_revoked"
    assert [stored(services, name).status for name in ("claimed before", "later")] == ["claimed", "reserved"]
    assert used(services) == 2
    assert told_of(services) == [("revoked", "due", why)]


@pytest.mark.parametrize("why", [why for why in stopped.STOPPED if why not in WHOLLY])
def test_a_withdrawn_variant_or_channel_leaves_the_campaigns_other_messages_alone(
    services: Services, spring: Campaign, clock: FakeClock, why: str
) -> None:
    reserve(services, "other", variant_id="womens", channel="push")
    stop(services, why)
    clock.forward(hours=6)
    assert settle.claim(services, WORKSPACE, "other").status == "claimed"


def test_who_claims_again_in_a_pause_is_told_not_to_send_and_what_went_out_all_the_same_counts(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    reserve(services, "d")
    clock.forward(hours=6)
    settle.claim(services, WORKSPACE, "d")
    stop(services, stopped.WORKSPACE_PAUSED)
    with pytest.raises(Conflict, match=re.escape("is revoked (workspace:paused)")):
        settle.claim(services, WORKSPACE, "d")
    assert (counted(services), told_of(services)) == ((), [("revoked", "d", "workspace:paused")])
    assert settle.confirm(services, WORKSPACE, "d", after(hours=6), None, None).status == "sent"
    assert [m.at for m in counted(services)] == [after(hours=6)]


@pytest.mark.parametrize("why", stopped.STOPPED)
def test_what_is_claimed_after_its_hour_in_a_stop_is_called_off_and_not_taken_for_sent(
    services: Services, spring: Campaign, clock: FakeClock, why: str
) -> None:
    reserve(services, "d")
    stop(services, why)
    clock.forward(hours=9)
    with pytest.raises(Conflict, match=re.escape(f"is revoked ({why})")):
        settle.claim(services, WORKSPACE, "d")
    assert (counted(services), told_of(services)) == ((), [("revoked", "d", why)])


@pytest.mark.parametrize("unconfirmed", ["assume_sent", "release"])
@pytest.mark.parametrize("why", WHOLLY)
def test_what_was_stopped_before_its_time_and_nobody_claims_counts_nowhere_as_sent(
    services: Services, clock: FakeClock, why: str, unconfirmed: str
) -> None:
    setup.put_campaign(services, campaign(unconfirmed=unconfirmed))
    setup.put_rule(services, EVERYTHING)
    for name, hours in {"due before": 2.0, "claimed before": 3.5, "opened": 5.0, "stopped": 6.0}.items():
        reserve(services, name, hours)
    clock.forward(hours=2.5)
    settle.claim(services, WORKSPACE, "claimed before")
    stop(services, why, unconfirmed=unconfirmed)
    clock.forward(hours=4)
    ingest(services, WORKSPACE, [EventInput(type="opened", occurred_at=after(hours=5.5), decision_id="opened")])
    stop(services, why, unconfirmed=unconfirmed, priority=9)  # what is changed in a stop doesn't begin it anew
    clock.forward(hours=1)
    assert upkeep.expire(services, WORKSPACE) == 4
    assert (stored(services, "stopped").status, stored(services, "stopped").close_reason) == ("revoked", why)
    assert ("revoked", "stopped", why) in told_of(services)
    as_ever = "assumed_sent" if unconfirmed == "assume_sent" else "expired"
    assert {stored(services, name).status for name in ("due before", "claimed before")} == {as_ever}
    assert stored(services, "opened").status == "assumed_sent"
    assert used(services) == (3 if unconfirmed == "assume_sent" else 1)


def test_what_could_go_out_between_two_pauses_is_taken_for_sent(services: Services, clock: FakeClock) -> None:
    for why in (stopped.CAMPAIGN_PAUSED, stopped.WORKSPACE_PAUSED):
        stop(services, why)
    reserve(services, "d")
    clock.forward(hours=6.5)
    setup.put_campaign(services, campaign())
    setup.set_mode(services, WORKSPACE, "live")
    clock.forward(minutes=10)
    for why in (stopped.CAMPAIGN_PAUSED, stopped.WORKSPACE_PAUSED):
        stop(services, why)
    clock.forward(hours=1)
    assert upkeep.expire(services, WORKSPACE) == 1
    assert stored(services, "d").status == "assumed_sent"
