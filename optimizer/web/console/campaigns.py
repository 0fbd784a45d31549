"""Campaigns: all of them in a list, and one with its lift over time, its week, its variants and its traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, request

from optimizer.errors import NotFound
from optimizer.service.catalog import stricter
from optimizer.service.feedback import all_campaigns
from optimizer.service.ids import COLD_POLICY
from optimizer.web.console import charts
from optimizer.web.console.pages import Visit, console
from optimizer.web.console.periods import DAYS, period_of
from optimizer.web.console.reports import dated, estimate, report_of, standing_of
from storage.records import Campaign

_REFRESH_SECONDS = 20
#: What is told of a group's outcomes beside its value, where the campaign has them.
_TOLD_OUTCOMES = ("opened", "clicked", "converted", "unsubscribed", "complained")


@console.page("/campaigns")
def campaigns(visit: Visit) -> Response:
    """Every campaign, archived ones last."""
    with visit.services.store.read() as reader:
        workspace = reader.workspace(visit.workspace_id)
        found = all_campaigns(reader, visit.workspace_id)
        pointers = {p.campaign_id: p for p in reader.pointers() if p.workspace_id == visit.workspace_id}
    mode = "live" if workspace is None else workspace.mode
    found.sort(key=lambda one: (one.status == "archived", one.mode == "paused", -one.priority, one.campaign_id))
    rows = [(one, stricter(one.mode, mode), pointers.get(one.campaign_id)) for one in found]
    return visit.show("campaigns.html", rows=rows, cold=COLD_POLICY)


@console.page("/campaigns/<id:campaign_id>")
def campaign(visit: Visit, campaign_id: str) -> Response:
    """One campaign."""
    with visit.services.store.read() as reader:
        found = reader.campaign(visit.workspace_id, campaign_id)
        if found is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        workspace = reader.workspace(visit.workspace_id)
        pointer = reader.pointer(visit.workspace_id, campaign_id)
    period = period_of(request.args, visit.now)
    fresh = report_of(visit, campaign_id, period)
    facts: dict[str, Any] = {}
    if fresh.report is not None:
        facts = _facts(visit, found, fresh.report)
    return visit.show(
        "campaign.html",
        refresh_seconds=_REFRESH_SECONDS,
        campaign=found,
        period=period,
        choices=DAYS,
        mode=stricter(found.mode, "live" if workspace is None else workspace.mode),
        policy_id=None if pointer is None or pointer.policy_id == COLD_POLICY else pointer.policy_id,
        taken_back=pointer is not None and pointer.policy_id == COLD_POLICY,
        report=fresh.report,
        pending=fresh.pending,
        cold=fresh.report is None,
        as_of=None if fresh.report is None else fresh.report["generated_at"],
        outcomes=[name for name in _TOLD_OUTCOMES if name in found.objective or name in ("unsubscribed", "complained")],
        **facts,
    )


def _facts(visit: Visit, campaign: Campaign, report: Mapping[str, Any]) -> dict[str, Any]:
    """What the report's charts are drawn from."""
    trends, standing = report["trends"], standing_of(report)
    groups = charts.whiskers([estimate(one["value"]) for one in report["groups"]])
    variants = [one for one in report["by_variant"] if one["variant"] is not None]
    both = [estimate((one[group] or {}).get("value")) for one in variants for group in ("treated", "random")]
    return {
        "standing": standing,
        "doubts": _doubts(report),
        "lifts": _lifts(visit, trends["lift"], standing.control),
        "group_whiskers": groups,
        "variants": variants,
        "variant_whiskers": charts.whiskers(both),
        "traffic": _traffic(visit, campaign, trends["traffic"]),
        "weeks": [{**one, "cells": charts.heat(one["messages"], one["value"])} for one in trends["week"]],
    }


def _doubts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why comparisons can't be believed, with what was reported of the treated and of the control group."""
    groups = {one["outcome"]: one["groups"] for one in report["forms"]}
    return [
        {
            **one,
            "control": lift["control"],
            "of": [groups[one["outcome"]][name] for name in ("treated", lift["control"])],
        }
        for lift in report["lifts"]
        for one in lift["doubts"]
    ]


def _lifts(visit: Visit, curves: Sequence[Mapping[str, Any]], first: str | None) -> list[dict[str, Any]]:
    """The curves, the one that tells most at the front."""
    found = []
    for one in sorted(curves, key=lambda one: one["control"] != first):
        points = one["points"]
        estimates = [estimate(p) for p in points]
        chart = charts.curve(estimates, [p["at"].toordinal() for p in points])
        if chart is not None:
            days = [p["at"] for p in points[charts.drawn_from(estimates) :]]
            dates = dated(visit, days, chart.places)
            found.append({"control": one["control"], "chart": chart, "dates": dates, "points": points})
    return found


def _traffic(visit: Visit, campaign: Campaign, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the treated were given, day by day, as shares; a variant has its colour whatever the period."""
    bars = told["bars"]
    series = charts.colours(told["variants"], [one.id for one in campaign.variants])
    chart = charts.shares([bar["counts"] for bar in bars], series)
    if chart is None:
        return None
    days = [bar["from"] for bar in bars]
    return {**told, "series": series, "chart": chart, "dates": dated(visit, days, chart.places)}
