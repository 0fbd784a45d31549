"""How fast a policy catches up after something changed: a new variant, tastes that swapped."""

from __future__ import annotations

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


def recovery(played: Played, change: int) -> Recovery:
    """How a policy recovered from a change before decision ``change``."""
    count = played.regret.size
    before = share_of(played, slice(max(0, change - 2 * WINDOW), change))
    shares = np.array([share_of(played, slice(end - WINDOW, end)) for end in range(change + WINDOW, count + 1, 50)])
    variant = played.places["variant"]
    newest = (variant == variant.max()).astype(np.float64)
    final = float(newest[count - 2 * WINDOW :].mean())
    held = np.array([float(newest[end - WINDOW : end].mean()) for end in range(change + WINDOW, count + 1, 50)])
    return Recovery(
        before=before,
        after=share_of(played, slice(count - 2 * WINDOW, count)),
        to_informed=_reached(shares, PART),
        to_before=_reached(shares, PART * before),
        to_final=_reached(held, PART * final),
    )


def _reached(levels: Floats, target: float) -> int | None:
    """Decisions from the change to the middle of the first window at the target."""
    hits = np.flatnonzero(levels >= target)
    return int(WINDOW // 2 + 50 * hits[0]) if len(hits) else None
