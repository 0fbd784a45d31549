"""Data quality and drift: what comes in, what the last training found in it, what looks otherwise than it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response

from optimizer.service.dataquality import BAD, DAYS, data_quality, intake
from optimizer.web.console.pages import Visit, console

_REFRESH_SECONDS = 10
#: Campaigns whose details are shown.
MOST_SHOWN = 30
#: Detectors that are listed; those that are far from an alarm say nothing.
MOST_DETECTORS = 40


@console.page("/data")
def data(visit: Visit) -> Response:
    """All of it."""
    fresh = visit.services.fresh.latest(
        (visit.workspace_id, "data-quality"), visit.now, lambda: data_quality(visit.services, visit.workspace_id)
    )
    with visit.services.store.read() as reader:
        sources = intake(reader, visit.workspace_id, visit.now)
        waiting = reader.unmatched_events(visit.workspace_id)
    settings = visit.services.settings
    campaigns = [] if fresh.report is None else fresh.report["campaigns"]
    return visit.show(
        "data.html",
        refresh_seconds=_REFRESH_SECONDS,
        sources=sources,
        bad=BAD,
        days=DAYS,
        waiting=waiting,
        report=fresh.report,
        pending=fresh.pending,
        cold=fresh.report is None,
        as_of=None if fresh.report is None else fresh.report["generated_at"],
        examined=_examined(campaigns),
        campaigns=sorted(campaigns, key=_urgency)[:MOST_SHOWN],
        more=len(campaigns[MOST_SHOWN:]),
        most=MOST_DETECTORS,
        retrain_minutes=settings.retrain_minutes,
        refresh_minutes=settings.refresh_seconds / 60,
    )


def _urgency(one: Mapping[str, Any]) -> tuple[int, str]:
    """Alarms first, then what was looked at for drift at all, by id."""
    drift = one["drift"]
    return (2 if drift is None else 0 if drift["alarms"] else 1), one["campaign_id"]


def _examined(campaigns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was found in features, the newest first, with the campaigns that it holds for: a run that trains several
    examines them together."""
    runs: dict[str, dict[str, Any]] = {}
    for one in campaigns:
        if one["data"] is not None:
            told = runs.setdefault(one["data"]["run_id"], {**one["data"], "campaigns": []})
            told["campaigns"].append(one["name"] or one["campaign_id"])
    return sorted(runs.values(), key=lambda told: told["at"], reverse=True)
