"""A distribution over actions kept within limits: how much may be explored at most, how little at least.

Vectors and masks as in ``exploration``: (K,) float64 over (K,) bool.
"""

from __future__ import annotations

from optimizer.bandit.exploration import Mask, Vector, uniform


def bounded(p: Vector, greedy: int, mask: Mask, ceiling: float, floor: float) -> Vector:
    """``p`` with at most ``ceiling`` of its mass off the greedy action, then mixed with ``floor`` of the uniform one.

    What is over the ceiling goes to the greedy action; what is off it keeps its proportions. The floor counts against
    the ceiling.

    Args:
        p: the distribution. greedy: the eligible action of highest mean. mask: what is eligible.
        ceiling: in [0, 1]. floor: in [0, ceiling].

    Raises:
        ValueError: the limits are not in that order.
    """
    if not 0.0 <= floor <= ceiling <= 1.0:
        raise ValueError(f"floor {floor} and ceiling {ceiling}: allowed 0 <= floor <= ceiling <= 1")
    even = uniform(mask)
    out = p.copy()
    out[greedy] = 0.0
    off = float(out.sum())
    room = ceiling - floor * (1.0 - float(even[greedy]))
    share = off * (1.0 - floor)
    if share > room:
        out *= room / share
    out *= 1.0 - floor
    out += floor * even
    out[greedy] = 0.0
    out[greedy] = 1.0 - float(out.sum())
    return out
