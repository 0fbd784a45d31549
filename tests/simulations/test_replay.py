"""The replay through the app, on a made-up experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from simulations.hillstrom import ARMS, load
from simulations.replay import command
from simulations.replay_seed import Options, SeedResult, run_seed
from simulations.stage import WORKSPACE, app_stage
from simulations.stream import CAMPAIGN, replay
from tests.simulations.made_up import write_experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("data") / "hillstrom.csv", 2000)


@pytest.fixture(scope="module")
def result(experiment: Path) -> SeedResult:
    return run_seed(Options(experiment, accepted=450, refresh_every=225), seed=1)


def test_a_replay_learns_the_arm_that_pays(result: SeedResult) -> None:
    # Before the first policy .33 on average (s.e. .031), after it near .6: beyond .45 is more than four errors away.
    assert result.service[:225].mean() < 0.45
    assert result.service[225:].mean() > 0.45
    assert result.shares[ARMS.index("mens")] > 0.6


def test_training_runs_follow_the_accepted_customers(result: SeedResult) -> None:
    assert [(step["accepted"], step["full"], step["result"]) for step in result.steps] == [
        (225, True, "publish"),
        (450, True, "publish"),
    ]


def test_rivals_get_as_many_customers_of_the_same_stream(result: SeedResult) -> None:
    assert result.service.size == 450
    assert result.thompson.size == result.uniform.size == result.static.size == 450
    assert result.best_arm == ARMS.index("mens")


def test_the_final_policy_is_valued_on_customers_that_it_never_saw(result: SeedResult) -> None:
    assert result.held_out is not None
    assert result.held_out.rows == 2000 - result.consumed
    # Uniform choice is worth .33, the best arm .6; the policy must be clearly above chance (s.e. about .03).
    assert result.held_out.policy - 3 * result.held_out.policy_error > 1 / 3


def test_the_log_holds_agreeing_choices_as_open_and_the_others_as_released(experiment: Path) -> None:
    customers = load(experiment).take(np.arange(60))
    with app_stage(seed=2, gate=False) as stage:
        replayed = replay(stage, customers, accepted=1000, refresh_every=1000)
        with stage.services.store.read() as reader:
            rows = list(reader.feedback(WORKSPACE, campaign_id=CAMPAIGN))
    assert replayed.consumed == len(rows) == 60
    for row in rows:
        decision = row.decision
        place = int(decision.recipient_id.removeprefix("customer-"))
        agrees = ARMS[customers.assigned[place]] == decision.variant_id
        assert (decision.status == "released") is not agrees
        assert len(row.events) == int(agrees and customers.visit[place])
    assert len(replayed.reward) == sum(row.decision.status != "released" for row in rows)
    assert sum(replayed.reward) == sum(len(row.events) for row in rows)


def test_the_same_seed_replays_the_same(experiment: Path) -> None:
    options = Options(experiment, accepted=1000, refresh_every=1000, customers=90, held_out=False)
    one, other = run_seed(options, seed=3), run_seed(options, seed=3)
    np.testing.assert_array_equal(one.service, other.service)
    assert one.service.size < 90


def test_the_command_prints_json_and_leaves_a_fragment_with_curves(experiment: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(experiment), "--seeds", "2", "--customers", "150", "--json", "--out", str(tmp_path)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = orjson.loads(done.stdout)
    assert report["best_static"] == "Mens E-Mail"
    assert [len(span["against_thompson"]["per_seed"]) for span in report["spans"]] == [2, 2]
    assert report["seeds"][0]["consumed"] == 150
    assert (tmp_path / "hillstrom.png").read_bytes().startswith(b"\x89PNG")
    assert orjson.loads((tmp_path / "hillstrom.json").read_bytes()) == report
    text = (tmp_path / "hillstrom.md").read_text()
    assert "gate and canary off; 2 random orders" in text
    assert f"{report['spans'][0]['service']['mean']:.4f}" in text


def test_the_command_prints_tables_for_people(experiment: Path) -> None:
    done = CliRunner().invoke(command, ["--data", str(experiment), "--seeds", "1", "--customers", "90"])
    assert done.exit_code == 0, done.output
    assert "Sendtide" in done.stdout
    assert "Thompson" in done.stdout
    assert "Final policy on" in done.stdout


def test_a_missing_file_is_told_without_a_trace(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "hillstrom.csv.gz" in done.stderr
