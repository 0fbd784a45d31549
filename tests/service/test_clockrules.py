"""A late claim is asked again for the rules that go by the clock."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from optimizer.errors import Conflict
from optimizer.service import settle, setup
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.wiring import Services
from storage.log import Snapshot
from storage.records import Campaign, Recipient
from storage.rules import Blackout, QuietHours, RuleKind, RuleParameters, Selector
from tests.service.asking import put_rule
from tests.service.conftest import START, WORKSPACE, FakeClock
from tests.service.reserved import after, counted, reserve, stored

#: The message is planned for 15:00 in UTC.
EVENING = QuietHours("15:10", "18:00")


@pytest.mark.parametrize(
    ("kind", "parameters", "zone", "until"),
    [
        ("quiet_hours", EVENING, None, "2026-03-02T18:00:00+00:00"),
        ("quiet_hours", QuietHours("16:10", "08:00"), "Europe/Berlin", "2026-03-03T07:00:00+00:00"),
        ("blackout", Blackout(dates=("2026-03-03",)), "Pacific/Auckland", "2026-03-03T11:00:00+00:00"),
    ],
)
def test_what_has_begun_since_the_planned_time_refuses_it_and_changes_nothing(
    services: Services,
    spring: Campaign,
    clock: FakeClock,
    kind: RuleKind,
    parameters: RuleParameters,
    zone: str | None,
    until: str,
) -> None:
    put_rule(services, "night", kind, parameters)
    setup.put_recipient(services, Recipient(WORKSPACE, "u1", timezone=zone))
    minutes = 50 if zone == "Pacific/Auckland" else 0  # there the 3rd begins at 11:00 in UTC
    hours = 1.0 if minutes else 6.0
    reserve(services, "d", hours, send_at=after(hours=hours, minutes=minutes))
    clock.now = after(hours=hours, minutes=minutes + 9)
    assert settle.claim(services, WORKSPACE, "d").status == "claimed", "late, and it has not begun"
    clock.forward(minutes=6)
    before = stored(services, "d")
    with pytest.raises(Conflict, match=re.escape(f"rule 'night' ({kind}) closes email until {until}")) as refused:
        settle.claim(services, WORKSPACE, "d")
    assert refused.value.code == "not_claimable_now"
    assert (stored(services, "d"), len(counted(services))) == (before, 1)
    assert settle.release(services, WORKSPACE, "d", None).status == "released", "who knows that it is not out"


def test_a_first_claim_calls_it_off_else_it_would_be_settled_as_sent(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    put_rule(services, "night", "quiet_hours", EVENING)
    for name in ("asked", "left"):
        reserve(services, name)
    clock.forward(hours=6, minutes=30)
    with pytest.raises(Conflict, match=r"is revoked \(rule:night\)") as refused:
        settle.claim(services, WORKSPACE, "asked")
    assert refused.value.code == "not_claimable_revoked"
    assert [one.message_ref for one in counted(services)] == ["left"]
    clock.forward(minutes=31)
    with pytest.raises(Conflict, match="is expired"):
        settle.claim(services, WORKSPACE, "left")


def test_what_an_event_says_is_out_is_not_called_off(services: Services, spring: Campaign, clock: FakeClock) -> None:
    put_rule(services, "night", "quiet_hours", EVENING)
    reserve(services, "d")
    clock.forward(hours=6, minutes=30)
    ingest(services, WORKSPACE, [EventInput(type="delivered", occurred_at=clock.now, decision_id="d")])
    with pytest.raises(Conflict, match="if it is not out, release it") as refused:
        settle.claim(services, WORKSPACE, "d")
    assert refused.value.code == "not_claimable_now"
    assert (stored(services, "d").status, len(counted(services))) == ("reserved", 1)


def test_what_does_not_bind_the_message_or_does_not_act_refuses_nothing(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    put_rule(services, "tried", "quiet_hours", EVENING, dry_run=True)
    put_rule(services, "off", "quiet_hours", EVENING, enabled=False)
    put_rule(services, "push", "quiet_hours", EVENING, applies_to=Selector(channels=("push",)))
    put_rule(services, "others", "quiet_hours", EVENING, applies_to=Selector(except_categories=("marketing",)))
    reserve(services, "d")
    clock.forward(hours=6, minutes=30)
    assert settle.claim(services, WORKSPACE, "d").status == "claimed"


def test_a_rule_that_the_decision_overrode_and_a_claim_ahead_of_the_plan_are_not_asked(
    services: Services, spring: Campaign, clock: FakeClock
) -> None:
    put_rule(services, "morning", "quiet_hours", QuietHours("09:00", "16:00"))
    reserve(services, "ahead", 8.0)
    reserve(services, "plain", 6.0)
    overrode = Snapshot(START, after(hours=24), ("mens",), ("email",), "UTC", "default", overridden_rules=("morning",))
    reserve(services, "overrode", 6.0, snapshot=overrode)
    assert settle.claim(services, WORKSPACE, "ahead").status == "claimed"
    clock.now = after(hours=6) + timedelta(minutes=1)
    assert settle.claim(services, WORKSPACE, "overrode").status == "claimed"
    with pytest.raises(Conflict, match="rule:morning"):
        settle.claim(services, WORKSPACE, "plain")
