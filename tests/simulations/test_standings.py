"""What the played policies come to: standings, policies by name, tuning, the command and the report."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from rich.console import Console

from simulations import scenarios
from simulations.baselines.grids import GRIDS, beyond, search
from simulations.baselines.vw import VwOptions
from simulations.play import Played
from simulations.policies import FAMILIES, OursOptions
from simulations.policyoptions import with_options
from simulations.recovery import recovery
from simulations.scenarios import scenario
from simulations.simulate import command
from simulations.simulate_run import Options, gate_of, run, show, with_ends
from simulations.standings import Standing, figure_of, standings
from simulations.standingstable import print_standings
from simulations.world.spec import WorldSpec

SMALL = replace(scenario("stationary"), world=WorldSpec(recipients=60), decisions=300)


def test_standings_are_regret_share_and_ratio_by_seed() -> None:
    def score(policy: str, values: list[float]) -> Played:
        n = len(values)
        numbers = {
            "value": np.array(values),
            "best": np.ones(n),
            "informed": np.full(n, 0.9),
            "chance": np.full(n, 0.1),
            "reward": np.zeros(n),
            "propensity": np.ones(n),
        }
        return Played(policy, 1, numbers, {}, 1.0)

    ours = [score("ours", [0.1] * 5 + [0.9] * 5), score("ours", [0.1] * 4 + [0.9] * 6)]
    rival = [score("vw-squarecb", [0.1] * 10)] * 2
    found = {s.policy: s for s in standings({"ours": ours, "vw-squarecb": rival}, "vw-squarecb")}
    assert found["ours"].regret.per_seed == pytest.approx((4.0, 3.2))
    assert found["ours"].full_regret.per_seed == pytest.approx((5.0, 4.2))
    assert found["ours"].share.mean == pytest.approx(1.0)
    assert found["vw-squarecb"].share.mean == pytest.approx(0.0)
    ratio = found["ours"].ratio
    assert ratio is not None
    assert ratio.per_seed == pytest.approx((0.5, 0.4))
    assert ratio.mean == pytest.approx(0.45)
    # Two values .1 apart: standard error .05, Student's t with one degree of freedom 12.706.
    assert ratio.high - ratio.mean == pytest.approx(12.706 * 0.05, rel=1e-3)
    assert found["vw-squarecb"].ratio is None
    assert found["ours"].path[0] == pytest.approx(0.0)
    assert found["ours"].path[-1] == pytest.approx(1.0)
    assert [path[4] for path in found["ours"].paths] == pytest.approx([0.0, 1.0])
    assert found["ours"].path[4] == pytest.approx(0.5)


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(figure_of([1.0]).low)


def test_every_grid_speaks_of_options_that_its_policy_has() -> None:
    for name, turns in GRIDS.items():
        for option, values in turns:
            for value in values:
                changed = with_options(FAMILIES[name].options, {option: value})
                assert getattr(changed, option) == value
                assert type(value) is type(getattr(FAMILIES[name].options, option))


def test_a_search_keeps_the_best_of_each_option_and_tells_all_that_it_tried() -> None:
    def score(options: OursOptions) -> float:
        return abs(options.refresh - 0.3) + abs(options.retrain - 2.0)

    found = search(OursOptions(), (("refresh", (0.1, 0.3)), ("retrain", (2.0, 3.0))), score, with_options)
    assert found["options"] == {"refresh": 0.3, "retrain": 2.0}
    assert found["regret"] == 0
    assert [t["value"] for t in found["tried"]] == [None, 0.1, 0.3, 2.0, 3.0]


def test_a_run_has_every_policy_in_every_seed_and_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scenarios.SCENARIOS, "small", replace(SMALL, name="small", decisions=40))
    found = run(Options("small", ("full-oracle",), 2), processes=1, console=Console(quiet=True))
    assert list(found) == ["full-oracle", "random", "informed-oracle"]
    assert with_ends(("random", "ours")) == ("random", "ours", "informed-oracle")
    for seeds in found.values():
        assert [p.seed for p in seeds] == [1, 2]
        assert all(p.regret.size == 40 for p in seeds)


def test_a_search_goes_beyond_the_edges_of_a_grid_and_on_from_an_earlier_one() -> None:
    played: list[float] = []

    def score(options: VwOptions) -> float:
        played.append(options.scale)
        return float(abs(np.log(options.scale / 50_000.0)) + options.rate)

    turns = (("scale", (100.0, 1_000.0, 10_000.0)), ("rate", (0.1, 0.5)), ("power", (0.0, 0.5)))
    found = search(VwOptions(scale=1_000.0, rate=0.5), turns, score, with_options)
    assert found["options"]["scale"] == 100_000.0
    assert found["options"]["rate"] == pytest.approx(0.1 / 5**4), "four values beyond the edge at most"
    assert 1_000_000.0 in played, "the first one beyond that is no better ends it"
    assert max(played) == 1_000_000.0
    count = len(played)
    again = search(with_options(VwOptions(), found["options"]), turns, score, with_options, found["tried"])
    assert again["tried"][: len(found["tried"])] == found["tried"]
    assert 0 < len(played) - count <= 4 + 1, "what was tried is not played again"


@pytest.mark.parametrize(
    ("values", "best", "next_one"),
    [
        ({10.0, 100.0, 300.0}, 300.0, 900.0),
        ({10.0, 100.0}, 10.0, 1.0),
        ({10.0, 100.0, 300.0}, 100.0, None),
        ({0.0, 1e-2, 1.0}, 0.0, None),
        ({2, 3, 5, 10}, 10, 20),
        ({2, 3, 5, 10}, 2, 1),
        ({1, 2}, 1, None),
        ({3.0}, 3.0, None),
    ],
)
def test_beyond_an_edge_lies_a_value_as_far_as_its_neighbour(
    values: set[float], best: float, next_one: float | None
) -> None:
    assert beyond(values, best) == next_one


def test_a_report_says_which_policies_had_a_gate() -> None:
    def told(*policies: str) -> str:
        return gate_of(Options("stationary", policies, 1))

    assert told("ours", "vw-squarecb") == "off"
    assert told("service", "service-false-draws") == "on"
    assert told("ours", "service") == "on in service"


def test_people_are_told_which_policies_had_a_gate_and_a_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scenarios.SCENARIOS, "small", replace(SMALL, name="small", decisions=40))
    found = run(Options("small", ("full-oracle",), 1), processes=1, console=Console(quiet=True))

    def told(*policies: str) -> str:
        console = Console(record=True, width=400, file=StringIO())
        show(console, Options("small", policies, 1), {**found, **dict.fromkeys(policies, found["full-oracle"])})
        return " ".join(console.export_text().split())

    assert "40 decisions, seed 1, gate and canary off" in told("ours")
    assert "seed 1, gate and canary on in service" in told("ours", "service")


def test_the_command_prints_tables_json_and_pictures(tmp_path: Path) -> None:
    arguments = [
        "stationary",
        "--policies",
        "full-oracle,static-ab",
        "--seeds",
        "2",
        "--decisions",
        "60",
        "--processes",
        "1",
    ]
    done = CliRunner().invoke(command, [*arguments, "--json", "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = orjson.loads(done.stdout)
    assert report["standings"][0]["policy"] == "full-oracle"
    assert report["gate"] == "off"
    for end in ("-regret.png", "-week.png"):
        assert (tmp_path / f"stationary{end}").read_bytes().startswith(b"\x89PNG")
    assert orjson.loads((tmp_path / "stationary.json").read_bytes())["options"]["seeds"] == 2
    people = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "full-oracle" in people.stdout
    assert "Share of the way" in people.stdout


def shown(found: list[Standing], width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        print_standings(console, found, "stationary", "vw-egreedy")
    return captured.get().splitlines()


def standing(policy: str, *, asked: float = 1.0) -> Standing:
    figure = figure_of([1229.0, 1300.0])
    path = (-0.05, 0.11, 0.22, 0.33, 0.44, 0.55, 0.66, 0.77, 1.0, 0.99)
    return Standing(policy, figure, figure, figure, figure, figure, asked, path, 12.0)


def test_no_figure_and_no_name_is_cut_however_wide_the_terminal_is() -> None:
    found = [standing("informed-oracle"), standing("vw-squarecb-encoded")]
    for width in (40, 60, 72, 80, 100, 120, 200):
        lines = shown(found, width)
        assert all(len(line) <= width for line in lines)
        assert "…" not in "".join(lines)
        words = {word for line in lines for word in line.split()}
        assert {"informed-oracle", "vw-squarecb-encoded", "1,264"} <= words
        assert any("[813, 1,716]" in line for line in lines)


def test_a_narrow_terminal_has_fewer_columns_and_says_which_are_left_out() -> None:
    found = [standing("informed-oracle"), standing("ours")]
    narrow, wide = shown(found, 80), shown(found, 160)
    assert any(line.startswith("No room for: reward a decision, full regret, seconds.") for line in narrow)
    assert [line.split() for line in narrow if line.startswith("informed-oracle")] == [
        ["informed-oracle", "1,264", "1,264.500", "1,264.500"]
    ]
    assert not any("No room" in line for line in wide)
    (row,) = [line for line in wide if line.startswith("informed-oracle")]
    assert "1,264 [813, 1,716]" in row
    assert row.endswith("12")
    path = [f"{100 * share:.0f}" for share in found[0].path]
    for lines in (narrow, wide):
        assert ["informed-oracle", *path] in [line.split() for line in lines]
        assert "Regret ratio: to vw-egreedy" in " ".join(" ".join(lines).split())


def test_who_could_still_be_asked_is_told_where_not_everybody_could() -> None:
    text = "\n".join(shown([standing("ours", asked=0.897), standing("random", asked=0.99996)], 160))
    assert "89.7 %" in text
    assert "99.99 %" in text
    assert "Where nobody could be asked, regret and reward count 0" in " ".join(text.split())
    text = "\n".join(shown([standing("ours")], 160))
    assert "asked" not in text


def test_policies_told_earlier_meet_the_same_stream_and_are_what_others_are_compared_with() -> None:
    """60 decisions are all cold, so that how they are told of outcomes changes nothing yet."""
    names = "ours,ours-naive,ours-at-send,ours-at-once"
    arguments = [
        "delays",
        "--processes",
        "1",
        "--policies",
        names,
        "--against",
        "ours-at-once",
        "--seeds",
        "2",
        "--decisions",
        "60",
    ]
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    report = orjson.loads(done.stdout)
    assert report["reference"] == "ours-at-once"
    ratios = {one["policy"]: one["ratio"] for one in report["standings"]}
    assert ratios["ours-at-once"] is None
    assert ratios["ours-at-send"]["per_seed"] == ratios["ours"]["per_seed"] == [1.0, 1.0]
    assert ratios["informed-oracle"]["mean"] == 0.0


def test_what_is_compared_with_must_be_played() -> None:
    done = CliRunner().invoke(command, ["delays", "--policies", "random", "--against", "ours", "--decisions", "20"])
    assert done.exit_code != 0
    assert "not played" in done.stderr


def test_the_command_lists_what_there_is() -> None:
    listed = CliRunner().invoke(command, ["--list"], catch_exceptions=False).stdout
    assert "many-slots" in listed
    assert "vw-squarecb" in listed


def test_the_command_says_what_it_does_not_know() -> None:
    done = CliRunner().invoke(command, ["nowhere"])
    assert done.exit_code != 0
    assert "there are: stationary" in done.stderr


def test_recovery_counts_decisions_until_the_level_is_reached_again() -> None:
    n, change = 4000, 2000
    value = np.where(np.arange(n) < change, 0.8, 0.0)
    value[3000:] = 0.95
    ones, zeros = np.ones(n), np.zeros(n)
    numbers = {"value": value, "best": ones, "informed": ones, "chance": zeros, "reward": zeros, "propensity": ones}
    variant = np.where(np.arange(n) >= 2500, 1, 0)
    found = recovery([Played("ours", 1, numbers, {"variant": variant}, 1.0)], change)
    assert found.before == pytest.approx(0.8)
    assert found.after == pytest.approx(0.95)
    # .72 of the window at .95 and the rest at 0: reached when 379 of 500 lie behind 3,000; in steps of 50.
    assert found.to_before == 250 + 900
    assert found.to_informed == 250 + 1000
    assert found.to_final == 250 + 450
