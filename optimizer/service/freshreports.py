"""Reports for those who can't wait: what is there is answered at once, what is too old is made anew behind their back.

One thread a process makes them one after the other, so that many pages that are opened at once are no load. It is
started with the first report that is asked for, and is a daemon: a process that ends waits for no report.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from optimizer.errors import SendtideError
from storage.errors import StoreError

log = logging.getLogger("sendtide.reports")

Make = Callable[[], dict[str, Any]]
#: A report is fresh for so many times as long as it took, at most ``_LONGEST``.
_TIMES: Final = 20.0
_LONGEST: Final = timedelta(minutes=10)
#: How long a caller may be kept waiting for a report that is made quickly.
PATIENCE_SECONDS: Final = 0.25
_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Fresh:
    """What there is of a report: the newest that was made (None = none yet), and whether a newer one is on its way."""

    report: dict[str, Any] | None
    pending: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    report: dict[str, Any]
    until: datetime


@dataclass
class FreshReports:
    """The reports of one process. ``timer`` counts seconds."""

    timer: Callable[[], float] = time.perf_counter
    _kept: dict[Hashable, _Kept] = field(default_factory=dict)
    _waiting: dict[Hashable, threading.Event] = field(default_factory=dict)
    _jobs: queue.SimpleQueue[tuple[Hashable, datetime, Make] | None] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None
    _gate: threading.Lock = field(default_factory=threading.Lock)

    def latest(self, key: Hashable, now: datetime, make: Make, patience: float = PATIENCE_SECONDS) -> Fresh:
        """The report of a key, without waiting longer than ``patience`` seconds.

        Args:
            key: what it is about.
            now: the caller's time; by it a report ages.
            make: makes it, on the thread.
            patience: how long to wait for one that isn't there or is too old.
        """
        with self._gate:
            kept = self._kept.get(key)
            if kept is not None and now < kept.until:
                return Fresh(kept.report, pending=False)
            made = self._waiting.get(key)
            if made is None:
                made = self._waiting[key] = threading.Event()
                self._jobs.put((key, now, make))
                self._start()
        done = made.wait(patience)
        with self._gate:
            kept = self._kept.get(key)
        return Fresh(kept.report if kept is not None else None, pending=not done)

    def stop(self) -> None:
        """Ends the thread after the report that it is making."""
        self._jobs.put(None)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="reports", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            key, now, make = job
            try:
                started = self.timer()
                report = make()
                self._keep(key, report, now, self.timer() - started)
            except (StoreError, SendtideError) as fault:
                log.warning("a report could not be made; the next who asks has it tried again: %s", fault)
            except Exception:
                # A bug in one report must not end the thread that makes all of them.
                log.exception("a report could not be made")
            finally:
                with self._gate:
                    self._waiting.pop(key).set()

    def _keep(self, key: Hashable, report: dict[str, Any], now: datetime, seconds: float) -> None:
        with self._gate:
            self._kept.pop(key, None)
            self._kept[key] = _Kept(report, now + min(timedelta(seconds=_TIMES * seconds), _LONGEST))
            for old in list(self._kept)[:-_MOST]:
                del self._kept[old]
