"""The wall clock, as far as the scheduler's jobs hang on it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler

log = logging.getLogger("sendtide.scheduler")

#: A clock that is set back by more than this was not only tuned.
SET_BACK_SECONDS = 5.0


def _ahead() -> float:
    return time.time() - time.monotonic()


@dataclass
class WallClock:
    """Remembers how far the wall clock is ahead of the one that nobody sets."""

    ahead: float = field(default_factory=_ahead)

    def follow(self, jobs: BackgroundScheduler) -> None:
        """Has every job run now if the clock was set back since the last look.

        Jobs are due by the wall clock: they would wait until it is again where it was, be it for hours.
        """
        before, self.ahead = self.ahead, _ahead()
        if before - self.ahead > SET_BACK_SECONDS:
            log.warning("the clock was set back; every job runs now", extra={"seconds": round(before - self.ahead)})
            for job in jobs.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))
