"""How figures came about: the curve ends where the report is, days and hours add up to its counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from optimizer.service import setup
from optimizer.service.report import report, report_with_trends
from optimizer.service.wiring import Services
from storage.log import Decision, Group
from tests.service.campaigns import GROUP_OF, decision, order, shop, write
from tests.service.conftest import START, WORKSPACE, FakeClock

DAYS = 6
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.fixture
def lived(services: Services, clock: FakeClock) -> list[Decision]:
    """A thousand recipients over six days, each of the treated buying, and a third of the rest."""
    setup.put_campaign(services, shop())
    made = []
    for number in range(1_000):
        group: Group = GROUP_OF[number % 10]
        moved = timedelta(days=number % DAYS)
        one = decision(number, group)
        sent = None if one.send_at is None else one.send_at + moved
        made.append(replace(one, decided_at=one.decided_at + moved, send_at=sent, sent_at=sent))
    buying = [one for n, one in enumerate(made) if one.group == "treated" or n % 3 == 0]
    write(services, made, [order(one, 10.0) for one in buying])
    clock.forward(days=DAYS + 10)
    return made


def test_without_decisions_there_is_nothing_to_draw(services: Services) -> None:
    setup.put_campaign(services, shop())
    told = report_with_trends(services, WORKSPACE, "spring")["trends"]
    assert told["lift"] == []
    assert told["traffic"]["bars"] == told["days"]["bars"] == told["week"] == []


def test_the_rest_is_the_report(services: Services, lived: list[Decision]) -> None:
    told = report_with_trends(services, WORKSPACE, "spring")
    del told["trends"]
    assert told == report(services, WORKSPACE, "spring")


def test_a_curve_ends_where_the_report_is_and_its_earlier_points_are_earlier_reports(
    services: Services, lived: list[Decision], clock: FakeClock
) -> None:
    told = report_with_trends(services, WORKSPACE, "spring")
    for curve in told["trends"]["lift"]:
        now = next(one for one in told["lifts"] if one["control"] == curve["control"])
        *earlier, last = curve["points"]
        assert {name: last[name] for name in ("estimate", "low", "high")} == pytest.approx(
            {name: now["value"][name] for name in ("estimate", "low", "high")}
        )
        assert last["compared"] == now["compared"]
        assert last["at"] <= told["as_of"]
        assert len(earlier) >= DAYS - 2
        for point in earlier:
            clock.now = point["at"] + timedelta(minutes=1)
            then = report(services, WORKSPACE, "spring")
            value = next(one for one in then["lifts"] if one["control"] == curve["control"])["value"]
            assert point["estimate"] == pytest.approx(value["estimate"])
            assert (point["low"] is None) == (value["low"] is None)
            if point["low"] is not None:
                assert (point["low"], point["high"]) == pytest.approx((value["low"], value["high"]))
    assert [curve["control"] for curve in told["trends"]["lift"]] == ["holdout", "random"]


def test_traffic_is_that_of_the_treated_by_what_they_were_given(services: Services, lived: list[Decision]) -> None:
    told = report_with_trends(services, WORKSPACE, "spring")["trends"]["traffic"]
    treated = [one for one in lived if one.group == "treated"]
    assert told["variants"][-1] is None
    assert [bar["from"] for bar in told["bars"]] == [
        datetime(START.year, START.month, START.day, tzinfo=UTC) + timedelta(days=n) for n in range(len(told["bars"]))
    ]
    for place, variant in enumerate(told["variants"]):
        assert sum(bar["counts"][place] for bar in told["bars"]) == sum(one.variant_id == variant for one in treated)


def test_a_year_of_traffic_fits_the_page(services: Services, clock: FakeClock) -> None:
    setup.put_campaign(services, shop())
    years = [replace(decision(n, "treated"), decided_at=START + timedelta(days=n)) for n in range(0, 400, 3)]
    write(services, years)
    clock.forward(days=400)
    told = report_with_trends(services, WORKSPACE, "spring")["trends"]
    for history in (told["traffic"], told["days"]):
        assert 30 < len(history["bars"]) <= 45
        assert history["days_a_bar"] == 9
    assert sum(bar["decisions"] for bar in told["days"]["bars"]) == len(years)
    assert (
        told["days"]["bars"][-1]["from"] <= years[-1].decided_at < told["days"]["bars"][-1]["from"] + timedelta(days=9)
    )


def test_a_channels_week_adds_up_to_its_compared_messages(services: Services, lived: list[Decision]) -> None:
    told = report_with_trends(services, WORKSPACE, "spring")
    (week,) = told["trends"]["week"]
    by_hour = {24 * WEEKDAYS.index(h["weekday"]) + h["hour"]: h for h in told["by_hour"]}
    assert week["channel"] == "email"
    for hour in range(168):
        known = by_hour.get(hour)
        assert week["messages"][hour] == (known["compared"] if known else 0)
        assert week["value"][hour] == (pytest.approx(known["value"]) if known else None)
