"""The goals table: a row for each goal whose plays lie there, judged by the figures as they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from optimizer.errors import Invalid
from simulations.bench.__main__ import document
from simulations.bench.__main__ import section as bench_section
from simulations.bench.figure import Figure
from simulations.bounds import BOUNDS
from simulations.goals import missed, reached, section
from simulations.results import BENCH, FOLDER


def lay(folder: Path, name: str, **changes: Any) -> None:
    """Figures as they lie in the project, some of them changed."""
    found = orjson.loads((FOLDER / f"{name}.json").read_bytes())
    (folder / f"{name}.json").write_bytes(orjson.dumps({**found, **changes}))


def rows(folder: Path, bench: Path | None = None) -> list[list[str]]:
    """The table's rows as cells."""
    table = next(part for part in section(folder, bench) if part.startswith("| goal"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_nothing_lies_there_and_nothing_is_said(tmp_path: Path) -> None:
    assert section(tmp_path) == []


def test_whatever_is_missed_has_its_bound() -> None:
    lacking = missed(reached(FOLDER, BENCH))
    assert lacking
    assert set(lacking) <= BOUNDS.keys()


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
    options = orjson.loads((FOLDER / "many-slots.json").read_bytes())["options"]
    lay(tmp_path, "many-slots", options={**options, "first": options["first"] + 1})
    with pytest.raises(Invalid, match="many-slots"):
        section(tmp_path)


@pytest.mark.parametrize(("reached", "told"), [(None, "**missed**"), (3_900, "reached"), (4_100, "**missed**")])
def test_a_recovery_counts_from_the_worlds_together(tmp_path: Path, reached: int | None, told: str) -> None:
    one = {"before": 0.8, "after": 0.7, "to_informed": reached, "to_before": None, "to_final": 250}
    lay(tmp_path, "drift", recovery_together={"ours": one, "vw-squarecb": one})
    (row,) = rows(tmp_path)
    assert row[1] == ("not within 10,000" if reached is None else f"{reached:,}")
    assert row[2] == f"≤ 4,000: {told}"


def test_a_share_of_the_way_is_that_of_the_last_fifth_over_worlds(tmp_path: Path) -> None:
    standings = orjson.loads((FOLDER / "long.json").read_bytes())["standings"]
    (ours,) = [one for one in standings if one["policy"] == "ours"]
    low, high = ([0.0] * 5 + [middle - 0.1, middle + 0.1, 0.0, end, end] for middle, end in ((0.8, 0.7), (1.0, 0.9)))
    ours |= {"paths": [low, high]}
    lay(tmp_path, "long", standings=standings)
    # Two values .2 apart: standard error .1, Student's t with one degree of freedom 12.706.
    assert [row[1] for row in rows(tmp_path)] == ["0.900 (-0.371 … 2.171)", "0.800 (-0.471 … 2.071)"]


def test_late_outcomes_are_judged_beside_known_ones_too(tmp_path: Path) -> None:
    standings = orjson.loads((FOLDER / "delays.json").read_bytes())["standings"]
    regrets = {"ours": [12.0, 24.0], "ours-at-once": [10.0, 16.0]}
    for one in standings:
        if one["policy"] in regrets:
            one["regret"]["per_seed"] = regrets[one["policy"]]
    lay(tmp_path, "delays", standings=standings)
    _, known = rows(tmp_path)
    assert known[1].startswith("1.350 (")
    assert known[2] == "≤ 1.2: **missed**"


def test_rows_tell_when_and_in_which_worlds_they_were_played(tmp_path: Path) -> None:
    for name, played in (("stationary", "2026-12-01"), ("many-slots", "2026-11-30")):
        lay(tmp_path, name, played=f"Played {played} on a machine.", options={"first": 101, "seeds": 10})
    (tmp_path / "hillstrom.json").write_bytes((FOLDER / "hillstrom.json").read_bytes())
    (tmp_path / "hillstrom.md").write_text("## hillstrom\n\nPlayed 2026-11-27 on a machine.\n", encoding="utf-8")
    found = {cells[0].split(":")[0]: cells[6] for cells in rows(tmp_path)}
    assert (
        found["504 actions, regret over 10,000 decisions against the best-tuned VW"] == "2026-12-01: seeds 101 to 110"
    )
    assert found["3,024 actions"] == "2026-11-30: seeds 101 to 110, 2026-12-01: seeds 101 to 110"
    assert found["Hillstrom replay, first 10,000 accepted"] == "2026-11-27"


@pytest.mark.parametrize(("error", "told"), [(0.009, "reached"), (0.01, "**missed**")])
def test_new_recipients_are_better_off_only_where_the_interval_says_so(tmp_path: Path, error: float, told: str) -> None:
    logs = orjson.loads((FOLDER / "send-times.json").read_bytes())["logs"]
    (enron,) = [one for one in logs if one["log"] == "enron"]
    enron["new_recipient"] = {"mean": 0.018, "error": error, "z": 0.018 / error}
    lay(tmp_path, "send-times", logs=logs)
    (row,) = [cells for cells in rows(tmp_path) if cells[0].startswith("a recipient with ten events, enron")]
    assert row[2].endswith(told)
    assert row[1].startswith(f"+0.0180 ({0.018 - 1.96 * error:+.4f} … {0.018 + 1.96 * error:+.4f}; ")
    assert (BOUNDS["new-recipient enron"] in "\n".join(section(tmp_path))) is (told != "reached")


def test_confidence_sequences_say_at_how_many_rows_they_were_looked_at(tmp_path: Path) -> None:
    (tmp_path / "estimators.json").write_bytes((FOLDER / "estimators.json").read_bytes())
    held, width, longer, *_ = rows(tmp_path)
    assert "from row 1,000 on" in held[0]
    assert "; one look, 4,001 looks, 4,001 looks; " in held[4]
    assert [one.split()[-1] for one in width[1].split(", ")] == ["1,000", "5,000", "5,000"]
    assert (width[2], longer[2]) == ("≤ 1.5: reached", "≤ 1.5: **missed**")
    assert "1.68 at 20,000" in longer[1]
    assert BOUNDS["sequences"] in "\n".join(section(tmp_path))


def test_worlds_of_the_estimator_study_have_their_own_counts_and_days(tmp_path: Path) -> None:
    worlds = orjson.loads((FOLDER / "estimators.json").read_bytes())
    for world, count, day in zip(worlds, (3_000, 20, 20), ("02", "01", "01"), strict=True):
        world |= {"repetitions": count, "most_by_chance": count // 10, "played": f"Played 2026-12-{day} on a machine."}
    (tmp_path / "estimators.json").write_bytes(orjson.dumps(worlds))
    found = {cells[0]: cells for cells in rows(tmp_path)}
    held = found["95 % intervals of doubly robust estimates, one look: lower bound of how often they hold the truth"]
    assert held[4].startswith("3,000, 20, 20 logs a world; ")
    assert held[6] == "2026-12-01, 2026-12-02"
    wrong = found["campaigns with a wrong promotion in 40 looks where nothing is better"]
    assert "up to 300, 2, 2 by chance" in wrong[2]


@pytest.mark.parametrize(
    ("time", "memory", "told"),
    [("43 s", "1.64 GiB", "reached"), ("61 s", "1.64 GiB", "**missed**"), ("43 s", "2.04 GiB", "**missed**")],
)
def test_the_retrain_of_a_long_log_is_judged_by_the_benchmark(
    tmp_path: Path, time: str, memory: str, told: str
) -> None:
    bench = tmp_path / "RESULTS.md"
    figures = [
        Figure("retrain on the simulator's 200,000 decisions, 504 actions", time, "", "", "<= 60 s", time == "43 s"),
        Figure("its peak of memory", memory, "", "", "<= 2 GiB", memory == "1.64 GiB"),
    ]
    bench.write_text(document({"simulated": bench_section("a machine", figures), "imports": "x"}), encoding="utf-8")
    (row,) = rows(tmp_path, bench)
    assert row[1:3] == [f"{time}, {memory}", f"≤ 60 s, ≤ 2 GiB: {told}"]
    assert "a machine" in row[4]


def test_a_retrain_of_another_length_is_not_what_the_goal_is_about(tmp_path: Path) -> None:
    bench = tmp_path / "RESULTS.md"
    assert section(tmp_path, bench) == []
    figures = [Figure("retrain on the simulator's 20,000 decisions, 504 actions", "4 s", reached=True)] * 2
    bench.write_text(document({"simulated": bench_section("a machine", figures)}), encoding="utf-8")
    assert section(tmp_path, bench) == []


def test_every_row_of_the_project_says_what_it_is_read_with() -> None:
    found = rows(FOLDER, BENCH)
    assert any(cells[0].startswith("retrain on") for cells in found)
    assert len(found) >= 32
    assert all(len(cells) == 7 and cells[4] for cells in found)
