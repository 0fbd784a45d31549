"""The report of a campaign as pages show it: what is there now, and in which words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optimizer.service.freshreports import PATIENCE_SECONDS, Fresh
from optimizer.service.report import report_with_trends
from optimizer.web.console import figures
from optimizer.web.console.charts import Estimate
from optimizer.web.console.pages import Visit
from optimizer.web.console.periods import Period

#: Which control group tells whether a campaign pays, the most telling first: what would have been without it.
_TELLING = ("holdout", "baseline", "random")
ALL = Period()
#: Dates under a chart.
_DATES = 4


def report_of(visit: Visit, campaign_id: str, period: Period = ALL, *, wait: bool = True) -> Fresh:
    """The newest report of a campaign that there is; a cold one is made behind the page's back.

    ``wait``: a quarter of a second, in which small logs are read.
    """
    key = (visit.workspace_id, campaign_id, period.since, period.until)
    return visit.services.fresh.latest(
        key,
        visit.now,
        lambda: report_with_trends(visit.services, visit.workspace_id, campaign_id, period.since, period.until),
        PATIENCE_SECONDS if wait else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a campaign pays, in one glance.

    ``verdict`` is ``paying``, ``losing``, ``unclear``, ``early`` (bounds can't be stated yet), ``new`` (no decisions),
    ``alone`` (nothing to compare with), ``mixed`` (outcomes are reported in two forms) or ``broken`` (the groups' sizes
    are wrong). ``partial``: money is that of some of the treated decisions; of the others nobody can tell.
    """

    verdict: str
    control: str | None = None
    lift: Mapping[str, Any] | None = None
    money: Mapping[str, Any] | None = None
    partial: bool = False

    @property
    def level(self) -> str:
        """How it is coloured."""
        return {"paying": "good", "losing": "bad", "mixed": "warn", "broken": "bad"}.get(self.verdict, "")

    @property
    def days(self) -> int | None:
        """In how many days, at this pace, it would be clear; None = not within ten years."""
        days: int | None = None if self.lift is None else self.lift["power"]["days_until_clear"]
        return days


def standing_of(report: Mapping[str, Any]) -> Standing:
    """The lift over the most telling control group that has anything to say."""
    lifts = {one["control"]: one for one in report["lifts"]}
    told = [lifts[name] for name in _TELLING if name in lifts and lifts[name]["value"] is not None]
    if report["group_sizes"]["mismatch"]:
        return Standing("broken")
    if not told:
        verdict = "new" if not report["groups"] else "early" if lifts else "alone"
        return Standing(verdict, next(iter(lifts), None))
    best = next((one for one in told if one["value"]["low"] is not None), told[0])
    value, money = best["value"], best["money"]
    if any(one["doubt"] == "two_forms" for one in best["doubts"]):
        return Standing("mixed", best["control"])
    if value["low"] is None:
        return Standing("early", best["control"], value)
    verdict = {"higher": "paying", "lower": "losing"}.get(value["clear"], "unclear")
    shown = money if money is not None and money["total"]["low"] is not None else None
    treated = sum(one["compared"] for one in report["groups"] if one["group"] == "treated")
    partial = shown is not None and shown["total"]["decisions"] < treated
    return Standing(verdict, best["control"], value, shown, partial)


def estimate(told: Mapping[str, Any] | None) -> Estimate:
    """An estimate of a report for a chart."""
    return Estimate(None) if told is None else Estimate(told["estimate"], told["low"], told["high"])


def dated(visit: Visit, moments: Sequence[datetime], places: Sequence[float]) -> list[tuple[float, str]]:
    """A few dates under a chart, evenly spread, the first and the last among them."""
    last = len(moments) - 1
    chosen = sorted({round(last * n / (_DATES - 1)) for n in range(_DATES)}) if last > 0 else [0]
    return [(places[n], figures.short_day(visit.language, moments[n])) for n in chosen]
