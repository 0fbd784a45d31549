"""What a rule does, in plain words of the page's language."""

from __future__ import annotations

from functools import singledispatch

from optimizer.web.console.filters import Sayings
from storage.rules import MICROS, WEEKDAYS, Blackout, Budget, Cap, Capacity, Fatigue, QuietHours, Rule, Selector

#: Dates of a blackout that are listed one by one.
_DATES = 6
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
    window = t("rule.rolling", span=_window(say, cap)) if cap.calendar is None else t(f"rule.calendar.{cap.calendar}")
    told = str(t("rule.cap", cap.limit, n=say.whole(cap.limit), window=window))
    if cap.adapt is None:
        return told
    after = cap.adapt.after_unengaged
    return f"{told} {t('rule.adapt', after, after=say.whole(after), n=say.whole(cap.adapt.limit))}"


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
        more = len(blackout.dates) - _DATES
        dates = ", ".join(blackout.dates[:_DATES]) + (f" (+{say.whole(more)})" if more > 0 else "")
        told.append(str(t("rule.dates", dates=dates)))
    if blackout.country_holidays:
        told.append(str(t("rule.holidays")))
    return " ".join(told)


@_told.register
def _capacity(capacity: Capacity, say: Sayings) -> str:
    t = say.language
    told = str(t("rule.capacity", capacity.limit, n=say.whole(capacity.limit), span=say.minutes(capacity.per_minutes)))
    if not capacity.warm_up:
        return told
    step = capacity.warm_up[0]
    return f"{told} {t('rule.warm_up', start=capacity.starts_on, n=say.whole(step.limit))}"


@_told.register
def _budget(budget: Budget, say: Sayings) -> str:
    t = say.language
    return str(t("rule.budget", amount=say.number(budget.amount / MICROS), per=t(f"rule.calendar.{budget.per}")))


@_told.register
def _fatigue(fatigue: Fatigue, say: Sayings) -> str:
    outcome = say.named("outcome", fatigue.outcome)
    return str(say.language("rule.fatigue", outcome=outcome, risk=say.percent(fatigue.max_risk)))


def _window(say: Sayings, cap: Cap) -> str:
    return say.minutes((cap.rolling_hours or 0) * 60)
