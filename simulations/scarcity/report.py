"""The figures of ``sendtide scarcity`` over seeds: means with 95 % intervals, and whether the goal is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from simulations.scarcity.crowd import PART, Course
from simulations.scarcity.seeds import Seed, Way

#: The share of the optimum with hindsight that prices are to reach where a capacity binds.
GOAL = 0.97


@dataclass(frozen=True)
class Figure:
    """A mean over seeds and the half-width of its 95 % interval (Student's t; NaN for one seed)."""

    mean: float
    half: float

    def __str__(self) -> str:
        if np.isnan(self.mean):
            return "–"
        return f"{self.mean:.3f}" if np.isnan(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


@dataclass(frozen=True)
class Line:
    """One way of choosing over the seeds."""

    label: str
    of_best: Figure
    of_known: Figure
    of_all_days: Figure
    sent: Figure


def lines(seeds: Sequence[Seed], ways: Sequence[Way]) -> list[Line]:
    """A line for each way, in order."""
    return [
        Line(
            way.label,
            *(
                _figure([getattr(seed.outcomes[way.label], name) for seed in seeds])
                for name in ("of_best", "of_known", "of_all_days", "sent")
            ),
        )
        for way in ways
    ]


def _figure(values: Sequence[float]) -> Figure:
    from scipy.stats import t

    half = float("nan")
    if len(values) > 1:
        half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Figure(float(np.mean(values)), half)


def document(course: Course, seeds: Sequence[Seed], ways: Sequence[Way]) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "course": asdict(course),
        "part": PART,
        "goal": GOAL,
        "ways": [asdict(line) for line in lines(seeds, ways)],
        "seeds": [asdict(seed) for seed in seeds],
    }


def print_report(console: Console, course: Course, seeds: Sequence[Seed], ways: Sequence[Way]) -> None:
    """Prints the table."""
    table = Table(
        "way of choosing",
        "of the optimum",
        "of the optimum by its knowledge",
        "of the optimum, all days",
        "sent",
        title=f"{course.scarcity} for {PART:.0%} of {course.requests:,} requests a day, {course.earning} days, "
        f"{len(seeds)} seeds",
    )
    for line in lines(seeds, ways):
        table.add_row(
            line.label, *(str(figure) for figure in (line.of_best, line.of_known, line.of_all_days, line.sent))
        )
    console.print(table)
    seconds = sum(seed.seconds for seed in seeds) / len(seeds)
    console.print(
        "Optimum: a linear program that knows all requests and true gains, by HiGHS; by its knowledge: the same on the "
        "gains that the policy expects, valued by the true ones. All days: the learning days' uniform choices included."
        f" Means over seeds, 95 % intervals; {seconds:.0f} s a seed.",
        soft_wrap=True,
    )
