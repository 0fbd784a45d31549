"""Training runs as rows: queued, claimed by one process at a time, finished; dead ones found out.

One run a workspace goes on at a time, over all hosts: who starts one holds the lease ``training/<workspace>``, renews
it while the run lasts and drops it at the end. A process that dies stops renewing; whoever takes the lapsed lease marks
what was left ``running`` as failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from optimizer.bandit.spoken import max_window
from optimizer.errors import Conflict, NotFound
from optimizer.service import told
from optimizer.service.ids import fresh
from optimizer.service.pacing import WITHIN
from optimizer.service.served import learned
from optimizer.service.wiring import Services
from optimizer.service.wrongclock import ahead
from storage.errors import StoreError
from storage.policies import RunStatus, TrainingRun
from storage.port import Reader, Writer

#: Fewer matured rows than this teach nothing that a gate could confirm.
LEAST_ROWS = 200
#: Rows of fewer people than this can't be split into parts of which each is judged by a model that knows none of its
#: people: a campaign that only its makers have tried.
LEAST_RECIPIENTS = 5
#: How long a lease holds without being renewed: what a killed scheduler delays the next run by, at most.
LEASE = timedelta(seconds=20)
#: A retrain goes before refreshes, but for those that have waited for longer than it by this.
_HEAD_START = timedelta(hours=1)
#: What a run is before it is over.
_GOING: tuple[RunStatus, ...] = ("queued", "running")
_INTERRUPTED = "interrupted: the process that ran it ended without a word"


@dataclass(frozen=True)
class Ended:
    """How a run ended, with the verdict on each campaign."""

    status: Literal["published", "rejected", "skipped", "failed"]
    verdicts: Sequence[dict[str, Any]] = ()
    error: str | None = None

    @property
    def verdict(self) -> dict[str, Any]:
        """The verdicts as the run's row keeps them."""
        return {"campaigns": list(self.verdicts)}


def lease_name(workspace_id: str) -> str:
    """The lease that training of this workspace holds."""
    return f"training/{workspace_id}"


def enqueue_due(
    services: Services, workspace_id: str, kind: Literal["retrain", "refresh"], every: timedelta
) -> TrainingRun | None:
    """Queues the scheduled run of a workspace if the last of its kind began at least ``every`` ago and none waits.

    Any number of schedulers may ask; the transaction lets one of them queue it.
    """
    now = services.clock()

    def work(writer: Writer) -> TrainingRun | None:
        if not _is_due(writer, workspace_id, kind, now, every):
            return None
        run = TrainingRun(workspace_id, fresh("run"), kind, "queued", now)
        writer.put_training_run(run)
        return run

    with services.store.read() as reader:
        if not _is_due(reader, workspace_id, kind, now, every):
            return None
    return services.store.write(work)


def refresh_pays(services: Services, workspace_id: str) -> bool:
    """Whether a refresh may find anything new: a learned policy is served, and outcomes may have arrived or matured.

    Cheap and generous: it looks only for a decision young enough to have been open since the last refresh began, or so
    shortly before that what became known of it may have waited for more; or for a policy that has been put into service
    since, as a candidate, which hasn't learned what it was judged on.
    """
    with services.store.read() as reader:
        served = learned(reader, workspace_id)
        campaigns = [c for one in served if (c := reader.campaign(workspace_id, one.campaign_id)) is not None]
        if not campaigns:
            return False
        last = _last(reader, workspace_id, "refresh", services.clock())
        if last is not None and any(one.moved_at >= last.created_at for one in served):
            return True
        if last is not None and _was_open(last):
            return True
        reach = timedelta(hours=max(max_window(c) + c.default_window_hours for c in campaigns)) + WITHIN
        since = last.created_at - reach if last is not None else None
        return next(iter(reader.feedback(workspace_id, since=since, imported=False)), None) is not None


def _was_open(last: TrainingRun) -> bool:
    """Whether a run left decisions whose outcomes could still come: of a window that the request named, say, which may
    be longer than a campaign's own."""
    looks = (one.get("drift") for one in last.verdict.get("campaigns", ()))
    return any(one["since"] + told.LATE_COMMIT < last.created_at.timestamp() for one in looks if one)


def _is_due(reader: Reader, workspace_id: str, kind: str, now: datetime, every: timedelta) -> bool:
    workspace = reader.workspace(workspace_id)
    if workspace is None:
        return False
    made = workspace.created_at
    if made > now - every and not ahead(f"workspace {workspace_id!r}", made, now):
        return False
    last = _last(reader, workspace_id, kind, now)
    return last is None or (last.status not in _GOING and last.created_at <= now - every)


def _last(reader: Reader, workspace_id: str, kind: str, now: datetime) -> TrainingRun | None:
    """The newest run of a kind for all campaigns. One that is over counts only if the clock was right when it began."""
    for run in told.runs(reader, workspace_id, kind=kind):
        if run.campaign_id is None and (run.status in _GOING or not told.dated_ahead(run, now)):
            return run
    return None


def start_next(services: Services, holder: str) -> TrainingRun | None:
    """Claims the queued run whose turn it is, of the workspaces that nobody trains now; it is ``running`` from here on.

    No workspace waits for another's next run: that is queued later.
    """
    now = services.clock()
    with services.store.read() as reader:
        waiting = [r for w in reader.workspaces() for r in told.runs(reader, w.workspace_id, "queued")]
    for workspace_id in dict.fromkeys(run.workspace_id for run in sorted(waiting, key=partial(_turn, now))):
        run = start(services, workspace_id, holder)
        if run is not None:
            return run
    return None


