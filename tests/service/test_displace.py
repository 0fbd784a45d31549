"""Displacement: who may take whose place, when, and that the place is free exactly once."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from optimizer.errors import Conflict
from optimizer.service import setup
from optimizer.service.replay import Replayer, eligible_logged
from optimizer.service.requests import DecisionRequest
from optimizer.service.settle import claim, confirm, release
from optimizer.service.wiring import Services
from storage.log import Decision, Message
from storage.records import Channel
from storage.rules import Budget, Cap, Capacity
from tests.service.asking import another, ask, ask_all, meanwhile, put_rule, stored
from tests.service.conftest import START, WORKSPACE, FakeClock, campaign

NOON = (START + timedelta(hours=3), START + timedelta(hours=4))
EVENING = (START + timedelta(hours=8), START + timedelta(hours=9))


@pytest.fixture
def shop(services: Services) -> Services:
    """Three campaigns that must send: ``spring`` (50), ``letter`` (20) and ``urgent`` (90); one message a day."""
    for name, priority in (("spring", 50), ("letter", 20), ("urgent", 90)):
        put_campaign(services, name, priority)
    put_rule(services, "daily", "cap", Cap(1, calendar="day"))
    return services


def put_campaign(services: Services, name: str, priority: int, **changes: object) -> None:
    made = campaign(campaign_id=name, priority=priority, channels=(Channel("email"),), allow_no_send=False, **changes)
    setup.put_campaign(services, made)


def ledger(services: Services, recipient: str = "u1") -> tuple[Message, ...]:
    with services.store.read() as reader:
        found = reader.messages(WORKSPACE, [recipient], START, START + timedelta(days=30))
    return found.get(recipient, ())


def feed(services: Services) -> list[tuple[str, str | None, str]]:
    with services.store.read() as reader:
        changes = reader.changes(WORKSPACE, after=0, limit=100)
    return [(c.kind, c.decision_id, c.detail) for c in changes if c.decision_id is not None]


def used(services: Services, rule_id: str, period: int) -> int:
    with services.store.read() as reader:
        return reader.usage(WORKSPACE, [(rule_id, period, period)]).get((rule_id, period), 0)


def test_a_higher_priority_takes_the_place_and_the_sender_is_told(shop: Services) -> None:
    low = ask(shop, window=NOON)
    high = ask(shop, campaign="urgent", window=EVENING)
    assert (low.status, high.status) == ("reserved", "reserved")
    assert high.snapshot.displaced == (low.decision_id,)
    gone = stored(shop, low)
    by = f"displaced by {high.decision_id}"
    assert (gone.status, gone.closed_at, gone.close_reason) == ("displaced", START, by)
    assert (gone.propensity, gone.action, gone.eligible, gone.send_at) == (
        low.propensity,
        low.action,
        low.eligible,
        low.send_at,
    )
    assert [m.decision_id for m in ledger(shop)] == [high.decision_id]
    assert feed(shop) == [("displaced", low.decision_id, by)]
    assert gone.closed_after is not None
    assert gone.position <= gone.closed_after < stored(shop, high).position
    with pytest.raises(Conflict, match="displaced by"):
        claim(shop, WORKSPACE, low.decision_id)


def test_a_displaced_decision_can_still_be_confirmed_and_replayed(shop: Services) -> None:
    low = ask(shop, window=NOON)
    high = ask(shop, campaign="urgent", window=NOON)
    assert high.snapshot.displaced == (low.decision_id,)
    sent = confirm(shop, WORKSPACE, low.decision_id, START, "smtp", "m1")
    assert sent.status == "sent"
    assert {m.decision_id for m in ledger(shop)} == {low.decision_id, high.decision_id}
    with shop.store.read() as reader:
        replayer = Replayer(reader, shop.salt)
        for decision in (low, high):
            assert replayer.draw(decision) == decision.action
            assert replayer.vector(decision)[decision.action or 0] == pytest.approx(decision.propensity)


@pytest.mark.parametrize("safe", ["claimed", "sent", "equal", "higher", "not displaceable", "its time has come"])
def test_what_is_safe_from_displacement(shop: Services, clock: FakeClock, safe: str) -> None:
    low = ask(shop, window=NOON)
    if safe == "claimed":
        claim(shop, WORKSPACE, low.decision_id)
    elif safe == "sent":
        confirm(shop, WORKSPACE, low.decision_id, START, None, None)
    elif safe == "equal":
        put_campaign(shop, "urgent", 50)
    elif safe == "higher":
        put_campaign(shop, "urgent", 49)
    elif safe == "not displaceable":
        put_campaign(shop, "spring", 50, displaceable=False)
    else:
        assert low.send_at is not None
        clock.now = low.send_at
    high = ask(shop, campaign="urgent", window=EVENING)
    assert (high.status, high.snapshot.displaced) == ("withheld", ())
    assert stored(shop, low).status not in ("displaced", "withheld")
    assert feed(shop) == []


def test_priorities_are_those_of_the_campaigns_as_they_are_now(shop: Services) -> None:
    low = ask(shop, window=NOON)
    put_campaign(shop, "spring", 95)
    assert ask(shop, campaign="urgent", window=EVENING).status == "withheld"
    setup.archive_campaign(shop, WORKSPACE, "spring")
    put_campaign(shop, "urgent", 99)
    assert ask(shop, campaign="urgent", window=EVENING).snapshot.displaced == (low.decision_id,)


def test_nothing_is_displaced_while_some_message_is_eligible(shop: Services) -> None:
    low = ask(shop, window=NOON)
    both_days = (EVENING[0], EVENING[0] + timedelta(hours=24))
    high = ask(shop, campaign="urgent", window=both_days)
    assert high.snapshot.displaced == ()
    assert high.send_at is not None
    assert high.send_at.date() > START.date()
    assert stored(shop, low).status == "reserved"


def test_what_the_drawn_action_can_stand_is_put_back_the_highest_priority_first(services: Services) -> None:
    for name, priority in (("spring", 50), ("letter", 20), ("urgent", 90)):
        put_campaign(services, name, priority)
    put_rule(services, "daily", "cap", Cap(2, calendar="day"))
    lowest = ask(services, campaign="letter", window=NOON)
    middle = ask(services, window=EVENING)
    tomorrow = ask(services, campaign="letter", window=(NOON[0] + timedelta(days=1), NOON[1] + timedelta(days=1)))
    high = ask(services, campaign="urgent", window=NOON)
    assert high.snapshot.displaced == (lowest.decision_id,)
    assert [stored(services, d).status for d in (lowest, middle, tomorrow)] == ["displaced", "reserved", "reserved"]


def test_of_equal_priority_the_later_ones_go(services: Services) -> None:
    for name, priority in (("spring", 50), ("urgent", 90)):
        put_campaign(services, name, priority)
    put_rule(services, "daily", "cap", Cap(2, calendar="day"))
    late = ask(services, window=EVENING)
    early = ask(services, window=NOON)
    assert ask(services, campaign="urgent", window=NOON).snapshot.displaced == (late.decision_id,)
    assert stored(services, early).status == "reserved"


def test_the_set_is_that_without_all_that_may_go_so_a_propensity_is_exact(services: Services) -> None:
    """A gap closes the hours around two messages; without both, every hour is open, whichever is drawn."""
    put_campaign(services, "urgent", 90)
    put_campaign(services, "spring", 50, spread_within_slot=False)
    put_rule(services, "gap", "gap", Cap(1, rolling_hours=10.0))
    window = (START, START + timedelta(hours=20))
    two = [ask(services, window=(START + timedelta(hours=h), START + timedelta(hours=h + 1))) for h in (5, 15)]
    high = ask(services, campaign="urgent", window=window)
    assert [d.status for d in two] == ["reserved", "reserved"]
    assert high.eligible_actions == 40
    assert high.propensity == pytest.approx(1 / 40)
    assert high.send_at is not None
    near = {d.decision_id for d in two if d.send_at is not None and abs(d.send_at - high.send_at) < timedelta(hours=10)}
    assert set(high.snapshot.displaced) == near != set()


def test_a_drawn_no_send_displaces_nothing(services: Services) -> None:
    put_campaign(services, "spring", 50)
    setup.put_campaign(services, campaign(campaign_id="urgent", priority=90, channels=(Channel("email"),)))
    put_rule(services, "daily", "cap", Cap(1, calendar="day"))
    got: dict[str, Decision] = {}
    for i in range(40):
        low = ask(services, f"u{i}", window=NOON)
        high = ask(services, f"u{i}", campaign="urgent", window=NOON)
        assert stored(services, low).status == ("reserved" if high.status == "no_send" else "displaced")
        got[high.status] = high
    assert set(got) == {"reserved", "no_send"}
    assert got["no_send"].snapshot.displaced == ()
    assert np.array_equal(eligible_logged(got["no_send"]), eligible_logged(got["reserved"]))


def test_within_a_batch_a_later_row_displaces_an_earlier_one(shop: Services) -> None:
    rows = [
        DecisionRequest("spring", "u1", window=NOON),
        DecisionRequest("spring", "u2", window=NOON),
        DecisionRequest("urgent", "u1", window=EVENING),
        DecisionRequest("letter", "u1", window=EVENING),
        DecisionRequest("letter", "u3", window=EVENING),
    ]
    low, other, high, late, last = ask_all(shop, rows)
    assert [d.status for d in (low, other, high, late, last)] == [
        "displaced",
        "reserved",
        "reserved",
        "withheld",
        "reserved",
    ]
    assert high.snapshot.displaced == (low.decision_id,)
    assert [stored(shop, d) for d in (low, other, high, late, last)] == [low, other, high, late, last]
    positions = [stored(shop, d).position for d in (low, other, high, late, last)]
    assert positions == sorted(positions)
    assert stored(shop, low).closed_after == positions[1]
    assert [m.decision_id for m in ledger(shop)] == [high.decision_id]
    assert ask_all(shop, rows) == [low, other, high, late, last]
    assert len(feed(shop)) == 1


def test_a_batch_says_what_a_later_chunk_displaced(shop: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.service.decide.CHUNK", 1)
    rows = [DecisionRequest("spring", "u1", window=NOON), DecisionRequest("urgent", "u1", window=EVENING)]
    assert [d.status for d in ask_all(shop, rows)] == ["displaced", "reserved"]


def test_shared_limits_are_freed_once_and_displace_nothing(shop: Services) -> None:
    put_rule(shop, "rate", "capacity", Capacity(2, per_minutes=1440))
    day = (START - datetime(1970, 1, 1, tzinfo=START.tzinfo)).days
    low = ask(shop, window=NOON)
    ask(shop, "u2", window=NOON)
    full = ask(shop, campaign="urgent", window=EVENING)
    assert (full.status, {r.kind for r in full.reasons}) == ("withheld", {"cap", "capacity"})
    assert stored(shop, low).status == "reserved"
    put_rule(shop, "rate", "capacity", Capacity(3, per_minutes=1440))
    high = ask(shop, campaign="urgent", window=EVENING)
    assert high.snapshot.displaced == (low.decision_id,)
    assert used(shop, "rate", day) == 2
    assert ask(shop, "u3", window=NOON).status == "reserved"
    assert ask(shop, "u4", window=NOON).status == "withheld"


def test_the_rows_after_a_displacement_have_its_place_in_capacity_and_budget(services: Services) -> None:
    for name, priority in (("spring", 50), ("urgent", 90)):
        made = campaign(campaign_id=name, priority=priority, channels=(Channel("sms2", cost=1.0),), allow_no_send=False)
        setup.put_campaign(services, made)
    put_rule(services, "daily", "cap", Cap(1, calendar="day"))
    put_rule(services, "rate", "capacity", Capacity(2, per_minutes=1440))
    put_rule(services, "money", "budget", Budget(2_000_000, per="day"))
    rows = [
        DecisionRequest("spring", "u1", window=NOON),
        DecisionRequest("urgent", "u1", window=NOON),
        DecisionRequest("spring", "u2", window=NOON),
        DecisionRequest("spring", "u3", window=NOON),
    ]
    assert [d.status for d in ask_all(services, rows)] == ["displaced", "reserved", "reserved", "withheld"]
    day = (START - datetime(1970, 1, 1, tzinfo=START.tzinfo)).days
    assert (used(services, "rate", day), used(services, "money", day)) == (2, 2_000_000)


def test_releasing_the_displacer_does_not_bring_the_displaced_back(shop: Services) -> None:
    low = ask(shop, window=NOON)
    high = ask(shop, campaign="urgent", window=EVENING)
    release(shop, WORKSPACE, high.decision_id, "changed my mind")
    assert ledger(shop) == ()
    assert stored(shop, low).status == "displaced"
    assert [ask(shop, window=NOON).status for _ in range(2)] == ["reserved", "withheld"]


def test_a_preview_displaces_nothing(shop: Services) -> None:
    low = ask(shop, window=NOON)
    shown = ask(shop, campaign="urgent", window=EVENING, preview=True)
    assert shown.snapshot.displaced == (low.decision_id,)
    assert stored(shop, low).status == "reserved"
    assert feed(shop) == []


def test_while_paused_nothing_is_displaced_and_the_reasons_are_those_of_the_full_ledger(shop: Services) -> None:
    low = ask(shop, window=NOON)
    setup.set_mode(shop, WORKSPACE, "paused")
    paused = ask(shop, campaign="urgent", window=EVENING)
    assert (paused.status, [r.kind for r in paused.reasons]) == ("withheld", ["paused", "cap"])
    assert stored(shop, low).status == "reserved"


def test_where_a_baseline_is_missing_nothing_is_displaced_and_shadow_tells_what_would_have_been(shop: Services) -> None:
    low = ask(shop, window=NOON)
    setup.set_mode(shop, WORKSPACE, "shadow")
    withheld = ask(shop, campaign="urgent", window=EVENING)
    assert (withheld.status, [r.kind for r in withheld.reasons]) == ("withheld", ["no_baseline", "cap"])
    assert withheld.snapshot.shadow is not None
    assert stored(shop, low).status == "reserved"


def test_an_override_displaces_nothing(shop: Services) -> None:
    low = ask(shop, window=NOON)
    assert ask(shop, campaign="urgent", window=EVENING, override_rules=True).snapshot.displaced == ()
    assert stored(shop, low).status == "reserved"


def test_a_claim_between_read_and_write_saves_the_claimed_one(shop: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    low = ask(shop, window=NOON)
    meanwhile(shop, monkeypatch, lambda: claim(shop, WORKSPACE, low.decision_id))
    high = ask(shop, campaign="urgent", window=EVENING)
    assert (high.status, high.snapshot.attempt, high.snapshot.displaced) == ("withheld", 1, ())
    assert stored(shop, low).status == "claimed"


def test_a_kept_draw_displaces_what_stands_at_the_commit(shop: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of the first is given back and taken anew in between: the set is the same, who goes is not."""
    low = ask(shop, window=NOON)
    again: list[Decision] = []

    def swap() -> None:
        release(shop, WORKSPACE, low.decision_id, "later")
        again.append(ask(another(shop), window=NOON))

    meanwhile(shop, monkeypatch, swap)
    high = ask(shop, campaign="urgent", window=EVENING)
    assert (high.status, high.snapshot.attempt) == ("reserved", 0)
    assert high.snapshot.displaced == (again[0].decision_id,)
    assert [stored(shop, d).status for d in (low, again[0])] == ["released", "displaced"]
