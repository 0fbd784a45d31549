"""A clock that stands still until it is moved: time in a simulation is an argument, not an observation."""

from __future__ import annotations

from datetime import datetime, timedelta


class SteppingClock:
    """What time it is in a simulation; call it for the time, ``advance`` it to let time pass."""

    def __init__(self, start: datetime) -> None:
        """Starts at ``start``, which must be aware (``ValueError``)."""
        if start.tzinfo is None:
            raise ValueError(f"start: {start.isoformat()} has no offset; allowed: an aware time")
        self._now = start

    def __call__(self) -> datetime:
        """The present time, aware."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves on by ``seconds``, which must not be negative (``ValueError``): time runs forward."""
        if seconds < 0:
            raise ValueError(f"seconds: {seconds:g} is negative; allowed: 0 or more")
        self._now += timedelta(seconds=seconds)
