"""The study of the report measures what the report states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from optimizer.bandit.comparison import lift_of
from simulations.report_study import command, lower_bound, study
from simulations.report_worlds import DAYS, WORLDS, watch


@pytest.mark.parametrize("name", ["orders", "clusters", "learning"])
def test_a_day_of_the_study_is_what_the_report_states_on_that_day(name: str) -> None:
    world = WORLDS[name][1](np.random.default_rng(5))
    seen = watch(world)
    first = int(np.argmax(seen.stated))
    for day in (first - 1, first, (first + DAYS) // 2, DAYS - 1):
        found = lift_of(world.rows(day, control=False), world.rows(day, control=True))
        assert found is not None
        assert float(found.value) == pytest.approx(float(seen.estimate.value[day]))
        assert float(found.error) == pytest.approx(float(seen.estimate.error[day]))
        assert float(found.low) == pytest.approx(float(seen.estimate.low[day]))
        assert float(found.high) == pytest.approx(float(seen.estimate.high[day]))


def test_the_truth_is_the_lift_of_the_decisions_so_far() -> None:
    world = WORLDS["learning"][1](np.random.default_rng(1))
    assert world.truth[0] == 0.0
    assert world.truth[-1] == pytest.approx(float(world.lift[world.day].mean()))


def test_campaigns_that_miss_on_any_day_are_not_covered() -> None:
    world = WORLDS["nothing"][1](np.random.default_rng(2))
    assert watch(world).covered
    assert not watch(replace(world, lift=np.full(DAYS, 0.5))).covered


def test_a_campaign_whose_shares_change_is_compared_within_stretches() -> None:
    world = WORLDS["grown"][1](np.random.default_rng(4))
    treated, control = (world.rows(DAYS - 1, control=one) for one in (False, True))
    assert [
        float(np.mean(world.control[(world.day >= a) & (world.day < b)])) for a, b in ((0, 14), (14, 35), (35, 56))
    ] == (pytest.approx([0.02, 0.1, 0.3], abs=0.01))
    assert set(treated.epoch) == set(control.epoch) == {0, 1, 2}
    seen = watch(world)
    assert seen.covered
    assert float(treated.value.mean() - control.value.mean()) < float(seen.estimate.low[-1]), "Simpson's paradox"


def test_the_figures_of_a_world_say_how_many_were_covered() -> None:
    found = study("clusters", 30)
    assert (found["campaigns"], found["with_a_statement"]) == (30, 30)
    assert found["covered"] >= 26, "at the stated .95, fewer than 26 in .1 % of tests"
    assert 1.3 < found["mean_width"] < 1.6
    assert found["coverage_lower_bound"] == lower_bound(found["covered"], 30) < found["coverage"]


def test_the_lower_bound_is_clopper_and_pearsons() -> None:
    assert lower_bound(475, 500) == pytest.approx(0.9308, abs=5e-4)
    assert lower_bound(0, 10) == 0.0
    assert lower_bound(10, 10) == pytest.approx(0.05**0.1)


def test_the_command_tells_a_table_and_json(tmp_path: Path) -> None:
    called = CliRunner().invoke(command, ["--campaigns", "20", "--world", "coins", "--out", str(tmp_path)])
    assert called.exit_code == 0, called.output
    left = orjson.loads((tmp_path / "lift-intervals.json").read_bytes())
    assert (
        f"| {left[0]['coverage']:.3f} | {left[0]['coverage_lower_bound']:.3f} |"
        in (tmp_path / "lift-intervals.md").read_text()
    )
    assert "asked for: covered at least 0.93" in called.stdout
    told = CliRunner().invoke(command, ["--campaigns", "20", "--world", "coins", "--json"])
    assert orjson.loads(told.stdout)[0]["world"] == "coins"
    assert CliRunner().invoke(command, ["--world", "mars"]).exit_code == 2
