"""The goals table: a row for each goal whose plays lie there, judged by the figures as they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from simulations.bounds import BOUNDS
from simulations.goals import section
from simulations.results import FOLDER


def lay(folder: Path, name: str, **changes: Any) -> None:
    """Figures as they lie in the project, some of them changed."""
    found = orjson.loads((FOLDER / f"{name}.json").read_bytes())
    (folder / f"{name}.json").write_bytes(orjson.dumps({**found, **changes}))


def rows(folder: Path) -> list[list[str]]:
    """The table's rows as cells."""
    table = next(part for part in section(folder) if part.startswith("| goal"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_nothing_lies_there_and_nothing_is_said(tmp_path: Path) -> None:
    assert section(tmp_path) == []


def test_a_goal_is_judged_by_its_figures(tmp_path: Path) -> None:
    standings = orjson.loads((FOLDER / "stationary.json").read_bytes())["standings"]
    (ours,) = [one for one in standings if one["policy"] == "ours"]
    for ratio, told in ((0.44, "reached"), (0.5, "reached"), (0.56, "**missed**")):
        ours["ratio"] = {"mean": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
        lay(tmp_path, "stationary", standings=standings)
        first, way = rows(tmp_path)
        assert first[1] == f"{ratio:.3f} ({ratio - 0.01:.3f} … {ratio + 0.01:.3f})"
        assert first[2] == f"≤ 0.55: {told}"
        assert first[3] == f"≤ 0.45: {'reached' if ratio <= 0.45 else '**missed**'}"
        assert way[5] == "off"
    assert BOUNDS["stationary"] in "\n".join(section(tmp_path))


def test_what_is_compared_between_scenarios_needs_both(tmp_path: Path) -> None:
    lay(tmp_path, "many-slots")
    assert section(tmp_path) == []
    lay(tmp_path, "stationary")
    assert any(cells[0].startswith("3,024 actions") for cells in rows(tmp_path))


@pytest.mark.parametrize(("reached", "told"), [(None, "**missed**"), (3_900, "reached"), (4_100, "**missed**")])
def test_a_recovery_counts_from_the_worlds_together(tmp_path: Path, reached: int | None, told: str) -> None:
    one = {"before": 0.8, "after": 0.7, "to_informed": reached, "to_before": None, "to_final": 250}
    lay(tmp_path, "drift", recovery_together={"ours": one, "vw-squarecb": one})
    (row,) = rows(tmp_path)
    assert row[1] == ("not within 10,000" if reached is None else f"{reached:,}")
    assert row[2] == f"≤ 4,000: {told}"


def test_every_row_of_the_project_says_what_it_is_read_with() -> None:
    found = rows(FOLDER)
    assert len(found) >= 32
    assert all(len(cells) == 6 and cells[4] for cells in found)
