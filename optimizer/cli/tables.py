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

        beside = self._side_by_side()
        room = options.max_width
        needed = Measurement.get(console, options.update(width=_ANY), beside).minimum
        longest = max((len(cell) for row in self.rows for cell in row), default=0)
        yield beside if max(needed, longest) <= room else self._stacked()

    def _side_by_side(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        made = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
        for place, column in enumerate(self.columns):
            made.add_column(column, justify="left" if place < self.names else "right", overflow="fold")
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
