"""Rules. A kind is one class and one entry in ``KINDS``; nothing else here knows which there are."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields

from optimizer.web.schemas import limits, rule_shares, rule_times
from optimizer.web.schemas.body import Body, PageQuery, Shown, moment, next_page, state
from optimizer.web.schemas.body import shown as answered
from optimizer.web.schemas.fields import Flag, Id, Text, Time
from optimizer.web.schemas.rule_common import Kind
from storage.log import OPEN
from storage.rules import Rule, RuleKind, Selector

KINDS: dict[RuleKind, Kind] = {
    "cap": rule_times.CAP,
    "gap": rule_times.GAP,
    "quiet_hours": rule_times.QUIET_HOURS,
    "blackout": rule_times.BLACKOUT,
    "capacity": rule_shares.CAPACITY,
    "budget": rule_shares.BUDGET,
    "fatigue": rule_shares.FATIGUE,
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
    """The record of a loaded ``RuleIn``; the service sets its version and time."""
    applies_to: Selector = data["applies_to"]
    kind: RuleKind = data["kind"]
    return Rule(
        workspace_id=workspace_id,
        rule_id=rule_id,
        kind=kind,
        parameters=KINDS[kind].parameters(data),
        applies_to=applies_to,
        counts=data["counts"] or applies_to,
        enabled=data["enabled"],
        dry_run=data["dry_run"],
        version=0,
    )


class RuleOut(Shown):
    """A rule as it is stored."""

    variants: ClassVar = {
        name: answered(kind.schema, kind.schema.__name__.removesuffix("In")) for name, kind in KINDS.items()
    }


class RulesPage(Shown):
    """A page of rules."""

    rules = fields.List(fields.Raw(metadata={"of": RuleOut}), required=True)
    cursor = next_page()


class BreachOut(Shown):
    """A reserved, not yet sent message that breaks a rule as it stands now."""

    decision_id = Id(required=True)
    recipient_id = Id(required=True)
    campaign_id = Id(required=True)
    channel = Id(required=True)
    status = state(tuple(sorted(OPEN)))
    send_at = moment("When it is planned to go out.")
    rule_id = Id("The rule; `consent` or `suppression` where the recipient refused since.", required=True)
    kind = Text(required=True)
    dry_run = Flag("The rule only reports.", required=True)
    next_eligible_at: Time = moment("When this rule alone would let it out; null: unknown or never.", known=False)
    detail = Text("For people.", longest=limits.TEXT, required=True)


class BreachesPage(Shown):
    """A page of breaches. It may hold fewer than `limit`, even none, before the end: go on while there is a cursor."""

    breaches = fields.List(fields.Nested(BreachOut), required=True)
    cursor = next_page()


class BreachesQuery(PageQuery):
    """Which part of the breaches."""
