"""The rows that a later candidate is judged on: the newest of the log, which it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import numpy as np

from optimizer.bandit.evidence import GateLimits
from optimizer.service.feedback import Logged, judgeable
from optimizer.service.ids import COLD_POLICY
from optimizer.service.judging import rewarded
from optimizer.service.runs import LEAST_ROWS
from storage.log import Decision
from storage.records import Baseline, Campaign, ColdStart

#: The share of the log, newest last, that a later candidate is not trained on: it is judged there.
HELD_OUT: Final = 0.3
#: The newest held-out rows that are replayed at most, which bounds the time: enough where one in 66 brought something.
MOST_JUDGED: Final = 20_000
#: Where fewer did, as many more rows as make so many of those that did, since the gate asks for effective ones; but at
#: most ``LONGEST_JUDGED``, which is enough for one in 333.
_REWARDED: Final = 3.0 * GateLimits().min_rewarded_rows
LONGEST_JUDGED: Final = 100_000


def held_out(
    logged: Sequence[Logged],
    campaign: Campaign,
    *,
    cold: bool,
    changed: float | None,
    made_under: Callable[[Decision], Campaign],
) -> list[Logged]:
    """The rows to judge on.

    Args:
        logged: the campaign's, by time of decision.
        campaign: as it is now.
        cold: whether the cold start serves, around a baseline.
        changed: when outcomes last changed, as epoch seconds.
        made_under: a decision's campaign as it was then.
    """
    rows = comparable(judgeable(logged, campaign), cold=cold)
    if cold:
        # Around another baseline the one of now was hardly ever drawn: such a row weighs far too much.
        rows = [r for r in rows if _beginning(made_under(r.decision)) == _beginning(campaign)]
    evaluable = since_change(rows, changed)
    newest = evaluable[int(len(evaluable) * (1 - HELD_OUT)) :]
    return newest[-max(MOST_JUDGED, min(_for_rewards(newest, campaign), LONGEST_JUDGED)) :]


def place(row: Logged) -> tuple[datetime, str]:
    """Where a row stands in the log. Decisions of one batch have one time, and are in order of their ids: at random."""
    return row.decision.decided_at, row.decision.decision_id


def _for_rewards(rows: Sequence[Logged], campaign: Campaign) -> int:
    """How many rows hold enough rewarded ones, at the rate of these."""
    count = int(np.count_nonzero(rewarded(campaign, rows)))
    return math.ceil(_REWARDED * len(rows) / count) if count else 0


def comparable(rows: Sequence[Logged], *, cold: bool) -> list[Logged]:
    """The rows that a candidate and the incumbent are compared on: those that what serves now was asked for, or its
    like; ``cold``: the cold start.

    Rows that others drew would give the incumbent importance weights far over the gate's limit, in any large action
    space, and block every step: those of uniform choices (the random group's, a cold start's that explores) where it is
    sharp, those of learned policies where the cold start is, which keeps to one action. So they are left out, by policy
    and by group, never by the action drawn: that keeps every estimate unbiased.
    """
    treated = [r for r in rows if r.evaluable and r.decision.group == "treated"]
    return [r for r in treated if (r.decision.policy_id == COLD_POLICY) == cold]


def _beginning(campaign: Campaign) -> tuple[ColdStart, Baseline | None]:
    return campaign.cold_start, campaign.baseline


def since_change(rows: Sequence[Logged], changed: float | None) -> list[Logged]:
    """The rows that are still true: those from after the last change of outcomes, once they are enough to be split."""
    newer = [] if changed is None else [r for r in rows if r.decision.decided_at.timestamp() >= changed]
    return newer if len(newer) * HELD_OUT >= LEAST_ROWS else list(rows)
