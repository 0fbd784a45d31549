"""``sendtide report``: for marketers and for programs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from optimizer.service import setup
from optimizer.service.wiring import Services
from storage.log import Reason
from storage.records import Channel, OutcomeWeight
from tests.cli.conftest import Sendtide
from tests.service.campaigns import GROUP_OF, decision, order, shop, write


@pytest.fixture
def logged(services: Services) -> None:
    """A thousand decisions of March 2026; half of the treated and a fifth of the others buy."""
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, shop(workspace_id="default"))
    made = [
        decision(number, GROUP_OF[number % 10], workspace_id="default", reasons=(Reason("weekly", "cap", 2),))
        for number in range(1_000)
    ]
    bought = [one for place, one in enumerate(made) if place // 10 % (2 if one.group == "treated" else 5) == 0]
    write(services, made, [order(one, 10.0) for one in bought])


def test_the_report_is_readable(sendtide: Sendtide, logged: None) -> None:
    text = sendtide.ok("report", "spring", env={"COLUMNS": "160"})
    for part in (
        "spring, as of ",
        "Lift over sending nothing (holdout): too early to say.",
        "What each group brought",
        "By variant (only what chance chose shows which is better)",
        "(no message)",
        "mon  ",
        "weekly",
    ):
        assert part in text, part


def test_no_relative_lift_is_told_while_it_is_too_early_to_say(sendtide: Sendtide, logged: None) -> None:
    text = sendtide.ok("report", "spring", env={"COLUMNS": "160"})
    lifts = text.partition("What the choices brought more")[2].partition("By variant")[0]
    (over,) = [line.partition("(too early)")[2].split() for line in lifts.splitlines() if "holdout" in line]
    assert over[0] == "–"


def test_the_report_is_json_for_programs(sendtide: Sendtide, logged: None) -> None:
    found = sendtide.json("report", "spring", "--since", "2026-03-01", "--until", "2026-03-03T00:00:00+01:00")
    assert found["decisions"]["total"] == 14 * 60
    assert found["since"] == "2026-03-01T00:00:00Z"
    assert {one["group"] for one in found["groups"]} == {"treated", "random", "holdout"}
    assert datetime.fromisoformat(found["as_of"]).astimezone(UTC).hour == 0


def test_times_outside_the_calendar_are_refused(sendtide: Sendtide, logged: None) -> None:
    early, late = ("--since", "0001-01-01T00:00:00+14:00"), ("--until", "9999-12-31T23:59:59-12:00")
    for flag, at in (early, late, ("--since", "2026-13-01"), ("--until", "yesterday")):
        result = sendtide("report", "spring", flag, at)
        assert result.exit_code == 1
        assert f"{flag}: '{at}' must be an RFC 3339 time or a date" in result.stderr


def test_a_report_without_anything_is_no_failure(sendtide: Sendtide, services: Services) -> None:
    setup.ensure_workspace(services, "default")
    setup.put_campaign(services, replace(shop(), workspace_id="default"))
    assert "No decisions in this period." in sendtide.ok("report", "spring")
    result = sendtide("report", "autumn")
    assert result.exit_code == 1
    assert "no campaign 'autumn'" in result.stderr


def test_money_is_told_only_where_there_is_some(sendtide: Sendtide, logged: None, services: Services) -> None:
    wide = {"COLUMNS": "160"}
    assert "EUR so far" in sendtide.ok("report", "spring", env=wide)
    clicks = shop(workspace_id="default", objective={"clicked": OutcomeWeight(fixed=1.0)}, channels=(Channel("email"),))
    setup.put_campaign(services, clicks)
    assert "EUR" not in sendtide.ok("report", "spring", env=wide)
