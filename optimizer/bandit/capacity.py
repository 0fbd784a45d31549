"""Capacity and budget: limits that all recipients share, per period of time.

A capacity is open iff used + 1 <= its limit in the period of the send time. A budget is open for an action iff used +
the action's cost <= its amount; an action that costs nothing is never closed by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import zone
from optimizer.bandit.periods import LONGEST, days_around, numbers, segments
from optimizer.bandit.stretches import MICRO, NEVER, NO_OPENING, Times, following, never
from storage.records import Campaign, Channel, Variant
from storage.rules import MICROS, Budget, Capacity
from storage.usage import Usage, limit_in, period_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_FEW = 100
_DAY_MINUTES = 24 * 60
#: How many periods after the last send time are looked at for the next opening.
PERIODS_BEYOND = 2


def cost_micros(campaign: Campaign, variants: Sequence[str], channels: Sequence[str]) -> NDArray[np.int64]:
    """What one message costs, in micros of the campaign's currency: (V, C) int64."""
    costs = [[micros(campaign, variant, channel) for channel in channels] for variant in variants]
    return np.array(costs, np.int64).reshape(len(variants), len(channels))


def micros(campaign: Campaign, variant: str, channel: str) -> int:
    """What one message of a variant on a channel costs, in micros; what the campaign doesn't know costs nothing."""
    return round(MICROS * (_cost_of(variant, campaign.variants) + _cost_of(channel, campaign.channels)))


def _cost_of(name: str, among: Sequence[Variant] | Sequence[Channel]) -> float:
    for one in among:
        if one.id == name:
            return one.cost
    return 0.0


def periods_to_read(parameters: Capacity | Budget, first: int, last: int) -> tuple[int, int]:
    """The first and last period whose use must be known for send times ``first`` … ``last`` (seconds since 1970)."""
    start, end = (period_of(parameters, _EPOCH + timedelta(seconds=at)) for at in (first, last))
    # A clock that is set back over midnight returns to the period before.
    return start - isinstance(parameters, Budget), end + PERIODS_BEYOND


def room(rule_id: str, parameters: Capacity | Budget, periods: Times, usage: Usage) -> Times:
    """How much of the limit is left in each period: int64 of the same shape, negative where more than all is used."""
    known, place = periods.ravel(), None
    if periods.size > _FEW:  # many times share a period: each is looked up once
        first, beyond = int(periods.min()), int(periods.max()) + 1
        if beyond - first <= periods.size:
            known, place = np.arange(first, beyond), periods - first
        else:
            known, place = np.unique(periods, return_inverse=True)
    used = np.array([usage.get((rule_id, period), 0) for period in known.tolist()], np.int64)
    left = _limits(parameters, known) - used
    return left.reshape(periods.shape) if place is None else np.asarray(left[place])


def _limits(parameters: Capacity | Budget, periods: Times) -> Times:
    """``storage.usage.limit_in`` of each period."""
    if isinstance(parameters, Budget):
        return np.full(len(periods), parameters.amount, np.int64)
    steps = parameters.warm_up
    if not steps or parameters.starts_on is None:
        return np.full(len(periods), parameters.limit, np.int64)
    start = date.fromisoformat(parameters.starts_on).toordinal() - _EPOCH_ORDINAL
    day = periods * parameters.per_minutes // _DAY_MINUTES - start + 1
    days = np.array([step.day for step in steps], np.int64)
    step = (days.searchsorted(day, side="right") - 1).clip(0)
    return np.where(day > days[-1], parameters.limit, np.array([s.limit for s in steps], np.int64)[step])


def limits(parameters: Capacity | Budget) -> tuple[int, ...]:
    """All limits that ever hold: of a budget its amount, of a capacity its own and those of its warm-up."""
    if isinstance(parameters, Budget):
        return (parameters.amount,)
    return parameters.limit, *(step.limit for step in parameters.warm_up)


class CapacityRoom:
    """What a capacity leaves for the messages of N recipients.

    Attributes:
        closed: (N, S) bool, the slots whose period is full.
    """

    def __init__(self, rule_id: str, capacity: Capacity, send_at: Times, usage: Usage) -> None:
        self._rule_id = rule_id
        self._capacity = capacity
        self._usage = usage
        self._length = capacity.per_minutes * 60
        self._periods = send_at // self._length
        self.closed = room(rule_id, capacity, self._periods, usage) < 1

    def openings(self, rows: Times, slot: Times) -> Times:
        """When the slot of each row opens: the first start of a later period with room, up to 2 after the last slot's.

        Returns:
            (n,) microseconds since 1970, ``NEVER`` if it isn't known.
        """
        first = self._periods[rows, slot].tolist()
        last = (self._periods[rows, -1] + PERIODS_BEYOND).tolist()
        next_open = {period: self._next_open(period, max(last)) for period in set(first)}
        opens = [(next_open[period], end) for period, end in zip(first, last, strict=True)]
        return np.array([o * self._length * MICRO if o <= end else NEVER for o, end in opens], np.int64)

    def _next_open(self, period: int, last: int) -> int:
        for later in range(period + 1, last + 1):
            if self._usage.get((self._rule_id, later), 0) < limit_in(self._capacity, later):
                return later
        return last + 1


class BudgetRoom:
    """What a budget leaves for the messages of N recipients.

    Attributes:
        left: (N, S) int64 micros, what is left in the period of each slot.
    """

    def __init__(self, rule_id: str, budget: Budget, send_at: Times, usage: Usage) -> None:
        self._rule_id = rule_id
        self._budget = budget
        self._send_at = send_at
        self._usage = usage
        self._zone = zone(budget.timezone)
        self._periods = numbers(budget.per, budget.week_start, send_at + self._zone.offsets(send_at))
        self.left = room(rule_id, budget, self._periods, usage)

    def masked(self, costs: Times) -> tuple[Times, Times]:
        """How many actions the budget closes, and when the cheapest of those in the first closed slot opens.

        Args:
            costs: (A,) micros, ascending, above 0: those of the actions of one slot that the budget binds and that cost
                something.

        Returns:
            (N,) how many of the S x A actions, and (N,) microseconds since 1970: ``NEVER`` if it isn't known.
        """
        affordable = costs.searchsorted(self.left, side="right")
        masked = (len(costs) - affordable).sum(axis=1)
        opening = never(len(masked))
        rows = masked.nonzero()[0]
        if len(rows):
            slot = (affordable[rows] < len(costs)).argmax(axis=1)
            cheapest = costs[affordable[rows, slot]]
            opening[rows] = self._openings(self._send_at[rows, slot], self._periods[rows, -1], cheapest)
        return masked, opening

    def _openings(self, at: Times, last: Times, cost: Times) -> Times:
        """(n,) microseconds: the first instant after ``at`` at which ``cost`` fits, up to 2 periods after ``last``."""
        budget = self._budget
        end = int(self._send_at[:, -1].max()) + (PERIODS_BEYOND + 1) * LONGEST[budget.per]
        parts = segments(self._zone, budget.per, budget.week_start, *days_around(int(at.min()), end))
        left = room(self._rule_id, budget, parts.number, self._usage)
        costs = sorted(set(cost.tolist()))
        openings = [np.append(parts.starts[left >= one], NO_OPENING) for one in costs]
        found = following(openings, np.searchsorted(costs, cost), at)
        part = np.minimum(parts.starts.searchsorted(found), len(parts.starts) - 1)
        known = (found < NO_OPENING) & (parts.number[part] <= last + PERIODS_BEYOND)
        return np.where(known, found * MICRO, NEVER)
