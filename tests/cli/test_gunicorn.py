"""How the arbiter looks after the scheduler, and what it makes of the settings; the processes are in ``test_serve``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from optimizer.config import Settings
from optimizer.errors import ConfigError
from optimizer.gunicorn import (
    BACK_OFF,
    GRACEFUL_SECONDS,
    ProblemWorker,
    SchedulerChild,
    ServeApplication,
    prepare_metrics,
)


class Process:
    """Stands for a child process that lives until the test ends it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stubborn = False
        self.killed = False

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        if not self.stubborn:
            self.returncode = 0

    def kill(self) -> None:
        self.killed = True
        self.returncode = -9

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            raise subprocess.TimeoutExpired("scheduler", timeout or 0)
        return self.returncode


class World:
    """A clock and the processes started so far."""

    def __init__(self) -> None:
        self.now = 100.0
        self.started: list[Process] = []
        self.dead: list[int] = []
        self.child = SchedulerChild(self.start, lambda: self.now, on_death=self.dead.append)

    def start(self) -> Any:
        self.started.append(Process(len(self.started)))
        return self.started[-1]

    def die(self) -> None:
        self.started[-1].returncode = -9
        self.child.tend()


@pytest.fixture
def world() -> World:
    made = World()
    made.child.tend()
    return made


def test_one_scheduler_is_started_however_often_it_is_tended(world: World) -> None:
    world.child.tend()
    assert len(world.started) == 1


def test_a_dead_scheduler_comes_back_after_a_wait_that_grows(world: World) -> None:
    for wait in (*BACK_OFF, BACK_OFF[-1]):
        world.die()
        count = len(world.started)
        world.now += wait - 0.01
        world.child.tend()
        assert len(world.started) == count
        world.now += 0.02
        world.child.tend()
        assert len(world.started) == count + 1
    assert world.dead == list(range(len(BACK_OFF) + 1))


def test_a_scheduler_that_lived_long_comes_back_soon(world: World) -> None:
    for _ in range(4):
        world.die()
        world.now += 60
        world.child.tend()
    world.now += 3600
    world.die()
    world.now += BACK_OFF[0]
    world.child.tend()
    assert len(world.started) == 6


def test_a_scheduler_told_to_stop_is_not_started_again(world: World) -> None:
    world.child.terminate()
    world.now += 3600
    world.child.tend()
    world.child.wait(1)
    assert len(world.started) == 1


def test_a_scheduler_that_does_not_stop_is_killed(world: World) -> None:
    world.started[0].stubborn = True
    world.child.terminate()
    world.child.wait(1)
    assert world.started[0].killed


def test_the_settings_are_gunicorns_whatever_its_own_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers 9 --bind 0.0.0.0:1")
    chosen = ServeApplication(Settings(bind="127.0.0.1:9001", workers=3, threads=40)).cfg
    assert (chosen.bind, chosen.workers, chosen.threads) == (["127.0.0.1:9001"], 3, 40)
    assert (chosen.worker_class, chosen.preload_app, chosen.control_socket_disable) == (ProblemWorker, False, True)
    assert chosen.graceful_timeout == GRACEFUL_SECONDS < 10


def test_a_given_metrics_folder_is_emptied_of_metrics_only_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    for name in ("counter_1.db", "gauge_livemostrecent_23.db", "histogram_1.db", "summary_1.db", "notes.txt"):
        (folder / name).touch()
    assert prepare_metrics(str(folder)) == (folder, False)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]


def test_a_metrics_folder_that_holds_a_database_is_refused_and_nothing_is_removed(tmp_path: Path) -> None:
    for name in ("counter_1.db", "sendtide.db"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=rf"--metrics-dir {tmp_path}: sendtide\.db there is no file of metrics"):
        prepare_metrics(str(tmp_path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_1.db", "sendtide.db"]


def test_without_a_metrics_folder_each_start_gets_a_new_one() -> None:
    made = [prepare_metrics(None) for _ in range(2)]
    try:
        assert [ours for _, ours in made] == [True, True]
        assert made[0][0] != made[1][0]
    finally:
        for folder, _ in made:
            folder.rmdir()
