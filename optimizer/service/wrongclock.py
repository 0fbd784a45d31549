"""Stored times that lie ahead of the clock: they were written while it, or another host's, was wrong.

Whoever goes by what was done last would wait for that date, for years maybe. So it counts as of long ago.
"""

from __future__ import annotations

import logging
from datetime import date, datetime
from functools import lru_cache

from optimizer.bandit.rewards import CLOCK_SKEW

log = logging.getLogger("sendtide.clock")


def ahead(what: str, at: datetime, now: datetime) -> bool:
    """Whether a stored time lies farther ahead than hosts' clocks differ; the log tells it once a process and date.

    Args:
        what: whose time it is, for the log.
        at: that time. now: the clock's.
    """
    if at <= now + CLOCK_SKEW:
        return False
    _tell(what, at.date())
    return True


@lru_cache(maxsize=1000)
def _tell(what: str, dated: date) -> None:
    log.warning("%s is dated ahead of the clock; nothing waits for that date", what, extra={"dated": dated.isoformat()})
