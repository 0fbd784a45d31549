"""The first page: is it healthy, is it paying."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Response

from optimizer.service.catalog import stricter
from optimizer.service.feedback import all_campaigns
from optimizer.service.standing import checks
from optimizer.web.console.charts import SERIES, Bars, Whiskers, stack, whiskers
from optimizer.web.console.pages import Visit, console
from optimizer.web.console.reports import Standing, dated, estimate, report_of, standing_of
from storage.port import Reader
from storage.records import Campaign

#: Campaigns whose reports are shown; the rest are in the list of campaigns.
MOST_SHOWN = 12
_REFRESH_SECONDS = 15
#: How many of the newest promotions and rollbacks are shown.
_MOVES = 6
#: How many days are drawn, and from when on they are the last ones: today, which isn't over, may be among them or not.
_DAYS = 14
_RECENT = timedelta(days=_DAYS + 1)


@dataclass(frozen=True, slots=True)
class Summary:
    """One campaign in a few lines."""

    campaign: Campaign
    mode: str
    report: dict[str, Any] | None
    standing: Standing | None
    lift: Whiskers | None


@console.page("")
def overview(visit: Visit) -> Response:
    """How the workspace stands."""
    with visit.services.store.read() as reader:
        found = checks(visit.services, reader, visit.workspace_id)
        shown, more = _active(reader, visit.workspace_id)
        workspace = reader.workspace(visit.workspace_id)
        moves = reader.policy_changes(visit.workspace_id, limit=_MOVES)
    mode = "live" if workspace is None else workspace.mode
    summaries: list[Summary] = []
    for one in shown:
        # A page waits for one report at most: where one is cold, the rest may well be.
        wait = all(earlier.report is not None for earlier in summaries)
        summaries.append(_summary(visit, one, stricter(one.mode, mode), wait=wait))
    reports = [one.report for one in summaries if one.report is not None]
    return visit.show(
        "overview.html",
        refresh_seconds=_REFRESH_SECONDS,
        checks=found,
        worst=found[0].level,
        summaries=summaries,
        more=more,
        pending=len(reports) < len(summaries),
        figures=_figures(reports),
        days=_days(visit, reports),
        as_of=min((one["generated_at"] for one in reports), default=None),
        moves=moves,
    )


def _active(reader: Reader, workspace_id: str) -> tuple[list[Campaign], int]:
    """The active campaigns that are shown, the most urgent first, and how many there are beside them."""
    found = [one for one in all_campaigns(reader, workspace_id) if one.status == "active"]
    found.sort(key=lambda one: (one.mode == "paused", -one.priority, one.campaign_id))
    return found[:MOST_SHOWN], len(found[MOST_SHOWN:])


def _summary(visit: Visit, campaign: Campaign, mode: str, *, wait: bool) -> Summary:
    report = report_of(visit, campaign.campaign_id, wait=wait).report
    if report is None:
        return Summary(campaign, mode, None, None, None)
    standing = standing_of(report)
    lift = whiskers([estimate(standing.lift)], zero=True) if standing.lift is not None else None
    return Summary(campaign, mode, report, standing, lift)


def _figures(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the campaigns, and the money where they all count in one currency."""
    messages = sum(group["messages"] for one in reports for group in one["groups"])
    clear = [s for one in reports if (s := standing_of(one)).money is not None]
    currencies = {one["currency"] for one in reports}
    money = sum(s.money["total"]["estimate"] for s in clear if s.money is not None)
    return {
        "decisions": sum(one["decisions"]["total"] for one in reports),
        "messages": messages,
        "withheld": sum(one["decisions"]["by_status"].get("withheld", 0) for one in reports),
        "money": money if clear and len(currencies) == 1 else None,
        "currency": next(iter(currencies), ""),
    }


def _days(visit: Visit, reports: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The newest two weeks' decisions a day, of all campaigns whose days are told one by one: the last two weeks
    (``recent``), or longer ago where nothing was decided since."""
    sums: dict[Any, list[int]] = {}
    for one in reports:
        told = one["trends"]["days"]
        for bar in told["bars"] if told["days_a_bar"] == 1 else ():
            counts = sums.setdefault(bar["from"], [0, 0])
            counts[0] += bar["messages"]
            counts[1] += bar["decisions"] - bar["messages"]
    newest = sorted(sums)[-_DAYS:]
    chart: Bars | None = stack([sums[day] for day in newest], (1, SERIES))
    if chart is None:
        return None
    rows = [(day, *sums[day]) for day in newest]
    recent = newest[0] > visit.now - _RECENT
    return {"chart": chart, "rows": rows, "recent": recent, "dates": dated(visit, newest, chart.places)}
