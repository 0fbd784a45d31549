"""Pictures of simulations as PNG files. matplotlib is an extra, imported only when a picture is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.bandit.intervals import quantile
from optimizer.errors import ConfigError
from simulations.rivals import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from simulations.demo_days import Day
    from simulations.replay_seed import SeedResult

#: Accepted customers in the moving window of the learning curve.
WINDOW = 1000
_COLOURS = {"Sendtide": "#0b7285", "Thompson": "#e8590c", "static": "#495057", "random": "#adb5bd"}


def learning_curves(path: Path, results: Sequence[SeedResult], *, best: str) -> None:
    """The replay's learning curves, cumulative and in a moving window, averaged over seeds.

    Args:
        path: the PNG to write.
        results: the seeds; the shortest says how far the curves go.
        best: name of the best static choice.
    """
    figure = _figure(12, 4.5)
    curves = {
        "Sendtide": [r.service for r in results],
        "Thompson": [r.thompson for r in results],
        "random": [r.uniform for r in results],
        "static": [r.static for r in results],
    }
    shortest = min(one.size for rewards in curves.values() for one in rewards)
    window = min(WINDOW, max(1, shortest // 5))
    for place, (title, smooth) in enumerate(
        (("cumulative mean", cumulative), (f"mean of the last {window:,}", lambda r: windowed(r, window)))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        for name, rewards in curves.items():
            lines = np.array([smooth(one[:shortest]) for one in rewards])
            at = np.arange(shortest - lines.shape[1] + 1, shortest + 1)
            label = f"always {best}" if name == "static" else name
            _band(axes, at, lines, label, _COLOURS[name])
        axes.set_title(title)
        axes.set_xlabel("accepted customers")
        axes.set_ylabel("visits a customer")
        axes.set_ylim(0.10, 0.22) if shortest >= 2 * WINDOW else None
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    figure.suptitle(f"Hillstrom e-mail experiment, {len(results)} random orders (band: standard error)")
    _save(figure, path)


def demo_picture(path: Path, days: Sequence[Day], lift: str) -> None:
    """The demo: mean reward of the treated and of the random group, day by day, and what the policy chose.

    Args:
        path: the PNG to write.
        days: the simulated days in order.
        lift: the sentence with the lift, as the title.
    """
    figure = _figure(12, 4.5)
    number = np.arange(1, len(days) + 1)
    rewards = figure.add_subplot(1, 2, 1)
    for group, colour in (("treated", _COLOURS["Sendtide"]), ("random", _COLOURS["random"])):
        means = np.array([np.mean(day.rewards(group)) if day.rewards(group).size else np.nan for day in days])
        errors = np.array([_standard_error(day.rewards(group)) for day in days])
        rewards.errorbar(
            number, means, yerr=quantile(0.95) * errors, color=colour, marker="o", capsize=3, label=f"{group} group"
        )
    rewards.set_title("reward a decision, with 95 % intervals")
    rewards.set_xlabel("simulated day")
    rewards.set_ylim(bottom=0)
    rewards.grid(alpha=0.3)
    rewards.legend(loc="upper left")
    times = figure.add_subplot(1, 2, 2)
    missed = np.array([np.mean(day.hours_off("treated")) if day.hours_off("treated").size else np.nan for day in days])
    chance = np.array([np.mean(day.hours_off("random")) if day.hours_off("random").size else np.nan for day in days])
    times.plot(number, missed, color=_COLOURS["Sendtide"], marker="o", label="treated group")
    times.plot(number, chance, color=_COLOURS["random"], marker="o", label="random group")
    times.set_title("hours between the send and the recipient's own best hour")
    times.set_xlabel("simulated day")
    times.set_ylim(bottom=0)
    times.grid(alpha=0.3)
    times.legend(loc="lower left")
    figure.suptitle(lift)
    _save(figure, path)


def cumulative(rewards: Floats) -> Floats:
    """(n,) mean of the first 1, 2, …, n rewards."""
    return np.asarray(np.cumsum(rewards) / np.arange(1, rewards.size + 1))


def windowed(rewards: Floats, window: int) -> Floats:
    """(n − window + 1,) mean of each run of ``window`` rewards."""
    sums = np.concatenate([[0.0], np.cumsum(rewards)])
    return np.asarray((sums[window:] - sums[:-window]) / window)


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")


def _band(axes: Axes, at: Any, lines: Floats, label: str, colour: str) -> None:
    mean = lines.mean(axis=0)
    axes.plot(at, mean, color=colour, label=label)
    if lines.shape[0] > 1:
        error = lines.std(axis=0, ddof=1) / np.sqrt(lines.shape[0])
        axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)


def _figure(width: float, height: float) -> Figure:
    """A figure that is drawn by Agg, without pyplot's global state.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise ConfigError("pictures need matplotlib: install sendtide[simulations]") from missing
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
