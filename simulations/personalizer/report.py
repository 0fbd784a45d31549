"""What came of the runs: a table, and the same as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulations.personalizer.run import Outcome


def summary(results: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row for each audience and player: means over the seeds, and the margin with its standard error."""
    rows = []
    for kind, player in dict.fromkeys((one.audience, one.player) for one in results):
        mine = [one for one in results if (one.audience, one.player) == (kind, player)]
        margin = np.array([one.shown - one.baseline for one in mine])
        error = float(margin.std(ddof=1) / np.sqrt(len(margin))) if len(margin) > 1 else None
        told: dict[str, Any] = {"audience": kind, "player": player, "seeds": len(mine)}
        for name in ("shown", "baseline", "best", "late", "late_best"):
            told[name] = float(np.mean([getattr(one, name) for one in mine]))
        rows.append({**told, "margin": float(margin.mean()), "margin_error": error, "margins": margin.tolist()})
    return rows


def table(results: Sequence[Outcome]) -> str:
    """The same for people, in Markdown."""
    lines = [
        "| audience | player | mean reward | first action | margin | by seed | last fifth, of the best possible |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in summary(results):
        error = "" if row["margin_error"] is None else f" ± {row['margin_error']:.4f}"
        seeds = ", ".join(f"{margin:.4f}" for margin in row["margins"])
        lines.append(
            f"| {row['audience']} | {row['player']} | {row['shown']:.4f} | {row['baseline']:.4f} "
            f"| {row['margin']:.4f}{error} | {seeds} | {row['late'] / row['late_best']:.3f} |"
        )
    return "\n".join(lines)
