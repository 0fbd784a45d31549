"""Finds the processes of a running service, kills one, and watches how soon the service answers again."""

from __future__ import annotations

import http.client
import os
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

import psutil

from optimizer.errors import SendtideError

Role = Literal["worker", "scheduler"]

#: Seconds between the probe's calls, and that one of them may take.
PROBE_SECONDS = 0.02
PROBE_TIMEOUT_SECONDS = 5.0
#: Seconds that a killed process's successor may need before the service counts as not recovered.
REPLACED_WITHIN = 60.0


class NotRecoveredError(SendtideError):
    """The service didn't come back after a kill."""

    code = "not_recovered"


@dataclass(frozen=True)
class Kill:
    """One kill: who, when (monotonic), and after how many seconds the service answered and the process was replaced."""

    role: Role
    at: float
    answered_seconds: float = float("nan")
    replaced_seconds: float = float("nan")


def arbiter() -> psutil.Process:
    """The server's main process: our child that started in the drill."""
    for child in psutil.Process(os.getpid()).children():
        if _mentions(child, "optimizer.gunicorn"):
            return child
    raise NotRecoveredError("the server's main process is gone")


def family(main: psutil.Process) -> dict[Role, list[psutil.Process]]:
    """The workers and the scheduler of a server."""
    found: dict[Role, list[psutil.Process]] = {"worker": [], "scheduler": []}
    for child in main.children():
        if _mentions(child, "schedule"):
            found["scheduler"].append(child)
        elif _mentions(child, "gunicorn"):
            found["worker"].append(child)
    return found


def _mentions(process: psutil.Process, word: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and any(word in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def wait_until_whole(main: psutil.Process, workers: int, roles: tuple[Role, ...] = ("worker", "scheduler")) -> float:
    """Waits until every process of the roles is there; returns when that was (monotonic)."""
    wanted: dict[Role, int] = {"worker": workers, "scheduler": 1}
    until = time.monotonic() + REPLACED_WITHIN
    while time.monotonic() < until:
        living = family(main)
        if all(len(living[role]) >= wanted[role] for role in roles):
            return time.monotonic()
        time.sleep(0.02)
    raise NotRecoveredError(f"{' and '.join(roles)} not replaced within {REPLACED_WITHIN:g} s")


class Probe:
    """Asks every few milliseconds, on a new connection each time, for a decision that is not recorded (a preview)."""

    def __init__(self, address: str, secret: str, body: bytes) -> None:
        self._address = address
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        self._body = body
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="probe", daemon=True)
        #: Start and end of every call that was answered with 2xx, in order of their ends.
        self.answered: list[tuple[float, float]] = []

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()
        self._thread.join()

    def seconds_to_answer(self, moment: float) -> float:
        """From ``moment`` to the end of the first answered call that began after it; infinite if there is none."""
        first = bisect_left(self.answered, (moment, moment))
        return self.answered[first][1] - moment if first < len(self.answered) else float("inf")

    def wait_for_answer(self, moment: float) -> None:
        """Waits until a call that began after ``moment`` was answered; gives up after ``REPLACED_WITHIN``."""
        until = time.monotonic() + REPLACED_WITHIN
        while self.seconds_to_answer(moment) == float("inf") and time.monotonic() < until:
            time.sleep(PROBE_SECONDS)

    def _watch(self) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            began = time.monotonic()
            if self._asks():
                self.answered.append((began, time.monotonic()))

    def _asks(self) -> bool:
        connection = http.client.HTTPConnection(self._address, timeout=PROBE_TIMEOUT_SECONDS)
        try:
            connection.request("POST", "/v1/decisions", self._body, self._headers)
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
