"""From past questions and from what is left to the prices of capacity and budget rules.

Two programs are solved (``bandit.prices``). The *usual* prices balance a typical day's questions with a typical day's
capacity: one price for each hour of the UTC day for capacities of shorter periods, else one. The *near* prices are for
the day to come: the questions are asked again at their times of day, and may have what is left of each period now, with
the usual prices beyond. Computed anew every minute or so, they rise where more is taken than was expected and fall
where less is, and a month's budget lasts for a month.

Periods shorter than an hour share the price of a block of an hour or a little more. Where blocks don't divide a day,
they start at other times each day; a typical day then has each of these *phases* for an equal part of its questions. A
period that ends after the day to come gives it that part of what is left that the day is of the time left: demand is
taken to be even over days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import gcd

import numpy as np
from numpy.typing import NDArray

from optimizer.bandit.localtime import DAY
from optimizer.bandit.prices import Demand, Floats, Ints, Solved, question_starts, solve
from optimizer.bandit.tolls import HOUR
from storage.rules import MICROS, Budget, Capacity, Rule
from storage.usage import Usage, limit_in, period_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: No calendar period is longer, clock changes included.
_LONGEST = 33 * DAY
#: Multiples of it, modulo 1, lie evenly wherever one begins and ends.
_GOLDEN = 0.5 * (5.0**0.5 - 1.0)
#: Prices below this part of the mean gain of a question are as good as none.
NEGLIGIBLE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Q past questions with their n message actions that were open, but for scarcity, and gain something.

    Attributes:
        decided: (Q,) int64, when each question was asked, seconds since 1970.
        weight: (Q,) float64, how many questions of a typical day each one stands for.
        question: (n,) int64, ascending.
        send_at: (n,) int64, seconds since 1970.
        gain: (n,) float64, expected reward over not sending.
        cost: (n,) float64, money.
        bound: (n, R) bool, whether the action takes of each rule.
    """

    decided: Ints
    weight: Floats
    question: Ints
    send_at: Ints
    gain: Floats
    cost: Floats
    bound: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scarce:
    """A capacity or budget rule and what is known of it.

    Attributes:
        rule: the rule.
        usage: what is used of its periods, reservations to come included.
        share: the part of what is left that the priced questions can count on (the rest is taken without asking the
            price: by control groups, other campaigns, other systems).
        busy: how many times the mean day's questions a typical day has (1 = every day is alike): a day as a question
            sees it. Limits that last longer than a day serve mean days.
    """

    rule: Rule
    usage: Usage
    share: float = 1.0
    busy: float = 1.0

    @property
    def parameters(self) -> Capacity | Budget:
        """The rule's."""
        parameters = self.rule.parameters
        if not isinstance(parameters, Capacity | Budget):
            raise TypeError(f"rule {self.rule.rule_id!r} is a {self.rule.kind}: nothing that recipients share")
        return parameters

    @property
    def unit(self) -> int:
        """What one unit of a price is for, in what the rule counts: a message, or a unit of money in micros."""
        return 1 if isinstance(self.parameters, Capacity) else MICROS

    @property
    def every(self) -> int:
        """Seconds of a block of periods that share a price; 0 for calendar periods."""
        if isinstance(self.parameters, Budget):
            return 0
        period = self.parameters.per_minutes * 60
        return period * max(1, -(-HOUR // period))

    @property
    def by_hour(self) -> bool:
        """Whether the usual price depends on the hour of the day."""
        return 0 < self.every < DAY

    @property
    def phase(self) -> int:
        """Seconds between the times of day at which blocks ever start; ``every`` where they are the same each day."""
        return gcd(self.every, DAY)

    def left(self, period: int) -> float:
        """What is left of a period, in price units."""
        free = limit_in(self.parameters, period) - self.usage.get((self.rule.rule_id, period), 0)
        return max(0, free) / self.unit

    def end(self, at: int) -> int:
        """When the period that holds ``at`` is over, seconds since 1970."""
        parameters = self.parameters
        if isinstance(parameters, Capacity):
            length = parameters.per_minutes * 60
            return (at // length + 1) * length
        period, low, high = period_of(parameters, moment(at)), at, at + _LONGEST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if period_of(parameters, moment(middle)) <= period else (low, middle)
        return high


@dataclass(frozen=True, slots=True)
class Near:
    """A block of the day to come: from when to when, and how much its questions can have of it, in price units."""

    start: int
    end: int
    capacity: float


@dataclass(frozen=True, slots=True)
class Priced:
    """The prices of one rule: as ``tolls.Price`` has them, without the channels."""

    rule_id: str
    usual: tuple[float, ...]
    every: int
    starts: tuple[int, ...]
    values: tuple[float, ...]
    until: int

    @property
    def binds(self) -> bool:
        """Whether anything has a price."""
        return any(self.usual) or any(self.values)


def moment(seconds: int) -> datetime:
    """The instant as a ``datetime``."""
    return _EPOCH + timedelta(seconds=seconds)


def usual_capacity(scarce: Scarce, now: int) -> Floats:
    """(24,) by the hour in which a block starts, or (1,): how much a typical day has of a rule, in price units."""
    parameters, every = scarce.parameters, scarce.every
    if not scarce.by_hour:
        length = every or scarce.end(scarce.end(now)) - scarce.end(now)
        amount = limit_in(parameters, period_of(parameters, moment(now))) / scarce.unit
        return np.array([amount * scarce.share * min(1.0, scarce.busy * DAY / length)])
    starts, limits = [], []
    at = now // every * every
    while at < now // every * every + DAY:
        starts.append(at // every * every % DAY // HOUR)
        limits.append(limit_in(parameters, period_of(parameters, moment(at))) * scarce.share)
        at = scarce.end(at)
    if DAY % every:
        # Blocks start in each of their phases equally often.
        phases = np.bincount(np.arange(0, DAY, scarce.phase) // HOUR, minlength=24)
        a_day = sum(limits) / len(limits) * DAY / (scarce.end(at) - at)
        return np.asarray(phases * (a_day / phases.sum()), np.float64)
    return np.asarray(np.bincount(starts, limits, minlength=24), np.float64)


def near_blocks(scarce: Scarce, now: int) -> list[Near]:
    """The blocks that the day to come can use up: those that end within it, and the present one in any case."""
    parameters, every = scarce.parameters, scarce.every
    blocks: list[Near] = []
    start = now if not every else now // every * every
    while True:
        end = scarce.end(start) if not every else start + every
        if blocks and end > now + DAY:
            return blocks
        left, at = 0.0, max(start, now)
        while at < end:
            left += scarce.left(period_of(parameters, moment(at)))
            at = scarce.end(at)
        part = 1.0 if end <= now + DAY else min(1.0, scarce.busy * DAY / (end - now))
        blocks.append(Near(start, end, left * part * scarce.share))
        start = end


def price_all(asked: Asked, rules: Sequence[Scarce], now: int) -> list[Priced]:
    """The prices of each rule, in order; all zero where nothing binds."""
    if not len(asked.gain):
        return [Priced(s.rule.rule_id, (0.0,), s.every, (), (), 0) for s in rules]
    least = NEGLIGIBLE * float(np.mean(np.maximum.reduceat(asked.gain, question_starts(asked.question))))
    usual_cells = [usual_capacity(scarce, now) for scarce in rules]
    usual = _by_rule(_usual(asked, rules, usual_cells), usual_cells, least)
    near_cells = [near_blocks(scarce, now) for scarce in rules]
    solved = _near(asked, rules, usual, near_cells, now)
    near = _by_rule(solved, [np.array([b.capacity for b in blocks]) for blocks in near_cells], least)
    return [
        Priced(
            rule_id=scarce.rule.rule_id,
            usual=tuple(often),
            every=scarce.every or DAY,
            starts=tuple(block.start for block in blocks),
            values=tuple(soon),
            until=blocks[-1].end,
        )
        for scarce, often, soon, blocks in zip(rules, usual, near, near_cells, strict=True)
    ]


def _usual(asked: Asked, rules: Sequence[Scarce], capacities: Sequence[Floats]) -> Solved:
    """The program of a typical day.

    Where blocks move from day to day, the week's questions have seen only some of their phases. So each question is
    asked again in one of all of them, and neighbours in the day in phases that lie evenly.
    """
    midnight = (asked.decided // DAY * DAY)[asked.question]
    order = np.empty(len(asked.decided))
    order[np.argsort(asked.decided % DAY, kind="stable")] = np.arange(len(asked.decided))
    part = (order * _GOLDEN % 1.0)[asked.question]
    offset, cells = 0, []
    for scarce, capacity in zip(rules, capacities, strict=True):
        kind: Ints | int = 0
        if scarce.by_hour:
            # The same part for all rules: those whose blocks are alike move together.
            shift = (part * (scarce.every // scarce.phase)).astype(np.int64) * scarce.phase
            start = (asked.send_at - midnight - shift) // scarce.every * scarce.every + shift
            kind = start % DAY // HOUR
        cells.append(offset + kind + np.zeros(len(asked.gain), np.int64))
        offset += len(capacity)
    return solve(_demand(asked, rules, np.stack(cells, axis=1), asked.gain, np.concatenate(capacities)))


def _near(
    asked: Asked, rules: Sequence[Scarce], usual: Sequence[list[float]], blocks: Sequence[list[Near]], now: int
) -> Solved:
    """The program of the day to come: each question moves on by whole days, to its first time from now on."""
    later = -(-(now - asked.decided) // DAY) * DAY
    send_at = asked.send_at + later[asked.question]
    gain, offset, cells = asked.gain.copy(), 0, []
    for r, (scarce, prices, mine) in enumerate(zip(rules, usual, blocks, strict=True)):
        place = np.searchsorted([block.start for block in mine], send_at, side="right") - 1
        within = (place >= 0) & (send_at < mine[-1].end)
        hour = send_at // scarce.every * scarce.every % DAY // HOUR if scarce.by_hour else np.zeros_like(send_at)
        beyond = np.array(prices)[hour] * _take(asked, scarce, r)
        gain -= np.where(within, 0.0, beyond)
        cells.append(np.where(within, offset + place, -1))
        offset += len(mine)
    capacity = np.array([block.capacity for mine in blocks for block in mine])
    return solve(_demand(asked, rules, np.stack(cells, axis=1), gain, capacity))


def _take(asked: Asked, scarce: Scarce, r: int) -> Floats:
    """(n,) how much each action takes of a rule, in price units."""
    amount = asked.cost if isinstance(scarce.parameters, Budget) else np.ones(len(asked.gain))
    return np.where(asked.bound[:, r], amount, 0.0)


def _demand(asked: Asked, rules: Sequence[Scarce], cell: Ints, gain: Floats, capacity: Floats) -> Demand:
    """The program, with one offer for all actions of a question that take the same: the best of them."""
    take = np.stack([_take(asked, scarce, r) for r, scarce in enumerate(rules)], axis=1)
    cell = np.where((take > 0) & (cell >= 0), cell, len(capacity))
    take = np.where(cell < len(capacity), take, 0.0)
    keep = np.flatnonzero(gain > 0)
    order = keep[np.lexsort([gain[keep], *take[keep].T, *cell[keep].T, asked.question[keep]])]
    alike = np.column_stack([asked.question[order], cell[order], take[order]])
    same = (alike[1:] == alike[:-1]).all(axis=1)
    best = order[np.r_[~same, True]] if len(order) else order
    return Demand(asked.question[best], gain[best], cell[best], take[best], asked.weight, capacity)


def _by_rule(solved: Solved, cells: Sequence[Floats], least: float) -> list[list[float]]:
    """The prices of each rule's cells, in six digits: more would only make them longer to store."""
    parts = np.split(solved.price, np.cumsum([len(one) for one in cells])[:-1])
    return [[float(f"{value:.6g}") if value > least else 0.0 for value in part] for part in parts]
