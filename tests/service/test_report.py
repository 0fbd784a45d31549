"""A campaign's report: what is counted where, what is stated of it, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.rates import ANY_RATE, rate_bounds
from optimizer.errors import Invalid, NotFound
from optimizer.service import setup
from optimizer.service.keptreports import KeptReports
from optimizer.service.report import report, report_with_trends
from optimizer.service.reportwords import _lift, number, together
from optimizer.service.wiring import Services
from storage.log import Decision, Event, Reason
from storage.records import Channel, GroupShares
from tests.service.campaigns import buyers, decision, order, shop, write
from tests.service.conftest import START, WORKSPACE, FakeClock


@pytest.fixture(autouse=True)
def stored(services: Services) -> None:
    setup.put_campaign(services, shop())


@pytest.fixture
def later(clock: FakeClock) -> FakeClock:
    """Five days on, so that every window of the first day has passed."""
    clock.forward(days=5)
    return clock


def reported(services: Services, **period: Any) -> dict[str, Any]:
    return report(services, WORKSPACE, "spring", **period)


def group(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["groups"] if one["group"] == name)


def lift(found: dict[str, Any], control: str) -> dict[str, Any]:
    return next(one for one in found["lifts"] if one["control"] == control)


def test_groups_bring_what_their_decisions_brought_withheld_and_released_ones_included(
    services: Services, later: FakeClock
) -> None:
    sent, released = decision(1, "treated"), decision(2, "treated", status="released", sent_at=None)
    withheld = decision(
        3, "treated", status="withheld", action=None, variant_id=None, channel=None, send_at=None, sent_at=None
    )
    silent = decision(4, "holdout")
    write(services, [sent, released, withheld, silent], [order(sent, 30.0), order(withheld, 6.0), order(silent, 8.0)])
    found = reported(services)
    treated, holdout = group(found, "treated"), group(found, "holdout")
    assert treated["value"]["estimate"] == pytest.approx((30.0 - 0.1 + 0.0 + 6.0) / 3), "only the sent one costs"
    assert (treated["decisions"], treated["withheld"], treated["messages"], treated["compared"]) == (3, 1, 2, 3)
    assert (treated["revenue"], treated["cost"]) == (36.0, pytest.approx(0.1))
    assert holdout["value"]["estimate"] == 8.0
    assert holdout["configured_share"] == 0.2
    found_lift = lift(found, "holdout")["value"]
    assert found_lift["estimate"] == pytest.approx(35.9 / 3 - 8.0)
    assert found_lift["total"]["estimate"] == pytest.approx(35.9 - 3 * 8.0)
    assert (found_lift["low"], found_lift["clear"]) == (None, "no")
    assert found_lift["relative"] is None, "a percentage of which nothing can be stated would be read as one that can"
    assert any(line.startswith("Lift over sending nothing (holdout): too early to say") for line in found["summary"])


@pytest.mark.parametrize(
    ("outcomes", "people"),
    [(0.0, "0 recipients"), (1.2, "1 recipient"), (2.0 - 1e-12, "2 recipients"), (49.6, "49 recipients")],
)
def test_too_few_recipients_with_an_outcome_are_counted(outcomes: float, people: str) -> None:
    power = {"outcomes": {"treated": outcomes, "control": 60.0, "needed": 50.0}, "days_until_clear": None}
    (line,) = _lift({"control": "holdout", "value": {"low": None, "power": power}}, "", 1)
    assert f"As good as {people} of the group treated had an outcome; 50 are needed." in line


def test_decisions_are_compared_once_nothing_can_come_of_them_whatever_was_drawn(
    services: Services, clock: FakeClock
) -> None:
    # Window of 2 h + 72 h in which a complaint would count: closed 74 h after the decision, at the next midnight.
    early = decision(1, "treated", send_at=START, sent_at=START)
    silent = decision(2, "treated", status="no_send", variant_id=None, channel=None, send_at=None, sent_at=None)
    write(services, [early, silent], [order(early, 30.0)])
    for days, compared in ((3, 0), (4, 2)):
        clock.now = START.replace(hour=0) + timedelta(days=days, minutes=1)
        counts = reported(services)["decisions"]
        assert (counts["compared"], counts["windows_open"]) == (compared, 2 - compared)
    assert counts["next_closes_at"] is None


def test_open_windows_are_told_with_the_day_on_which_the_next_closes(services: Services) -> None:
    write(services, [decision(0, "treated"), decision(1_440, "holdout")])
    found = reported(services)
    assert found["decisions"]["next_closes_at"] == START + timedelta(hours=74)
    assert (
        "0 decisions are compared; 2 are not yet, since something may still come of them (the next on 2026-03-05)."
        in (found["summary"])
    )
    assert lift(found, "holdout")["value"] is None
    assert group(found, "treated")["value"] == {"estimate": None, "low": None, "high": None}


def test_what_was_not_live_is_counted_and_never_compared(services: Services, later: FakeClock) -> None:
    write(services, [decision(1, "treated"), decision(2, "treated", mode="shadow")])
    counts = reported(services)["decisions"]
    assert (counts["total"], counts["compared"], counts["not_live"], counts["windows_open"]) == (2, 1, 1, 0)


def test_a_clear_lift_is_told_with_its_bounds_and_in_money(services: Services, later: FakeClock) -> None:
    buyers(services, {"treated": 0.40, "random": 0.2, "holdout": 0.2})
    found = reported(services)
    value = lift(found, "holdout")["value"]
    assert 0.0 < value["low"] < 1.9 < value["high"], "two more of ten euros in ten, less a tenth"
    assert (value["clear"], value["power"]["days_until_clear"]) == ("higher", 0)
    assert value["relative"] == pytest.approx(value["estimate"] / group(found, "holdout")["value"]["estimate"])
    assert lift(found, "holdout")["money"]["estimate"] == pytest.approx(value["estimate"])
    assert found["summary"][0].startswith("A clear lift over sending nothing (holdout): +")
    assert any(line.startswith("In money, costs deducted: +") and " EUR so far" in line for line in found["summary"])
    assert not found["group_sizes"]["mismatch"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0.1516, 0.11, 0.1932), ["0.152", "0.110", "0.193"]),
        ((0.11, 0.0999, 0.2), ["0.110", "0.100", "0.200"]),
        ((-12.34, -13.0, 0.004), ["-12.3", "-13.0", "0.0"]),
        ((1234.5, 12.0, 2345.6), ["1,234", "12", "2,346"]),
        ((0.0, -0.25, 0.25), ["0", "-0.25", "0.25"]),
        ((0.111, -0.0001, 0.222), ["0.111", "0.000", "0.222"]),
    ],
)
def test_bounds_have_as_many_decimals_as_their_estimate(values: tuple[float, ...], told: list[str]) -> None:
    assert together(values) == told


@pytest.mark.parametrize(
    ("value", "told"), [(999.4, "999"), (999.6, "1,000"), (-999.6, "-1,000"), (1000.4, "1,000"), (0.01234, "0.0123")]
)
def test_a_number_has_no_exponent(value: float, told: str) -> None:
    assert number(value) == told


def test_no_lift_is_said_to_be_none_with_what_could_be_seen(services: Services, later: FakeClock) -> None:
    buyers(services, {"treated": 0.21, "random": 0.2, "holdout": 0.2})
    value = lift(found := reported(services), "holdout")["value"]
    assert value["low"] < 0.0 < value["high"]
    assert value["power"]["detectable"] == pytest.approx(value["high"] - value["estimate"])
    line = found["summary"][0]
    assert line.startswith("No lift over sending nothing (holdout) can be seen: ")
    assert "would be clear by now" in line


def test_no_day_is_promised_once_nothing_comes_in_any_more(services: Services, later: FakeClock) -> None:
    buyers(services, {"treated": 0.21, "random": 0.2, "holdout": 0.2})
    assert lift(reported(services), "holdout")["value"]["power"]["days_until_clear"] is not None
    later.forward(days=6)
    assert lift(reported(services), "holdout")["value"]["power"]["days_until_clear"] is not None, "of the last seven"
    later.forward(days=30)
    found = reported(services)
    assert lift(found, "holdout")["value"]["power"]["days_until_clear"] is None
    assert any("would not be within ten years" in line for line in found["summary"])


def test_doing_harm_is_said_to_be_worse(services: Services, later: FakeClock) -> None:
    buyers(services, {"treated": 0.1, "random": 0.3, "holdout": 0.3})
    found = reported(services)
    assert lift(found, "holdout")["value"]["clear"] == "lower"
    assert found["summary"][0].startswith("Worse than sending nothing (holdout)")


def test_unsubscribes_are_counted_by_group_and_told_where_they_are_more(services: Services, later: FakeClock) -> None:
    made = [decision(number, ("treated", "random")[number % 2]) for number in range(2_000)]
    left = [
        Event(WORKSPACE, f"left{d.decision_id}", "unsubscribed", d.decided_at, d.decided_at, True, d.decision_id)
        for d in made[:400]
        if d.group == "treated"
    ]
    write(services, made, left)
    found = reported(services)
    told = group(found, "treated")["outcomes"]["unsubscribed"]
    assert (told["count"], told["estimate"]) == (200, 0.2)
    assert 0.0 < told["low"] < 0.2 < told["high"]
    assert group(found, "random")["outcomes"]["unsubscribed"]["high"] > 0.0
    assert lift(found, "random")["harms"]["unsubscribed"]["clear"] == "higher"
    assert any(
        line.startswith("More recipients unsubscribed than in the group random: +20") for line in found["summary"]
    )


def test_an_outcome_that_all_had_may_still_miss_the_next_one(services: Services, later: FakeClock) -> None:
    """Sixty recipients with an order each; two decisions of one recipient say no more than one does."""
    made = [decision(number, "treated") for number in range(60)]
    again = [replace(one, decision_id=f"b{one.decision_id}", request_id=f"b{one.request_id}") for one in made]
    write(services, [*made, *again], [order(one, 10.0) for one in (*made, *again)])
    told = group(reported(services), "treated")["outcomes"]["converted"]
    assert (told["count"], told["estimate"], told["high"]) == (120, 1.0, 1.0)
    assert told["low"] == pytest.approx(rate_bounds(60, 60, prior=ANY_RATE)[0])


def test_a_holdout_cannot_unsubscribe_so_all_doubt_is_of_the_treated(services: Services, later: FakeClock) -> None:
    made = [decision(number, "holdout" if number % 5 == 0 else "treated") for number in range(1_000)]
    left = [
        Event(WORKSPACE, f"left{d.decision_id}", "unsubscribed", d.decided_at, d.decided_at, True, d.decision_id)
        for d in made[:50]
    ]
    write(services, made, left)
    found = reported(services)
    treated, holdout = (group(found, name)["outcomes"]["unsubscribed"] for name in ("treated", "holdout"))
    assert holdout == {"count": 0, "estimate": 0.0, "low": 0.0, "high": 0.0}, "the ten of them answer no message"
    harm = lift(found, "holdout")["harms"]["unsubscribed"]
    assert (harm["estimate"], harm["clear"]) == (pytest.approx(40 / 800), "higher")
    assert (harm["low"], harm["high"]) == (pytest.approx(treated["low"]), pytest.approx(treated["high"]))


def test_groups_of_the_wrong_sizes_come_first(services: Services, later: FakeClock) -> None:
    write(services, [decision(number, "holdout" if number % 10 == 0 else "treated") for number in range(3_000)])
    found = reported(services)
    assert found["group_sizes"]["mismatch"]
    assert found["group_sizes"]["expected"]["holdout"] == pytest.approx(600)
    assert found["summary"][0].startswith("Don't trust the comparisons: the groups have not the sizes")


def test_sizes_follow_the_shares_of_the_version_that_recipients_were_asked_under(
    services: Services, later: FakeClock
) -> None:
    setup.put_campaign(services, shop(groups=GroupShares(holdout=0.5)))
    first = [decision(n, "holdout" if n % 5 == 0 else "random" if n % 10 == 1 else "treated") for n in range(500)]
    second = [decision(n, "holdout" if n % 2 else "treated", campaign_version=2) for n in range(1_000, 1_500)]
    again = [replace(one, decision_id=f"b{one.decision_id}", request_id=f"b{one.request_id}") for one in second]
    write(services, [*first, *second, *again])
    sizes = reported(services)["group_sizes"]
    assert sizes["recipients"] == {"treated": 600, "random": 50, "baseline": 0, "holdout": 350}
    assert sizes["expected"] == pytest.approx(sizes["recipients"])
    assert sizes["p_value"] == 1.0


def test_where_shares_changed_base_total_and_harms_are_by_stretches_as_the_lift_is(
    services: Services, later: FakeClock
) -> None:
    """First chance chooses for one in two, half of all buy for 20, a tenth leaves; then for one in ten, half of all buy
    for 2, nobody leaves. The treated pay a tenth more both times."""
    setup.put_campaign(services, shop(groups=GroupShares(random=0.5), channels=(Channel("email"),)))
    setup.put_campaign(services, shop(groups=GroupShares(random=0.1), channels=(Channel("email"),)))
    sizes = ((2, 500, 500, 20.0), (3, 1_800, 200, 2.0))
    made: list[Decision] = []
    events: list[Event] = []
    for version, treated, control, amount in sizes:
        for n in range(treated + control):
            of = decision(len(made), "treated" if n < treated else "random", campaign_version=version)
            made.append(of)
            if n % 2 == 0:
                events.append(order(of, amount * (1.1 if n < treated else 1.0)))
            if version == 2 and n % 10 == 1:
                at = of.decided_at
                events.append(Event(WORKSPACE, f"left{n}", "unsubscribed", at, at, True, of.decision_id))
    write(services, made, events)
    found = report_with_trends(services, WORKSPACE, "spring")
    told = lift(found, "random")
    money, first, second = told["money"], 1.0, 0.1
    weights = np.array([250.0, 180.0]) / 430.0
    assert money["estimate"] == pytest.approx(weights @ [first, second])
    assert money["base"] == pytest.approx(weights @ [10.0, 1.0])
    assert money["relative"] == pytest.approx(0.1)
    assert money["total"]["estimate"] == pytest.approx(500 * first + 1_800 * second)
    assert money["total"]["decisions"] == 2_300
    (curve,) = found["trends"]["lift"]
    assert curve["points"][-1]["estimate"] == pytest.approx(told["value"]["estimate"])
    assert told["harms"]["unsubscribed"]["estimate"] == pytest.approx(0.0)
    assert told["harms"]["unsubscribed"]["clear"] == "no"
    parts = [group(found, name)["outcomes"]["unsubscribed"]["estimate"] for name in ("treated", "random")]
    assert parts[0] < 0.4 * parts[1], "what a comparison of sums would say"


def test_money_says_of_which_decisions_it_is_where_a_holdout_was_all_but_given_up(
    services: Services, later: FakeClock
) -> None:
    setup.put_campaign(services, shop(groups=GroupShares(holdout=0.5)))
    setup.put_campaign(services, shop(groups=GroupShares(holdout=0.001)))
    chances = {"treated": 0.5, "holdout": 0.25}
    rng = np.random.default_rng(1)
    early = [decision(n, ("treated", "holdout")[n % 2], campaign_version=2) for n in range(1_000)]
    late = [decision(n, "holdout" if n < 1_003 else "treated", campaign_version=3) for n in range(1_000, 3_000)]
    made = [*early, *late]
    write(services, made, [order(one, 10.0) for one in made if rng.random() < chances[one.group]])
    found = reported(services)
    value = lift(found, "holdout")["value"]
    assert value["clear"] == "higher"
    assert value["total"]["decisions"] == 500
    assert value["power"]["outcomes"]["control"] > 50
    assert any("so far" in line and "with 500 of 2,497 treated decisions" in line for line in found["summary"])


def test_a_campaign_of_which_nobody_was_treated_yet_has_nothing_to_say(services: Services, later: FakeClock) -> None:
    write(services, [decision(1, "holdout")])
    assert any("holdout): nothing to say yet" in line for line in reported(services)["summary"])


@pytest.mark.parametrize("treated", [0, 3])
def test_control_groups_of_which_nobody_was_asked_about_yet_are_told(services: Services, treated: int) -> None:
    write(services, [decision(number, "treated") for number in range(treated)])
    found = reported(services)
    assert [(one["control"], one["compared"], one["value"]) for one in found["lifts"]] == [
        ("holdout", 0, None),
        ("random", 0, None),
    ]
    assert (
        "Lift over sending nothing (holdout): nothing to say yet, no decisions of both groups can be compared."
        in (found["summary"])
    )
    assert not any("nothing to compare with" in line for line in found["summary"])


def test_the_pace_is_that_of_what_the_stretches_tell(services: Services, clock: FakeClock) -> None:
    """A thousand treated a day beside hardly any control tell next to nothing: no lift comes clear within ten years."""
    setup.put_campaign(services, shop(groups=GroupShares(holdout=0.5)))
    setup.put_campaign(services, shop(groups=GroupShares(holdout=0.001)))
    early = [decision(n, ("treated", "holdout")[n % 2], campaign_version=2) for n in range(400)]
    late = []
    for n in range(400, 3_400):
        of = decision(n, "holdout" if n == 400 else "treated", campaign_version=3)
        at = of.decided_at + timedelta(days=20)
        late.append(replace(of, decided_at=at, send_at=at, sent_at=at))
    made = [*early, *late]
    write(
        services, made, [order(one, 10.0) for n, one in enumerate(made) if n % 20 in ((0, 3, 7) if n < 400 else (0,))]
    )
    clock.forward(days=25)
    power = lift(reported(services), "holdout")["value"]["power"]
    assert power["outcomes"]["control"] < 50
    assert power["days_until_clear"] is None or power["days_until_clear"] > 300


def test_parts_are_told_for_the_treated_and_for_those_whom_chance_chose(services: Services, later: FakeClock) -> None:
    buyers(services, {"treated": 0.4, "random": 0.2, "holdout": 0.2}, recipients=1_000)
    found = reported(services)
    parts = {one["variant"]: one for one in found["by_variant"]}
    assert set(parts) == {"mens", "womens", None}
    assert parts["mens"]["treated"]["compared"] + parts["womens"]["treated"]["compared"] == 700
    assert parts[None]["treated"] is None, "the treated were all written to"
    assert sum(one["random"]["compared"] for one in parts.values() if one["random"]) == 100
    (email, nothing) = found["by_channel"]
    assert (email["channel"], email["decisions"], nothing["channel"]) == ("email", 800, None)
    assert email["treated"]["harms"]["complained"]["low"] == 0.0
    assert {one["weekday"] for one in found["by_hour"]} == {"mon", "tue"}
    assert sum(one["compared"] for one in found["by_hour"]) == 700
    assert (
        sum(one["outcomes"]["converted"] for one in found["by_hour"])
        == group(found, "treated")["outcomes"]["converted"]["count"]
    )


def test_what_rules_masked_is_counted_with_what_was_withheld(services: Services, later: FakeClock) -> None:
    hit = (Reason("weekly", "cap", 4),)
    write(
        services,
        [
            decision(1, "treated", reasons=hit),
            decision(
                2, "treated", reasons=hit, status="withheld", action=None, variant_id=None, channel=None, send_at=None
            ),
            decision(3, "treated", reasons=(Reason("night", "quiet_hours", 1, dry_run=True),)),
        ],
    )
    assert reported(services)["rules"] == [
        {"rule_id": "weekly", "kind": "cap", "dry_run": False, "decisions": 2, "withheld": 1, "masked": 8},
        {"rule_id": "night", "kind": "quiet_hours", "dry_run": True, "decisions": 1, "withheld": 0, "masked": 1},
    ]


def test_a_period_takes_the_decisions_made_in_it(services: Services, later: FakeClock) -> None:
    write(services, [decision(number, "treated") for number in range(0, 1_440, 60)])
    half = START + timedelta(hours=12)
    assert reported(services, since=half)["decisions"]["total"] == 12
    assert reported(services, until=half)["decisions"]["total"] == 12
    assert reported(services, since=half, until=half + timedelta(hours=1))["decisions"]["total"] == 1
    with pytest.raises(Invalid, match="must be after since"):
        reported(services, since=half, until=half)


def test_a_campaign_without_decisions_or_controls_says_so(services: Services) -> None:
    setup.put_campaign(services, shop(groups=GroupShares()))
    assert reported(services)["summary"] == [
        "There is nothing to compare with: the campaign has no holdout, random or baseline group.",
        "No decisions in this period.",
    ]
    with pytest.raises(NotFound):
        report(services, WORKSPACE, "autumn")
    with pytest.raises(NotFound):
        report(services, "other", "spring")


def test_a_report_that_took_long_is_kept_for_twenty_times_as_long() -> None:
    seconds, made = 0.0, []

    def make() -> dict[str, Any]:
        nonlocal seconds
        seconds += 3.0
        made.append(seconds)
        return {"number": len(made)}

    kept = KeptReports(timer=lambda: seconds)
    assert kept.get("a", START, make) == {"number": 1}
    assert kept.get("a", START + timedelta(seconds=59), make) == {"number": 1}
    assert kept.get("b", START, make) == {"number": 2}
    assert kept.get("a", START + timedelta(seconds=60), make) == {"number": 3}


def test_nothing_stays_of_a_report_that_could_not_be_made() -> None:
    kept = KeptReports(timer=lambda: 0.0)

    def fail() -> dict[str, Any]:
        raise NotFound("no such campaign")

    for name in ("a", "b"):
        with pytest.raises(NotFound):
            kept.get(name, START, fail)
    assert not kept._making


def test_a_quick_report_is_made_anew_each_time() -> None:
    kept, made = KeptReports(timer=lambda: 0.0), []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"number": len(made)}

    assert [kept.get("a", START, make)["number"] for _ in range(3)] == [1, 2, 3]
