"""Bad campaigns and rules get a 4xx problem that names the field, the value and what is allowed, and leave nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from optimizer.service import setup
from storage.records import Channel
from tests.web.conftest import CAMPAIGN, Caller
from tests.web.test_bad_input import assert_problem


def changed(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``base`` with ``value`` at a dotted path."""
    made = copy.deepcopy(base)
    at: Any = made
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    at[int(last) if isinstance(at, list) else last] = value
    return made


#: path that is changed, its value, field that is named, what the message says is allowed
CAMPAIGNS: dict[str, tuple[str, Any, str, str]] = {
    "no variants": ("variants", [], "variants", "1 to 500"),
    "no active variant": (
        "variants",
        [{"id": "a", "status": "paused"}],
        "variants",
        "At least one variant must be active",
    ),
    "variant twice": ("variants", [{"id": "a"}, {"id": "a"}], "variants", "'a'"),
    "channel twice": ("channels", ["email", {"id": "email"}], "channels", "'email'"),
    "a channel of consents in another spelling": ("channels.0", "SMS", "channels.0", "Must be spelled 'sms'"),
    "a channel of consents with a space": ("channels.0", {"id": "Push "}, "channels.0", "Must be spelled 'push'"),
    "channel that is a number": ("channels.0", 7, "channels.0", "a channel's name or an object"),
    "unknown status": ("variants.0.status", "on", "variants.0.status", "active, paused, archived"),
    "a condition without an outcome": (
        "variants.0.requires",
        [{"campaign_id": "x", "within_hours": 1}],
        "variants.0.requires.0.outcome",
        "required",
    ),
    "a condition within no time": (
        "variants.0.requires",
        [{"campaign_id": "x", "outcome": "opened", "within_hours": 0}],
        "variants.0.requires.0.within_hours",
        "greater than 0 and at most 8784",
    ),
    "a condition that only may have happened": (
        "variants.0.requires",
        [{"campaign_id": "x", "outcome": "opened", "within_hours": 1, "happened": "maybe"}],
        "variants.0.requires.0.happened",
        "true or false",
    ),
    "too many conditions": (
        "variants.0.requires",
        [{"campaign_id": "x", "outcome": "opened", "within_hours": 1}] * 21,
        "variants.0.requires",
        "0 to 20",
    ),
    "negative cost": ("variants.0.cost", -1, "variants.0.cost", "from 0"),
    "slot of no time": ("slot_minutes", 0, "slot_minutes", "from 1 to 1440"),
    "slot of half a minute": ("slot_minutes", 0.5, "slot_minutes", "integer"),
    "window of no time": ("default_window_hours", 0, "default_window_hours", "greater than 0"),
    "a default window of too many slots": ("default_window_hours", 8000, "default_window_hours", "at most 2048 hours"),
    "more variants than a default window holds": (
        "variants",
        [{"id": f"v{i}"} for i in range(200)],
        "default_window_hours",
        "4800 actions (200 active variants x 1 channels x 24 slots of 60 minutes) are more than 4096",
    ),
    "unknown mode": ("mode", "on", "mode", "live, shadow, baseline_only, paused"),
    "baseline group without a baseline": ("groups", {"baseline": 0.1}, "baseline", "groups.baseline > 0"),
    "shadow without a baseline": ("mode", "shadow", "baseline", "mode shadow"),
    "baseline only without a baseline": ("mode", "baseline_only", "baseline", "mode baseline_only"),
    "around a baseline that is none": ("cold_start", "around_baseline", "baseline", "cold_start around_baseline"),
    "baseline of an unknown variant": (
        "baseline",
        {"variant_id": "x", "channel": "email", "local_time": "09:00"},
        "baseline.variant_id",
        "a, b",
    ),
    "baseline on an unknown channel": (
        "baseline",
        {"variant_id": "a", "channel": "sms", "local_time": "09:00"},
        "baseline.channel",
        "email",
    ),
    "baseline at 24:00": (
        "baseline",
        {"variant_id": "a", "channel": "email", "local_time": "24:00"},
        "baseline.local_time",
        "Must be a time of day HH:MM from 00:00 to 23:59. Got",
    ),
    "shares over one": ("groups", {"holdout": 0.6, "random": 0.6}, "groups", "at most 1"),
    "a share over one": ("groups", {"holdout": 1.5}, "groups.holdout", "0 to 1"),
    "objective without outcomes": ("objective", {}, "objective", "1 to 50"),
    "objective of text": ("objective", {"clicked": "much"}, "objective.clicked", "a number or an object"),
    "objective with an unknown part": (
        "objective",
        {"clicked": {"factor": 1}},
        "objective.clicked.factor",
        "per_value",
    ),
    "attribution of no time": ("attribution_hours", {"clicked": 0}, "attribution_hours.clicked", "greater than 0"),
    "attribution of a year": ("attribution_hours", {"clicked": 9000}, "attribution_hours.clicked", "2160"),
    "guardrail without a limit": ("guardrails", {"unsubscribed": {}}, "guardrails.unsubscribed", "max_rate"),
    "unknown method of exploration": (
        "exploration.method",
        "luck",
        "exploration.method",
        "posterior_bank, inverse_gap",
    ),
    "the number of another method": ("exploration", {"method": "softmax", "gamma": 3}, "exploration.gamma", "softmax"),
    "a number without its method": ("exploration", {"epsilon": 0.1}, "exploration.epsilon", "epsilon_greedy"),
    "a temperature of 0": (
        "exploration",
        {"method": "softmax", "temperature": 0},
        "exploration.temperature",
        "0.001 to 1000",
    ),
    "unknown zone": ("timezone", "Mars/Base", "timezone", "IANA"),
    "currency in small letters": ("currency", "eur", "currency", "three capital letters such as EUR"),
    "currency in words": ("currency", "Euro", "currency", "three capital letters such as EUR"),
    "unknown field": ("surprise", 1, "surprise", "allowed"),
}


