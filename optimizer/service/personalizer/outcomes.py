"""What a logged answer earned, by the loop's rules: wait time, activation, aggregation, default reward.

An event counts if it is active before the wait is over (Azure's documentation of deferred activation). Rewards that
come within the wait are aggregated; later ones are kept and not learned from. With ``earliest`` the first reward
settles an event at once; with any other aggregation it is settled when the wait is over.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from optimizer.service.personalizer.loop import Aggregation, Loop
from optimizer.service.wrongclock import ahead
from storage.ranks import RankRow

_AGGREGATE: Mapping[Aggregation, Callable[[Sequence[float]], float]] = {
    "earliest": lambda values: values[0],
    "average": statistics.fmean,
    "median": statistics.median,
    "sum": sum,
    "min": min,
    "max": max,
}


def settled(row: RankRow, loop: Loop, now: datetime) -> tuple[float, ...] | None:
    """The reward of each slot, in order; empty for an event that never counts; None while it is open."""
    rank = row.rank
    due = rank.ranked_at + loop.reward_wait
    over = now >= due or ahead("an answer of a loop", rank.ranked_at, now)
    if rank.active_at is None or rank.active_at > due:
        return () if over or rank.active_at is not None else None
    timely: dict[str, list[float]] = {}
    for reward in row.rewards:
        if reward.at <= due:
            timely.setdefault(reward.slot_id, []).append(reward.value)
    if not over and (loop.aggregation != "earliest" or any(slot.slot_id not in timely for slot in rank.slots)):
        return None
    aggregate = _AGGREGATE[loop.aggregation]
    return tuple(
        aggregate(timely[slot.slot_id]) if slot.slot_id in timely else loop.default_reward for slot in rank.slots
    )
