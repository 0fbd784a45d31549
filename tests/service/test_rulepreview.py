"""What a rule would have masked last week: the same as it masks when it is there."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from optimizer.errors import Conflict
from optimizer.service import rulepreview, settle, setup, upkeep
from optimizer.service.ingest import ingest
from optimizer.service.requests import EventInput
from optimizer.service.rulepreview import preview
from optimizer.service.wiring import Services
from storage.log import Decision, Message
from storage.records import Baseline, Channel, Variant
from storage.rules import (
    Adapt,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    Rule,
    RuleKind,
    RuleParameters,
    Selector,
)
from tests.service.asking import ask, put_rule
from tests.service.conftest import WORKSPACE, FakeClock, campaign


@pytest.fixture(autouse=True)
def shop(services: Services) -> None:
    variants, channels = (Variant("mens"), Variant("womens")), (Channel("email", cost=0.5),)
    setup.put_campaign(services, campaign(variants=variants, channels=channels, allow_no_send=False))


def tried(services: Services, kind: RuleKind, parameters: RuleParameters, **fields: Any) -> dict[str, Any]:
    return preview(services, Rule(WORKSPACE, "new", kind, parameters, **fields))


def figures(found: dict[str, Any]) -> tuple[int, ...]:
    return tuple(found[name] for name in ("decisions", "touched", "actions", "messages", "silenced"))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("quiet_hours", QuietHours("10:00", "20:00")),
        ("blackout", Blackout(dates=("2026-03-03",))),
        ("cap", Cap(1, calendar="day")),
        ("cap", Cap(0, rolling_hours=24.0)),
        ("gap", Cap(1, rolling_hours=10.0)),
    ],
)
def test_it_says_what_the_rule_masks_once_it_is_there(
    services: Services, clock: FakeClock, kind: RuleKind, parameters: RuleParameters
) -> None:
    first = ask(services)
    found = tried(services, kind, parameters)
    put_rule(services, "new", kind, parameters)
    alone = _anew(services, first)
    assert found["actions"] == alone
    assert found["touched"] == int(alone > 0)
    assert (found["complete"], found["until"] - found["since"]) == (True, timedelta(days=7))


def _anew(services: Services, first: Decision) -> int:
    """How many actions are masked of the same question, asked of somebody of whom no more is known."""
    asked = ask(services, recipient="somebody-else")
    assert asked.actions == first.actions
    return sum(reason.masked for reason in asked.reasons if reason.rule_id == "new")


def test_each_decision_is_judged_beside_the_messages_that_were_known_when_it_was_made(
    services: Services, clock: FakeClock
) -> None:
    for _ in range(3):
        ask(services)
    ask(services, recipient="u2")
    found = tried(services, "cap", Cap(1, rolling_hours=500.0))
    assert found["decisions"] == 4
    assert (found["touched"], found["messages"], found["silenced"]) == (2, 2, 2), "u1's second and third"
    assert figures(tried(services, "cap", Cap(3, rolling_hours=500.0))) == (4, 0, 0, 0, 0)
    assert found["by_campaign"] == [
        {"campaign_id": "spring", **{k: found[k] for k in list(found["by_campaign"][0])[1:]}}
    ]


def test_a_rule_that_is_there_is_not_counted_twice_and_a_dry_run_is_tried_as_if_it_acted(services: Services) -> None:
    put_rule(services, "night", "quiet_hours", QuietHours("10:00", "20:00"))
    ask(services)
    again = tried(services, "quiet_hours", QuietHours("10:00", "20:00"))
    assert figures(again) == (1, 0, 0, 0, 0)
    wider = tried(services, "quiet_hours", QuietHours("10:00", "22:00"), enabled=False, dry_run=True)
    assert wider["actions"] == 2 * 2, "two variants, two more hours"


def test_a_shared_limit_is_filled_in_the_order_of_reservation(services: Services, clock: FakeClock) -> None:
    for number in range(5):
        ask(services, recipient=f"u{number}", immediate=True)
    found = tried(services, "capacity", Capacity(3, per_minutes=60))
    assert figures(found) == (5, 2, 2, 2, 0)
    assert figures(tried(services, "budget", Budget(1_000_000, per="day"))) == (5, 3, 3, 3, 0), "two at .5"
    assert figures(tried(services, "capacity", Capacity(5, per_minutes=60))) == (5, 0, 0, 0, 0)


@pytest.mark.parametrize(("kind", "limit"), [("capacity", Capacity(1, 1440)), ("budget", Budget(600_000, "day"))])
def test_a_shared_limit_masks_messages_that_it_binds_and_does_not_count(
    services: Services, kind: RuleKind, limit: RuleParameters
) -> None:
    channels = (Channel("email", cost=0.5), Channel("chat", cost=0.5))
    setup.put_campaign(services, campaign(channels=channels, allow_no_send=False))
    for i in range(3):
        ask(services, f"c{i}", channels=("chat",), immediate=True)
    for i in range(2):
        ask(services, f"e{i}", channels=("email",), immediate=True)
    chat, mail = Selector(channels=("chat",)), Selector(channels=("email",))
    found = tried(services, kind, limit, applies_to=mail, counts=chat)
    assert figures(found) == (5, 2, 2, 2, 0)
    assert figures(tried(services, kind, limit, applies_to=mail, counts=mail)) == (5, 1, 1, 1, 0)
    put_rule(services, "new", kind, limit, applies_to=mail, counts=chat)
    assert ask(services, "e9", channels=("email",), immediate=True).status == "withheld", "as it acts"


def test_what_was_spent_before_the_week_counts_in_a_longer_period(services: Services, clock: FakeClock) -> None:
    month = Budget(10_000_000, per="month")  # twenty messages at .5
    put_rule(services, "there", "budget", month, dry_run=True)
    told = [0, 0]
    for day in range(25):
        for who in ("u1", "u2"):
            asked = ask(services, recipient=who, immediate=True)
            told[day >= 18] += any(reason.rule_id == "there" for reason in asked.reasons)
        clock.forward(days=1)
    assert told[1] == 14
    found = tried(services, "budget", month)
    assert (*figures(found), found["complete"]) == (14, 14, 14, 14, 0, True)
    assert figures(tried(services, "budget", Budget(25_000_000, per="month"))) == (14, 0, 0, 0, 0)
    assert figures(tried(services, "budget", Budget(24_000_000, per="month"))) == (14, 2, 2, 2, 0), "the last two"


def test_messages_of_other_systems_and_of_campaigns_that_are_not_live_fill_a_limit_and_are_not_judged(
    services: Services, clock: FakeClock
) -> None:
    for number in range(2):
        sent = Message(WORKSPACE, "u1", clock() - timedelta(days=20), f"m{number}", "email", "news")
        settle.record_send(services, sent)
    baseline = Baseline("mens", "email", "09:00")
    channels = (Channel("email", cost=0.5),)
    old = campaign(campaign_id="old", channels=channels, mode="baseline_only", baseline=baseline)
    setup.put_campaign(services, old)
    ask(services)
    ask(services, campaign="old")
    ask(services)
    period = Capacity(4, per_minutes=44_640)
    assert figures(tried(services, "capacity", period)) == (2, 1, 1, 1, 0), "two sends, one of each campaign, then full"
    assert figures(tried(services, "capacity", replace(period, limit=5))) == (2, 0, 0, 0, 0)
    news = Selector(categories=("news",))
    none = replace(period, limit=0)
    assert figures(tried(services, "capacity", none, applies_to=news, counts=news)) == (2, 0, 0, 0, 0)
    assert figures(tried(services, "capacity", none, counts=news)) == (2, 2, 2, 2, 0), "bound, though not counted"


def test_a_period_that_retention_reached_into_is_not_called_complete(services: Services, clock: FakeClock) -> None:
    ask(services, immediate=True)
    clock.forward(days=12)
    upkeep.expire(services, WORKSPACE)
    ask(services, recipient="u2", immediate=True)
    budgets = [Budget(10_000_000, per="month"), Budget(10_000_000, per="day")]
    assert [tried(services, "budget", one)["complete"] for one in budgets] == [True, True]
    services.store.write(lambda writer: writer.prune(WORKSPACE, clock() - timedelta(days=5)))
    assert [tried(services, "budget", one)["complete"] for one in budgets] == [False, True]


@pytest.mark.parametrize("stored", [True, False], ids=["counts stored", "counts of the log"])
def test_an_adaptive_cap_is_tried_with_the_messages_that_were_unanswered_then(
    services: Services, clock: FakeClock, stored: bool
) -> None:
    tired = Cap(5, rolling_hours=24.0, adapt=Adapt(2, 0))
    if stored:
        put_rule(services, "there", "cap", tired, dry_run=True)
    seen = []
    for step in range(8):
        asked = ask(services, immediate=True)
        seen.append(any(reason.rule_id == "there" for reason in asked.reasons))
        assert (asked.snapshot.unanswered is None) is not stored
        settle.confirm(services, WORKSPACE, asked.decision_id, None, "ses", f"m{step}")
        clock.forward(hours=10)
        if step == 3:
            opened = EventInput("opened", clock(), provider="ses", message_id="m2")
            ingest(services, WORKSPACE, [opened, replace(opened, message_id="m3", automated=True)])
        clock.forward(hours=9)
    found = tried(services, "cap", tired)
    # Unanswered before each: 0, 1, 2, 3; the open of the third clears: 0, 1, 2, 3.
    assert (*figures(found), found["complete"]) == (8, 4, 8, 4, 4, True)
    disabled = preview(services, Rule(WORKSPACE, "new", "cap", tired, enabled=False))
    assert disabled["by_campaign"] == found["by_campaign"]
    if stored:
        assert seen == [False, False, True, True] * 2


def test_only_the_newest_of_the_last_seven_days_are_looked_at(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(services)
    clock.forward(days=8)
    ask(services, recipient="u2")
    clock.forward(hours=1)
    newest = ask(services, recipient="u3")
    never = Cap(0, rolling_hours=24.0)
    assert tried(services, "cap", never)["decisions"] == 2
    monkeypatch.setattr(rulepreview, "MOST", 1)
    found = tried(services, "cap", never)
    assert (found["decisions"], found["complete"], found["since"]) == (1, False, newest.decided_at)


def test_a_refusal_since_then_is_not_taken_for_the_rule(services: Services) -> None:
    decision = ask(services)
    with services.store.read() as reader:
        known = reader.recipient(WORKSPACE, "u1")
    assert known is None or known.channels == {}
    from optimizer.service.recipients import unknown
    from storage.records import Consent

    refusing = replace(unknown(WORKSPACE, "u1"), channels={"email": Consent(False)})
    setup.put_recipient(services, refusing)
    assert decision.variant_id is not None
    assert figures(tried(services, "gap", Cap(1, rolling_hours=0.1))) == (1, 0, 0, 0, 0)


def test_a_fatigue_rule_is_not_tried(services: Services) -> None:
    with pytest.raises(Conflict) as raised:
        tried(services, "fatigue", Fatigue("unsubscribed", 0.01))
    assert raised.value.code == "not_previewed"


def test_a_workspace_without_decisions_has_nothing_to_try_it_on(services: Services) -> None:
    assert figures(tried(services, "gap", Cap(1, rolling_hours=1.0))) == (0, 0, 0, 0, 0)


def test_who_was_asked_in_a_zone_that_this_host_lacks_is_left_out(services: Services) -> None:
    made = ask(services)
    snapshot = replace(made.snapshot, timezone="America/Nowhere")
    afar = replace(made, decision_id="dec_afar", request_id="afar", snapshot=snapshot)
    services.store.write(lambda writer: writer.add_decision(afar, None))
    assert tried(services, "cap", Cap(0, rolling_hours=24.0))["decisions"] == 1
