"""Rules over HTTP: every kind is shown back as it was given, and patched; what the page on rules shows is taken."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from optimizer.web.schemas.rules import KINDS
from storage.rules import Adapt, Cap, Capacity, Rule, RuleKind, RuleParameters, WarmUpStep
from tests.web.conftest import CAMPAIGN, Caller, StillClock

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rules.md"

#: Every field that a rule of the kind has, so that nothing may be lost on its way through the store.
WHOLE: list[dict[str, Any]] = [
    {"kind": "cap", "limit": 3, "window": {"rolling_hours": 168}, "adapt": {"after_unengaged": 10, "limit": 1}},
    {"kind": "cap", "limit": 0, "window": {"calendar": "day"}, "adapt": None},
    {"kind": "cap", "limit": 9, "window": {"calendar": "week", "week_start": "sun"}, "adapt": None},
    {"kind": "gap", "minutes": 240},
    {"kind": "quiet_hours", "start": "21:00", "end": "08:00", "days": ["mon", "fri"]},
    {"kind": "blackout", "dates": ["2026-12-25", "2026-12-24"], "country_holidays": True, "default_country": "DE"},
    {"kind": "blackout", "dates": [], "country_holidays": True, "default_country": None},
    {
        "kind": "capacity",
        "limit": 50000,
        "per_minutes": 60,
        "warm_up": [{"day": 1, "limit": 500}, {"day": 4, "limit": 0}],
        "starts_on": "2026-12-01",
    },
    {"kind": "capacity", "limit": 0, "per_minutes": 44640, "warm_up": [], "starts_on": None},
    {"kind": "budget", "amount": 1000, "per": "month", "timezone": "Europe/Berlin", "week_start": None},
    {"kind": "budget", "amount": 0.1, "per": "week", "timezone": "UTC", "week_start": "thu"},
    {"kind": "budget", "amount": 999999999.123456, "per": "day", "timezone": "UTC", "week_start": None},
    {"kind": "budget", "amount": 0, "per": "day", "timezone": "UTC", "week_start": None},
    {"kind": "fatigue", "outcome": "unsubscribed", "max_risk": 0.002},
    {"kind": "fatigue", "outcome": "complained", "max_risk": 0.999},
]
COMMON: dict[str, Any] = {
    "applies_to": {"channels": ["email"], "except_categories": ["transactional"], "campaigns": ["c"]},
    "counts": {"channels": ["email", "push"]},
    "enabled": False,
    "dry_run": True,
}


def shown(caller: Caller, rule_id: str = "r") -> dict[str, Any]:
    found: dict[str, Any] = caller("GET", f"/v1/rules/{rule_id}").get_json()
    return found


def test_the_kinds_are_those_of_the_contract() -> None:
    assert set(KINDS) == {"cap", "gap", "quiet_hours", "blackout", "capacity", "budget", "fatigue"}
    assert {one["kind"] for one in WHOLE} == set(KINDS)


@pytest.mark.parametrize("rule", WHOLE, ids=lambda r: f"{r['kind']}-{WHOLE.index(r)}")
def test_a_rule_is_shown_back_as_it_was_given_and_can_be_put_back(admin: Caller, rule: dict[str, Any]) -> None:
    made = admin("PUT", "/v1/rules/r", {**rule, **COMMON})
    assert made.status_code == 201, made.get_json(force=True)
    told = shown(admin)
    assert told == {
        **rule,
        **COMMON,
        "rule_id": "r",
        "version": 1,
        "archived": False,
        "updated_at": "2026-11-24T09:00:00Z",
    }
    again = admin("PUT", "/v1/rules/r", told, headers={"If-Match": '"1"'})
    assert again.status_code == 200
    assert again.get_json() == {**told, "version": 2}


@pytest.mark.parametrize("rule", WHOLE, ids=lambda r: f"{r['kind']}-{WHOLE.index(r)}")
def test_a_patch_of_one_field_leaves_the_others(admin: Caller, rule: dict[str, Any], clock: StillClock) -> None:
    admin("PUT", "/v1/rules/r", {**rule, **COMMON})
    before = shown(admin)
    clock.forward(hours=1)
    patched = admin("PATCH", "/v1/rules/r", {"dry_run": False})
    assert patched.status_code == 200
    assert patched.get_json() == {**before, "dry_run": False, "version": 2, "updated_at": "2026-11-24T10:00:00Z"}
    assert admin("PATCH", "/v1/rules/r", {"dry_run": True}, headers={"If-Match": '"1"'}).status_code == 412


def test_what_a_rule_leaves_out_has_the_documented_default(admin: Caller) -> None:
    least: dict[str, dict[str, Any]] = {
        "cap": {"limit": 1, "window": {"calendar": "week"}},
        "quiet_hours": {"start": "21:00", "end": "08:00"},
        "blackout": {"dates": ["2026-12-25"]},
        "capacity": {"limit": 10, "per_minutes": 60},
        "budget": {"amount": 5, "per": "week"},
    }
    told = {}
    for kind, parameters in least.items():
        admin("PUT", f"/v1/rules/{kind}", {"kind": kind, **parameters})
        told[kind] = shown(admin, kind)
    assert (told["cap"]["window"], told["cap"]["adapt"]) == ({"calendar": "week", "week_start": "mon"}, None)
    assert told["quiet_hours"]["days"] == ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    assert (told["blackout"]["country_holidays"], told["blackout"]["default_country"]) == (False, None)
    assert (told["capacity"]["warm_up"], told["capacity"]["starts_on"]) == ([], None)
    assert (told["budget"]["timezone"], told["budget"]["week_start"]) == ("UTC", "mon")
    for one in told.values():
        assert (one["applies_to"], one["counts"], one["enabled"], one["dry_run"]) == ({}, {}, True, False)


DAY = "2026-12-01"
WARM: dict[str, Any] = {"kind": "capacity", "limit": 9, "per_minutes": 60, "warm_up": [{"day": 1, "limit": 2}]}


def test_a_warm_up_starts_on_the_day_it_is_given_and_stays_there(admin: Caller, clock: StillClock) -> None:
    admin("PUT", "/v1/rules/r", {**WARM, "warm_up": []})
    assert shown(admin)["starts_on"] is None
    clock.forward(days=1)
    admin("PUT", "/v1/rules/r", WARM)
    assert shown(admin)["starts_on"] == "2026-11-25"
    clock.forward(days=3)
    admin("PUT", "/v1/rules/r", {**WARM, "limit": 10})
    admin("PATCH", "/v1/rules/r", {"limit": 11})
    assert (shown(admin)["starts_on"], shown(admin)["limit"]) == ("2026-11-25", 11)
    admin("PATCH", "/v1/rules/r", {"starts_on": "2026-12-01"})
    assert shown(admin)["starts_on"] == "2026-12-01"


def test_a_warm_up_that_was_taken_away_or_archived_starts_anew(admin: Caller, clock: StillClock) -> None:
    admin("PUT", "/v1/rules/r", WARM)
    assert admin("PATCH", "/v1/rules/r", {"warm_up": []}).status_code == 200
    assert shown(admin)["starts_on"] is None
    clock.forward(days=1)
    admin("PATCH", "/v1/rules/r", {"warm_up": WARM["warm_up"]})
    assert shown(admin)["starts_on"] == "2026-11-25"
    clock.forward(days=1)
    admin("DELETE", "/v1/rules/r")
    assert shown(admin)["updated_at"] == "2026-11-26T09:00:00Z"
    admin("PUT", "/v1/rules/r", WARM)
    assert shown(admin)["starts_on"] == "2026-11-26"


def test_an_archived_rule_is_there_as_an_archived_campaign_is(admin: Caller) -> None:
    for path, document in (("/v1/rules/r", {"kind": "gap", "minutes": 5}), ("/v1/campaigns/c", CAMPAIGN)):
        admin("PUT", path, document)
        assert [admin("DELETE", path).status_code for _ in range(2)] == [204, 204], path
        assert admin("GET", path).get_json()["version"] == 2
        assert admin("PUT", path, document, headers={"If-None-Match": "*"}).status_code == 412
        assert admin("PUT", path, document, headers={"If-Match": '"2"'}).status_code == 200
    admin("DELETE", "/v1/rules/r")
    told = admin("PATCH", "/v1/rules/r", {"enabled": True})
    assert (told.status_code, told.get_json()["code"]) == (409, "archived_rule")


@pytest.mark.parametrize("minutes", [0.001, 1 / 3, 527_040])
def test_a_gap_of_any_length_can_be_switched_off(admin: Caller, minutes: float) -> None:
    made = admin("PUT", "/v1/rules/r", {"kind": "gap", "minutes": minutes})
    assert made.get_json()["minutes"] == pytest.approx(minutes, abs=1e-6)
    off = admin("PATCH", "/v1/rules/r", {"enabled": False})
    assert (off.status_code, off.get_json()["minutes"]) == (200, made.get_json()["minutes"])


def test_a_rule_of_another_kind_may_take_an_id_over(admin: Caller) -> None:
    admin("PUT", "/v1/rules/r", WARM)
    assert admin("PUT", "/v1/rules/r", {"kind": "gap", "minutes": 5}).status_code == 200
    told = shown(admin)
    assert (told["kind"], told["minutes"], "per_minutes" in told) == ("gap", 5, False)


@pytest.mark.parametrize("name", ["baseline", "consent", "mode", "requires", "suppression"])
def test_a_new_rule_cannot_be_named_as_what_masks_without_one_and_an_older_one_can_be_changed(
    admin: Caller, name: str
) -> None:
    refused = admin("PUT", f"/v1/rules/{name}", WARM)
    assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["rule_id"])
    assert "baseline, consent, mode, requires, suppression" in refused.get_json()["detail"]
    older(admin, name, Capacity(9, per_minutes=60))
    assert admin("PUT", f"/v1/rules/{name}", WARM).status_code == 200
    assert admin("PATCH", f"/v1/rules/{name}", {"enabled": False}).status_code == 200
    assert admin("DELETE", f"/v1/rules/{name}").status_code == 204


@pytest.mark.parametrize(
    ("rule", "stored", "field"),
    [
        (
            {"kind": "cap", "limit": 3, "window": {"calendar": "day"}, "adapt": {"after_unengaged": 2, "limit": 5}},
            Cap(3, calendar="day", adapt=Adapt(2, 5)),
            "adapt.limit",
        ),
        (
            {**WARM, "limit": 3, "warm_up": [{"day": 1, "limit": 3}, {"day": 2, "limit": 5}], "starts_on": DAY},
            Capacity(3, 60, (WarmUpStep(1, 3), WarmUpStep(2, 5)), DAY),
            "warm_up.1.limit",
        ),
    ],
)
def test_a_lower_limit_is_lower_and_an_older_rule_whose_is_not_can_be_turned_off(
    admin: Caller, rule: dict[str, Any], stored: RuleParameters, field: str
) -> None:
    refused = admin("PUT", "/v1/rules/r", rule)
    assert refused.status_code == 422
    assert refused.get_json()["errors"] == {field: ["5 must be at most limit (3)"]}
    older(admin, "r", stored)
    assert admin("PATCH", "/v1/rules/r", {"enabled": False}).status_code == 200
    assert admin("PATCH", "/v1/rules/r", {"limit": 4}).get_json()["errors"] == {field: ["5 must be at most limit (4)"]}
    assert admin("PATCH", "/v1/rules/r", {"limit": 5}).status_code == 200


def older(admin: Caller, rule_id: str, parameters: RuleParameters) -> None:
    """Stores a rule as an older version did, which refused less."""
    kind: RuleKind = "cap" if isinstance(parameters, Cap) else "capacity"
    store = admin.app.extensions["sendtide"].get().store
    store.write(lambda writer: writer.put_rule(Rule("default", rule_id, kind, parameters)))


def test_the_kind_of_a_rule_is_not_patched(admin: Caller) -> None:
    admin("PUT", "/v1/rules/r", WARM)
    refused = admin("PATCH", "/v1/rules/r", {"kind": "gap"})
    assert (refused.status_code, list(refused.get_json()["errors"])) == (422, ["kind"])
    assert "can't be changed, it is 'capacity'; make a new rule" in refused.get_json()["detail"]
    assert admin("PATCH", "/v1/rules/r", {"kind": "capacity", "limit": 8}).get_json()["limit"] == 8


def test_the_default_rule_says_when_it_was_made(admin: Caller) -> None:
    assert shown(admin, "default-quiet-hours")["updated_at"] == "2026-11-24T09:00:00Z"


def rules_of_the_page() -> list[dict[str, Any]]:
    return [json.loads(found) for found in re.findall(r'`(\{"kind": .*?\})`', PAGE.read_text(encoding="utf-8"))]


def test_the_rules_that_the_page_shows_are_taken_one_of_each_kind(admin: Caller) -> None:
    assert sorted(rule["kind"] for rule in rules_of_the_page()) == sorted(KINDS)
    for rule in rules_of_the_page():
        assert admin("PUT", f"/v1/rules/{rule['kind']}", rule).status_code == 201
        assert rule.items() <= shown(admin, rule["kind"]).items()


# What campaigns say of rules


def test_transactional_campaigns_come_first_and_keep_their_place_unless_they_say_otherwise(admin: Caller) -> None:
    def standing(**more: Any) -> tuple[int, bool]:
        told = admin("PUT", "/v1/campaigns/x", {**CAMPAIGN, **more}).get_json()
        return told["priority"], told["displaceable"]

    assert standing() == (50, True)
    assert standing(category="newsletter") == (50, True)
    assert standing(category="transactional") == (90, False)
    assert standing(category="transactional", priority=0, displaceable=True) == (0, True)
    assert standing(category="transactional", priority=7) == (7, False)
    assert standing(displaceable=False) == (50, False)


CHAIN = [
    {"campaign_id": "not-yet", "variant_id": None, "outcome": "opened", "happened": True, "within_hours": 72.0},
    {"campaign_id": "c", "variant_id": "a", "outcome": "Order Completed", "happened": False, "within_hours": 0.5},
]


def test_conditions_of_a_variant_are_shown_back_whether_or_not_their_campaign_exists(admin: Caller) -> None:
    body = {**CAMPAIGN, "variants": [{"id": "a", "requires": CHAIN}, {"id": "b"}]}
    assert admin("PUT", "/v1/campaigns/c", body).status_code == 201
    told = admin("GET", "/v1/campaigns/c").get_json()
    assert [v["requires"] for v in told["variants"]] == [CHAIN, []]
    assert admin("PATCH", "/v1/campaigns/c", {"priority": 3}).get_json()["variants"] == told["variants"]


def test_a_condition_that_says_the_least_asks_that_it_happened_to_any_variant(admin: Caller) -> None:
    least = {"campaign_id": "welcome", "outcome": "clicked", "within_hours": 8784}
    body = {**CAMPAIGN, "variants": [{"id": "a", "requires": [least]}]}
    told = admin("PUT", "/v1/campaigns/c", body).get_json()["variants"][0]["requires"]
    assert told == [{**least, "variant_id": None, "happened": True}]
