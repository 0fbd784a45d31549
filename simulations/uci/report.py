"""The table of a comparison: errors with intervals over paired orders, against the goals and the best Vowpal Wabbit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from simulations.fragments import leave, played
from simulations.plots import _figure, _save
from simulations.standings import Figure, figure_of
from simulations.uci.run import OURS, OWN, Run, tuned

#: Mean error in 10,000 rounds that the learner is to reach, and the geometric mean of its ratios to the best VW.
GOALS: Mapping[str, float] = {"shuttle": 0.012, "mushroom": 0.0025, "adult": 0.162, "covertype": 0.28, "letter": 0.36}
RATIO_GOAL = 0.37
_COLOURS = {OURS: "#0b7285", "lints": "#e8590c", "linucb": "#e8a80c"}


@dataclass(frozen=True)
class Row:
    """One set.

    Attributes:
        errors: by policy, over the orders.
        best: the Vowpal Wabbit of least mean error (None = none played).
        ratio: our error over that one's, order by order (None = one of the two didn't play).
    """

    set: str
    errors: Mapping[str, Figure]
    best: str | None
    ratio: Figure | None


@dataclass(frozen=True)
class Comparison:
    """All sets, and the geometric mean of the ratios over them, order by order."""

    rows: Sequence[Row]
    overall: Figure | None
    runs: Sequence[Run]

    @property
    def policies(self) -> list[str]:
        """Policies in the order of the runs."""
        return list(dict.fromkeys(run.policy for run in self.runs))

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data, with how each rival was tuned."""
        rivals = [policy for policy in self.policies if policy not in OWN]
        return {
            "goals": dict(GOALS),
            "ratio_goal": RATIO_GOAL,
            "rows": [asdict(row) for row in self.rows],
            "geometric_mean_ratio": None if self.overall is None else asdict(self.overall),
            "runs": [asdict(run) for run in self.runs],
            "tuning": {row.set: {policy: tuned(row.set, policy) for policy in rivals} for row in self.rows},
        }


def compare(runs: Sequence[Run]) -> Comparison:
    """The figures of all runs; every policy must have played the same orders of a set."""
    rows = []
    ratios: list[list[float]] = []
    for name in dict.fromkeys(run.set for run in runs):
        by_policy: dict[str, list[Run]] = {}
        for run in sorted((r for r in runs if r.set == name), key=lambda r: r.seed):
            by_policy.setdefault(run.policy, []).append(run)
        errors = {policy: figure_of([run.error for run in played]) for policy, played in by_policy.items()}
        rivals = [policy for policy in errors if policy.startswith("vw-")]
        best = min(rivals, key=lambda policy: errors[policy].mean) if rivals else None
        ratio = None
        if best is not None and OURS in errors and min(errors[best].per_seed) > 0:
            each = [a / b for a, b in zip(errors[OURS].per_seed, errors[best].per_seed, strict=True)]
            ratio = figure_of(each)
            ratios.append(each)
        rows.append(Row(name, errors, best, ratio))
    overall = None
    if ratios and len({len(each) for each in ratios}) == 1:
        overall = figure_of(np.exp(np.log(np.maximum(ratios, 1e-12)).mean(axis=0)).tolist())
    return Comparison(rows, overall, runs)


def kept(folder: Path, replaced: Sequence[str], seeds: int, rounds: int) -> list[Run]:
    """Runs of other sets that an earlier comparison of as many orders and rounds left in ``folder``."""
    path = folder / "uci.json"
    if not path.exists():
        return []
    figures = orjson.loads(path.read_bytes())
    if (figures["seeds"], figures["rounds"]) != (seeds, rounds):
        return []
    runs = [Run(**{**run, "parts": tuple(run["parts"])}) for run in figures["runs"]]
    return [run for run in runs if run.set not in replaced]


