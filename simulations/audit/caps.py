"""Caps and gaps: whether every window that holds the new message stayed within the limit. Plain and obviously right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from simulations.audit.holdings import Held, Neighbours, Times
from simulations.audit.rulebook import selects
from simulations.audit.verdicts import KEPT, Judgement
from storage.rules import Cap, Rule

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: No calendar window is longer: a month and what clock changes and a skipped date add.
_CALENDAR_REACH = timedelta(days=33)
_ALL_TIME_HOURS = 1e7

Inside = Callable[[datetime], bool]
#: Messages with the times at which they may have counted.
Others = Sequence[tuple[str, Times]]


def judge(rule: Rule, cap: Cap, judged: Held, neighbours: Neighbours) -> Judgement:
    """Whether a reservation kept a cap that binds it, its limit adapted to the stored count of unanswered messages."""
    if cap.adapt is not None and judged.unanswered is None:
        return Judgement("violated", "an adaptive cap, and no count of unanswered messages is stored")
    counted = [
        (other.ref, times) for other, times in neighbours.near(judged, reach(cap)) if selects(rule.counts, other)
    ]
    return judge_cap(cap, limit_of(cap, judged.unanswered), judged.planned, ZoneInfo(judged.timezone), counted)


def limit_of(cap: Cap, unanswered: int | None) -> int:
    """The limit for a recipient who left so many messages unanswered: tighter from a number on, never looser."""
    if cap.adapt is not None and unanswered is not None and unanswered >= cap.adapt.after_unengaged:
        return cap.adapt.limit if cap.adapt.limit < cap.limit else cap.limit
    return cap.limit


def reach(cap: Cap) -> timedelta:
    """How far apart two messages can at most be and still share a window of the cap."""
    return _CALENDAR_REACH if cap.rolling_hours is None else _length(cap.rolling_hours)


def judge_cap(cap: Cap, limit: int, at: datetime, zone: ZoneInfo, others: Others) -> Judgement:
    """Whether every window of the cap that holds ``at`` stays within the limit, the new message included.

    A message whose place is not certain speaks against a reservation only where each of its possible places lies in
    the window. If the limit would be broken by counting it at some of them only, the answer is "unknown".
    """
    if limit >= len(others) + 1:
        return KEPT
    doubtful: tuple[str, ...] = ()
    for label, inside in _windows(cap, at, zone, others):
        certain = tuple(ref for ref, times in others if all(t is not None and inside(t) for t in times))
        if len(certain) + 1 > limit:
            return Judgement("violated", f"{len(certain) + 1} in {label}, limit {limit}", certain)
        possible = tuple(ref for ref, times in others if any(t is not None and inside(t) for t in times))
        if len(possible) + 1 > limit:
            doubtful = doubtful or possible
    if doubtful:
        return Judgement("unknown", "the log doesn't tell which messages counted at the reservation", doubtful)
    return KEPT


def _windows(cap: Cap, at: datetime, zone: ZoneInfo, others: Others) -> Iterable[tuple[str, Inside]]:
    """The windows that hold ``at`` and may be the fullest ones: a label, and which times lie inside.

    Half-open rolling windows [s, s + length): moving s up to the next message loses none, so windows that start at a
    message, or at ``at`` itself, are enough.
    """
    if cap.rolling_hours is None:
        label = period(cap, at, zone)
        yield f"{cap.calendar} {label}", lambda t: period(cap, t, zone) == label
        return
    length = _length(cap.rolling_hours)
    starts = {t for _, times in others for t in times if t is not None and t <= at and at - t < length} | {at}
    for start in sorted(starts):
        yield f"{cap.rolling_hours:g} h from {start.isoformat()}", _within(start, length)


def _length(hours: float) -> timedelta:
    return timedelta(microseconds=round(min(hours, _ALL_TIME_HOURS) * 3_600_000_000))


def _within(start: datetime, length: timedelta) -> Inside:
    return lambda t: start <= t and t - start < length


def period(cap: Cap, at: datetime, zone: ZoneInfo) -> str:
    """The name of the local day, week or month that ``at`` falls into."""
    day = at.astimezone(zone).date()
    if cap.calendar == "day":
        return day.isoformat()
    if cap.calendar == "month":
        return f"{day.year:04}-{day.month:02}"
    return week_start(day, cap.week_start).isoformat()


def week_start(day: date, first: str) -> date:
    """The first day of the week that holds ``day``, for weeks that start on this weekday."""
    while WEEKDAYS[day.weekday()] != first:
        day -= timedelta(days=1)
    return day
