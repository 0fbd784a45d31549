"""How fast a policy catches up after something changed: a new variant, tastes that swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.play import Played
from simulations.standings import share_of

Floats = NDArray[np.float64]

#: Decisions in the moving window over which a share is taken: its noise is about .02 then.
WINDOW = 500
#: What part of a level counts as having caught up.
PART = 0.9


@dataclass(frozen=True)
class Recovery:
    """After a change: decisions until a level was reached for the first time (None = not before the end).

    Attributes:
        before, after: share of the way to the informed oracle right before the change, and at the end.
        to_informed: until 90 % of the informed lift. to_before: until 90 % of the share held before.
        to_final: until the newest variant had 90 % of the share of messages that it has at the end.
    """

    before: float
    after: float
    to_informed: int | None
    to_before: int | None
    to_final: int | None


def recovery(seeds: Sequence[Played], change: int) -> Recovery:
    """How a policy recovered from a change before decision ``change``, by shares averaged over seeds.

    A variant's share of one seed's window has a standard error of some .016, a tenth of the share itself: by it a
    policy that never changes takes up to 2,000 decisions. Averages tell what is asked.
    """
    count = seeds[0].regret.size
    before = _mean([share_of(one, slice(max(0, change - 2 * WINDOW), change)) for one in seeds])
    ends = range(change + WINDOW, count + 1, 50)
    shares = np.array([_mean([share_of(one, slice(end - WINDOW, end)) for one in seeds]) for end in ends])
    newest = [_newest(one) for one in seeds]
    final = _mean([float(one[-2 * WINDOW :].mean()) for one in newest])
    held = np.array([_mean([float(one[end - WINDOW : end].mean()) for one in newest]) for end in ends])
    return Recovery(
        before=before,
        after=_mean([share_of(one, slice(count - 2 * WINDOW, count)) for one in seeds]),
        to_informed=_reached(shares, PART),
        to_before=_reached(shares, PART * before),
        to_final=_reached(held, PART * final),
    )


def _newest(played: Played) -> Floats:
    """(T,) whether the message was the newest variant."""
    variant = played.places["variant"]
    newest: Floats = (variant == variant.max()).astype(np.float64)
    return newest


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _reached(levels: Floats, target: float) -> int | None:
    """Decisions from the change to the middle of the first window at the target."""
    hits = np.flatnonzero(levels >= target)
    return int(WINDOW // 2 + 50 * hits[0]) if len(hits) else None
