"""Counts failed sign-ins by address, in this process: so that whoever guesses is told to wait.

Keys carry 256 random bits, so no limit is needed against guessing them. A right key is never refused for the wrong ones
before it: many people may have one address, that of their proxy.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

#: Failures of one address within the window before it is told to wait.
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
        """How long this address is told to wait before it tries again; 0 = not at all."""
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
