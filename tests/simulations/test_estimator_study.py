"""The study of off-policy estimates: its logs are what its truth says, and its figures say what was seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from simulations import estimator_study, estimator_worlds
from simulations.estimator_study import (
    Null,
    Seen,
    command,
    cross_fitted,
    figures,
    lines,
    look,
    markdown,
    supported,
    value_test,
)
from simulations.estimator_worlds import EACH, SETTINGS, Pool, draw_log, joined, pool_of, predicted


@pytest.fixture(scope="module")
def pool() -> Pool:
    return pool_of("explored")


def test_policies_are_distributions_and_one_earns_what_the_incumbent_does(pool: Pool) -> None:
    for vectors in pool.policies.values():
        assert (vectors >= 0.0).all()
        assert np.allclose(vectors.sum(axis=1), 1.0)
    assert pool.value("equal") == pytest.approx(pool.value("incumbent"), abs=1e-12)
    assert pool.value("candidate") > pool.value("incumbent") + 0.05
    assert np.abs(pool.policies["equal"] - pool.policies["incumbent"]).sum(axis=1).mean() > 0.2
    assert pool.unseen("candidate") == 0.0, "chance makes every choice"


def test_logs_are_drawn_from_the_policy_and_the_truth(pool: Pool) -> None:
    log = draw_log(pool, "candidate", 40_000, np.random.default_rng(1))
    taken = np.bincount(log.action, minlength=pool.truth.shape[1]) / len(log.action)
    # Five standard errors of a share; people are drawn, so places differ in how often they occur.
    expected = pool.policies["candidate"][log.place].mean(axis=0)
    assert np.abs(taken - expected).max() < 5 * 0.5 / np.sqrt(40_000)
    assert log.reward.mean() == pytest.approx(pool.value("candidate"), abs=0.015)
    assert (np.bincount(log.cluster) == EACH).all()
    assert np.array_equal(log.place // EACH, np.repeat(log.place[::EACH] // EACH, EACH))


def test_rows_of_a_log_reach_training_as_they_were_drawn(pool: Pool) -> None:
    log = draw_log(pool, "incumbent", 50, np.random.default_rng(2))
    rows = log.examples(pool)
    for i in range(50):
        space = pool.spaces[int(log.place[i])]
        place = space.factors(int(log.action[i]))
        assert place is not None
        variant, slot, channel = place
        assert (rows.variant[i], rows.channel[i], rows.local[i]) == (variant, channel, space.local[slot])
    both = joined(pool.earlier, rows)
    assert len(both) == len(pool.earlier) + 50
    assert set(both.cluster[: len(pool.earlier)]).isdisjoint(both.cluster[len(pool.earlier) :])
    assert np.array_equal(both.outcome["clicked"][-50:], log.reward)


def test_reward_models_are_of_other_people(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = draw_log(pool, "incumbent", 200, np.random.default_rng(3))
    q = cross_fitted(pool, log)
    assert q.shape == (200, pool.truth.shape[1])
    even = log.cluster % 2 == 0
    other = cross_fitted(pool, replace(log, reward=np.where(even, 1.0 - log.reward, log.reward)))
    # Who is judged has no say in the own prediction: only the other half's changes.
    assert np.array_equal(q[even], other[even])
    assert not np.allclose(q[~even], other[~even])


def test_what_is_no_better_is_not_shown_to_be_and_what_is_better_is(pool: Pool) -> None:
    q = predicted(pool.before, pool, np.arange(len(pool.truth)))
    log = draw_log(pool, "incumbent", 10_000, np.random.default_rng(4))
    better, error = value_test(pool, log, "candidate", q[log.place], tries=1)
    assert 0.0 < better < pool.value("candidate") - pool.value("incumbent")
    assert error < 0.05
    assert value_test(pool, log, "equal", q[log.place], tries=1)[0] < 0.0
    assert value_test(pool, log, "candidate", q[log.place], tries=40)[0] < better, "later tries are held to more"


def test_a_log_says_the_same_whatever_the_number_of_logs(pool: Pool) -> None:
    del pool
    assert look("explored", 1, 1) == look("explored", 0, 2)[1:]


_MET, _VALUED, _NOTHING = Null(valued=True, promoted=True), Null(valued=True, promoted=False), Null(False, False)


def test_a_promotion_needs_support(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = draw_log(pool, "incumbent", 3_000, np.random.default_rng(5))
    assert supported(pool, log, "equal")
    assert not supported(pool, log.first(500), "equal"), "1,000 effective rows are needed"
    monkeypatch.setattr(estimator_study, "LOOKS", 3)
    monkeypatch.setattr(estimator_study, "STEP", 1_000)
    for met, expected in ((1, _VALUED), (3, _MET), (4, _NOTHING)):  # 1,000 rows can't be worth 1,000 reweighted ones
        said = Mock(side_effect=lambda *_, tries, met=met: (1.0 if tries == met else -1.0, 1.0))
        monkeypatch.setattr(estimator_study, "value_test", said)
        assert estimator_study.wrong("explored", 0, 1) == [expected]


def _seen(*, held: bool, low: float, truth: float) -> Seen:
    return Seen({"dr normal": held, "ips normal": True}, {"dr normal": 0.5, "ips normal": 1.0}, low, truth)


def test_figures_say_what_was_seen() -> None:
    seen = [_seen(held=i != 0, low=0.1 if i < 85 else -0.1, truth=0.1 if i < 90 else -0.1) for i in range(100)]
    found = {**figures("explored", seen, [_MET] * 2 + [_VALUED] * 8 + [_NOTHING] * 90), "played": "Played today."}
    assert found["intervals"][0] == {
        "interval": "dr normal",
        "held": 99,
        "coverage": 0.99,
        "coverage_lower_bound": pytest.approx(0.9534, abs=1e-4),
        "relative_width": 1.0,
    }
    assert found["intervals"][1]["relative_width"] == 2.0
    assert (found["power"], found["power_with_the_true_model"], found["power_passed"]) == (0.85, 0.9, True)
    assert (found["wrong"], found["wrong_by_value"]) == (2, 10)
    assert (found["most_by_chance"], found["null_passed"]) == (9, True)
    bad = found | figures("explored", [replace(one, low=-1.0) for one in seen], [_MET] * 10 + [_NOTHING] * 90)
    assert (bad["power_passed"], bad["null_passed"]) == (False, False)
    assert "0.850; with the true reward model 0.900 (asked: 0.9 of it): passed" in markdown([found])
    assert markdown([bad]).count("NOT passed") == 2
    assert any(line.split() == ["dr", "normal", "0.990", "0.953", "1.00", "yes"] for line in lines(found))


def test_the_command_prints_and_leaves_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator_study, "LOOKS", 2)
    monkeypatch.setitem(estimator_worlds.SETTINGS, "explored", replace(SETTINGS["explored"], rows=250))
    lying = [
        {**figures(name, [_seen(held=True, low=0.1, truth=0.1)], [_NOTHING]), "played": f"Played 2026-11-{day} here."}
        for name, day in (("explored", 29), ("usual", 30))
    ]
    (tmp_path / "estimators.json").write_bytes(orjson.dumps(lying))
    run = CliRunner().invoke(
        command, ["--repetitions", "20", "--world", "explored", "--processes", "1", "--out", str(tmp_path), "--json"]
    )
    assert run.exit_code == 0, run.output
    found, other = orjson.loads((tmp_path / "estimators.json").read_bytes())
    assert (found["world"], found["repetitions"], found["rows"], found["campaigns"]) == ("explored", 20, 250, 20)
    assert other == orjson.loads(orjson.dumps(lying[1])), "a world that wasn't asked for stays"
    text = (tmp_path / "estimators.md").read_text(encoding="utf-8")
    assert text.count("| dr normal |") == 2
    assert ("Played 2026-11-29" in text, "Played 2026-11-30" in text) == (False, True)
    refused = CliRunner().invoke(command, ["--world", "nowhere"])
    assert refused.exit_code == 2
    assert "explored, usual, rare" in refused.output