@pytest.mark.parametrize("case", CAMPAIGNS)
def test_a_bad_campaign_is_refused_and_leaves_nothing(admin: Caller, case: str) -> None:
    path, value, field, allowed = CAMPAIGNS[case]
    reply = admin("PUT", "/v1/campaigns/new", changed(CAMPAIGN, path, value))
    assert_problem(reply, 422, field, "", allowed)
    assert admin("GET", "/v1/campaigns").get_json()["campaigns"] == []


def test_a_campaign_of_before_with_a_channel_in_another_spelling_still_answers_and_can_be_paused(
    admin: Caller,
) -> None:
    admin("PUT", "/v1/campaigns/old", CAMPAIGN)
    stored_as(admin, "old", channels=(Channel("email"), Channel("SMS")))
    ask = {"campaign_id": "old", "recipient_id": "u"}
    assert admin("POST", "/v1/decisions", ask).get_json()["eligible_actions"] == 2 * 2 * 24
    paused = admin("PATCH", "/v1/campaigns/old", {"mode": "paused"})
    assert [one["id"] for one in paused.get_json()["channels"]] == ["email", "SMS"]
    again = admin("PATCH", "/v1/campaigns/old", {"channels": paused.get_json()["channels"]})
    assert_problem(again, 422, "channels.1", "'SMS'", "Must be spelled 'sms'")
    assert admin("PATCH", "/v1/campaigns/old", {"channels": ["email", "sms"]}).status_code == 200


def test_a_default_window_holds_4096_actions_and_not_sending_is_one(admin: Caller) -> None:
    most = {**CAMPAIGN, "default_window_hours": 2048}
    assert admin("PUT", "/v1/campaigns/c", most).status_code == 201
    for more in ({"allow_no_send": True}, {"groups": {"holdout": 0.1, "random": 0}}):
        reply = admin("PUT", "/v1/campaigns/c", {**most, **more})
        assert_problem(
            reply, 422, "default_window_hours", "4097 actions", "x 2048 slots of 60 minutes, and not sending)"
        )
    paused = [{"id": "a"}, {"id": "b"}, {"id": "c", "status": "paused"}]
    assert admin("PUT", "/v1/campaigns/c", {**most, "variants": paused}).status_code == 200
    wide = {"variants": [{"id": f"v{i}"} for i in range(500)], "channels": [f"c{i}" for i in range(9)]}
    assert_problem(admin("PUT", "/v1/campaigns/c", {**most, **wide}), 422, "default_window_hours", "", "fewer variants")


