"""Training: what ran, when it runs next, and starting a run now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from flask import Response, request

from optimizer.errors import NotFound
from optimizer.service import learning
from optimizer.service.feedback import all_campaigns
from optimizer.service.standing import last_retrain
from optimizer.web.console.pages import Visit, console, see
from optimizer.web.paging import own_cursor

_ROWS = 30
_REFRESH_SECONDS = 5


@console.page("/training")
def training(visit: Visit) -> Response:
    """The schedule and the runs, the newest first."""
    settings = visit.services.settings
    with own_cursor(), visit.services.store.read() as reader:
        page = reader.training_runs(visit.workspace_id, limit=_ROWS, cursor=request.args.get("cursor") or None)
        newest = last_retrain(reader, visit.workspace_id)
        workspace = reader.workspace(visit.workspace_id)
        campaigns = [c for c in all_campaigns(reader, visit.workspace_id) if c.status == "active"]
    began = newest.created_at if newest is not None else None if workspace is None else workspace.created_at
    return visit.show(
        "training.html",
        refresh_seconds=_REFRESH_SECONDS,
        rows=page.items,
        cursor=page.cursor,
        first="cursor" not in request.args,
        every_minutes=settings.retrain_minutes,
        refresh_every=settings.refresh_seconds,
        next_at=None if began is None else began + timedelta(minutes=settings.retrain_minutes),
        campaigns=campaigns,
        busy=any(run.kind == "retrain" and run.status in ("queued", "running") for run in page.items),
    )


@console.page("/training/<run_id>")
def run(visit: Visit, run_id: str) -> Response:
    """One run, with the verdict on each campaign."""
    with visit.services.store.read() as reader:
        found = reader.training_run(visit.workspace_id, run_id)
    if found is None:
        raise NotFound(f"no training run {run_id!r} in this workspace")
    verdicts: list[Mapping[str, Any]] = list(found.verdict.get("campaigns", ()))
    return visit.show("run.html", refresh_seconds=_REFRESH_SECONDS, run=found, verdicts=verdicts)


@console.action("/training")
def train(visit: Visit) -> Response:
    """Queues a run, noting who asked; the scheduler takes it up."""
    campaign_id = request.form.get("campaign_id", "").strip() or None
    made = learning.queue_training(visit.services, visit.workspace_id, campaign_id, trigger=f"console, {visit.by}")
    return see("run", run_id=made.run_id)
