"""Orders that are reported in two forms, by decision and by recipient: what a report says of groups that buy alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from optimizer.service import setup
from optimizer.service.ledger import GROUPS
from optimizer.service.report import report
from optimizer.service.wiring import Services
from storage.log import Decision, Event, Group
from storage.records import Channel
from tests.service.campaigns import GROUP_OF, buyers, decision, order, shop, write
from tests.service.conftest import WORKSPACE, FakeClock

#: A shop that names the message that somebody came from, where there is one.
CLICKED_THROUGH: Mapping[Group, float] = {"treated": 0.6, "random": 0.6, "holdout": 0.0}


@pytest.fixture(autouse=True)
def stored(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, shop(channels=(Channel("email"),)))
    clock.forward(days=5)


def alike(services: Services, naming: Mapping[Group, float]) -> None:
    """2,000 people with three decisions each within two hours, one in five of whom buys for 10, whatever their group;
    ``naming``: with which chance an order names its decision."""
    rng = np.random.default_rng(1)
    made: list[Decision] = []
    events: list[Event] = []
    for person in range(2_000):
        group = GROUP_OF[person % 10]
        first = replace(decision(person, group), decision_id=f"dec_{person}_0")
        hours = [timedelta(hours=h) for h in range(3)]
        three = [
            replace(
                first,
                decision_id=f"dec_{person}_{n}",
                request_id=f"r{person}_{n}",
                decided_at=first.decided_at + later,
                send_at=first.send_at and first.send_at + later,
                sent_at=first.sent_at and first.sent_at + later,
            )
            for n, later in enumerate(hours)
        ]
        made += three
        if rng.random() < 0.2:
            told = {"decision_id": three[-1].decision_id} if rng.random() < naming[group] else {}
            events.append(order(three[-1], 10.0, **told))
    write(services, made, events)


def lift(services: Services, control: str) -> tuple[dict[str, Any], list[str]]:
    found = report(services, WORKSPACE, "spring")
    return next(one for one in found["lifts"] if one["control"] == control), found["summary"]


def test_groups_that_buy_alike_are_not_told_apart_by_the_form_of_their_orders(services: Services) -> None:
    """Where the shop knows the message somebody came from, it names it: never for a holdout. So an order is worth one
    among the treated where it is worth three in the holdout, and bounds of 95 % exclude 0 by far."""
    alike(services, CLICKED_THROUGH)
    found, summary = lift(services, "holdout")
    assert found["value"]["high"] < 0.0
    assert (found["value"]["clear"], found["money"]["clear"]) == ("no", "no")
    assert found["doubts"] == [{"outcome": "converted", "doubt": "two_forms"}]
    warning = next(line for line in summary if line.startswith("Don't trust the lift over holdout and random"))
    assert "some events of converted name a decision and count for it alone" in warning
    assert "holdout 0 and " in warning
    assert not any("Worse than" in line or "clear lift" in line for line in summary)
    assert any(line.startswith("Lift over sending nothing (holdout): -") for line in summary)


@pytest.mark.parametrize("chance", [0.0, 0.002, 1.0])
def test_one_form_for_all_groups_leaves_no_doubt(services: Services, chance: float) -> None:
    alike(services, dict.fromkeys(GROUPS, chance))
    found, summary = lift(services, "holdout")
    assert (found["doubts"], found["value"]["clear"]) == ([], "no")
    assert not any("Don't trust" in line for line in summary)


def test_the_counts_of_both_forms_are_told_each_event_once(services: Services) -> None:
    alike(services, CLICKED_THROUGH)
    found = report(services, WORKSPACE, "spring")
    with services.store.read() as reader:
        orders = list(reader.feedback(WORKSPACE))
    bought = {event.event_id: (row.decision.group, event.decision_id) for row in orders for event in row.events}
    (told,) = found["forms"]
    for group in ("treated", "holdout", "random"):
        mine = [named for who, named in bought.values() if who == group]
        assert told["groups"][group] == {
            "by_decision": sum(named is not None for named in mine),
            "by_recipient": sum(named is None for named in mine),
        }


def test_a_holdout_of_which_no_order_can_be_heard_is_named(services: Services) -> None:
    made = [decision(number, GROUP_OF[number % 10]) for number in range(400)]
    bought = [one for one in made if one.group == "treated"][::4]
    write(services, made, [order(one, 10.0, decision_id=one.decision_id) for one in bought])
    found, summary = lift(services, "holdout")
    assert found["doubts"] == [{"outcome": "converted", "doubt": "unseen"}]
    assert any(line.startswith("No converted of the holdout was reported, and 70 of the treated") for line in summary)


def test_a_clear_lift_of_orders_in_one_form_stays_clear(services: Services) -> None:
    buyers(services, {"treated": 0.3, "random": 0.2, "holdout": 0.1})
    found, _ = lift(services, "holdout")
    assert (found["doubts"], found["value"]["clear"]) == ([], "higher")
