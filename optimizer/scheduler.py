"""The scheduler process: refreshes, retrains, prices what is scarce, expires reservations, pushes, forgets old rows.

APScheduler triggers what is short (queue a due run, price, expire, retain, look what is to be pushed) on its threads.
Webhooks have threads of their own, since a receiver may be slow. Training is long and greedy, so it runs in a child
process with low priority and a memory limit; the main thread starts it, keeps its lease alive, reads its end and
answers signals. Any number of schedulers may run: leases and transactions keep them out of each other's way.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import IO, Any

import orjson
from apscheduler.schedulers.background import BackgroundScheduler

from optimizer.config import Settings
from optimizer.guarded import guarded
from optimizer.pusher import Pusher
from optimizer.service import cleaning, pricing, runs, upkeep
from optimizer.service.apart import Apart
from optimizer.service.gains import Memory
from optimizer.service.ids import fresh
from optimizer.service.personalizer import evaluating, importances
from optimizer.service.personalizer.learning import LoopLearner
from optimizer.service.runs import Ended
from optimizer.service.wiring import Services
from optimizer.wallclock import WallClock
from storage.policies import TrainingRun

log = logging.getLogger("sendtide.scheduler")

#: Seconds between looks at the training child, the queue, the parent and the signals.
TICK_SECONDS = 0.25
#: Seconds between looks for queued runs and for runs left behind by dead processes.
QUEUE_SECONDS = 1.0
#: Seconds that a training child gets to end by itself when it is told to stop.
STOP_SECONDS = 2.0
#: The part of its time that this process spends on prices at most.
PRICING_SHARE = 0.1
#: Seconds between looks for what Personalizer loops have to learn from or were asked to work out.
LOOP_SECONDS = 5.0
#: Seconds between looks for erasures that could not clean the archive at once.
CLEAN_SECONDS = 60.0
_EXPIRE_ROWS = 1000
_FIRST_RETENTION = timedelta(minutes=10)
_ERROR_BYTES = 2000


@dataclass
class Child:
    """A training process with the run it works on. Its answer is what it writes to ``out``."""

    run: TrainingRun
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]
    renewed_at: float


def train_command(run: TrainingRun) -> Sequence[str]:
    """The command that carries out a claimed run as a child of this process."""
    arguments = ("--run", run.run_id, "--workspace", run.workspace_id, "--parent", str(os.getpid()))
    return (sys.executable, "-P", "-m", "optimizer.cli", "train-job", *arguments)


@dataclass
class Trainer:
    """Runs queued training runs, one child at a time."""

    services: Services
    holder: str
    command: Callable[[TrainingRun], Sequence[str]] = train_command
    child: Child | None = None
    looked_at: float = field(default=-1e9)

    def tick(self) -> None:
        """Takes care of the child, or looks for work; returns at once."""
        if self.child is not None:
            self._watch(self.child)
        elif time.monotonic() - self.looked_at >= QUEUE_SECONDS:
            self.looked_at = time.monotonic()
            runs.sweep(self.services, self.holder)
            run = runs.start_next(self.services, self.holder)
            if run is not None:
                self.child = self._spawn(run)

    def _spawn(self, run: TrainingRun) -> Child:
        log.info("training starts", extra={"run": run.run_id, "workspace": run.workspace_id, "kind": run.kind})
        out, err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  they live as long as the child
        # The command is ours; the ids in it are arguments, never parsed by a shell.
        env = self.services.settings.training_environment(os.environ)
        process = subprocess.Popen(self.command(run), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env)  # noqa: S603
        return Child(run, process, out, err, time.monotonic())

    def _watch(self, child: Child) -> None:
        if child.process.poll() is not None:
            self._settle(child)
        elif time.monotonic() - child.renewed_at > runs.LEASE.total_seconds() / 3:
            if not runs.renew(self.services, child.run.workspace_id, self.holder):
                log.error("lease lost; the training is stopped", extra={"run": child.run.run_id})
                self.stop("the lease was lost")
                return
            child.renewed_at = time.monotonic()

    def _settle(self, child: Child) -> None:
        """Writes the run's end as the child told it, or as it can be seen from outside, and forgets the child."""
        try:
            child.out.seek(0)
            ended = Ended(**orjson.loads(child.out.read()))
        except (orjson.JSONDecodeError, TypeError):
            ended = Ended("failed", error=f"{_how_it_ended(child.process.returncode)}: {_tail(child.err)}")
        # While the store is away this raises, and the next tick tries again: the run's end must not be told otherwise.
        runs.finish(self.services, child.run, self.holder, ended)
        run, output = child.run, _tail(child.err)
        told = {"run": run.run_id, "workspace": run.workspace_id, "kind": run.kind, "status": ended.status}
        told |= {"output": output, **({} if ended.error is None else {"error": ended.error})}
        log.log(logging.ERROR if ended.status == "failed" else logging.INFO, "training ends", extra=told)
        self._close(child)

    def stop(self, why: str) -> None:
        """Ends the child, if there is one; its run has failed."""
        child = self.child
        if child is None:
            return
        child.process.terminate()
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        self._close(child)
        runs.finish(self.services, child.run, self.holder, Ended("failed", error=f"stopped: {why}"))

    def _close(self, child: Child) -> None:
        child.out.close()
        child.err.close()
        self.child = None


def _how_it_ended(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _ERROR_BYTES))
    return file.read().decode("utf-8", "replace").strip() or "nothing on standard error"


