"""The kinds of rules that look at one recipient: how many messages, how close together, at which hours and dates."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, post_load, validates_schema

from optimizer.service.holidays import public_holidays
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body
from optimizer.web.schemas.containers import Many, Part
from optimizer.web.schemas.fields import Choice, ClockTime, Country, Day, Flag, Number, Whole
from optimizer.web.schemas.rule_common import Kind, RuleBody, kind_of, week_start
from storage.rules import WEEKDAYS, Adapt, Blackout, Cap, QuietHours


class CapWindowIn(Body):
    """Any window of so many hours, or a calendar day, week or month in the recipient's zone."""

    rolling_hours = Number(above=0, maximum=limits.YEAR_HOURS, allow_none=True)
    calendar = Choice(("day", "week", "month"), allow_none=True)
    week_start = week_start()

    @validates_schema(skip_on_field_errors=True)
    def _one_kind(self, data: dict[str, Any], **_: Any) -> None:
        if (data.get("rolling_hours") is None) == (data.get("calendar") is None):
            raise ValidationError("Must have rolling_hours or calendar, and not both.")
        if data.get("week_start") is not None and data.get("calendar") != "week":
            raise ValidationError("Only allowed with calendar 'week'.", "week_start")


class AdaptIn(Body):
    """Tightens the cap for recipients who left so many messages in a row unanswered.

    All messages that were decided here and went out count, on every channel, of every category and campaign: the rule's
    `counts` is not asked. Only an open, click or conversion that names its message sets the count to 0; one that names
    the recipient alone doesn't, nor does a machine's.
    """

    after_unengaged = Whole(
        "From so many messages on that were sent since the recipient last opened, clicked or converted, whatever the "
        "rule counts.",
        minimum=1,
        maximum=limits.RULE_MESSAGES,
        required=True,
    )
    limit = Whole(
        "The limit then; 0: never, until an engagement names one of the messages; no time that passes opens it again. "
        "At most the rule's own.",
        maximum=limits.RULE_MESSAGES,
        required=True,
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Adapt:
        return Adapt(**data)


class CapRuleIn(RuleBody):
    """At most so many messages in any window."""

    kind = kind_of("cap")
    limit = Whole("0: never.", maximum=limits.RULE_MESSAGES, required=True)
    window = Part(CapWindowIn, required=True)
    adapt = Part(AdaptIn, load_default=None, allow_none=True)


class GapRuleIn(RuleBody):
    """At least so many minutes between any two messages."""

    kind = kind_of("gap")
    minutes = Number(minimum=limits.GAP_MINUTES, maximum=limits.YEAR_HOURS * 60, required=True)


class QuietHoursRuleIn(RuleBody):
    """No messages from start to end in the recipient's zone; a night belongs to the day it starts."""

    kind = kind_of("quiet_hours")
    start = ClockTime(required=True)
    end = ClockTime("The same as start: the whole day.", required=True)
    days = Many(
        Choice(WEEKDAYS),
        "Left out: every day; must not be empty.",
        shortest=1,
        longest=7,
        unique=True,
        load_default=lambda: list(WEEKDAYS),
    )


class BlackoutRuleIn(RuleBody):
    """No messages on these dates in the recipient's zone, nor on public holidays of the recipient's country."""

    kind = kind_of("blackout")
    dates = Many(Day(), "Needed unless country_holidays is true.", longest=limits.DATES, unique=True, load_default=list)
    country_holidays = Flag(
        "Public holidays of the country in the recipient's attribute `country` (ISO 3166-1, two letters). Where it is "
        "unknown and there is no default_country there are none.",
        load_default=False,
    )
    default_country = Country("For recipients whose country is unknown.", load_default=None, allow_none=True)

    @validates_schema(skip_on_field_errors=True)
    def _some(self, data: dict[str, Any], **_: Any) -> None:
        if not data["dates"] and not data["country_holidays"]:
            raise ValidationError("Must have at least one date, or country_holidays true.", "dates")
        country = data["default_country"]
        # Any year does: a country whose holidays are known has some in each.
        if country is not None and not public_holidays(country, 2025, 2025):
            raise ValidationError("Must be a country whose public holidays are known, such as DE.", "default_country")


def _cap(data: dict[str, Any]) -> Cap:
    window = {k: v for k, v in data["window"].items() if v is not None}
    return Cap(limit=data["limit"], adapt=data["adapt"], **window)


def _cap_shown(cap: Cap) -> dict[str, Any]:
    if cap.rolling_hours is not None:
        window: dict[str, Any] = {"rolling_hours": cap.rolling_hours}
    else:
        window = {"calendar": cap.calendar, **({"week_start": cap.week_start} if cap.calendar == "week" else {})}
    adapt = cap.adapt
    told = None if adapt is None else {"after_unengaged": adapt.after_unengaged, "limit": adapt.limit}
    return {"limit": cap.limit, "window": window, "adapt": told}


def _gap(data: dict[str, Any]) -> Cap:
    """Two messages closer than the gap share a window of its length, so a gap is a cap of 1 in any such window."""
    return Cap(limit=1, rolling_hours=data["minutes"] / 60)


def _gap_shown(cap: Cap) -> dict[str, Any]:
    assert cap.rolling_hours is not None  # noqa: S101  ``_gap`` gives every gap its hours
    return {"minutes": round(cap.rolling_hours * 60, 6)}


def _quiet(data: dict[str, Any]) -> QuietHours:
    return QuietHours(start=data["start"], end=data["end"], days=tuple(data["days"]))


def _quiet_shown(hours: QuietHours) -> dict[str, Any]:
    return {"start": hours.start, "end": hours.end, "days": list(hours.days)}


def _blackout(data: dict[str, Any]) -> Blackout:
    return Blackout(tuple(data["dates"]), data["country_holidays"], data["default_country"])


def _blackout_shown(blackout: Blackout) -> dict[str, Any]:
    return {
        "dates": list(blackout.dates),
        "country_holidays": blackout.country_holidays,
        "default_country": blackout.default_country,
    }


CAP = Kind(CapRuleIn, _cap, _cap_shown)
GAP = Kind(GapRuleIn, _gap, _gap_shown)
QUIET_HOURS = Kind(QuietHoursRuleIn, _quiet, _quiet_shown)
BLACKOUT = Kind(BlackoutRuleIn, _blackout, _blackout_shown)
