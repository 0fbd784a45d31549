"""How commands show figures: tables whose first column names things, bars, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

#: Width of the longest bar.
BAR = 24
#: A width that is enough for everything.
_ANY = 100_000


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> RenderableType:
    """A table whose first ``names`` columns are names, and whose others are figures."""
    return _Fitting(title, columns, [list(row) for row in rows], names)


@dataclass(frozen=True)
class _Fitting:
    """A table where there is room for it, else each row as lines of its own: no word or figure is cut in two."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement

        least, most = self._widths()
        whole = Measurement.get(console, options.update(width=_ANY), self._side_by_side(most)).maximum
        room = options.max_width - (whole - sum(most))  # without what lies between columns
        longest = max((len(cell) for row in self.rows for cell in row), default=0)
        fits = sum(least) <= room and longest <= options.max_width
        yield self._side_by_side(_grown(least, most, room)) if fits else self._stacked()

    def _widths(self) -> tuple[list[int], list[int]]:
        """Of each column its longest word, and its longest cell."""
        columns = [[name, *cells] for name, *cells in zip(self.columns, *self.rows, strict=True)]
        return (
            [max(len(word) for cell in cells for word in cell.split() or [""]) for cells in columns],
            [max(map(len, cells)) for cells in columns],
        )

    def _side_by_side(self, widths: Sequence[int]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        made = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
        for place, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            made.add_column(column, justify="left" if place < self.names else "right", overflow="fold", width=width)
        for row in self.rows:
            made.add_row(*(Text(cell) for cell in row))
        return made

    def _stacked(self) -> Table:
        """A line a cell, behind its column's name; an empty line between rows."""
        from rich.table import Table
        from rich.text import Text

        made = Table.grid(padding=(0, 2))
        made.title, made.title_justify, made.title_style = f"{self.title}\n", "left", "bold"
        made.add_column()
        made.add_column(overflow="fold")
        for row in self.rows:
            for place, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
                if cell:
                    made.add_row(Text(column), Text(cell, style="bold" if place < self.names else ""))
            made.add_row()
        return made


def _grown(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Widths that share what room is left beside the least, the narrowest first, up to the most."""
    widths, left = list(least), room - sum(least)
    while left > 0 and any(width < end for width, end in zip(widths, most, strict=True)):
        place = min((i for i, width in enumerate(widths) if width < most[i]), key=lambda i: widths[i])
        widths[place], left = widths[place] + 1, left - 1
    return widths


def bar(share: float) -> str:
    """A bar for a share in [0, 1] of the longest; anything above 0 is seen."""
    return "" if share <= 0.0 else "█" * max(1, round(BAR * share))


def number(value: float | None) -> str:
    """A number with four significant digits; whole from a thousand on; a dash for none."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 999.95 else f"{value:.4g}"


def show(parts: Iterable[RenderableType]) -> None:
    """Prints parts for people, as wide as their terminal."""
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False)
    for part in parts:
        console.print(part)


def smaller(count: int) -> str:
    """What sums up so many rows that are not shown."""
    return f"{count} smaller one" if count == 1 else f"{count} smaller ones"
