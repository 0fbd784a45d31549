"""Rules. A kind is one class here and one entry in ``KINDS``; nothing else here knows which there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from marshmallow import Schema, ValidationError, fields, post_load, validates_schema

from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body, Shown, Stored, shown
from optimizer.web.schemas.containers import Many
from optimizer.web.schemas.fields import Choice, ClockTime, Flag, Id, Number, Text, Whole
from storage.records import Cap, QuietHours, Rule, RuleParameters, Selector, Weekday


def _ids() -> Many:
    return Many(
        Id(),
        "Left out: all; must not be empty.",
        shortest=1,
        longest=limits.ENTRIES,
        load_default=None,
        allow_none=True,
    )


class SelectorIn(Body):
    """Which messages: left out means all."""

    channels = _ids()
    except_channels = _ids()
    categories = _ids()
    except_categories = _ids()
    campaigns = _ids()
    except_campaigns = _ids()

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Selector:
        return Selector(**{name: None if ids is None else tuple(ids) for name, ids in data.items()})


class _Common(Stored):
    """What every kind of rule has."""

    rule_id = Id(dump_only=True)
    version = Whole("Grows with every change; the ETag.", minimum=1, maximum=2**31, dump_only=True)
    archived = Flag(dump_only=True)

    kind = Choice(("cap", "gap", "quiet_hours"), required=True)
    applies_to = fields.Nested(SelectorIn, load_default=Selector, metadata={"description": "Which requests it binds."})
    counts = fields.Nested(
        SelectorIn,
        load_default=None,
        allow_none=True,
        metadata={"description": "Which messages it counts; left out: those that it binds."},
    )
    enabled = Flag(load_default=True)
    dry_run = Flag("Reported, not enforced.", load_default=False)


class CapWindowIn(Body):
    """Any window of so many hours, or a calendar day, week or month in the recipient's zone."""

    rolling_hours = Number(above=0, maximum=limits.YEAR_HOURS, allow_none=True)
    calendar = Choice(("day", "week", "month"), allow_none=True)
    week_start = Choice(get_args(Weekday), "For `calendar: week`; left out: mon.", allow_none=True)

    @validates_schema(skip_on_field_errors=True)
    def _one_kind(self, data: dict[str, Any], **_: Any) -> None:
        if (data.get("rolling_hours") is None) == (data.get("calendar") is None):
            raise ValidationError("Must have rolling_hours or calendar, and not both.")
        if data.get("week_start") is not None and data.get("calendar") != "week":
            raise ValidationError("Only allowed with calendar 'week'.", "week_start")


class CapRuleIn(_Common):
    """At most so many messages in any window."""

    kind = Choice(("cap",), required=True)
    limit = Whole("0: never.", maximum=1_000_000, required=True)
    window = fields.Nested(CapWindowIn, required=True)


class GapRuleIn(_Common):
    """At least so many minutes between any two messages."""

    kind = Choice(("gap",), required=True)
    minutes = Number(above=0, maximum=limits.YEAR_HOURS * 60, required=True)


class QuietHoursRuleIn(_Common):
    """No messages from start to end in the recipient's zone; a night belongs to the day it starts."""

    kind = Choice(("quiet_hours",), required=True)
    start = ClockTime(required=True)
    end = ClockTime("The same as start: the whole day.", required=True)
    days = Many(
        Choice(get_args(Weekday)),
        "Left out: every day; must not be empty.",
        shortest=1,
        longest=7,
        unique=True,
        load_default=lambda: list(get_args(Weekday)),
    )


def _cap(data: dict[str, Any]) -> Cap:
    window = {k: v for k, v in data["window"].items() if v is not None}
    return Cap(limit=data["limit"], **window)


def _cap_shown(parameters: RuleParameters) -> dict[str, Any]:
    assert isinstance(parameters, Cap)  # noqa: S101  KINDS pairs the kind with its parameters
    if parameters.rolling_hours is not None:
        return {"limit": parameters.limit, "window": {"rolling_hours": parameters.rolling_hours}}
    week = {"week_start": parameters.week_start} if parameters.calendar == "week" else {}
    return {"limit": parameters.limit, "window": {"calendar": parameters.calendar, **week}}


def _gap(data: dict[str, Any]) -> Cap:
    """Two messages closer than the gap share a window of its length, so a gap is a cap of 1 in any such window."""
    return Cap(limit=1, rolling_hours=data["minutes"] / 60)


def _gap_shown(parameters: RuleParameters) -> dict[str, Any]:
    assert isinstance(parameters, Cap)  # noqa: S101  KINDS pairs the kind with its parameters
    assert parameters.rolling_hours is not None  # noqa: S101  ``_gap`` gives every gap its hours
    return {"minutes": round(parameters.rolling_hours * 60, 6)}


def _quiet(data: dict[str, Any]) -> QuietHours:
    return QuietHours(start=data["start"], end=data["end"], days=tuple(data["days"]))


def _quiet_shown(parameters: RuleParameters) -> dict[str, Any]:
    assert isinstance(parameters, QuietHours)  # noqa: S101  KINDS pairs the kind with its parameters
    return {"start": parameters.start, "end": parameters.end, "days": list(parameters.days)}


@dataclass(frozen=True)
class Kind:
    """How one kind of rule is read, made into its record's parameters, and shown."""

    schema: type[Body]
    parameters: Callable[[dict[str, Any]], RuleParameters]
    show: Callable[[RuleParameters], dict[str, Any]]


KINDS: dict[str, Kind] = {
    "cap": Kind(CapRuleIn, _cap, _cap_shown),
    "gap": Kind(GapRuleIn, _gap, _gap_shown),
    "quiet_hours": Kind(QuietHoursRuleIn, _quiet, _quiet_shown),
}
_READERS: dict[str, Schema] = {name: kind.schema() for name, kind in KINDS.items()}


class RuleIn(Body):
    """Who may be written to, when, how often."""

    #: Documented as ``oneOf`` these instead of by fields; ``kind`` says which.
    variants: ClassVar = {name: kind.schema for name, kind in KINDS.items()}

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Reads by the schema of the body's ``kind``; returns its data."""
        kind = data.get("kind") if isinstance(data, dict) else None
        if not isinstance(kind, str) or kind not in _READERS:
            raise ValidationError({"kind": [f"Must be one of: {', '.join(_READERS)}."]}, data=data)
        return _READERS[kind].load(data, **kwargs)


def rule_of(data: dict[str, Any], *, workspace_id: str, rule_id: str) -> Rule:
    """The record of a loaded ``RuleIn``; the service sets its version."""
    applies_to: Selector = data["applies_to"]
    return Rule(
        workspace_id=workspace_id,
        rule_id=rule_id,
        kind=data["kind"],
        parameters=KINDS[data["kind"]].parameters(data),
        applies_to=applies_to,
        counts=data["counts"] or applies_to,
        enabled=data["enabled"],
        dry_run=data["dry_run"],
        version=0,
    )


class RuleOut(Shown):
    """A rule as it is stored."""

    variants: ClassVar = {
        name: shown(kind.schema, kind.schema.__name__.removesuffix("In")) for name, kind in KINDS.items()
    }


class RulesPage(Shown):
    """A page of rules."""

    rules = fields.List(fields.Raw(metadata={"of": RuleOut}), required=True)
    cursor = Text("The next page; null at the end.", longest=1024, required=True, allow_none=True)
