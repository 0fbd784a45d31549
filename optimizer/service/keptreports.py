"""Reports that took long to make are kept for a while, so that a page that is opened by many reads the log once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

#: Quicker ones are made anew each time.
_LEAST_SECONDS = 1.0
#: A report is kept for so many times as long as it took, at most ``_LONGEST``.
_TIMES = 20.0
_LONGEST = timedelta(minutes=10)
_MOST = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    report: dict[str, Any]
    until: datetime


@dataclass
class KeptReports:
    """The reports of one process. ``timer`` counts seconds."""

    timer: Callable[[], float] = time.perf_counter
    _kept: dict[Hashable, _Kept] = field(default_factory=dict)
    _making: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _gate: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, now: datetime, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The kept report of a key, or a new one; who asks while it is being made waits for that one."""
        with self._gate:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            kept = self._kept.get(key)
            if kept is not None and now < kept.until:
                return kept.report
            started = self.timer()
            try:
                made = make()
            except BaseException:  # of a campaign that there isn't, say: nothing stays of whatever is asked for
                with self._gate:
                    self._making.pop(key, None)
                raise
            self._keep(key, made, now, self.timer() - started)
            return made

    def _keep(self, key: Hashable, made: dict[str, Any], now: datetime, seconds: float) -> None:
        with self._gate:
            self._kept.pop(key, None)
            if seconds >= _LEAST_SECONDS:
                self._kept[key] = _Kept(made, now + min(timedelta(seconds=_TIMES * seconds), _LONGEST))
            for old in list(self._kept)[:-_MOST]:
                del self._kept[old]
            for name in [name for name, lock in self._making.items() if name not in self._kept and not lock.locked()]:
                del self._making[name]
