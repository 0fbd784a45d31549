"""Tables on terminals of any width: no name and no figure is cut in two."""

from __future__ import annotations

import pytest
from rich.console import Console, RenderableType

from optimizer.cli.tables import number, table

COLUMNS = ["group", "recipients", "compared", "value a decision", "EUR a decision", "unsubscribed", "complained"]
ROWS = [
    ["treated", "12,434", "5,323", "0.1234 (0.1012 … 0.2233)", "0.5234 (0.4012 … 0.6233)", "12", "3"],
    ["holdout", "1,301", "1,287", "– (too early)", "0.4234 (0.3012 … 0.7233)", "1", "0"],
]


def printed(part: RenderableType, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(part)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [44, 80, 110, 200])
def test_every_word_and_figure_is_whole(width: int) -> None:
    lines = printed(table("What each group brought", COLUMNS, ROWS), width)
    words = " ".join(lines).split()
    for text in [*COLUMNS, *(cell for row in ROWS for cell in row)]:
        assert set(text.split()) <= set(words), text
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", range(40, 132))
def test_no_long_name_is_cut_on_a_terminal_of_any_width(width: int) -> None:
    columns = ["policy", "regret", "of the way, last fifth", "reward a decision"]
    rows = [
        ["informed-oracle", "0 [0, 0]", "1.000 [1.000, 1.000]", "0.6164 [0.6021, 0.6308]"],
        ["ours", "1,229 [1,133, 1,325]", "0.820 [0.804, 0.836]", "0.4935 [0.4722, 0.5148]"],
    ]
    lines = printed(table("Many slots", columns, rows), width)
    assert any("informed-oracle" in line for line in lines)
    words = " ".join(lines).split()
    assert all(set(cell.split()) <= set(words) for row in [columns, *rows] for cell in row)
    assert max(map(len, lines)) <= width


def test_rows_stand_side_by_side_where_there_is_room() -> None:
    lines = printed(table("What each group brought", COLUMNS, ROWS), 200)
    assert any("treated" in line and "12,434" in line and "5,323" in line for line in lines)


def test_a_cell_longer_than_a_line_is_no_narrow_column() -> None:
    pairs = ", ".join(f"“word{place}”" for place in range(30))
    lines = printed(
        table("What goes with clicked", ["with", "in", "sure"], [[pairs, "a, b", "99% higher"]], names=2), 80
    )
    assert len(lines) < 12
    assert "99% higher" in "\n".join(lines)


def test_a_table_without_rows_has_its_heading() -> None:
    assert [line.split() for line in printed(table("Empty", ["rule", "kind"], []), 80)][2] == ["rule", "kind"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (999.94, "999.9"),
        (999.96, "1,000"),
        (1301.2, "1,301"),
        (-2434.0, "-2,434"),
        (5323.0, "5,323"),
        (12345.6, "12,346"),
    ],
)
def test_thousands_are_parted_from_the_first_on(value: float | None, shown: str) -> None:
    assert number(value) == shown
