"""Whether one training at a time went on over all hosts: by the processes that were seen, and by what the runs tell."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import psutil

from simulations.drills.scene import WORKSPACE
from storage.policies import TrainingRun

#: Between looks at the processes.
_LOOK_SECONDS = 0.1


class Watch:
    """Looks at the hosts' processes until the block ends."""

    def __init__(self, hosts: Sequence[psutil.Process]) -> None:
        self._hosts = hosts
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="trainers", daemon=True)
        #: The most training processes of the workspace that were alive at a time.
        self.most = 0
        #: All of them that were seen.
        self.seen: set[int] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            alive = {child.pid for host in self._hosts for child in host.children(recursive=True) if _trains(child)}
            self.most = max(self.most, len(alive))
            self.seen |= alive


def _trains(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
        return process.status() != psutil.STATUS_ZOMBIE and "train-job" in words and WORKSPACE in words
    except psutil.NoSuchProcess:
        return False


def overlapping(runs: Sequence[TrainingRun]) -> list[str]:
    """Runs, by id, that began before one that had begun earlier was over."""
    begun = sorted((run for run in runs if run.started_at is not None), key=_began)
    return [
        later.run_id
        for earlier, later in pairwise(begun)
        if earlier.finished_at is None or earlier.finished_at > _began(later)
    ]


def _began(run: TrainingRun) -> datetime:
    if run.started_at is None:
        raise ValueError(f"run {run.run_id} has not begun")
    return run.started_at
