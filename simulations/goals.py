"""The goals, row by row: what the last plays reached, what was asked, what stood beside it in the same run.

Everything is read from the figures that lie in ``simulations/results/`` and from the report of the benchmarks
(``goalrows`` and ``goalstudies`` say how); a goal whose plays don't lie there is left out. ``BOUNDS`` says of goals
that are missed what bounds them and what was tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from simulations import goalrows as rows
from simulations import goalstudies as studies
from simulations.bounds import BOUNDS
from simulations.fragments import seeds_named, table

#: How the table is to be read.
_READ = (
    "What stands beside a figure is of the same run, but for the regret among 504 actions in the row of 3,024. Each "
    "row is of the learner of its day (last column, with the worlds)."
)
_BOUNDED = "Where a goal is missed, what bounds it and what was tried:"

#: Plays, by scenario or study, and the policies of a scenario.
Plays = tuple[tuple[str, tuple[str, ...]], ...]

_OURS = ("ours", "vw-squarecb")
_TWISTED = (*_OURS, "vw-large", "network")
#: The plays that rows need, and how they are read; in the order of the table.
_ROWS: tuple[tuple[Plays, Callable[[rows.Read], Iterator[rows.Goal]]], ...] = (
    ((("uci", ()),), studies.uci),
    ((("stationary", _OURS),), rows.stationary),
    ((("long", _OURS),), rows.long),
    ((("many-slots", _OURS), ("stationary", _OURS)), rows.many_slots),
    ((("three-way", _TWISTED),), rows.misspecified("three-way", "a three-way table", 0.55, None)),
    ((("jagged", _TWISTED),), rows.misspecified("jagged", "hours that differ by chance", 0.55, None)),
    ((("xor", _TWISTED),), rows.misspecified("xor", "exclusive or", 0.75, 0.5)),
    ((("base-rates", (*_OURS, "best-static")),), rows.base_rates),
    ((("new-variant", (*_OURS, "full-oracle")),), rows.new_variant),
    ((("send-times", ()),), studies.send_times),
    ((("hillstrom", ()),), studies.hillstrom),
    ((("delays", (*_OURS, "ours-naive", "ours-at-send")),), rows.delays),
    ((("drift", _OURS),), rows.drift),
    ((("history", ("ours", "ours:encoder=none")),), rows.history),
    ((("estimators", ()),), studies.estimators),
    ((("gate", ()),), studies.gate),
)


def section(folder: Path, bench: Path | None = None) -> list[str]:
    """Paragraphs: the table, and what bounds the rows that are missed; none where no goal's plays lie.

    ``bench``: the report of the benchmarks (None = its goals are left out).
    """

    found = reached(folder, bench)
    if not found:
        return []
    head = ("goal", "figure", "must", "stretch", "beside it", "gate and canary", "played")
    cells = [
        (g.what, g.figure, _told(g.must, g.met), _told(g.stretch, g.further), g.beside, g.gate, g.played) for g in found
    ]
    bounds = [f"- {BOUNDS[key]}" for key in missed(found) if key in BOUNDS]
    counted = f"{sum(g.met for g in found)} of {len(found)} rows have reached what must be."
    return ["## goals: what was to be shown", f"{counted} {_READ}", table(head, cells), _BOUNDED, "\n".join(bounds)]


def reached(folder: Path, bench: Path | None = None) -> list[rows.Goal]:
    """Every goal whose plays lie in the folder, with its figure."""

    def read(name: str) -> Any:
        return orjson.loads((folder / f"{name}.json").read_bytes())

    found: list[rows.Goal] = []
    for plays, told in _ROWS:
        if all(_lies(folder, *one) for one in plays):
            played = ", ".join(dict.fromkeys(_when(folder, name) for name, _ in plays))
            found += [replace(goal, played=played) for goal in told(read)]
    return [*found, *(studies.retraining(bench) if bench is not None else ())]


def missed(found: Iterable[rows.Goal]) -> list[str]:
    """Keys of goals of which something is missed, each once: their bounds are to be told."""
    return list(dict.fromkeys(goal.key for goal in found if not goal.met or (goal.stretch and not goal.further)))


def _lies(folder: Path, name: str, policies: tuple[str, ...]) -> bool:
    """Whether the figures of all these policies lie there."""
    path = folder / f"{name}.json"
    if not path.exists():
        return False
    found = orjson.loads(path.read_bytes()) if policies else {"standings": []}
    return set(policies) <= {one["policy"] for one in found["standings"]}


def _when(folder: Path, name: str) -> str:
    """On which day a scenario or a study was played, and in which worlds; a study says it in its text or by world."""
    found = orjson.loads((folder / f"{name}.json").read_bytes())
    if isinstance(found, list):
        return ", ".join(sorted({_day(one["played"]) for one in found}))
    if "played" in found:
        options = found["options"]
        return f"{_day(found['played'])}: {seeds_named(options['first'], options['seeds'])}"
    text = folder / f"{name}.md"
    return _day(text.read_text(encoding="utf-8")) if text.exists() else ""


def _day(text: str) -> str:
    day = re.search(r"Played (\d{4}-\d{2}-\d{2})", text)
    return day[1] if day else ""


def _told(asked: str, reached: bool) -> str:
    return "" if not asked else f"{asked}: {'reached' if reached else '**missed**'}"
