"""How commands show figures: tables whose first column names things, bars, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Width of the longest bar.
BAR = 24


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> RenderableType:
    """A table whose first ``names`` columns are names, and whose others are figures."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < names else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def bar(share: float) -> str:
    """A bar for a share in [0, 1] of the longest; anything above 0 is seen."""
    return "" if share <= 0.0 else "█" * max(1, round(BAR * share))


def number(value: float | None) -> str:
    """A number with four significant digits; a dash for none."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def show(parts: Iterable[RenderableType]) -> None:
    """Prints parts for people, as wide as their terminal."""
    from rich.console import Console

    console = Console(soft_wrap=False, highlight=False)
    for part in parts:
        console.print(part)
