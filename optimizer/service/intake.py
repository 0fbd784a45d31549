"""Counts what becomes of reported events, by day and by who reported, so that the console can tell what comes in.

Counts are added up in memory and stored some seconds later, all at once: whoever reports waits for nothing, and
deliveries that are not signed, which anybody can send, cost no write each. A process that is killed loses
the last seconds.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from optimizer.service.requests import IngestReport
from storage.errors import StoreError
from storage.intake import Intake
from storage.port import Store, Writer

log = logging.getLogger("sendtide.intake")

#: How long a count waits to be stored.
FLUSH_SECONDS: Final = 5.0
#: How long counts are kept.
KEPT: Final = timedelta(days=90)

_Key = tuple[str, date, str, str]


@dataclass
class Tally:
    """The counts of one process that are not stored yet. Safe between threads."""

    store: Store
    clock: Callable[[], datetime]
    _waiting: Counter[_Key] = field(default_factory=Counter)
    _timer: threading.Timer | None = None
    _gate: threading.Lock = field(default_factory=threading.Lock)
    _forgot: date | None = None

    def report(self, workspace_id: str, source: str, report: IngestReport, unknown: int = 0) -> None:
        """Counts an envelope; ``unknown`` of its events have a type that nobody here knows."""
        results: Counter[str] = Counter(f"rejected.{one.code}" for one in report.rejected)
        results["matched"] = report.accepted - report.unmatched
        results["unmatched"] = report.unmatched
        results["duplicate"] = report.duplicates
        results["unknown_type"] = unknown
        self.count(workspace_id, source, results)

    def count(self, workspace_id: str, source: str, results: Mapping[str, int]) -> None:
        """Adds to today's counts."""
        today = self.clock().date()
        with self._gate:
            for result, count in results.items():
                if count:
                    self._waiting[workspace_id, today, source, result] += count
            if self._waiting and self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Stores what waits; what can't be stored now waits on for the next count."""
        with self._gate:
            waiting, self._waiting, self._timer = self._waiting, Counter(), None
        if not waiting:
            return
        added = [Intake(*key, count) for key, count in waiting.items()]
        today = max(one.day for one in added)
        forgets = self._forgot != today

        def work(writer: Writer) -> None:
            writer.count_intake(added)
            if forgets:
                writer.drop_intake(today - KEPT)

        try:
            self.store.write(work)
            self._forgot = today
        except StoreError as fault:
            log.warning("counts of events could not be stored yet: %s", fault)
            with self._gate:
                self._waiting.update(waiting)

    def stop(self) -> None:
        """Stores what waits, and lets the timer do nothing more."""
        with self._gate:
            if self._timer is not None:
                self._timer.cancel()
        self.flush()
