"""The study of tuning: the search is the production one on the log so far, and shares are of what the world says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from optimizer.model.training.options import DEFAULTS, TrainOptions
from optimizer.service import searches, tuning
from simulations import scenarios, tuning_study
from simulations.tuning_study import Searched, Study, command, searched, sentence

LOGGED, ASKED = 200, 40
SMALL = Study("stationary", LOGGED, ASKED, trials=1)
#: Numbers that leave no block of weights where it would be.
ODD = TrainOptions(shape=12.0, rate=0.001)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of few people, whose log a search may begin on."""
    one = scenarios.SCENARIOS["stationary"]
    few = replace(one, world=replace(one.world, recipients=60))
    monkeypatch.setattr(scenarios, "SCENARIOS", {**scenarios.SCENARIOS, "stationary": few})
    monkeypatch.setattr(searches, "LEAST", 100)


@pytest.mark.usefixtures("small")
def test_the_search_sees_the_log_so_far_and_what_it_finds_makes_a_model_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, told = tuning.tune, dict[str, Any]()

    def tune(*args: Any) -> dict[str, Any]:
        told.update(found(*args))
        return told

    monkeypatch.setattr(tuning, "tune", tune)
    same = searched(SMALL, 1)
    assert sum(told["rows"]) == LOGGED
    assert told["trials"] == 1, "the first trial of a search is of the numbers in use"
    assert same.decision == "kept"
    assert same.best == DEFAULTS.to_json()
    assert same.z is None
    assert 0.0 < same.defaults < 1.0
    assert same.found == same.held == same.defaults

    odd = {"decision": "adopted", "best": ODD.to_json(), "likelihood": {"z": 3.0}}
    monkeypatch.setattr(tuning, "tune", lambda *_: odd)
    other = searched(SMALL, 1)
    assert other.defaults == same.defaults
    assert other.found != other.defaults
    assert other.held == other.found
    assert other.z == 3.0


def world(seed: int, decision: str, defaults: float, found: float) -> Searched:
    return Searched(seed, decision, 1.0, DEFAULTS.to_json(), defaults, found, 1.0)


def test_what_was_not_adopted_brings_nothing() -> None:
    told = sentence("stationary", [world(1, "kept", 0.8, 0.9), world(2, "adopted", 0.7, 0.9)])
    assert "0.750 of the way" in told
    assert "found best goes +0.1500" in told
    assert "1 of 2 searches adopted it" in told
    assert "after them goes +0.1000" in told


def test_the_command_leaves_figures_and_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worlds = [world(201, "kept", 0.8, 0.75), world(202, "adopted", 0.7, 0.9)]
    monkeypatch.setattr(tuning_study, "in_processes", lambda *_, **__: worlds)
    ended = CliRunner().invoke(command, ["--scenario", "history", "--seeds", "2", "--out", str(tmp_path)])
    assert ended.exit_code == 0, ended.output
    assert ended.output.startswith("history: with the defaults 0.750 of the way")
    assert [one["seed"] for one in orjson.loads((tmp_path / "tuning.json").read_bytes())["history"]] == [201, 202]
    text = (tmp_path / "tuning.md").read_text()
    assert "| kept | 0.800 | 0.750 | 0.800 |" in text
    assert "| adopted | 0.700 | 0.900 | 0.900 |" in text
