"""How ``sendtide simulate`` shows standings: as many columns as the terminal has room for, no word cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from optimizer.cli.tables import table
from simulations.standings import SPANS, Figure, Standing, asked_of_all, asked_share

#: Between two columns.
_GAP = 2
#: Columns in the order in which they are left out where there is no room for all.
_SPARED = ("seconds", "full regret", "reward a decision")
#: A figure's mean, and its interval ("" = it has none).
Cell = tuple[str, str]
_COLUMNS: Mapping[str, Callable[[Standing], Cell]] = {
    "regret": lambda one: _cell(one.regret, 0),
    "of the way, last fifth": lambda one: _cell(one.share, 3),
    "reward a decision": lambda one: _cell(one.reward, 4),
    "still asked": lambda one: (asked_share(one.asked), ""),
    "regret ratio": lambda one: ("", "") if one.ratio is None else _cell(one.ratio, 3),
    "full regret": lambda one: (f"{one.full_regret.mean:,.0f}", ""),
    "seconds": lambda one: (f"{one.seconds:.0f}", ""),
}


@dataclass(frozen=True)
class _Table:
    """Intervals stand beside their means, or below them where that is too wide; then columns are left out, and at
    last each row stands as lines of its own."""

    title: str
    names: Sequence[str]
    columns: Mapping[str, Sequence[Cell]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        for left_out in range(len(_SPARED) + 1):
            columns = {name: cells for name, cells in self.columns.items() if name not in _SPARED[:left_out]}
            for between in (" ", "\n"):
                widths = [max(map(len, ("policy", *self.names))), *_widths(columns, between)]
                if sum(widths) + _GAP * (len(widths) - 1) <= options.max_width:
                    yield self._drawn(columns, between, widths)
                    if left_out:
                        spared = ", ".join(_SPARED[:left_out][::-1])
                        yield f"No room for: {spared}. A wider terminal shows them, and --json does."
                    return
        rows = (
            [name, *(_joined(cells[i], " ") for cells in self.columns.values())] for i, name in enumerate(self.names)
        )
        yield table(self.title, ("policy", *self.columns), rows)

    def _drawn(self, columns: Mapping[str, Sequence[Cell]], between: str, widths: Sequence[int]) -> Table:
        made = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1, 0, 0),  # the box itself takes one
        )
        for place, (name, width) in enumerate(zip(("policy", *columns), widths, strict=True)):
            made.add_column(name, justify="right" if place else "left", width=width)
        for i, name in enumerate(self.names):
            made.add_row(Text(name), *(Text(_joined(cells[i], between)) for cells in columns.values()))
        return made


def table_of(found: Sequence[Standing], title: str) -> RenderableType:
    """The figures for people; who could still be asked only where not everybody could be with every policy, the ratio
    only where there is something to compare with."""
    silent = {"still asked"} if asked_of_all(found) else set()
    silent |= {"regret ratio"} if all(one.ratio is None for one in found) else set()
    told = [name for name in _COLUMNS if name not in silent]
    return _Table(title, [one.policy for one in found], {name: [_COLUMNS[name](one) for one in found] for name in told})


def paths_of(found: Sequence[Standing]) -> RenderableType:
    """How far each policy is in each tenth of the decisions."""
    title = "Share of the way from chance to the informed oracle, in percent, by tenth of the decisions"
    rows = ([one.policy, *(f"{100 * share:.0f}" for share in one.path)] for one in found)
    return table(title, ["policy", *(str(i + 1) for i in range(SPANS))], rows)


def print_standings(console: Console, found: Sequence[Standing], title: str, reference: str | None) -> None:
    """Both tables."""
    console.print(table_of(found, title))
    console.print(_caption(found, reference))
    console.print(paths_of(found))


def _cell(figure: Figure, digits: int) -> Cell:
    mean = f"{figure.mean:,.{digits}f}"
    return mean, "" if np.isnan(figure.low) else f"[{figure.low:,.{digits}f}, {figure.high:,.{digits}f}]"


def _joined(cell: Cell, between: str) -> str:
    return between.join(part for part in cell if part)


def _widths(columns: Mapping[str, Sequence[Cell]], between: str) -> list[int]:
    """Of each column what its longest line of figures takes, and its heading in two lines."""
    lines = {
        name: [part for one in cells for part in _joined(one, between).split("\n")] for name, cells in columns.items()
    }
    return [max(_halved(name), *map(len, some)) for name, some in lines.items()]


def _caption(found: Sequence[Standing], reference: str | None) -> str:
    ratio = "" if reference is None else f" Regret ratio: to {reference}, seed by seed."
    lost = "" if asked_of_all(found) else " Where nobody could be asked, regret and reward count 0."
    spread = "" if all(np.isnan(one.regret.low) for one in found) else "; 95 % intervals over paired seeds"
    return f"Expected rewards; regret is against the informed oracle{spread}.{ratio}{lost}"


def _halved(heading: str) -> int:
    """The least width in which a heading takes no more than two lines."""
    words = heading.split()
    return min(max(len(" ".join(words[:i])), len(" ".join(words[i:]))) for i in range(len(words)))
