"""Capacity and budget: what all recipients share, played again in the order of commits.

Written from the contract and the descriptions of the rules, with its own arithmetic of periods; the sums that the store
keeps are compared with it (see ``books``), not used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from simulations.audit.caps import WEEKDAYS, week_start
from simulations.audit.holdings import Held, Times
from simulations.audit.rulebook import binds, masks, selects, standing_of
from simulations.audit.verdicts import KEPT, LOST, Judgement
from storage.rules import MICROS, Budget, Capacity, Rule

_START = datetime(1970, 1, 1, tzinfo=UTC)
#: The Monday of the week that holds 1970-01-01: week 0 of every week start begins on it or in the six days after.
_MONDAY = date(1969, 12, 29)

#: See ``holdings.moves``.
Move = tuple[int, int, Held, Times, Times]
Found = tuple[Rule, Held, Judgement]


def period_at(parameters: Capacity | Budget, at: datetime) -> int:
    """The number of the period that holds an instant; the one after it has the next number."""
    if isinstance(parameters, Capacity):
        return (at - _START) // timedelta(minutes=parameters.per_minutes)
    day = at.astimezone(ZoneInfo(parameters.timezone)).date()
    if parameters.per == "day":
        return (day - _START.date()).days
    if parameters.per == "month":
        return 12 * (day.year - _START.year) + day.month - _START.month
    first = _MONDAY + timedelta(days=WEEKDAYS.index(parameters.week_start))
    return (week_start(day, parameters.week_start) - first).days // 7


def limit_at(parameters: Capacity | Budget, period: int) -> int:
    """How many messages (or micros) a period has room for, by the warm-up plan if there is one."""
    if isinstance(parameters, Budget):
        return parameters.amount
    plan = parameters.warm_up
    if not plan or parameters.starts_on is None:
        return parameters.limit
    first_day = (_START + period * timedelta(minutes=parameters.per_minutes)).date()
    day = (first_day - date.fromisoformat(parameters.starts_on)).days + 1
    if day > plan[-1].day:
        return parameters.limit
    holding = plan[0]  # also before the plan's first day: it never starts with more than it says
    for step in plan:
        if step.day <= day:
            holding = step
    return holding.limit


def shared(rule: Rule) -> bool:
    """Whether all recipients share the rule's limit."""
    return isinstance(rule.parameters, Capacity | Budget)


@dataclass
class Sums:
    """What is used of each period: ``certain`` by what surely counts, ``possible`` by all that may."""

    rule: Rule
    certain: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    possible: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _admitted: dict[tuple[str, str, str | None], bool] = field(default_factory=dict)

    @property
    def parameters(self) -> Capacity | Budget:
        """The rule's."""
        if not isinstance(self.rule.parameters, Capacity | Budget):
            raise TypeError(f"{self.rule.rule_id} is a {self.rule.kind}: nothing of it is shared")
        return self.rule.parameters

    def move(self, held: Held, before: Times, after: Times) -> None:
        """Takes note that a message counts at other times from now on."""
        kind = (held.channel, held.category, held.campaign_id)
        admitted = self._admitted.get(kind)
        if admitted is None:
            admitted = self._admitted[kind] = selects(self.rule.counts, held)
        if admitted:
            amount = held.cost if isinstance(self.rule.parameters, Budget) else 1
            self._add(before, -amount)
            self._add(after, amount)

    def _add(self, times: Times, amount: int) -> None:
        periods = {period_at(self.parameters, at) for at in times if at is not None}
        for period in periods:
            self.possible[period] += amount
        if len(periods) == 1 and None not in times:
            self.certain[periods.pop()] += amount

    def judge(self, rule: Rule, held: Held) -> Judgement:
        """Whether a reservation fitted into its period by the sums as they stand; ``rule``: the version in force."""
        parameters = rule.parameters
        if not isinstance(parameters, Capacity | Budget):
            raise TypeError(f"{rule.rule_id} is a {rule.kind}: nothing of it is shared")
        own = 1 if isinstance(parameters, Capacity) else held.cost
        if not own:
            return KEPT  # what costs nothing is never kept back by a budget
        period = period_at(parameters, held.planned)
        limit = limit_at(parameters, period)
        if self.certain.get(period, 0) + own > limit:
            return Judgement("violated", _told(parameters, period, self.certain.get(period, 0) + own, limit))
        if self.possible.get(period, 0) + own > limit:
            return Judgement("unknown", "the log doesn't tell what counted at the reservation")
        return KEPT


def _told(parameters: Capacity | Budget, period: int, used: int, limit: int) -> str:
    if isinstance(parameters, Capacity):
        start = _START + period * timedelta(minutes=parameters.per_minutes)
        return f"{used} in {parameters.per_minutes} min from {start.isoformat()}, limit {limit}"
    return f"{used / MICROS:g} in {parameters.per} {period}, amount {limit / MICROS:g}"


def judge_all(versions: Sequence[Rule], moves: Sequence[Move], judged: Sequence[Held]) -> Iterator[Found]:
    """Judges every reservation that a rule bound.

    Args:
        versions: of one rule, ascending; another kind in between ends what was shared.
        moves: every change of what counts, in order of commits.
        judged: the reservations, by position.
    """
    for counted, alike in _by_counting(versions):
        yield from _replayed(Sums(counted), set(alike), versions, moves, judged)
    if versions[0].version > 1 and shared(versions[0]):
        for held in judged:
            standing = standing_of(versions, held.position)
            if standing is not None and standing.lost and binds(standing.rule, held):
                yield standing.rule, held, LOST


def _by_counting(versions: Sequence[Rule]) -> Iterator[tuple[Rule, list[int]]]:
    """Versions that count the same in the same periods share one replay: a rule with their version numbers."""
    groups: dict[object, list[Rule]] = {}
    for rule in versions:
        p = rule.parameters
        if not masks(rule) or not isinstance(p, Capacity | Budget):
            continue
        periods = (p.per_minutes,) if isinstance(p, Capacity) else (p.per, p.timezone, p.week_start)
        groups.setdefault((rule.counts, periods), []).append(rule)
    for alike in groups.values():
        yield alike[0], [rule.version for rule in alike]


def _replayed(
    sums: Sums, alike: set[int], versions: Sequence[Rule], moves: Sequence[Move], judged: Sequence[Held]
) -> Iterator[Found]:
    in_force = _pointer(versions)
    upcoming = iter(moves)
    move = next(upcoming, None)
    for held in judged:
        rule = in_force(held.position)
        if rule is None or rule.version not in alike or not masks(rule) or not binds(rule, held):
            continue
        while move is not None and move[0] < held.position:
            sums.move(*move[2:])
            move = next(upcoming, None)
        yield rule, held, sums.judge(rule, held)


def _pointer(versions: Sequence[Rule]) -> Callable[[int], Rule | None]:
    """The version in force at positions that are asked for in ascending order."""
    place = 0

    def at(position: int) -> Rule | None:
        nonlocal place
        while place < len(versions) and versions[place].changed_after < position:
            place += 1
        return versions[place - 1] if place else None

    return at
