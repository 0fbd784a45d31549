"""Quiet hours and blackouts: what the recipient's wall clock and calendar said at the planned time."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from simulations.audit.caps import WEEKDAYS
from simulations.audit.holdings import Held
from simulations.audit.verdicts import CHANGED, KEPT, Judgement
from storage.records import Recipient
from storage.rules import Blackout, QuietHours

_MIDNIGHT_AFTER = "24:00"


def judge_quiet(hours: QuietHours, judged: Held) -> Judgement:
    """Whether the planned time lies outside the quiet nights on the recipient's wall clock."""
    local = judged.planned.astimezone(ZoneInfo(judged.timezone))
    if is_quiet(hours, local):
        return Judgement("violated", f"planned for {local.isoformat()}, quiet from {hours.start} to {hours.end}")
    return KEPT


def is_quiet(hours: QuietHours, local: datetime) -> bool:
    """Whether a wall clock time is quiet. A night that starts on a listed day ends where ``end`` next comes round."""
    return any(
        WEEKDAYS[night.weekday()] in hours.days and _in_night(hours, night, local.replace(tzinfo=None))
        for night in (local.date(), local.date() - timedelta(days=1))
    )


def _in_night(hours: QuietHours, night: date, clock: datetime) -> bool:
    start = _on(night, hours.start)
    end = _on(night, hours.end)
    if end <= start:
        end = _on(night + timedelta(days=1), hours.end)
    return start <= clock < end


def _on(day: date, clock: str) -> datetime:
    """``HH:MM`` of a day as a wall clock time without a zone; 24:00 is the next midnight."""
    if clock == _MIDNIGHT_AFTER:
        return datetime.combine(day + timedelta(days=1), time())
    hour, minute = clock.split(":")
    return datetime.combine(day, time(int(hour), int(minute)))


def judge_blackout(blackout: Blackout, judged: Held, recipient: Recipient | None, steady: bool) -> Judgement:
    """Whether the planned local day is neither a listed date nor a public holiday of the recipient's country.

    Args:
        blackout: the dates and whether holidays count.
        judged: the reservation.
        recipient: the record as it is now.
        steady: whether that record, and the country in it, is as it was at the reservation.
    """
    day = judged.planned.astimezone(ZoneInfo(judged.timezone)).date()
    if day.isoformat() in blackout.dates:
        return Judgement("violated", f"planned for {day.isoformat()}, a listed date")
    if not blackout.country_holidays:
        return KEPT
    if not steady:
        return CHANGED
    told = recipient.attributes.get("country") if recipient is not None else None
    country = told if isinstance(told, str) and told else blackout.default_country
    if country is not None and day in public_holidays(country.upper(), day.year):
        return Judgement("violated", f"planned for {day.isoformat()}, a public holiday in {country}")
    return KEPT


@cache
def public_holidays(country: str, year: int) -> frozenset[date]:
    """The public holidays of a country (ISO 3166-1 alpha-2) in a year; none for a country that isn't known."""
    import holidays  # slow to import, and needed by blackouts only

    if len(country) != 2 or country not in holidays.list_supported_countries():  # it knows longer codes, too
        return frozenset()
    return frozenset(holidays.country_holidays(country, years=year))
