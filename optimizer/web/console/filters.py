"""What templates say numbers, times and names with: ``figures`` bound to the language of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from optimizer.bandit.actions import DAYPARTS
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

    def exact(self, value: float | Decimal) -> str:
        """A number with all its digits."""
        return figures.exact(self.language, value)

    def signed(self, value: float | None) -> str:
        """A number with its sign."""
        return figures.signed(self.language, value)

    def within(self, value: float | None, told: Mapping[str, Any], *, sign: bool = False) -> str:
        """A number to as many decimals as the bounds of the estimate that it belongs to are worth."""
        shown = figures.within(self.language, value, told["low"], told["high"])
        return f"+{shown}" if sign and value is not None and value > 0 and shown != "0" else shown

    def percent(self, value: float | None, decimals: int = 1) -> str:
        """A share."""
        return figures.percent(self.language, value, decimals)

    def exact_percent(self, value: float) -> str:
        """A share with all its digits."""
        return figures.exact_percent(self.language, value)

    def signed_percent(self, value: float | None, decimals: int = 1) -> str:
        """A share with its sign."""
        return figures.signed_percent(self.language, value, decimals)

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

    def minutes(self, count: float) -> str:
        """A number of minutes, to the microsecond, as days, hours or seconds where that is shorter."""
        if count >= 2880 and count % 1440 == 0:
            return self._counted("days", count / 1440)
        if count >= 120 and count % 60 == 0:
            return self._counted("hours", count / 60)
        if count >= 1 and round(count, 2) == count:
            return self._counted("minutes", count)
        return self._counted("seconds", round(count * 60, 6))

    def seconds(self, count: float) -> str:
        """A number of seconds to three significant digits, as minutes where that is shorter."""
        if count < 120:
            return self._counted("seconds", float(f"{count:.3g}"))
        return self._counted("minutes", round(count / 60))

    def _counted(self, unit: str, count: float) -> str:
        return str(self.language(f"age.{unit}", count, n=self.exact(count)))

    def subset(self, name: str) -> str:
        """Some of the actions, as the drift detectors name them."""
        kind, _, of = name.partition(":")
        if kind == "daypart" and of.isdecimal():
            start, hours = int(of) * (24 // DAYPARTS), 24 // DAYPARTS
            return str(self.language("drift.daypart", start=f"{start:02d}:00", end=f"{start + hours:02d}:00"))
        word = f"drift.{kind}"
        return str(self.language(word, name=of)) if word in self.language.words else name

    def condition(self, name: str) -> str:
        """What a condition of the gate asks, in words; its own name where nobody has given it any.

        A name is ``family.what``, or ``family.outcome.what`` for one of each outcome.
        """
        known = f"condition.{name.replace('.', '_')}"
        if known in self.language.words:
            return str(self.language(known))
        family, _, rest = name.partition(".")
        outcome, _, what = rest.rpartition(".")
        known = f"condition.{family}_each_{what}"
        if outcome and known in self.language.words:
            return str(self.language(known, outcome=self.named("outcome", outcome)))
        return name

    def verdict(self, told: Mapping[str, Any]) -> Markup:
        """What the gate said, in a sentence or two from its figures; nothing where more than its verdict was stored."""
        t, conditions, decision = self.language, told.get("conditions") or (), told.get("decision")
        if decision not in ("publish", "reject") or "looks" in told:
            return Markup("")
        if not conditions:
            return t("gate_said.no_gate") if decision == "publish" else Markup("")
        failed = [one for one in conditions if not one["passed"]]
        if decision == "reject" and [one["name"] for one in failed] == ["value"]:
            return t("gate_said.no_difference")
        if decision == "reject":
            return t("gate_said.failed", conditions=Markup("; ").join(map(self._failed, failed)))
        if all(one["name"] != "value" for one in conditions):
            return t("gate_said.first")
        alpha, rungs = told.get("alpha"), told.get("rungs")
        if alpha is None or rungs is None:  # an older run's: its reason alone says what held the next step back
            return Markup("")
        said = t("gate_said.better", share=self.percent(alpha, 0))
        # In falling order: the last is the next one up.
        for rung in [one for one in rungs if one["alpha"] > alpha][-1:]:
            held = "; ".join(map(self.condition, rung["failed"]))
            said += " " + t("gate_said.held_back", share=self.percent(rung["alpha"], 0), conditions=held)
        return said

    def _failed(self, one: Mapping[str, Any]) -> Markup:
        """A condition that wasn't met, with its figures."""
        name = "gate_said.figure" if one["limit"] is None else "gate_said.figure_limit"
        told = {"figure": self.number(one["figure"]), "limit": self.number(one["limit"])}
        return self.language(name, condition=self.condition(one["name"]), **told)

    def named(self, group: str, name: Any) -> str:
        """The word of a status, a group, a kind."""
        return self.language.named(group, name)


def _time(moment: datetime, told: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), told)
