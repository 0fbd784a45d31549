"""How much longer until a lift is clear, at the pace of the last week."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from optimizer.bandit.comparison import Comparison
from optimizer.bandit.lift import LEAST_OUTCOMES, Estimate, clear_after

#: Looks over which the pace is taken.
_PACE_DAYS = 7
#: Longer than this is not told as a number of days.
_LONGEST_DAYS = 3_650.0


def power(comparison: Comparison, lift: Estimate, today: int, level: float = 0.95) -> dict[str, Any]:
    """What a comparison, of which this is the lift, could show by now, and when. ``today``: the look of today, at which
    the newest rows may be old.

    Returns:
        ``detectable``: the size of a lift that would be clear by now (null before anything can be stated);
        ``days_until_clear``: at the pace of the last seven days, for a lift of the size seen (0 = it is clear, null =
        not within ten years, or nothing comes in); ``outcomes``: as good as how many recipients of like worth had an
        outcome in each group, and how many are needed before anything is stated.
    """
    arms: list[float] = comparison.outcomes[:, -1].tolist()
    newest = comparison.newest
    clock, week_ago = float(comparison.clock(newest)), float(comparison.clock(min(newest, today - _PACE_DAYS)))
    pace = (clock - week_ago) / min(_PACE_DAYS, today + 1)
    if comparison.start is None:
        short = [LEAST_OUTCOMES / outcomes if outcomes > 0.0 else math.inf for outcomes in arms]
        detectable, factor = None, max(short)
    else:
        detectable = float(lift.high - lift.value)
        begin = float(comparison.clock(comparison.start))
        is_clear = lift.low > 0.0 or lift.high < 0.0
        factor = 1.0 if is_clear else clear_after(lift, clock, begin, level=level)
    days = math.ceil((factor - 1.0) * clock / pace) if pace > 0.0 and np.isfinite(factor) else math.inf
    return {
        "detectable": detectable,
        "days_until_clear": 0 if factor <= 1.0 else days if days <= _LONGEST_DAYS else None,
        "outcomes": {"treated": arms[0], "control": arms[1], "needed": LEAST_OUTCOMES},
    }