def test_a_campaign_of_before_with_too_large_a_default_window_answers_requests_with_their_own(admin: Caller) -> None:
    admin("PUT", "/v1/campaigns/old", CAMPAIGN)
    stored_as(admin, "old", default_window_hours=8000.0)
    window = {"start": "2026-11-24T09:00:00Z", "end": "2026-11-24T19:00:00Z"}
    ask = {"campaign_id": "old", "recipient_id": "u"}
    assert admin("POST", "/v1/decisions", {**ask, "window": window}).get_json()["eligible_actions"] == 20
    assert_problem(admin("POST", "/v1/decisions", ask), 422, "window", "16000 actions", "4096")
    assert admin("PATCH", "/v1/campaigns/old", {"mode": "paused"}).get_json()["default_window_hours"] == 8000
    assert_problem(
        admin("PATCH", "/v1/campaigns/old", {"slot_minutes": 30}), 422, "default_window_hours", "8000", "at most 1024"
    )
    assert admin("PATCH", "/v1/campaigns/old", {"default_window_hours": 24}).status_code == 200


def stored_as(caller: Caller, campaign_id: str, **facts: Any) -> None:
    """Stores a campaign as an older version let it be."""
    services = caller.app.extensions["sendtide"].get()
    with services.store.read() as reader:
        stored = reader.campaign("default", campaign_id)
    setup.put_campaign(services, replace(stored, **facts))


