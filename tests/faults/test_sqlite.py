"""SQLite under a real server: the disk is full, or can't be written, or somebody else holds the lock for long."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from storage.sqlite.store import WAIT_SECONDS
from tests.faults.service import Service, assert_refused, callers, serving, until

pytestmark = pytest.mark.drill

_DISK_MIB = 24
_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system of a size of its own")


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A mount on ``folder`` for the length of the block."""
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def service(folder: Path, tmp_path: Path) -> Iterator[Service]:
    with serving(f"sqlite:///{folder}/store.db", tmp_path) as served:
        yield served


def until_refused(service: Service) -> None:
    """Asks for decisions until one is refused; SQLite first uses up what its files have room for."""
    for number in range(20_000):
        if service.decide(f"fill-{number}").status == 503:
            return
    pytest.fail("never refused")


def fill(file: Path) -> None:
    """Takes all room of the file system."""
    with file.open("wb", buffering=0) as filler:
        for size in (2**20, 4096):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


@_root
def test_a_full_disk_refuses_writes_loses_nothing_and_is_well_again_once_there_is_room(
    folder: Path, tmp_path: Path
) -> None:
    with (
        mounted(folder, "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs"),
        serving(f"sqlite:///{folder}/store.db", tmp_path) as service,
    ):
        assert service.decide("first").status == 201
        fill(folder / "filler")
        until_refused(service)
        service.refuses("full")
        with callers(service, 8, most=5) as answers:
            pass
        assert {answer.status for answer in answers} == {503}
        (folder / "filler").unlink()
        service.recovers()
        assert set(service.holds_whole_decisions()) == set(service.acknowledged)


@_root
def test_a_full_disk_that_metrics_lie_on_as_well_ends_no_worker_and_reads_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary folder, in which metrics lie by default, is often on the disk of the database."""
    reads = ("/v1/campaigns", "/v1/rules", "/v1/policies", "/v1/changes", "/v1/recipients/p-first", "/healthz")
    with mounted(folder, "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs"):
        (folder / "tmp").mkdir()
        monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
        with serving(f"sqlite:///{folder}/store.db", tmp_path) as service:
            assert service.decide("first").status == 201
            processes = {child.pid for child in service.main.children()}
            fill(folder / "filler")
            until_refused(service)
            service.refuses("full")
            for path in reads * 5:
                assert service.call("GET", path).status == 200, path
            assert {child.pid for child in service.main.children()} == processes
            for process in service.main.children():
                process.kill()
            until("the new workers answer", lambda: service.call("GET", "/healthz").status == 200)
            for path in reads * 5:
                assert service.call("GET", path).status == 200, path
            (folder / "filler").unlink()
            service.recovers()
    assert not service.broken


def test_files_that_may_not_grow_refuse_writes_and_all_is_well_again_once_they_may(service: Service) -> None:
    """A full disk as anybody can make one: a limit on the size of the files that the processes write."""
    assert service.decide("first").status == 201
    family = [service.main, *service.main.children(recursive=True)]
    limits = {process.pid: process.rlimit(psutil.RLIMIT_FSIZE) for process in family}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (64 * 1024, hard))
    until_refused(service)
    service.refuses("full")
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in ``folder`` can be written by who opens it from now on."""
    if os.geteuid() == 0:  # whom permissions don't stop
        aside = folder.with_name("aside")  # here nobody opens anything before it is read-only
        aside.mkdir()
        with mounted(aside, "--bind", str(folder)):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(aside)], check=True)
            with mounted(folder, "--bind", str(aside)):
                yield
        return
    files = [folder, *folder.iterdir()]
    modes = {file: file.stat().st_mode for file in files}
    for file in files:
        file.chmod(modes[file] & ~0o222)
    yield
    for file in files:
        file.chmod(modes[file])


def test_a_folder_that_turns_read_only_refuses_writes_and_all_is_well_again_once_it_is_not(
    service: Service, folder: Path
) -> None:
    """Files that are open stay so; processes that start meanwhile find what they can't write."""
    assert service.decide("first").status == 201
    with read_only(folder):
        for process in service.main.children():
            process.kill()
        until("the new workers answer", lambda: service.call("GET", "/healthz").status == 200)
        until("both are new", lambda: all(service.call("GET", "/readyz").status == 503 for _ in range(30)))
        service.refuses("refused")
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)


def test_a_database_that_another_program_locks_for_long_refuses_writes_in_time_and_is_read_meanwhile(
    service: Service, folder: Path, lock_seconds: float
) -> None:
    assert service.decide("first").status == 201
    with closing(sqlite3.connect(folder / "store.db", isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        until_free = time.monotonic() + lock_seconds
        with callers(service, 8) as answers:
            while time.monotonic() < until_free:
                assert service.call("GET", "/v1/decisions").status == 200
                assert_refused(service.call("PUT", "/v1/recipients/p-new", {"timezone": "Europe/Berlin"}))
            rival.execute("ROLLBACK")
            until("callers are served again", lambda: answers[-1].status == 201)
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) >= 8
    # One's own wait for its turn, and that of the writer in whose group it is: no more, however long the lock is held.
    assert max(answer.seconds for answer in refused) < 2 * WAIT_SECONDS + 5
    service.recovers()
    assert set(service.holds_whole_decisions()) == set(service.acknowledged)
