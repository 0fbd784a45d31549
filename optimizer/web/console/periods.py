"""The period that a report is asked for: the last days, dates of one's own, or all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from optimizer.service.compared import midnight

#: Days that can be chosen directly; today's part comes on top.
DAYS: Final = (7, 28, 90)
_ONE: Final = timedelta(days=1)
#: No log is older; and a date plus a day stays one that can be said.
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)


@dataclass(frozen=True, slots=True)
class Period:
    """Decisions made in ``[since, until)``; None = open.

    ``days`` is set for the last so many; ``first`` and ``last`` are what was typed; ``faults`` says what is wrong with
    it, by field, as the name of a word.
    """

    since: datetime | None = None
    until: datetime | None = None
    days: int | None = None
    first: str = ""
    last: str = ""
    faults: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """``all``, ``days`` or ``own``."""
        return "days" if self.days else "own" if self.first or self.last else "all"

    @property
    def closed(self) -> bool:
        """Whether it leaves anything out."""
        return self.since is not None or self.until is not None

    @property
    def last_day(self) -> datetime | None:
        """The last day that is in."""
        return None if self.until is None else self.until - _ONE


def period_of(given: Mapping[str, str], now: datetime) -> Period:
    """The period of a query; all of it where that says nothing, or nothing that can be read."""
    days = given.get("days", "")
    if days in {str(one) for one in DAYS}:
        return Period(since=midnight(now) - int(days) * _ONE, days=int(days))
    first, last = given.get("from", "").strip()[:40], given.get("to", "").strip()[:40]
    since, until = _day(first), _day(last)
    faults = {
        name: "period.no_date"
        for name, text, moment in (("from", first, since), ("to", last, until))
        if text and moment is None
    }
    if since is not None and until is not None and until < since:
        faults["to"] = "period.ends_first"
    if faults:
        return Period(first=first, last=last, faults=faults)
    return Period(since, None if until is None else until + _ONE, first=first, last=last)


def _day(text: str) -> datetime | None:
    """The midnight (UTC) that a date begins with."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) if _FIRST <= day <= _LAST else None
