"""One line of the benchmark: what was measured, what stands beside it, and what it should be at least or at most."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Medians are of this many rounds.
ROUNDS = 5


@dataclass(frozen=True)
class Figure:
    """A measured figure.

    Attributes:
        what: what was measured.
        ours: the figure with its unit.
        beside: the rival or the limit with its own figure, measured in the same run; "" = none.
        ratio: what is compared with the goal; "" = the figure itself.
        goal: what was wanted; "" = stated only.
        reached: whether it was; None = stated only.
    """

    what: str
    ours: str
    beside: str = ""
    ratio: str = ""
    goal: str = ""
    reached: bool | None = None


def at_least(what: str, ours: str, beside: str, ratio: float, goal: float) -> Figure:
    """A figure whose ratio should be ``goal`` or more."""
    return Figure(what, ours, beside, f"{ratio:.2f}x", f">= {goal:g}x", ratio >= goal)


def at_most(what: str, ours: str, beside: str, ratio: float, goal: float) -> Figure:
    """A figure whose ratio should be ``goal`` or less."""
    return Figure(what, ours, beside, f"{ratio:.2f}x", f"<= {goal:g}x", ratio <= goal)


def medians(works: Sequence[Callable[[], float]], rounds: int = ROUNDS) -> list[float]:
    """The median of what each gives, one after the other in every round: what disturbs one disturbs the others."""
    given: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for place, work in enumerate(works):
            given[place].append(work())
    return [statistics.median(one) for one in given]