@dataclass
class Scheduler:
    """All that the scheduler process does, until it is told to stop."""

    services: Services
    parent: int | None = None
    stopping: bool = False
    pricing_memory: Memory = field(default_factory=Memory)
    price_after: float = field(default=-1e9)
    learner: LoopLearner = field(default_factory=LoopLearner)
    #: Who reads the whole log and who rewrites its files take turns: a file that is rewritten ends its readers.
    whole_log: threading.Lock = field(default_factory=threading.Lock)
    pusher: Pusher = field(init=False)

    def __post_init__(self) -> None:
        self.pusher = Pusher(self.services, holder=fresh("pusher"))

    def run(self) -> None:
        """Runs until SIGTERM, SIGINT or the death of ``parent`` (the process id of who started it)."""
        settings = self.services.settings
        trainer = Trainer(self.services, holder=fresh("scheduler"))
        jobs, clock = self._jobs(settings), WallClock()
        with self._signals():
            jobs.start()
            log.info("scheduler runs", extra={"retrain_minutes": settings.retrain_minutes})
            try:
                while not self.stopping and self._parent_lives():
                    clock.follow(jobs)
                    if not guarded("training", trainer.tick):
                        guarded("training", lambda: trainer.stop("an error of the scheduler, see its log"))
                    # Not an Event: setting one from a signal handler can deadlock with the wait it interrupts.
                    time.sleep(TICK_SECONDS)
            finally:
                jobs.shutdown(wait=False)
                self.pusher.stopping = True
                guarded("stop", lambda: trainer.stop("the scheduler was told to stop"))
                log.info("scheduler stops")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: Any) -> None:  # noqa: ARG001  what the signal module calls
            self.stopping = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _parent_lives(self) -> bool:
        return self.parent is None or os.getppid() == self.parent

    def _jobs(self, settings: Settings) -> BackgroundScheduler:
        # misfire_grace_time None: a late job is still run (the default drops it after a second).
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        jobs = BackgroundScheduler(daemon=True, timezone="UTC", job_defaults=defaults)
        look = min(60.0, settings.retrain_minutes * 60 / 4)
        jobs.add_job(self._queue_retrain, "interval", seconds=look, id="retrain")
        jobs.add_job(self._queue_refresh, "interval", seconds=settings.refresh_seconds, id="refresh")
        jobs.add_job(self._reprice, "interval", seconds=settings.refresh_seconds, id="prices")
        jobs.add_job(self._expire, "interval", seconds=settings.expire_seconds, id="expire")
        push = partial(self._each_workspace, "push", self.pusher.look)
        jobs.add_job(push, "interval", seconds=settings.push_seconds, id="push")
        jobs.add_job(self._learn_loops, "interval", seconds=LOOP_SECONDS, id="loops")
        jobs.add_job(self._work_for_loops, "interval", seconds=LOOP_SECONDS, id="loop-jobs")
        jobs.add_job(self._clean, "interval", seconds=CLEAN_SECONDS, id="clean")
        first = self.services.clock() + _FIRST_RETENTION
        jobs.add_job(self._retain, "interval", days=1, next_run_time=first, id="retain")
        jobs.add_job(self._keep_columns, "interval", hours=1, next_run_time=first, id="reports")
        return jobs

    def _queue_retrain(self) -> None:
        every = timedelta(minutes=self.services.settings.retrain_minutes)
        self._each_workspace("retrain", lambda w: runs.enqueue_due(self.services, w, "retrain", every))

    def _queue_refresh(self) -> None:
        every = timedelta(seconds=self.services.settings.refresh_seconds)
        self._each_workspace(
            "refresh",
            lambda w: runs.refresh_pays(self.services, w) and runs.enqueue_due(self.services, w, "refresh", every),
        )

    def _reprice(self) -> None:
        """Prices follow what is left, whether or not a refresh finds new outcomes; a long log makes them rarer."""
        began = time.monotonic()
        if began < self.price_after:
            return
        self._each_workspace(
            "prices", lambda w: pricing.reprice(self.services, w, memory=self.pricing_memory, apart=Apart(w))
        )
        ended = time.monotonic()
        self.price_after = ended + (ended - began) / PRICING_SHARE

    def _expire(self) -> None:
        def all_due(workspace_id: str) -> None:
            while upkeep.expire(self.services, workspace_id, _EXPIRE_ROWS) and not self.stopping:
                continue

        self._each_workspace("expire", all_due)

    def _learn_loops(self) -> None:
        self._each_workspace("loops", lambda w: self.learner.refresh(self.services, w, due_only=True))

    def _work_for_loops(self) -> None:
        """Evaluations and feature importances: on a thread of their own, since they may take minutes."""
        for name, job in (
            ("auto optimization", evaluating.queue_due),
            ("evaluations", evaluating.run_waiting),
            ("feature importances", importances.run_waiting),
        ):
            self._each_workspace(name, partial(job, self.services))

    def _retain(self) -> None:
        with self.whole_log:
            self._each_workspace("retain", lambda workspace_id: upkeep.retain(self.services, workspace_id))

    def _clean(self) -> None:
        if self.whole_log.acquire(blocking=False):  # else the next minute's turn: this thread may be needed
            try:
                self._each_workspace("cleaning", partial(cleaning.clean_wanted, self.services))
            finally:
                self.whole_log.release()

    def _keep_columns(self) -> None:
        with self.whole_log:
            self._each_workspace("reports", partial(upkeep.keep_columns, self.services))

    def _each_workspace(self, name: str, job: Callable[[str], object]) -> None:
        """Does a job in every workspace; one that fails spoils no other."""

        def everywhere() -> None:
            with self.services.store.read() as reader:
                workspaces = reader.workspaces()
            for workspace in workspaces:
                if not self.stopping:
                    guarded(name, partial(job, workspace.workspace_id), workspace.workspace_id)

        guarded(name, everywhere)
