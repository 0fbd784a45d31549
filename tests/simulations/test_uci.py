"""UCI sets as bandits: files are read as they lie, orders are paired, rivals learn, figures are what they say."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from optimizer.errors import ConfigError
from optimizer.model.training.kway import KwayOptions
from simulations.uci import SETS as NAMES
from simulations.uci import command
from simulations.uci.data import SETS, Classification, load
from simulations.uci.report import compare, markdown
from simulations.uci.rivals import RIVALS, LinearOptions, VwOptions, play
from simulations.uci.run import Run, play_loop, play_ours, run_once, tune_once

ROWS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up files of a few rows in the layouts of the real ones: the first number decides the class."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "uci").mkdir()
    rng = np.random.default_rng(1)
    mushroom, adult, shuttle = [], ["age,job,income"], []
    for _ in range(ROWS):
        x, job = int(rng.integers(100)), "ab"[int(rng.integers(2))]
        label = x >= 50
        mushroom.append(f"{'xy'[label]},{job},{'ep'[label]}")
        adult.append(f"{x}, {job}, {'>50K' if label else '<=50K'}")
        shuttle.append(f"{x} {int(label)} 0 {x // 40 + 1}")
    for name, lines in (("mushroom", mushroom), ("adult", adult), ("shuttle", shuttle)):
        with gzip.open(folder / "uci" / SETS[name].file, "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    with gzip.open(folder / "uci" / SETS["letter"].file, "wt", encoding="utf-8") as file:
        file.write("@relation letters\n@attribute 1 {0,1}\n\n@data\n1,2,3\n4,5,6\n")
    with gzip.open(folder / "uci" / SETS["covertype"].file, "wt", encoding="utf-8") as file:
        file.write("Id,Height,Soil,Cover\n1,10.5,0,5\n2,11,1,7\n")
    return folder


def stream(data: Path, name: str = "adult", rounds: int = 300) -> Classification:
    return load(data, name).stream(rounds, np.random.default_rng(2))


def test_every_layout_is_read_with_its_types(data: Path) -> None:
    adult = load(data, "adult")
    assert [(a.name, a.type) for a in adult.attributes] == [("age", "number"), ("job", "category")]
    assert (len(adult.contexts), adult.classes) == (ROWS, 2)
    covertype = load(data, "covertype")
    assert covertype.contexts[1] == {"Height": 11.0, "Soil": True}
    assert [a.type for a in covertype.attributes] == ["number", "boolean"]
    assert load(data, "letter").contexts == [{"f00": 1.0, "f01": 2.0}, {"f00": 4.0, "f01": 5.0}]
    assert load(data, "shuttle").classes == 3
    assert load(data, "mushroom").contexts[0].keys() == {"f00", "f01"}
    assert tuple(SETS) == NAMES


def test_a_short_set_goes_round_again_reshuffled(data: Path) -> None:
    twice = load(data, "adult").stream(2 * ROWS, np.random.default_rng(3))
    ages = [context["age"] for context in twice.contexts]
    assert sorted(ages[:ROWS]) == sorted(ages[ROWS:])
    assert ages[:ROWS] != ages[ROWS:]


def test_what_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="iris"):
        load(data, "iris")
    with pytest.raises(ConfigError, match=r"adult\.csv\.gz is neither in"):
        load(tmp_path, "adult")
    with gzip.open(tmp_path / SETS["adult"].file, "wt", encoding="utf-8") as file:
        file.write("age,income\n1,a\n1,2,b\n")
    with pytest.raises(ConfigError, match="expected 2 values in every line"):
        load(tmp_path, "adult")


def test_a_missing_file_is_told_before_anything_is_played(tmp_path: Path) -> None:
    said = CliRunner().invoke(command, ["--data", str(tmp_path), "--seeds", "1"])
    assert said.exit_code == 2
    assert "shuttle.trn.gz is neither in" in said.stderr
    assert "runs" not in said.stderr


@pytest.mark.parametrize(
    "options",
    [
        VwOptions("squarecb"),
        VwOptions("egreedy", features="encoded", cost="negative"),
        VwOptions("cover", crossing="second"),
        LinearOptions("ts"),
        LinearOptions("ucb", features="encoded"),
    ],
)
def test_every_rival_learns_and_repeats_itself(data: Path, options: VwOptions | LinearOptions) -> None:
    rewards = play(stream(data), options, seed=1)
    assert set(rewards) <= {0.0, 1.0}
    assert rewards[-100:].mean() > 0.8  # chance is .5
    np.testing.assert_array_equal(rewards, play(stream(data), options, seed=1))


def test_ours_learns_a_set(data: Path) -> None:
    rewards = play_ours(stream(data, "shuttle"), seed=1, options=KwayOptions(width=32))
    assert rewards[-100:].mean() > 0.8  # chance is 1/3


def test_a_loop_of_personalizers_api_learns_a_set_too(data: Path) -> None:
    rewards = play_loop(stream(data, "shuttle"), seed=1)
    assert rewards[-100:].mean() > 0.7  # chance is 1/3, and a fifth may be explored
    np.testing.assert_array_equal(rewards, play_loop(stream(data, "shuttle"), seed=1))


def test_a_run_is_paired_by_seed_and_repeatable(data: Path) -> None:
    first, again = (run_once(data, "mushroom", "lints", 3, 100) for _ in range(2))
    assert (first.error, first.parts) == (again.error, again.parts)
    assert first.error == pytest.approx(np.mean(first.parts))
    assert run_once(data, "mushroom", "lints", 4, 100).parts != first.parts


def test_tuning_keeps_the_best_of_its_grid_and_says_what_it_tried(data: Path) -> None:
    found = tune_once(data, "adult", "lints", 1, 80)
    start, turns = RIVALS["lints"]
    assert found["regret"] == min(one["regret"] for one in found["tried"])
    assert len(found["tried"]) == 1 + sum(len(values) for _, values in turns)
    assert found["seeds"] == [1001]
    assert start == LinearOptions("ts")


def runs(errors: dict[str, list[float]], name: str = "adult") -> list[Run]:
    return [Run(name, p, seed, e, (e,), 1.0) for p, each in errors.items() for seed, e in enumerate(each, 1)]


def test_ratios_are_to_the_best_vw_order_by_order() -> None:
    found = compare(
        runs({"sendtide": [0.1, 0.2], "vw-a": [0.2, 0.2], "vw-b": [0.5, 0.5], "lints": [0.01, 0.01]})
        + runs({"sendtide": [0.1, 0.1], "vw-a": [0.9, 0.9], "vw-b": [0.2, 0.8]}, "letter")
    )
    adult, letter = found.rows
    assert (adult.best, letter.best) == ("vw-a", "vw-b")
    assert adult.ratio is not None
    assert letter.ratio is not None
    assert adult.ratio.per_seed == pytest.approx((0.5, 1.0))
    assert letter.ratio.per_seed == pytest.approx((0.5, 0.125))
    assert found.overall is not None
    assert found.overall.per_seed == pytest.approx((0.5, np.sqrt(0.125)))
    # Two seeds: t(.975, 1) = 12.706, standard error .05.
    assert adult.errors["sendtide"].high == pytest.approx(0.15 + 12.706 * 0.05, abs=1e-3)


def test_the_fragment_names_goals_and_intervals() -> None:
    text = markdown(compare(runs({"sendtide": [0.1, 0.1], "vw-a": [0.2, 0.2]})), 10_000, 2)
    assert (
        "| adult | ≤ 0.162 | 0.1000 (0.1000 … 0.1000) | 0.2000 (0.2000 … 0.2000) | 0.500 (0.500 … 0.500), vw-a |"
        in text
    )
    assert "Geometric mean of the ratios: 0.500" in text
    assert "Not tuned, playing where their search starts: vw-a on adult" in text


def test_the_command_writes_figures_fragment_and_picture(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--seeds", "2", "--rounds", "60", "--processes", "1", "--out", str(tmp_path)]
    chosen = ["--set", "mushroom", "--policies", "sendtide,vw-egreedy", "--json"]
    done = CliRunner().invoke(command, [*arguments, *chosen], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = orjson.loads(done.stdout)
    assert [row["set"] for row in found["rows"]] == ["mushroom"]
    assert len(found["runs"]) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"uci.json", "uci.md", "uci.png"}
    again = ["--set", "adult", "--policies", "lints"]
    done = CliRunner().invoke(command, [*arguments, *again], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| mushroom |" in done.stdout  # kept from before
    assert "| adult |" in done.stdout


@pytest.mark.parametrize("wrong", [["--set", "iris"], ["--policies", "sendtide,oracle"]])
def test_unknown_sets_and_rivals_are_named(data: Path, wrong: list[str]) -> None:
    done = CliRunner().invoke(command, ["--data", str(data), *wrong])
    assert done.exit_code != 0
    assert wrong[1].split(",")[-1] in done.output
