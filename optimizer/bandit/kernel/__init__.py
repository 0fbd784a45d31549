"""The compiled loops of a decision, if a C compiler was at hand when this was installed.

``available`` says so. Without it the same is done in NumPy, and choosing takes about twice as long. Both differ by
rounding alone, and both give a row the very bits that it gets alone or among any others.
"""

from __future__ import annotations

available = True
try:
    from optimizer.bandit.kernel._compiled import best, score, stay, with_floor
except ImportError:  # not compiled
    available = False

__all__ = ["DRAWS_TOGETHER", "available", "best", "score", "stay", "with_floor"]

#: A bank's draws are worked out so many at a time: ``best`` takes multiples of it.
DRAWS_TOGETHER = 16
