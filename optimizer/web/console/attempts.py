"""Limits failed sign-ins by address, in this process: so that guessing costs time and the store little.

Keys carry 256 random bits, so no limit is needed against guessing them; it is there so that nobody is kept busy by it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

#: Failures of one address within the window before it has to wait.
MOST: Final = 10
WINDOW: Final = timedelta(minutes=1)
#: Addresses remembered; the oldest are forgotten first.
_ADDRESSES: Final = 10_000


@dataclass
class Attempts:
    """Failed sign-ins of the last minute, by address. Safe between threads."""

    _failed: dict[str, list[datetime]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_seconds(self, address: str, now: datetime) -> int:
        """How long this address has to wait before it may try again; 0 = not at all."""
        with self._lock:
            recent = [at for at in self._failed.get(address, ()) if now - at < WINDOW]
        if len(recent) < MOST:
            return 0
        return max(1, int((recent[-MOST] + WINDOW - now).total_seconds() + 0.999))

    def failed(self, address: str, now: datetime) -> None:
        """Notes a failure."""
        with self._lock:
            recent = [at for at in self._failed.pop(address, []) if now - at < WINDOW]
            self._failed[address] = [*recent, now][-MOST:]
            for oldest in list(self._failed)[:-_ADDRESSES]:
                del self._failed[oldest]