def write(folder: Path, found: Comparison, seeds: int, rounds: int) -> None:
    """Writes ``uci.json``, the fragment ``uci.md`` and the picture ``uci.png``."""
    leave(folder, "uci", {"seeds": seeds, "rounds": rounds, **found.as_json()}, markdown(found, rounds, seeds))
    picture(folder / "uci.png", found)


def markdown(found: Comparison, rounds: int, seeds: int) -> str:
    """The fragment for the report of results."""
    policies = found.policies
    lines = [
        "## uci: classification sets as bandits",
        f"Choose a class, learn only whether it was right: mean error in {rounds:,} rounds, {seeds} paired orders, one "
        "setting of ours for all sets, gate off (there is none here). Rivals have the best setting found in their grid "
        "for each set, unless said below; `encoded` features are our encoding, fitted to the whole stream beforehand.",
        f"| set | goal | {' | '.join(policies)} | ours / best VW |",
        f"| --- | --- | {' | '.join('---' for _ in policies)} | --- |",
    ]
    table = lines[2:]
    for row in found.rows:
        cells = [_shown(row.errors.get(policy)) for policy in policies]
        against = "" if row.ratio is None else f"{_shown(row.ratio, 3)}, {row.best}"
        goal = f"≤ {GOALS[row.set]:g}" if row.set in GOALS else ""
        table.append(f"| {row.set} | {goal} | {' | '.join(cells)} | {against} |")
    blocks = [*lines[:2], "\n".join(table)]
    if found.overall is not None:
        blocks.append(f"Geometric mean of the ratios: {_shown(found.overall, 3)}; goal ≤ {RATIO_GOAL}.")
    tunings = _tunings(found)
    untuned = _untuned(found)
    if untuned:
        blocks.append(f"**Not tuned, playing where their search starts: {', '.join(untuned)}.**")
    if tunings:
        blocks.append("Tuned on orders of their own, one option after the other:\n\n" + "\n".join(tunings))
    blocks += [played(), "![uci](results/uci.png)"]
    return "\n\n".join(blocks) + "\n"


def picture(path: Path, found: Comparison) -> None:
    """Error along the rounds, one panel a set, averaged over orders."""
    figure = _figure(4 * len(found.rows), 4.4)
    for place, row in enumerate(found.rows, 1):
        axes = figure.add_subplot(1, len(found.rows), place)
        for policy in row.errors:
            parts = np.array([run.parts for run in found.runs if run.set == row.set and run.policy == policy])
            at = (np.arange(parts.shape[1]) + 0.5) / parts.shape[1]
            axes.plot(at, parts.mean(axis=0), label=policy, color=_COLOURS.get(policy))
        axes.set_title(row.set)
        axes.set_xlabel("share of the rounds")
        axes.set_yscale("symlog", linthresh=0.01)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("error")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    _save(figure, path)


def _shown(figure: Figure | None, digits: int = 4) -> str:
    if figure is None:
        return ""
    mean = f"{figure.mean:.{digits}f}"
    return mean if np.isnan(figure.low) else f"{mean} ({figure.low:.{digits}f} … {figure.high:.{digits}f})"


def _untuned(found: Comparison) -> list[str]:
    """Rivals, by set, whose grid nobody searched: a comparison with them proves nothing."""
    return [f"{p} on {row.set}" for row in found.rows for p in row.errors if p not in OWN and not tuned(row.set, p)]


def _tunings(found: Comparison) -> list[str]:
    lines = []
    for row in found.rows:
        for policy in row.errors:
            record = tuned(row.set, policy)
            if policy in OWN or not record:
                continue
            best = ", ".join(f"{key} {value}" for key, value in sorted(record["options"].items()))
            tried = "; ".join(f"{one['option']} {one['value']}: {one['regret']:.4f}" for one in record["tried"])
            seeds = ", ".join(str(seed) for seed in record["seeds"])
            lines.append(
                f"- {row.set}, {policy} (order {seeds}, {record['rounds']:,} rounds): **{best}**. "
                f"Tried, with error: {tried}"
            )
    return lines
