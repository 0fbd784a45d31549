"""Pictures of a simulation: regret as it adds up, and where in the week each policy sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulations.play import Played
from simulations.plots import _figure, _save
from simulations.standings import LAST, share_of

Floats = NDArray[np.float64]

#: Points of a curve: more can't be told apart on paper.
POINTS = 400
#: What no policy can be, or is: not one more colour.
_ENDS = {"full-oracle": ":", "informed-oracle": "--", "random": "-."}
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def regret_curves(path: Path, played: Mapping[str, Sequence[Played]], *, title: str) -> None:
    """Cumulative regret with a band of one standard error, and the share of the way to the informed oracle.

    Args:
        path: the PNG to write.
        played: by policy, its seeds.
        title: over both.
    """
    figure = _figure(13, 5)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for name, seeds in played.items():
        total = np.array([np.cumsum(p.regret) for p in seeds])
        at = np.unique(np.linspace(0, total.shape[1] - 1, POINTS).astype(int))
        mean = total.mean(axis=0)[at]
        style: dict[str, Any] = {"linewidth": 2.2 if name.startswith("ours") else 1.2}
        if name in _ENDS:
            style |= {"linestyle": _ENDS[name], "color": "black"}
        (line,) = left.plot(at + 1, mean, label=name, **style)
        if len(seeds) > 1:
            error = total.std(axis=0, ddof=1)[at] / np.sqrt(len(seeds))
            left.fill_between(at + 1, mean - error, mean + error, color=line.get_color(), alpha=0.15, linewidth=0)
        edges, shares = _shares(seeds)
        right.plot(edges, shares, **{**style, "color": line.get_color()})
    left.set_ylabel("cumulative regret to the informed oracle")
    left.legend(fontsize=8)
    right.set_ylabel("share of the way from chance to the informed oracle")
    right.set_ylim(-0.1, 1.05)
    for axes in (left, right):
        axes.set_xlabel("decisions")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    _save(figure, path)


def heat_maps(path: Path, played: Mapping[str, Sequence[Played]], *, title: str) -> None:
    """Weekday by hour: the share of each policy's messages of the last fifth, all on one scale of colours.

    Args:
        path: the PNG to write.
        played: by policy, its seeds.
        title: over all.
    """
    columns = min(3, len(played))
    rows = -(-len(played) // columns)
    figure = _figure(5 * columns, 2.6 * rows + 0.6)
    shares = {name: week_shares(seeds) for name, seeds in played.items()}
    most = max(float(one.max()) for one in shares.values())
    for i, (name, share) in enumerate(shares.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(share, aspect="auto", cmap="viridis", vmin=0.0, vmax=most)
        axes.set_title(name, fontsize=9)
        axes.set_yticks(range(7), _WEEKDAYS, fontsize=7)
        axes.set_xticks(range(0, 24, 4))
        axes.set_xlabel("hour", fontsize=8)
    figure.suptitle(title)
    _save(figure, path)


def week_shares(seeds: Sequence[Played]) -> Floats:
    """(7, 24) shares of the messages of the last fifth by weekday and hour."""
    grid = np.zeros((7, 24))
    for played in seeds:
        weekday, hour = played.places["weekday"], played.places["hour"]
        last = slice(weekday.size - max(1, weekday.size // LAST), None)
        sent = weekday[last] >= 0
        np.add.at(grid, (weekday[last][sent], hour[last][sent]), 1.0)
    return grid / max(1.0, float(grid.sum()))


def _shares(seeds: Sequence[Played]) -> tuple[list[float], list[float]]:
    count = seeds[0].regret.size
    edges = np.linspace(0, count, min(40, max(2, count // 100)) + 1).astype(int)
    spans = list(pairwise(edges))
    middle = [float(a + b) / 2 for a, b in spans]
    return middle, [float(np.mean([share_of(p, slice(a, b)) for p in seeds])) for a, b in spans]
