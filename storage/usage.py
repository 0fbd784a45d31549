"""What capacity and budget rules count: in which period a message falls, and how much of the limit it takes.

The one definition of both, for every backend (they keep the sums) and for whoever compares them with a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from storage.log import Message
from storage.rules import WEEKDAYS, Budget, Capacity, Rule

#: (rule id, period) -> what is used of the limit: messages, or micros of money. What is absent is 0.
Usage = Mapping[tuple[str, int], int]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
#: 1970-01-01 was a Thursday, the fourth day of a week that starts on Monday.
_THURSDAY: Final = 3


def scarce(rule: Rule) -> bool:
    """Whether the rule shares one limit among all recipients."""
    return isinstance(rule.parameters, Capacity | Budget)


def counted_by(rule: Rule) -> tuple[object, ...] | None:
    """What a scarce rule's sums depend on: versions that are equal in it have the same. None = none are kept."""
    parameters = rule.parameters
    if rule.archived:
        return None
    if isinstance(parameters, Capacity):
        return ("capacity", parameters.per_minutes, rule.counts)
    if isinstance(parameters, Budget):
        return ("budget", parameters.per, parameters.timezone, parameters.week_start, rule.counts)
    return None


def period_of(parameters: Capacity | Budget, at: datetime) -> int:
    """The number of the period that an instant falls into; periods ascend by one."""
    if isinstance(parameters, Capacity):
        return (at - _EPOCH) // timedelta(minutes=parameters.per_minutes)
    return _CALENDAR[parameters.per](parameters, at.astimezone(ZoneInfo(parameters.timezone)).date())


def _week(budget: Budget, day: date) -> int:
    return (day.toordinal() - _EPOCH_DAY + _THURSDAY - WEEKDAYS.index(budget.week_start)) // 7


_CALENDAR: Final[dict[str, Callable[[Budget, date], int]]] = {
    "day": lambda _, day: day.toordinal() - _EPOCH_DAY,
    "week": _week,
    "month": lambda _, day: (day.year - 1970) * 12 + day.month - 1,
}


def limit_in(parameters: Capacity | Budget, period: int) -> int:
    """The limit of a period: messages of a capacity (its warm-up considered), micros of a budget."""
    if isinstance(parameters, Budget):
        return parameters.amount
    if not parameters.warm_up or parameters.starts_on is None:
        return parameters.limit
    start = _EPOCH + period * timedelta(minutes=parameters.per_minutes)
    day = start.date().toordinal() - date.fromisoformat(parameters.starts_on).toordinal() + 1
    if day > parameters.warm_up[-1].day:
        return parameters.limit
    # Before the first step's day the first step holds: a plan never starts with more than it says.
    reached = [step.limit for step in parameters.warm_up if step.day <= day] or [parameters.warm_up[0].limit]
    return reached[-1]


def needed(parameters: Capacity | Budget, message: Message) -> tuple[int, int]:
    """The period that a message falls into, and how much room it needs there, whether or not it is counted."""
    return period_of(parameters, message.at), 1 if isinstance(parameters, Capacity) else message.cost


def taken(rule: Rule, message: Message) -> tuple[int, int] | None:
    """The period and the amount that a message takes of a scarce rule; None when the rule doesn't count it."""
    parameters = rule.parameters
    if not isinstance(parameters, Capacity | Budget):
        return None
    if not rule.counts.admits(channel=message.channel, category=message.category, campaign_id=message.campaign_id):
        return None
    return needed(parameters, message)
