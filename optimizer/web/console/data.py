"""Data quality and drift: what comes in, what the last training found in it, what looks otherwise than it did."""

from __future__ import annotations

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
        campaigns=sorted(campaigns, key=_urgency)[:MOST_SHOWN],
        more=len(campaigns[MOST_SHOWN:]),
        most=MOST_DETECTORS,
        retrain_minutes=settings.retrain_minutes,
        refresh_minutes=settings.refresh_seconds / 60,
    )


def _urgency(one: dict[str, object]) -> tuple[int, str]:
    """Alarms first, then findings, by id."""
    drift, found = one["drift"], one["data"]
    alarmed = isinstance(drift, dict) and drift["alarms"]
    noted = isinstance(found, dict) and found["findings"]
    return (0 if alarmed else 1 if noted else 2), str(one["campaign_id"])
