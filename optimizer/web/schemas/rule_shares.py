"""The kinds of rules that share something among all recipients (capacity, budget), and the policy's own: fatigue."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, post_load, validates_schema

from optimizer.bandit.rewards import HARMFUL
from optimizer.web.schemas import limits
from optimizer.web.schemas.body import Body
from optimizer.web.schemas.containers import Many, Part
from optimizer.web.schemas.fields import Choice, Day, Money, Number, Whole, ZoneName
from optimizer.web.schemas.rule_common import Kind, RuleBody, kind_of, week_start
from storage.rules import MICROS, Budget, Capacity, Fatigue, WarmUpStep


class WarmUpStepIn(Body):
    """From this day of a warm-up on, so many messages a period."""

    day = Whole("1 is the warm-up's first.", minimum=1, maximum=limits.WARM_UP_DAYS, required=True)
    limit = Whole("0: none on these days; at most the rule's own.", maximum=limits.CAPACITY, required=True)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> WarmUpStep:
        return WarmUpStep(**data)


class CapacityRuleIn(RuleBody):
    """At most so many messages over all recipients in each period. Periods follow each other from 1970-01-01T00:00Z."""

    kind = kind_of("capacity")
    limit = Whole("0: never.", maximum=limits.CAPACITY, required=True)
    per_minutes = Whole("How long a period is.", minimum=1, maximum=limits.MONTH_MINUTES, required=True)
    warm_up = Many(
        Part(WarmUpStepIn),
        "Steps by ascending day; one holds until the next one's day, the last for its own day, then `limit`. Days are "
        "UTC dates; a period belongs to the day it starts on.",
        longest=limits.WARM_UP_STEPS,
        load_default=list,
    )
    starts_on = Day(
        "Day 1 of the warm-up. Left out: what the rule has; without one, the UTC date on which it is first given a "
        "warm-up.",
        load_default=None,
        allow_none=True,
    )

    @validates_schema(skip_on_field_errors=True)
    def _plan(self, data: dict[str, Any], **_: Any) -> None:
        days = [step.day for step in data["warm_up"]]
        for at in range(1, len(days)):
            if days[at] <= days[at - 1]:
                raise ValidationError({"warm_up": {str(at): {"day": [f"Must be greater than {days[at - 1]}."]}}})
        if data["starts_on"] is not None and not days:
            raise ValidationError("Only allowed with warm_up.", "starts_on")


class BudgetRuleIn(RuleBody):
    """At most so much money spent on messages over all recipients in each calendar day, week or month."""

    kind = kind_of("budget")
    amount = Money(
        "In the currency of the costs that it counts, which must be one; 0: only what costs nothing.",
        maximum=limits.AMOUNT,
        required=True,
    )
    per = Choice(("day", "week", "month"), required=True)
    timezone = ZoneName("Whose days, weeks and months.", load_default="UTC")
    week_start = week_start()

    @validates_schema(skip_on_field_errors=True)
    def _week(self, data: dict[str, Any], **_: Any) -> None:
        if data["week_start"] is not None and data["per"] != "week":
            raise ValidationError("Only allowed with per 'week'.", "week_start")


class FatigueRuleIn(RuleBody):
    """Part of the policy: masks actions whose predicted chance of a harmful outcome is too high. It counts nothing."""

    kind = kind_of("fatigue")
    outcome = Choice(sorted(HARMFUL, reverse=True), required=True)
    max_risk = Number("The highest predicted chance that is let through.", above=0, below=1, required=True)


def _capacity(data: dict[str, Any]) -> Capacity:
    return Capacity(data["limit"], data["per_minutes"], tuple(data["warm_up"]), data["starts_on"])


def _capacity_shown(capacity: Capacity) -> dict[str, Any]:
    return {
        "limit": capacity.limit,
        "per_minutes": capacity.per_minutes,
        "warm_up": [{"day": step.day, "limit": step.limit} for step in capacity.warm_up],
        "starts_on": capacity.starts_on,
    }


def _budget(data: dict[str, Any]) -> Budget:
    week = {} if data["week_start"] is None else {"week_start": data["week_start"]}
    return Budget(data["amount"], data["per"], data["timezone"], **week)


def _budget_shown(budget: Budget) -> dict[str, Any]:
    week = budget.week_start if budget.per == "week" else None
    return {
        "amount": budget.amount / MICROS,
        "per": budget.per,
        "timezone": budget.timezone,
        "week_start": week,
    }


def _fatigue(data: dict[str, Any]) -> Fatigue:
    return Fatigue(data["outcome"], data["max_risk"])


def _fatigue_shown(fatigue: Fatigue) -> dict[str, Any]:
    return {"outcome": fatigue.outcome, "max_risk": fatigue.max_risk}


CAPACITY = Kind(CapacityRuleIn, _capacity, _capacity_shown)
BUDGET = Kind(BudgetRuleIn, _budget, _budget_shown)
FATIGUE = Kind(FatigueRuleIn, _fatigue, _fatigue_shown)
