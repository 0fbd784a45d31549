"""A report's arrays say of every decision what its record and its events say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.rewards import outcomes, reward
from optimizer.bandit.spoken import max_window
from optimizer.service import setup
from optimizer.service.ledger import DAY, GROUPS, NONE, STATUSES, Ledger, ledger_of, read_ledger
from optimizer.service.logcolumns import DECISIONS, EVENTS, LogColumns, empty
from optimizer.service.replay import local_seconds
from optimizer.service.wiring import Services
from storage.log import Decision, Event, Group, Reason, Snapshot, Status
from storage.records import Baseline, Campaign, Channel, EventMapping, OutcomeWeight, Variant
from tests.service.conftest import START, WORKSPACE, campaign

CHOICES: Sequence[tuple[Status, Group]] = [
    ("sent", "treated"),
    ("reserved", "random"),
    ("no_send", "holdout"),
    ("withheld", "treated"),
    ("released", "baseline"),
]
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata")
TYPES = ("clicked", "converted", "unsubscribed", "Order Completed", "opened", "whatever")


def shop() -> Campaign:
    return campaign(
        variants=(Variant("mens", cost=0.5), Variant("womens")),
        channels=(Channel("email", cost=0.25), Channel("push")),
        objective={
            "clicked": OutcomeWeight(fixed=1.0),
            "converted": OutcomeWeight(fixed=0.5, per_value=2.0, max_value=30.0),
            "unsubscribed": OutcomeWeight(fixed=-20.0),
        },
        attribution_hours={"clicked": 5.0, "converted": 20.0, "unsubscribed": 8.0},
        event_mapping={"Order Completed": EventMapping("converted", "revenue")},
        baseline=Baseline("mens", "email", "09:00"),
    )


def some_decision(rng: np.random.Generator, number: int) -> Decision:
    status, group = CHOICES[int(rng.integers(len(CHOICES)))]
    decided = START + timedelta(minutes=int(rng.integers(0, 3_000)))
    message = status not in ("no_send", "withheld")
    planned = decided + timedelta(minutes=int(rng.integers(0, 600))) if message else None
    return Decision(
        workspace_id=WORKSPACE,
        decision_id=f"dec_{number}",
        request_id=f"r{number}",
        request_hash=b"",
        campaign_id="spring",
        campaign_version=1,
        recipient_id=f"u{rng.integers(12)}",
        status=status,
        group=group,
        mode="live",
        decided_at=decided,
        propensity=0.5,
        policy_id="pol_cold",
        action=None if status == "withheld" else 0,
        actions=4,
        eligible_actions=4,
        eligible=b"\xf0",
        snapshot=Snapshot(
            decided,
            decided + timedelta(hours=10),
            ("mens", "womens"),
            ("email", "push"),
            ZONES[number % 3],
            "recipient",
        ),
        variant_id=("mens", "womens")[number % 2] if message else None,
        channel=("email", "push")[number // 2 % 2] if message else None,
        send_at=planned,
        sent_at=_sent(number, decided, planned) if status == "sent" else None,
        reasons=(Reason("cap", "cap", 2), Reason("dry", "gap", 1, dry_run=True)) if number % 4 == 0 else (),
    )


def _sent(number: int, decided: datetime, planned: datetime | None) -> datetime | None:
    """When the sender says that it went out; some clocks lag behind ours."""
    if planned is None:
        return None
    return decided - timedelta(seconds=90) if number % 5 == 0 else planned + timedelta(minutes=3)


def some_event(rng: np.random.Generator, number: int, decisions: Sequence[Decision]) -> Event:
    about = decisions[int(rng.integers(len(decisions)))]
    named = bool(rng.random() < 0.6)
    at = about.decided_at + timedelta(minutes=int(rng.integers(-100, 2_000)))
    return Event(
        workspace_id=WORKSPACE,
        event_id=f"e{number}",
        type=TYPES[int(rng.integers(len(TYPES)))],
        occurred_at=at,
        received_at=at,
        matched=True,
        decision_id=about.decision_id if named else None,
        recipient_id=None if named and rng.random() < 0.5 else about.recipient_id,
        campaign_id=None if named else (None, "spring", "autumn")[rng.integers(3)],
        value=None if rng.random() < 0.3 else float(rng.integers(1, 50)),
        automated=bool(rng.random() < 0.1),
        properties={"revenue": (17.0, "17.5", "a lot", True)[rng.integers(4)]},
    )


def logged(
    services: Services, decisions: Sequence[Decision], events: Sequence[Event] = (), made: Campaign | None = None
) -> Ledger:
    """What is read of a log; ``made``: the campaign as it is by then."""
    setup.put_campaign(services, shop())

    def work(writer: object) -> None:
        writer.add_decisions([(one, None) for one in decisions])  # type: ignore[attr-defined]  # a Writer
        writer.add_events(events)  # type: ignore[attr-defined]

    services.store.write(work)
    with services.store.read() as reader:
        return read_ledger(reader, made or shop(), START, START + timedelta(days=30))


@pytest.mark.parametrize("seed", range(3))
def test_every_row_says_what_its_record_and_its_events_say(services: Services, seed: int) -> None:
    rng = np.random.default_rng(seed)
    decisions = [some_decision(rng, number) for number in range(120)]
    events = [some_event(rng, number, decisions) for number in range(600)]
    ledger = logged(services, decisions, events)
    with services.store.read() as reader:
        rows = {row.decision.position: row for row in reader.feedback(WORKSPACE)}
    made = shop()
    assert len(rows) == ledger.decided.size == len(decisions)
    for place, position in enumerate(_positions(services)):
        decision = rows[position].decision
        found = outcomes(made, decision, rows[position].events, START + timedelta(days=99))
        for name, outcome in found.items():
            assert ledger.outcomes[name].happened[place] == outcome.happened, (name, decision)
            assert ledger.outcomes[name].value[place] == pytest.approx(outcome.value or 0.0)
        assert ledger.reward[place] == pytest.approx(reward(made, decision, found))
        assert STATUSES[ledger.status[place]] == decision.status
        assert GROUPS[ledger.group[place]] == decision.group
        closes = decision.snapshot.window_end + timedelta(hours=72.0)
        assert max_window(made) == 20.0
        assert ledger.closes[place] == round(closes.timestamp() * 1e6), "complaints are counted for 72 hours"
        assert ledger.hour[place] == (local_seconds(decision) // 3600 + 72) % 168
        variant = ledger.variant[place]
        assert (None if variant == NONE else ledger.variants[variant]) == decision.variant_id


def test_a_message_that_is_no_longer_offered_costs_what_it_did(services: Services) -> None:
    rng = np.random.default_rng(4)
    sent = [replace(some_decision(rng, n), status="sent", group="treated", variant_id="mens") for n in range(3)]
    sent = [replace(one, channel=name) for one, name in zip(sent, ("email", "push", "push"), strict=True)]
    sent = [replace(one, snapshot=replace(one.snapshot, cost=400_000 + n)) for n, one in enumerate(sent)]
    fewer = replace(shop(), channels=(Channel("email", cost=0.3),))
    ledger = logged(services, [*sent, replace(some_decision(rng, 4), status="released")], made=fewer)
    assert sorted(ledger.cost.tolist()) == pytest.approx([0.0, 0.400001, 0.400002, 0.8])
    for one in sent:
        mine = ledger.decided == round(one.decided_at.timestamp() * 1e6)
        assert ledger.reward[mine] == pytest.approx(reward(fewer, one, {}))


def test_money_that_names_no_decision_is_earned_once(services: Services) -> None:
    """Three decisions of one person within a day, one of them in shadow, and one of somebody else; an order in the
    windows of all, one in those of the last two."""
    rng = np.random.default_rng(6)
    plain = replace(some_decision(rng, 2), status="no_send", group="holdout", variant_id=None, channel=None)
    plain = replace(plain, send_at=None, sent_at=None)

    def made(number: int, recipient: str, hours: float, **fields: Any) -> Decision:
        at = START + timedelta(hours=hours)
        snapshot = replace(plain.snapshot, window_start=at, window_end=at + timedelta(hours=1))
        return replace(
            plain,
            decision_id=f"dec_{number}",
            request_id=f"r{number}",
            recipient_id=recipient,
            decided_at=at,
            snapshot=snapshot,
            **fields,
        )

    decisions = [made(0, "u", 0.0), made(1, "u", 6.0), made(2, "u", 6.5, mode="shadow"), made(3, "other", 1.0)]

    def order(number: int, hours: float, value: float) -> Event:
        at = START + timedelta(hours=hours)
        return Event(WORKSPACE, f"e{number}", "converted", at, at, True, recipient_id="u", value=value)

    ledger = logged(services, decisions, [order(0, 10.0, 30.0), order(1, 22.0, 7.0), order(2, 99.0, 500.0)])
    assert ledger.outcomes["converted"].value.tolist() == [30.0, 37.0, 37.0, 0.0]
    assert ledger.revenue.tolist() == [15.0, 22.0, 0.0, 0.0], (
        "the first order is of two live decisions, the second of one"
    )
    assert ledger.reward.tolist() == [60.5, 60.5, 60.5, 0.0], (
        "what a choice is worth is not divided: each might be its cause"
    )


def test_money_is_earned_once_over_periods_that_follow_on_each_other(services: Services) -> None:
    rng = np.random.default_rng(9)
    made = [replace(some_decision(rng, number), mode="live") for number in range(80)]
    decisions = sorted(made, key=lambda one: one.decided_at)
    events = [some_event(rng, number, decisions) for number in range(300)]
    whole = logged(services, decisions, events)
    days = [START + timedelta(hours=hours) for hours in (0, 5, 13, 30, 720)]
    with services.store.read() as reader:
        parts = [read_ledger(reader, shop(), *period) for period in pairwise(days)]
    assert min(part.decided.size for part in parts) > 5
    assert np.concatenate([part.revenue for part in parts]) == pytest.approx(whole.revenue)
    for name, outcome in whole.outcomes.items():
        for field in ("happened", "value", "part", "named", "shared"):
            told = np.concatenate([getattr(part.outcomes[name], field) for part in parts])
            assert told == pytest.approx(getattr(outcome, field)), (name, field)


def test_what_costs_by_its_value_is_no_income(services: Services) -> None:
    rng = np.random.default_rng(7)
    sent = replace(some_decision(rng, 0), status="sent", group="treated", variant_id="womens", channel="push")
    at = sent.decided_at
    told = [
        Event(WORKSPACE, name, name, at, at, True, sent.decision_id, value=value)
        for name, value in (("converted", 50.0), ("refunded", 20.0))
    ]
    returns = replace(shop(), objective={**shop().objective, "refunded": OutcomeWeight(per_value=-1.0)})
    ledger = logged(services, [sent], told, made=returns)
    assert ledger.revenue.tolist() == [30.0]


def test_who_buys_by_themselves_buys_as_much_whatever_was_chosen() -> None:
    """Orders at random moments, .1 a day and person, messages or none at random moments of a day: whatever is planned
    late or not at all is watched as long. Five standard errors: a false alarm in two million runs."""
    rng, people = np.random.default_rng(8), 20_000
    first = round(START.timestamp() * 1e6)
    decided = first + np.sort(rng.integers(0, 20 * DAY, people))
    lead = rng.integers(0, DAY, people)
    silent = rng.random(people) < 0.2
    planned = np.where(silent, NONE, decided + lead)
    buyer = np.repeat(np.arange(people), rng.poisson(0.1 * 25, people))
    zeros = dict.fromkeys(DECISIONS, np.zeros(people))
    decisions = zeros | {
        "position": np.arange(people),
        "recipient": np.arange(people),
        "decided": decided,
        "latest": decided + DAY,
        "planned": planned,
        "sent": planned,
        "variant": np.where(silent, NONE, 0),
        "channel": np.where(silent, NONE, 0),
    }
    events = {
        "number": np.arange(buyer.size),
        "position": np.full(buyer.size, NONE),
        "recipient": buyer,
        "at": first + rng.integers(0, 25 * DAY, buyer.size),
        "outcome": np.zeros(buyer.size),
        "value": np.full(buyer.size, 40.0),
    }
    typed = [
        {name: np.asarray(column).astype(kinds[name]) for name, column in columns.items()}
        for columns, kinds in ((decisions, DECISIONS), (events, EVENTS))
    ]
    log = LogColumns(typed[0], empty().masked, typed[1], ("mens",), ("email",), ("converted",))
    made = replace(shop(), attribution_hours={"converted": 72.0})
    worth = ledger_of(log, made, START, START + timedelta(days=30)).outcomes["converted"].value
    assert worth.mean() == pytest.approx(40.0 * 0.1 * 4.0, rel=0.02), "a day to plan for, and three days more"
    late = lead > DAY // 2
    for one, other in ((~silent, silent), (~silent & late, ~silent & ~late)):
        error = np.sqrt(worth[one].var() / one.sum() + worth[other].var() / other.sum())
        assert abs(worth[one].mean() - worth[other].mean()) < 5.0 * error


@pytest.mark.parametrize("named", [True, False])
def test_a_value_beyond_what_an_event_may_be_worth_counts_as_the_largest(services: Services, named: bool) -> None:
    rng = np.random.default_rng(1)
    sent = replace(some_decision(rng, 0), status="sent", group="treated", variant_id="mens", channel="email")
    events = [replace(some_event(rng, number, [sent]), type="converted", automated=False) for number in range(2)]
    whose: dict[str, Any] = {"decision_id": sent.decision_id if named else None, "recipient_id": sent.recipient_id}
    told = [replace(one, occurred_at=sent.decided_at, campaign_id=None, value=-1e308, **whose) for one in events]
    ledger = logged(services, [sent], told)
    found = outcomes(shop(), sent, told, START + timedelta(days=99))
    assert ledger.outcomes["converted"].value[0] == found["converted"].value == -2e9
    assert ledger.reward[0] == pytest.approx(reward(shop(), sent, found))


def _positions(services: Services) -> list[int]:
    """In the order of the ledger's rows."""
    with services.store.read() as reader:
        chunks = list(reader.decision_columns(WORKSPACE, "spring", START, START + timedelta(days=30)))
    return sorted(position for chunk in chunks for position in chunk.position)


def test_rules_are_counted_with_what_they_masked_and_withheld(services: Services) -> None:
    rng = np.random.default_rng(5)
    decisions = [replace(some_decision(rng, 4 * number), status="withheld") for number in range(3)]
    decisions.append(replace(some_decision(rng, 12), status="released", variant_id="mens", channel="email"))
    ledger = logged(services, decisions)
    assert ledger.reasons == {("cap", "cap", False): (4, 3, 8), ("dry", "gap", True): (4, 3, 4)}


def test_a_campaign_without_decisions_is_an_empty_ledger(services: Services) -> None:
    ledger = logged(services, [])
    assert ledger.decided.size == 0
    assert ledger.reward.size == 0
    assert ledger.outcomes["clicked"].happened.size == 0


def test_the_hour_of_who_lives_in_a_zone_that_this_host_lacks_is_that_of_utc(services: Services) -> None:
    made = some_decision(np.random.default_rng(0), 1)
    afar = replace(made, snapshot=replace(made.snapshot, timezone="America/Nowhere"))
    at = int((made.send_at or made.decided_at).timestamp())
    assert logged(services, [afar]).hour.tolist() == [(at // 3600 + 72) % 168]
