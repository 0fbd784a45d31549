"""The benchmark's document: what a run of some areas writes, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.bench.__main__ import document, main, section, sections
from simulations.bench.figure import Figure, at_least, at_most, medians


def test_a_run_of_some_areas_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "RESULTS.md"
    assert sections(file) == {}
    slow, quick = Figure("a row", "9 µs"), at_least("a row", "3 µs", "a rival: 6 µs", 2.0, 1.5)
    file.write_text(document({"http": section("a machine", [slow]), "events": section("a machine", [slow])}))
    file.write_text(document(sections(file) | {"http": section("another", [quick])}))
    told = sections(file)
    assert list(told) == ["http", "events"]
    assert "| a row | 3 µs | a rival: 6 µs | 2.00x | >= 1.5x | yes |" in told["http"]
    assert "another" in told["http"]
    assert "a machine" in told["events"]
    assert "9 µs" in told["events"]
    assert document(told) == file.read_text()


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.9, False, True), (1.0, True, True), (1.1, True, False)])
def test_a_goal_is_reached_or_not(ratio: float, least: bool, most: bool) -> None:
    assert at_least("x", "1", "2", ratio, 1.0).reached is least
    assert at_most("x", "1", "2", ratio, 1.0).reached is most


def test_rivals_are_measured_in_turn() -> None:
    order: list[str] = []

    def work(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop()

    ours, theirs = [1.0, 5.0, 2.0], [30.0, 10.0, 20.0]
    assert medians([lambda: work("ours", ours), lambda: work("theirs", theirs)], 3) == [2.0, 20.0]
    assert order == ["ours", "theirs"] * 3


def test_unknown_areas_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["http", "htp"])
    assert "unknown: htp; allowed: inprocess, footprint, http" in capsys.readouterr().err
