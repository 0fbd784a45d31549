"""The lock between processes: who waits for it is not overtaken."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from storage.errors import StoreUnavailable
from storage.file_lock import FileLock


def somebody_waits(path: Path) -> bool:
    opened = os.open(path.with_suffix(".queue"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False


def test_who_finds_it_free_overtakes_nobody_who_waits(tmp_path: Path) -> None:
    path = tmp_path / "store.db.lock"
    holder, waiting, passing = FileLock(path), FileLock(path), FileLock(path)
    assert holder.acquire_at_once()
    assert not passing.acquire_at_once()
    go_on = threading.Event()

    def wait() -> None:
        waiting.acquire()
        go_on.wait(20)
        waiting.release()

    thread = threading.Thread(target=wait)
    thread.start()
    while not somebody_waits(path):
        os.sched_yield()
    holder.release()
    assert not passing.acquire_at_once(), "it is the waiting one's turn, awake or not"
    go_on.set()
    thread.join(20)
    assert passing.acquire_at_once()
    for lock in (holder, waiting, passing):
        lock.close()


def test_a_start_up_asks_again_and_again_and_gives_up_in_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db.lock"
    holder, starting = FileLock(path), FileLock(path)
    holder.acquire()
    with pytest.raises(StoreUnavailable, match="held by another process"):
        starting.acquire_within(0.01)
    holder.close()
    starting.acquire_within(5.0)
    starting.close()