CAP: dict[str, Any] = {"kind": "cap", "limit": 1, "window": {"rolling_hours": 24}}
QUIET: dict[str, Any] = {"kind": "quiet_hours", "start": "21:00", "end": "08:00"}
BLACKOUT: dict[str, Any] = {"kind": "blackout", "dates": ["2026-12-25"]}
CAPACITY: dict[str, Any] = {"kind": "capacity", "limit": 10, "per_minutes": 60, "warm_up": [{"day": 2, "limit": 5}]}
BUDGET: dict[str, Any] = {"kind": "budget", "amount": 10, "per": "day"}
FATIGUE: dict[str, Any] = {"kind": "fatigue", "outcome": "unsubscribed", "max_risk": 0.002}
KINDS = "cap, gap, quiet_hours, blackout, capacity, budget, fatigue"
#: a good rule, path that is changed, its value, field that is named, what the message says of the value, of what is
#: allowed
RULES: dict[str, tuple[dict[str, Any], str, Any, str, str, str]] = {
    "an unknown kind": (CAP, "kind", "digest", "kind", "digest", KINDS),
    "no kind": (CAP, "kind", None, "kind", "", KINDS),
    "a channel of consents in another spelling": (
        CAP,
        "counts.except_channels",
        ["email", "SMS"],
        "counts.except_channels.1",
        "SMS",
        "Must be spelled 'sms'",
    ),
    "an empty selector list": (CAP, "applies_to.channels", [], "applies_to.channels", "0 items", "1 to"),
    "an empty list of what counts": (CAP, "counts.categories", [], "counts.categories", "0 items", "1 to"),
    "an unknown selector": (CAP, "applies_to.people", ["x"], "applies_to.people", "", "except_channels"),
    "a negative limit": (CAP, "limit", -1, "limit", "-1", "from 0"),
    "two windows": (CAP, "window.calendar", "day", "window", "", "not both"),
    "no window": (CAP, "window", {}, "window", "", "rolling_hours or calendar"),
    "an unknown calendar": (CAP, "window", {"calendar": "year"}, "window.calendar", "year", "day, week, month"),
    "a week start without a week": (CAP, "window.week_start", "sun", "window.week_start", "sun", "calendar 'week'"),
    "a window of no time": (CAP, "window.rolling_hours", 0, "window.rolling_hours", "0", "greater than 0"),
    "an adaptation from the start": (
        CAP,
        "adapt",
        {"after_unengaged": 0, "limit": 1},
        "adapt.after_unengaged",
        "0",
        "from 1",
    ),
    "an adaptation to nothing said": (CAP, "adapt", {"after_unengaged": 5}, "adapt.limit", "", "required"),
    "a gap of no time": ({"kind": "gap", "minutes": 240}, "minutes", 0, "minutes", "0", "from 0.001"),
    "a gap that would be shown as none": (
        {"kind": "gap", "minutes": 240},
        "minutes",
        1e-7,
        "minutes",
        "1e-7",
        "from 0.001 to 527040",
    ),
    "a gap that adapts": (
        {"kind": "gap", "minutes": 240},
        "adapt",
        {"after_unengaged": 5, "limit": 1},
        "adapt",
        "",
        "minutes",
    ),
    "a time of day with seconds": (QUIET, "start", "21:00:00", "start", "21:00:00", "HH:MM"),
    "no days": (QUIET, "days", [], "days", "0 items", "1 to 7"),
    "a day twice": (QUIET, "days", ["mon", "mon"], "days", "mon", "duplicates"),
    "an unknown day": (QUIET, "days", ["monday"], "days.0", "monday", "mon, tue"),
    "a part of another kind": (QUIET, "limit", 3, "limit", "3", "days"),
    "a blackout of nothing": (BLACKOUT, "dates", [], "dates", "", "country_holidays true"),
    "30 February": (BLACKOUT, "dates", ["2026-02-30"], "dates.0", "2026-02-30", "YYYY-MM-DD"),
    "a date with a time": (BLACKOUT, "dates", ["2026-12-25T00:00:00Z"], "dates.0", "T00", "YYYY-MM-DD"),
    "a date in Arabic digits": (BLACKOUT, "dates", ["٢٠٢٦-12-25"], "dates.0", "", "YYYY-MM-DD"),
    "a date twice": (BLACKOUT, "dates", ["2026-12-25", "2026-12-25"], "dates", "2026-12-25", "duplicates"),
    "a country in words": (BLACKOUT, "default_country", "Germany", "default_country", "Germany", "ISO 3166-1"),
    "a country without known holidays": (BLACKOUT, "default_country", "ZZ", "default_country", "ZZ", "such as DE"),
    "a period of no time": (CAPACITY, "per_minutes", 0, "per_minutes", "0", "from 1 to 44640"),
    "a period of two months": (CAPACITY, "per_minutes", 44_641, "per_minutes", "44641", "from 1 to 44640"),
    "a warm-up from day 0": (CAPACITY, "warm_up.0.day", 0, "warm_up.0.day", "0", "from 1"),
    "a warm-up that goes back": (
        CAPACITY,
        "warm_up",
        [{"day": 3, "limit": 5}, {"day": 3, "limit": 9}],
        "warm_up.1.day",
        "3",
        "greater than 3",
    ),
    "a start without a warm-up": (
        {"kind": "capacity", "limit": 10, "per_minutes": 60},
        "starts_on",
        "2026-11-24",
        "starts_on",
        "2026-11-24",
        "with warm_up",
    ),
    "a start that is no date": (CAPACITY, "starts_on", "tomorrow", "starts_on", "tomorrow", "YYYY-MM-DD"),
    "a negative budget": (BUDGET, "amount", -1, "amount", "-1", "from 0"),
    "a budget in seven decimals": (BUDGET, "amount", 0.1234567, "amount", "0.1234567", "at most 6 decimals"),
    "a budget in words": (BUDGET, "amount", "10", "amount", "10", "an amount"),
    "a budget an hour": (BUDGET, "per", "hour", "per", "hour", "day, week, month"),
    "a budget in an unknown zone": (BUDGET, "timezone", "Mars/Base", "timezone", "Mars/Base", "IANA"),
    "a week start of a daily budget": (BUDGET, "week_start", "sun", "week_start", "sun", "per 'week'"),
    "fatigue of a good thing": (FATIGUE, "outcome", "clicked", "outcome", "clicked", "unsubscribed, complained"),
    "fatigue at any risk": (FATIGUE, "max_risk", 1, "max_risk", "1", "greater than 0 and less than 1"),
    "fatigue at no risk": (FATIGUE, "max_risk", 0, "max_risk", "0", "greater than 0 and less than 1"),
}


@pytest.mark.parametrize("case", RULES)
def test_a_bad_rule_is_refused_and_leaves_nothing(admin: Caller, case: str) -> None:
    base, path, value, field, told, allowed = RULES[case]
    reply = admin("PUT", "/v1/rules/new", changed(base, path, value))
    assert_problem(reply, 422, field, told, allowed)
    assert admin("GET", "/v1/rules/new").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/rules/new"), ("POST", "/v1/rules/new/preview")])
def test_a_rule_that_says_nothing_is_told_what_it_lacks(admin: Caller, method: str, path: str) -> None:
    assert_problem(admin(method, path, {}), 422, "kind", "", KINDS)
    assert admin("GET", "/v1/rules/new").status_code == 404
