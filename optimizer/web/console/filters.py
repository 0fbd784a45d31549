"""What templates say numbers, times and names with: ``figures`` bound to the language of the page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from optimizer.web.console import figures
from optimizer.web.console.language import Language


@dataclass(frozen=True)
class Sayings:
    """``say`` in templates."""

    language: Language

    def whole(self, value: float | None) -> str:
        """A count."""
        return figures.whole(self.language, value)

    def compact(self, value: float | None) -> str:
        """A count in few characters."""
        return figures.compact(self.language, value)

    def number(self, value: float | None) -> str:
        """A number to three significant digits."""
        return figures.number(self.language, value)

    def signed(self, value: float | None) -> str:
        """A number with its sign."""
        return figures.signed(self.language, value)

    def percent(self, value: float | None, decimals: int = 1) -> str:
        """A share."""
        return figures.percent(self.language, value, decimals)

    def signed_percent(self, value: float | None) -> str:
        """A share with its sign."""
        return figures.signed_percent(self.language, value)

    def day(self, moment: datetime | None) -> str:
        """A date."""
        return figures.day(self.language, moment)

    def clock(self, moment: datetime | None) -> Markup | str:
        """A date with its time, UTC, as an element that programs can read."""
        if moment is None:
            return figures.NOTHING
        return _time(moment, figures.clock(self.language, moment))

    def local(self, moment: datetime | None) -> Markup | str:
        """A weekday with its time in the moment's own zone."""
        if moment is None:
            return figures.NOTHING
        return _time(moment, figures.local_clock(self.language, moment))

    def age(self, moment: datetime | None, now: datetime) -> Markup | str:
        """How long ago, with the exact time behind it."""
        if moment is None:
            return figures.NOTHING
        exact = figures.clock(self.language, moment) + " UTC"
        told = figures.age(self.language, now - moment)
        return Markup('<time datetime="{}" title="{}">{}</time>').format(moment.isoformat(), exact, told)

    def span(self, hours: float) -> str:
        """A number of hours as days where that is shorter."""
        if hours >= 48 and hours % 24 == 0:
            return str(self.language("age.days", int(hours // 24), n=self.whole(hours // 24)))
        return str(self.language("age.hours", int(hours), n=self.number(hours)))

    def named(self, group: str, name: Any) -> str:
        """The word of a status, a group, a kind."""
        return self.language.named(group, name)


def _time(moment: datetime, told: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), told)
