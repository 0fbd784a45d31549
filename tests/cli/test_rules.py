"""``sendtide rules``: what it tells of reserved messages that break the rules."""

from __future__ import annotations

from dataclasses import replace

from optimizer.service import setup
from optimizer.service.requests import DecisionRequest
from optimizer.service.wiring import Services
from storage.records import Campaign
from storage.rules import Cap, Rule, Selector
from tests.cli.conftest import Sendtide


def reserve(services: Services, count: int) -> list[str]:
    """Reserves a message for each of so many recipients, then closes their campaign by two rules."""
    ids = []
    for number in range(count):
        request = DecisionRequest("spring", f"u{number}", channels=("email",))
        ids.append(services.decider.decide("default", request)[0])
    assert all(one.status == "reserved" for one in ids)
    for rule_id, dry_run in (("never", False), ("watched", True)):
        email = Selector(channels=("email",))
        never = Cap(0, rolling_hours=1.0)
        setup.put_rule(services, Rule("default", rule_id, "cap", never, email, email, dry_run=dry_run))
    return [one.decision_id for one in ids]


def test_breaches_are_listed_a_line_each_and_counted_on_the_side(
    sendtide: Sendtide, services: Services, spring: Campaign
) -> None:
    setup.put_campaign(services, replace(spring, allow_no_send=False))
    none = sendtide("rules", "breaches")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "No reserved message breaks a rule.\n")
    ids = reserve(services, 3)
    result = sendtide("rules", "breaches")
    assert result.exit_code == 0
    assert sorted(line.split()[0] for line in result.stdout.splitlines()) == sorted(ids)
    assert all("never: " in line and "limit 0: never" in line for line in result.stdout.splitlines())
    assert result.stderr == "3 breaches by 3 reserved messages\n"


def test_one_breach_is_counted_as_one(sendtide: Sendtide, services: Services, spring: Campaign) -> None:
    setup.put_campaign(services, replace(spring, allow_no_send=False))
    reserve(services, 1)
    assert sendtide("rules", "breaches").stderr == "1 breach by 1 reserved message\n"


def test_programs_get_them_as_json_of_one_rule_also_of_a_dry_run(
    sendtide: Sendtide, services: Services, spring: Campaign
) -> None:
    setup.put_campaign(services, replace(spring, allow_no_send=False))
    ids = reserve(services, 2)
    told = sendtide.json("rules", "breaches", "--rule", "watched")["breaches"]
    assert sorted(one["decision_id"] for one in told) == sorted(ids)
    assert {(one["rule_id"], one["dry_run"], one["status"]) for one in told} == {("watched", True, "reserved")}
    assert told[0]["send_at"].endswith("Z")


def test_a_rule_that_is_not_there_is_refused(sendtide: Sendtide, spring: Campaign) -> None:
    result = sendtide("rules", "breaches", "--rule", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no rule 'nope'" in result.stderr
