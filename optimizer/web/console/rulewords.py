"""What a rule does, in plain words of the page's language."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import singledispatch

from optimizer.web.console.filters import Sayings
from storage.rules import (
    MICROS,
    WEEKDAYS,
    Blackout,
    Budget,
    Cap,
    Capacity,
    Fatigue,
    QuietHours,
    Rule,
    Selector,
    Weekday,
)

#: Dates of a blackout, and steps of a warm-up, that are listed one by one.
_LISTED = 6
_PARTS = (
    "channels",
    "except_channels",
    "categories",
    "except_categories",
    "campaigns",
    "except_campaigns",
)


def in_words(say: Sayings, rule: Rule) -> str:
    """One or two sentences: what the rule allows, whomever it binds."""
    if rule.kind == "gap" and isinstance(rule.parameters, Cap):
        return str(say.language("rule.gap", span=_window(say, rule.parameters)))
    return _told(rule.parameters, say)


def selected(say: Sayings, selector: Selector) -> str:
    """Which messages a selector speaks of."""
    t = say.language
    told = [
        str(t(f"rule.selected.{part}", ids=", ".join(ids)))
        for part in _PARTS
        if (ids := getattr(selector, part)) is not None
    ]
    return "; ".join(told) or str(t("rule.selected.all"))


@singledispatch
def _told(parameters: object, say: Sayings) -> str:
    raise TypeError(f"no words in {say.language.code} for {type(parameters).__name__}")


@_told.register
def _cap(cap: Cap, say: Sayings) -> str:
    t = say.language
    window = (
        str(t("rule.rolling", span=_window(say, cap)))
        if cap.calendar is None
        else _period(say, cap.calendar, cap.week_start)
    )
    told = str(t("rule.cap", cap.limit, n=say.whole(cap.limit), window=window))
    if cap.adapt is None:
        return told
    after = cap.adapt.after_unengaged
    # A stored cap may adapt to a limit above its own, and the smaller holds.
    return f"{told} {t('rule.adapt', after, after=say.whole(after), n=say.whole(cap.limit_for(after)))}"


@_told.register
def _quiet(hours: QuietHours, say: Sayings) -> str:
    t = say.language
    # Hours that end when they start are the whole day.
    name = "rule.quiet_day" if hours.start == hours.end else "rule.quiet"
    told = str(t(name, start=hours.start, end=hours.end))
    if len(hours.days) == len(WEEKDAYS):
        return told
    days = ", ".join(t.weekdays[WEEKDAYS.index(day)] for day in hours.days)
    return f"{told} {t('rule.on_days', days=days)}"


@_told.register
def _blackout(blackout: Blackout, say: Sayings) -> str:
    t, told = say.language, list[str]()
    if blackout.dates:
        told.append(str(t("rule.dates", dates=", ".join(_listed(say, blackout.dates)))))
    if blackout.country_holidays:
        name = "rule.holidays" if blackout.default_country is None else "rule.holidays_or"
        told.append(str(t(name, country=blackout.default_country)))
    return " ".join(told)


@_told.register
def _capacity(capacity: Capacity, say: Sayings) -> str:
    t = say.language
    told = str(t("rule.capacity", capacity.limit, n=say.whole(capacity.limit), span=say.minutes(capacity.per_minutes)))
    return f"{told} {_warm_up(say, capacity)}" if capacity.warm_up else told


def _warm_up(say: Sayings, capacity: Capacity) -> str:
    """The steps of a warm-up. The first holds before its day, too; the last for its own day alone."""
    t, (first, *later) = say.language, capacity.warm_up
    whole = t("rule.warm_up_whole", day=say.whole(capacity.warm_up[-1].day + 1))
    steps = [
        str(t("rule.warm_up_first", n=say.whole(first.limit))),
        *_listed(say, [str(t("rule.warm_up_step", n=say.whole(one.limit), day=say.whole(one.day))) for one in later]),
        str(whole),
    ]
    return str(t("rule.warm_up", start=capacity.starts_on, steps="; ".join(steps)))


@_told.register
def _budget(budget: Budget, say: Sayings) -> str:
    # Where nothing is said of a zone, times are UTC on every page.
    name = "rule.budget" if budget.timezone == "UTC" else "rule.budget_in_zone"
    amount = say.exact(Decimal(budget.amount) / MICROS)
    per = _period(say, budget.per, budget.week_start)
    return str(say.language(name, amount=amount, per=per, zone=budget.timezone))


@_told.register
def _fatigue(fatigue: Fatigue, say: Sayings) -> str:
    outcome = say.named("outcome", fatigue.outcome)
    return str(say.language("rule.fatigue", outcome=outcome, risk=say.exact_percent(fatigue.max_risk)))


def _listed(say: Sayings, parts: Sequence[str]) -> list[str]:
    """The first of the parts, and how many more there are."""
    more = len(parts) - _LISTED
    return [*parts[:_LISTED], f"(+{say.whole(more)})"] if more > 0 else list(parts)


def _period(say: Sayings, calendar: str, week_start: Weekday) -> str:
    """A calendar day, week or month; weeks begin on Monday where nothing is said of it."""
    t = say.language
    if calendar != "week" or week_start == WEEKDAYS[0]:
        return str(t(f"rule.calendar.{calendar}"))
    return str(t("rule.week_from", day=t.weekdays[WEEKDAYS.index(week_start)]))


def _window(say: Sayings, cap: Cap) -> str:
    return say.minutes(round((cap.rolling_hours or 0) * 60, 9))