def _turn(now: datetime, run: TrainingRun) -> tuple[bool, datetime, str, str]:
    """What queued runs are sorted by: who has waited longest goes first, a retrain with a head start. Of one that is
    dated ahead nobody knows how long it has waited."""
    head_start = _HEAD_START if run.kind == "retrain" else timedelta(0)
    return not told.dated_ahead(run, now), run.created_at - head_start, run.workspace_id, run.run_id


def _has(reader: Reader, workspace_id: str, status: RunStatus) -> bool:
    return bool(reader.training_runs(workspace_id, limit=1, status=status).items)


def start(services: Services, workspace_id: str, holder: str, run_id: str | None = None) -> TrainingRun | None:
    """Claims a queued run (``run_id`` None: the one whose turn it is) and the workspace's lease.

    None when somebody else trains this workspace, or nothing waits.
    """
    now = services.clock()

    def work(writer: Writer) -> TrainingRun | None:
        if not writer.take_lease(lease_name(workspace_id), holder, now, now + LEASE):
            return None
        _fail_running(writer, workspace_id, now)
        queued = [r for r in told.runs(writer, workspace_id, "queued") if run_id in (None, r.run_id)]
        if not queued:
            writer.drop_lease(lease_name(workspace_id), holder)
            return None
        run = min(queued, key=partial(_turn, now))
        running = replace(run, status="running", started_at=now)
        writer.put_training_run(running)
        return running

    return services.store.write(work)


def start_now(
    services: Services,
    workspace_id: str,
    campaign_id: str | None,
    holder: str,
    trigger: str,
    kind: Literal["retrain", "refresh"] = "retrain",
) -> TrainingRun:
    """Starts a run without queueing it.

    Raises:
        Conflict: another run of this workspace goes on.
        NotFound: no such campaign.
    """
    now = services.clock()
    run = TrainingRun(
        workspace_id, fresh("run"), kind, "running", now, campaign_id=campaign_id, started_at=now, trigger=trigger
    )

    def work(writer: Writer) -> TrainingRun:
        if campaign_id is not None and writer.campaign(workspace_id, campaign_id) is None:
            raise NotFound(f"no campaign {campaign_id!r} in this workspace")
        if not writer.take_lease(lease_name(workspace_id), holder, now, now + LEASE):
            raise Conflict("another training run of this workspace goes on; try again when it is over", code="training")
        _fail_running(writer, workspace_id, now)
        writer.put_training_run(run)
        return run

    return services.store.write(work)


def renew(services: Services, workspace_id: str, holder: str) -> bool:
    """Keeps the lease for another ``LEASE``; False when it was lost to somebody else."""
    now = services.clock()
    return services.store.write(lambda writer: writer.take_lease(lease_name(workspace_id), holder, now, now + LEASE))


def finish(services: Services, run: TrainingRun, holder: str, ended: Ended) -> bool:
    """Writes a run's end and gives the lease back; False where the run has ended already: the lease was lost."""
    now = services.clock()

    def work(writer: Writer) -> bool:
        stored = writer.training_run(run.workspace_id, run.run_id) or run
        going = stored.status in _GOING
        if going:
            writer.put_training_run(
                replace(stored, status=ended.status, finished_at=now, verdict=ended.verdict, error=ended.error)
            )
        writer.drop_lease(lease_name(run.workspace_id), holder)
        return going

    return services.store.write(work)


@contextmanager
def kept(services: Services, run: TrainingRun, holder: str) -> Iterator[Callable[[Ended], None]]:
    """Keeps a run's lease alive from a thread; writes the end that the yielded function is given, or the error.

    Raises:
        Conflict: the lease was lost, and whoever took it has ended the run; its end is not the given one.
    """
    over = threading.Event()

    def keep() -> None:
        while not over.wait(LEASE.total_seconds() / 3):
            with suppress(StoreError):  # tried again at the next turn, long before the lease lapses
                if not renew(services, run.workspace_id, holder):
                    return

    ends: list[Ended] = []
    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield ends.append
    except BaseException as error:
        ends.append(Ended("failed", error=f"{type(error).__name__}: {error}"))
        raise
    finally:
        over.set()
        thread.join()
        ours = finish(services, run, holder, ends[-1] if ends else Ended("failed", error="ended without a word"))
    if not ours:
        raise Conflict(
            f"training run {run.run_id} stood still for so long that it was taken for dead; "
            "what it has published by then stays",
            code="training",
        )


def sweep(services: Services, holder: str) -> int:
    """Marks runs as failed that a dead process left ``running``; returns how many workspaces had one."""
    with services.store.read() as reader:
        suspects = [w.workspace_id for w in reader.workspaces() if _has(reader, w.workspace_id, "running")]
    return sum(_sweep_one(services, workspace_id, holder) for workspace_id in suspects)


def _sweep_one(services: Services, workspace_id: str, holder: str) -> bool:
    now = services.clock()

    def work(writer: Writer) -> bool:
        if not writer.take_lease(lease_name(workspace_id), holder, now, now + LEASE):
            return False
        _fail_running(writer, workspace_id, now)
        writer.drop_lease(lease_name(workspace_id), holder)
        return True

    return services.store.write(work)


def _fail_running(writer: Writer, workspace_id: str, now: datetime) -> None:
    """Whoever holds the lease and calls this runs nothing yet: all that is ``running`` is dead."""
    for run in list(told.runs(writer, workspace_id, "running")):
        writer.put_training_run(replace(run, status="failed", finished_at=now, error=_INTERRUPTED))
