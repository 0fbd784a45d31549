"""The trainer and its child: a run always ends in its row, whatever becomes of the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import time_machine
from apscheduler.schedulers.background import BackgroundScheduler

from optimizer import logs
from optimizer.config import Settings
from optimizer.scheduler import Scheduler, Trainer
from optimizer.service import runs, setup
from optimizer.service.learning import queue_training
from optimizer.service.wiring import Services
from optimizer.wallclock import WallClock
from storage.errors import StoreUnavailable
from storage.policies import TrainingRun
from storage.records import Campaign
from tests.cli.conftest import Sendtide
from tests.cli.test_serve import until

Start = Callable[[str], Trainer]


@pytest.fixture
def queued(services: Services) -> TrainingRun:
    setup.ensure_workspace(services, "default")
    return queue_training(services, "default", None)


@pytest.fixture
def start(services: Services, queued: TrainingRun) -> Iterator[Start]:
    """Starts a trainer whose child is a line of Python; ends the child after the test."""
    made: list[Trainer] = []

    def begin(code: str) -> Trainer:
        made.append(Trainer(services, "me", lambda run: (sys.executable, "-c", code.replace("RUN", run.run_id))))
        made[-1].tick()
        assert made[-1].child is not None
        return made[-1]

    yield begin
    for trainer in made:
        if trainer.child is not None:
            trainer.child.process.kill()
            trainer.child.process.wait()
            trainer._close(trainer.child)


def stored(services: Services, run: TrainingRun) -> TrainingRun:
    with services.store.read() as reader:
        found = reader.training_run(run.workspace_id, run.run_id)
    assert found is not None
    return found


def ended(trainer: Trainer) -> bool:
    trainer.tick()
    return trainer.child is None


def test_a_childs_answer_becomes_the_runs_end(services: Services, queued: TrainingRun, start: Start) -> None:
    answer = '{"status": "published", "verdicts": [{"campaign_id": "RUN"}], "error": null}'
    trainer = start(f"print('''{answer}''')")
    assert stored(services, queued).status == "running"
    until("the end", lambda: ended(trainer))
    run = stored(services, queued)
    assert (run.status, run.verdict, run.error) == ("published", {"campaigns": [{"campaign_id": queued.run_id}]}, None)
    assert run.finished_at is not None


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise SystemExit('out of ideas')", "ended with code 1: out of ideas"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9: nothing on standard error"),
        ("print('nonsense')", "ended with code 0: nothing on standard error"),
    ],
)
def test_a_child_that_dies_fails_its_run_with_its_last_words(
    services: Services, queued: TrainingRun, start: Start, code: str, error: str
) -> None:
    trainer = start(code)
    until("the end", lambda: ended(trainer))
    assert (stored(services, queued).status, stored(services, queued).error) == ("failed", error)
    assert runs.start_now(services, "default", None, "other", "cli").status == "running"  # the lease is free


def test_an_end_that_the_store_could_not_take_is_told_once_it_can(
    services: Services, queued: TrainingRun, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start("""print('{"status": "published"}')""")
    assert trainer.child is not None
    trainer.child.process.wait()

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as gone:
        gone.setattr(services.store, "write", away)
        with pytest.raises(StoreUnavailable):
            trainer.tick()
    assert ended(trainer)
    assert (stored(services, queued).status, stored(services, queued).error) == ("published", None)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_stopped_trainer_ends_its_child_and_says_so(
    services: Services, queued: TrainingRun, start: Start, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.scheduler.STOP_SECONDS", 0.1)
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    trainer = start(f"import signal, time; {deaf}time.sleep(600)")
    assert trainer.child is not None
    process = trainer.child.process
    trainer.stop("the scheduler was told to stop")
    assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    assert (stored(services, queued).status, stored(services, queued).error) == (
        "failed",
        "stopped: the scheduler was told to stop",
    )


def test_a_lease_is_renewed_while_the_child_works_and_its_loss_ends_the_child(
    services: Services, queued: TrainingRun, start: Start
) -> None:
    trainer = start("import time; time.sleep(600)")
    assert trainer.child is not None
    trainer.child.renewed_at -= runs.LEASE.total_seconds()
    trainer.tick()
    assert trainer.child is not None
    later = services.clock() + 2 * runs.LEASE
    services.store.write(lambda w: w.take_lease(runs.lease_name("default"), "rival", later, later + runs.LEASE))
    trainer.child.renewed_at -= runs.LEASE.total_seconds()
    trainer.tick()
    assert trainer.child is None
    assert stored(services, queued).error == "stopped: the lease was lost"


def test_a_training_process_gets_its_memory_and_no_more() -> None:
    code = "from optimizer.cli.train_job import step_back; step_back(256); bytearray({} << 20)"
    for mib, works in ((16, True), (512, False)):
        run = subprocess.run([sys.executable, "-c", code.format(mib)], capture_output=True, text=True, check=False)
        assert (run.returncode == 0) is works, run.stderr
    assert "MemoryError" in run.stderr


def test_a_training_process_ends_with_its_parent(sendtide: Sendtide, queued: TrainingRun) -> None:
    """A parent that is not ours is one that is gone: the child must not outlive it."""
    command = [sys.executable, "-P", "-m", "optimizer.cli", "train-job", "--run", queued.run_id, "--parent", "1"]
    run = subprocess.run([*command, "--database", sendtide.database], capture_output=True, check=False, timeout=60)
    assert run.returncode == 1
    assert run.stdout == b""


def test_a_database_that_is_not_there_is_told_and_none_is_made(
    sendtide: Sendtide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(Scheduler, "run", lambda _: None)
    result = sendtide("schedule")
    assert (result.exit_code, result.stderr) == (1, f"Error: {sendtide.folder}/test.db: no such database\n")
    assert not list(sendtide.folder.iterdir())


def test_the_scheduler_carries_out_a_queued_retrain_and_stops_when_told(
    sendtide: Sendtide, services: Services, spring: Campaign, queued: TrainingRun
) -> None:
    environment = Settings(database=sendtide.database, log_format="text").child_environment(os.environ)
    command = [sys.executable, "-P", "-m", "optimizer.cli", "schedule"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        until("a finished run", lambda: stored(services, queued).finished_at)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=5)
    finally:
        process.kill()
        process.wait()
    run = stored(services, queued)
    assert process.returncode == 0, log
    assert (run.status, run.error) == ("skipped", None)
    assert "matured rows" in run.verdict["campaigns"][0]["reason"]
    assert b"scheduler stops" in log


def test_a_scheduler_stopped_in_the_middle_of_a_training_fails_the_run_within_five_seconds(
    sendtide: Sendtide, services: Services, queued: TrainingRun
) -> None:
    environment = Settings(database=sendtide.database).child_environment(os.environ)
    process = subprocess.Popen([sys.executable, "-P", "-m", "optimizer.cli", "schedule"], env=environment)
    try:
        until("a running run", lambda: stored(services, queued).status == "running")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()
    assert stored(services, replace(queued)).status == "failed"
    assert "stopped" in (stored(services, queued).error or "")


@pytest.mark.parametrize(("seconds", "runs_now"), [(-3600, True), (-6, True), (-4, False), (3600, False)])
def test_a_clock_that_is_set_back_silences_no_job(services: Services, seconds: int, runs_now: bool) -> None:
    with time_machine.travel(datetime(2026, 3, 2, 9, tzinfo=UTC), tick=False) as travel:
        jobs = Scheduler(services)._jobs(services.settings)
        jobs.start(paused=True)
        try:
            due = {job.id: job.next_run_time for job in jobs.get_jobs()}
            clock = WallClock()
            travel.shift(seconds)
            clock.follow(jobs)
            now = datetime.now(UTC)
            assert {job.id: job.next_run_time for job in jobs.get_jobs()} == (
                dict.fromkeys(due, now) if runs_now else due
            )
            assert len(due) > 5
            travel.shift(-1)
            clock.follow(jobs)
            assert {job.next_run_time for job in jobs.get_jobs()} == ({now} if runs_now else set(due.values()))
        finally:
            jobs.shutdown(wait=False)


def test_the_scheduler_looks_at_the_clock_while_it_runs(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, running = Scheduler(services), []

    def follow(_: WallClock, jobs: BackgroundScheduler) -> None:
        running.append(jobs.running)
        scheduler.stopping = True

    monkeypatch.setattr(WallClock, "follow", follow)
    scheduler.run()
    assert running == [True]
