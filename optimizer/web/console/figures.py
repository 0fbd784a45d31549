"""Numbers and times as people read them, in the words of a language. Every one of them takes None for "not known"."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from optimizer.web.console.language import Language

#: What stands where there is nothing to say.
NOTHING = "–"
MINUS = "\N{MINUS SIGN}"
_THIN = "\N{NO-BREAK SPACE}"


def whole(language: Language, value: float | None) -> str:
    """A count."""
    return NOTHING if value is None else _marked(language, f"{value:,.0f}")


def compact(language: Language, value: float | None) -> str:
    """A count in few characters, for the ticks of a chart."""
    if value is None:
        return NOTHING
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if abs(value) >= size:
            return _marked(language, f"{value / size:.3g}") + _THIN + str(language.words[f"format.{name}"])
    return number(language, value)


def number(language: Language, value: float | None) -> str:
    """A number to three significant digits, without an exponent."""
    if value is None:
        return NOTHING
    size = abs(value)
    if size >= 1000:
        return _marked(language, f"{value:,.0f}")
    if size == 0 or size < 5e-7:
        return "0"
    decimals = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    if size < 0.001:
        decimals = 6
    text = f"{value:.{decimals}f}"
    return _marked(language, text.rstrip("0").rstrip(".") if "." in text else text)


def exact(language: Language, value: float | Decimal) -> str:
    """A number with all its digits, without an exponent."""
    text = f"{Decimal(str(value)):,f}"
    return _marked(language, text.rstrip("0").rstrip(".") if "." in text else text)


def within(language: Language, value: float | None, low: float | None, high: float | None) -> str:
    """A number to as many decimals as its bounds are worth: two significant digits of half their distance."""
    if value is None or low is None or high is None or not high > low:
        return number(language, value)
    decimals = min(6, max(0, 1 - math.floor(math.log10((high - low) / 2))))
    text = f"{value:,.{decimals}f}"
    return _marked(language, text.removeprefix("-") if float(text.replace(",", "")) == 0 else text)


def signed(language: Language, value: float | None) -> str:
    """As ``number``, with its sign."""
    shown = number(language, value)
    return f"+{shown}" if value is not None and value > 0 and shown != "0" else shown


def percent(language: Language, value: float | None, decimals: int = 1) -> str:
    """A share; small ones keep two significant digits."""
    if value is None:
        return NOTHING
    if 0 < abs(value) < 0.01:
        decimals = max(decimals, 2 if abs(value) >= 0.001 else 3)
    return _marked(language, f"{value * 100:,.{decimals}f}") + _percent_sign(language)


def signed_percent(language: Language, value: float | None, decimals: int = 1) -> str:
    """As ``percent``, with its sign."""
    shown = percent(language, value, decimals)
    return f"+{shown}" if value is not None and value > 0 else shown


def exact_percent(language: Language, value: float) -> str:
    """A share with all its digits, one decimal at the least."""
    share = 100 * Decimal(str(value)).normalize()
    decimals = max(1, -int(share.normalize().as_tuple().exponent))
    return _marked(language, f"{share:,.{decimals}f}") + _percent_sign(language)


def day(language: Language, moment: datetime | None) -> str:
    """A date, UTC."""
    if moment is None:
        return NOTHING
    at = moment.astimezone(UTC)
    return f"{at.day}{_THIN}{language.months[at.month - 1]}{_THIN}{at.year}"


def short_day(language: Language, moment: datetime) -> str:
    """A date without its year, for the ticks of a chart."""
    at = moment.astimezone(UTC)
    return f"{at.day}{_THIN}{language.months[at.month - 1]}"


def clock(language: Language, moment: datetime | None) -> str:
    """A date with its time, UTC."""
    return NOTHING if moment is None else f"{day(language, moment)}, {moment.astimezone(UTC):%H:%M}"


def local_clock(language: Language, moment: datetime | None) -> str:
    """A weekday with its time, in the zone that the moment is given in."""
    if moment is None:
        return NOTHING
    months, at = language.months, moment
    return f"{language.weekdays[at.weekday()]} {at.day}{_THIN}{months[at.month - 1]}, {at:%H:%M}"


def age(language: Language, span: timedelta) -> str:
    """How long ago, in the largest unit that fits; in the future: how long until."""
    seconds = span.total_seconds()
    which = "ago" if seconds >= 0 else "ahead"
    seconds = abs(seconds)
    if seconds < 60:
        return str(language(f"age.{which}.now"))
    for name, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return str(language(f"age.{which}.{name}", count, n=whole(language, count)))
    raise AssertionError("a minute or more fits one of the units")


def _marked(language: Language, text: str) -> str:
    """The language's own marks in a number written the English way."""
    swapped = {",": language.thousands, ".": language.decimal, "-": MINUS}
    return "".join(swapped.get(mark, mark) for mark in text)


def _percent_sign(language: Language) -> str:
    return str(language.words["format.percent"])
