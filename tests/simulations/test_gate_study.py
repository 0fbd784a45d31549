"""The gate study: its log is the service's own, its counts are binomial, and it can tell something from nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from optimizer.service.replay import Replayer
from simulations.gate_runs import Run, Study, agreeing_ids, run_once
from simulations.gate_study import command, most_by_chance, null_figures, power_figures
from simulations.hillstrom import load
from simulations.stage import WORKSPACE, app_stage, put_campaign
from simulations.stream import CAMPAIGN, Replayed, arrive, campaign_body
from tests.simulations.made_up import write_experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("data") / "hillstrom.csv", 900)


def run(promoted_at: int | None) -> Run:
    return Run(1, "null", promoted_at, ("reject",) * 40, 1.0, 0.5)


def test_every_logged_row_is_the_services_own_draw_of_the_recorded_assignment(experiment: Path) -> None:
    customers = load(experiment).take(np.arange(40))
    with app_stage(seed=1, gate=True) as stage:
        put_campaign(stage, CAMPAIGN, campaign_body(1.0))
        replayed = Replayed()
        arrive(stage, customers, replayed, agreeing_ids(stage.services.salt, customers, range(40)))
        assert len(replayed.reward) == 40
        with stage.services.store.read() as reader:
            replayer = Replayer(reader, stage.services.salt)
            for row in reader.feedback(WORKSPACE):
                assert row.decision.propensity == pytest.approx(1 / 3)
                assert replayer.draw(row.decision) == row.decision.action


def test_a_strong_difference_is_promoted_and_ends_the_run(experiment: Path) -> None:
    done = run_once(Study(experiment, part="power", retrains=3, step_rows=300), seed=1)
    assert done.results[-1] == "publish"
    assert done.promoted_at == 300 * len(done.results)


def test_nothing_is_promoted_from_shuffled_outcomes(experiment: Path) -> None:
    # One fixed seed; under the null two tries pass with a chance of at most .05.
    done = run_once(Study(experiment, part="null", retrains=2, step_rows=300), seed=1)
    assert done.results == ("reject", "reject")
    assert done.promoted_at is None


def test_nothing_is_promoted_once_every_choice_is_worth_the_same(tmp_path: Path) -> None:
    # One fixed seed. A first policy of the true outcomes, then four retrains, each after a refresh; the first two have
    # too few rows that the policy drew.
    data = write_experiment(tmp_path / "hillstrom.csv", 7_000)
    done = run_once(Study(data, part="later", retrains=4, step_rows=1_200), seed=1)
    assert done.results == ("skipped", "skipped", "reject", "reject")
    assert done.refreshes == ("unchanged", "publish", "publish", "publish")
    assert done.promoted_at is None


def test_wrong_promotions_are_weighed_against_binomial_chance() -> None:
    # Binomial(20, .05): P(≤ 2) = .925, P(≤ 3) = .984
    assert most_by_chance(20, 0.05) == 3
    assert null_figures([run(None)] * 17 + [run(250)] * 3)["passed"]
    assert not null_figures([run(None)] * 16 + [run(250)] * 4)["passed"]


def test_power_counts_promotions_in_time_only() -> None:
    figures = power_figures([run(1000)] * 18 + [run(5250), run(None)])
    assert figures["promoted"] == 18
    assert figures["passed"]
    assert not power_figures([run(1000)] * 17 + [run(5250)] * 3)["passed"]


def test_the_command_prints_what_it_found(experiment: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(experiment), "--runs", "1", "--part", "null", "--retrains", "1", "--processes", "1"]
    arguments += ["--out", str(tmp_path)]
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = orjson.loads(done.stdout)
    assert (found["null"]["retrains"], found["null"]["judged"]) == (1, 1)
    assert found["null"]["each"][0]["results"] == ["reject"]
    assert found["null"]["sentence"] in (tmp_path / "gate.md").read_text()


def test_data_that_is_missing_is_told_before_any_run_begins(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--data", str(tmp_path), "--processes", "1"])
    assert done.exit_code == 2
    assert done.output.startswith(f"Error: --data {tmp_path}: holds none of hillstrom/hillstrom.csv.gz, ")
    assert done.output.count("\n") == 1, "no progress of a run"
