"""How a workspace stands: whether decisions are made, policies are served, training goes on, webhooks arrive.

Each check is a name, a level and its figures; whoever shows it has the words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from optimizer.service.ids import COLD_POLICY
from optimizer.service.runs import LEASE
from optimizer.service.told import runs
from optimizer.service.wiring import Services
from storage.policies import TrainingRun
from storage.port import Reader

#: ``note`` is neither good nor bad; ``warn`` should be looked at; ``bad`` harms.
Level = Literal["good", "note", "warn", "bad"]
#: Without a decision for so long somebody may have stopped asking.
_QUIET: Final = timedelta(hours=24)
#: How late a scheduled run may be before it is told.
_LATE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    level: Level
    facts: dict[str, Any] = field(default_factory=dict)


def checks(services: Services, reader: Reader, workspace_id: str) -> list[Check]:
    """Everything that was looked at, the worst first."""
    now = services.clock()
    found = [
        _mode(reader, workspace_id),
        _decisions(reader, workspace_id, now),
        *_policies(services, workspace_id),
        _training(services, reader, workspace_id, now),
        *_endpoints(reader, workspace_id),
        *_unmatched(reader, workspace_id),
    ]
    order: tuple[Level, ...] = ("bad", "warn", "note", "good")
    return sorted(found, key=lambda check: order.index(check.level))


def last_retrain(reader: Reader, workspace_id: str) -> TrainingRun | None:
    """The newest retrain."""
    return next(runs(reader, workspace_id, kind="retrain"), None)


def _mode(reader: Reader, workspace_id: str) -> Check:
    workspace = reader.workspace(workspace_id)
    mode = "live" if workspace is None else workspace.mode
    return Check("mode", "good" if mode == "live" else "warn", {"mode": mode})


def _decisions(reader: Reader, workspace_id: str, now: datetime) -> Check:
    newest = reader.decisions(workspace_id, limit=1).items
    if not newest:
        return Check("no_decisions", "note")
    at = newest[0].decided_at
    return Check("decisions", "good" if now - at < _QUIET else "warn", {"at": at})


def _policies(services: Services, workspace_id: str) -> Iterator[Check]:
    served = [one for one in services.policies.status() if one.workspace_id == workspace_id]
    for one in served:
        if one.fault is not None:
            yield Check("policy_fault", "bad", {"campaign": one.campaign_id, "fault": one.fault})
    learned = sum(one.policy_id != COLD_POLICY for one in served)
    if not any(one.fault for one in served):
        yield Check("policies", "good", {"count": learned}) if learned else Check("policies_none", "note")


def _training(services: Services, reader: Reader, workspace_id: str, now: datetime) -> Check:
    """The last retrain, unless the next is late, be it the first: a run that fell due while nothing ran is due from
    when this process began, since the scheduler starts beside it and has yet to look."""
    run, workspace = last_retrain(reader, workspace_id), reader.workspace(workspace_id)
    every = timedelta(minutes=services.settings.retrain_minutes)
    since = run.created_at if run is not None else None if workspace is None else workspace.created_at
    late = since is not None and now - max(since + every, services.opened_at) > _LATE
    if run is not None and run.status == "running" and now - (run.started_at or now) > timedelta(hours=6) + LEASE:
        return Check("training_stuck", "bad", {"at": run.started_at})
    if run is not None and run.status == "failed":
        return Check("training_failed", "bad", {"at": run.finished_at or run.created_at, "error": run.error or ""})
    if late:
        return Check("training_overdue" if run is None else "training_late", "warn", {"at": since})
    if run is None:
        return Check("training_none", "note")
    return Check(f"training_{run.status}", "good", {"at": run.finished_at or run.created_at})


def _endpoints(reader: Reader, workspace_id: str) -> Iterator[Check]:
    for endpoint in reader.endpoints(workspace_id):
        told = reader.delivery(workspace_id, endpoint.endpoint_id)
        if told is None or not endpoint.enabled:
            continue
        if told.stopped is not None:
            yield Check("endpoint_stopped", "bad", {"endpoint": endpoint.endpoint_id, "error": told.stopped})
        elif told.failures:
            facts = {"endpoint": endpoint.endpoint_id, "at": told.failing_since, "failures": told.failures}
            yield Check("endpoint_failing", "warn", facts)


def _unmatched(reader: Reader, workspace_id: str) -> Iterator[Check]:
    waiting = reader.unmatched_events(workspace_id)
    if waiting:
        yield Check("unmatched", "note", {"count": waiting})
