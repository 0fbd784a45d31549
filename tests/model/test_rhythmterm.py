"""The rhythm term: what it adds to scores, how it is learned, kept through refreshes, and left out without proof."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optimizer.bandit.actions import ActionSpace
from optimizer.errors import BadArtifact, Invalid
from optimizer.model.examples import Examples
from optimizer.model.inference import RewardModel
from optimizer.model.rhythm import FEATURES, WIDTH, RhythmPrior, posterior, tallies_of
from optimizer.model.rhythmterm import RhythmTerm, deviations
from optimizer.model.training.evaluate import log_likelihood
from optimizer.model.training.train import refresh, train
from tests.model.conftest import MONDAY, Maker, campaign

HOUR = 3_600
FLAT = RhythmPrior(np.zeros((2, 168)), 0.3 * np.eye(WIDTH))
TERM = RhythmTerm(FLAT, {"clicked": 0.8})
OWL = {"rhythm": {"active": [[20, 4.0], [44, 3.0]], "sent": [[9, 2.0]]}}
MIDDLES = MONDAY + HOUR * np.arange(168) + HOUR // 2


def test_the_shift_is_the_scale_times_the_curve_of_the_posterior() -> None:
    theta = posterior(FLAT, tallies_of([OWL["rhythm"]])).mode[0]
    shift = TERM.shift(("clicked", "unsubscribed"), OWL, MIDDLES)
    assert shift is not None
    np.testing.assert_allclose(shift[0], 0.8 * FEATURES @ theta)
    np.testing.assert_array_equal(shift[1], 0.0)
    assert shift[0].argmax() % 24 in (19, 20, 21)


def test_nothing_told_shifts_nothing() -> None:
    assert TERM.shift(("clicked",), {}, MIDDLES) is None
    np.testing.assert_array_equal(deviations(FLAT, [{}, {}], MIDDLES[:2]), 0.0)


def test_many_rows_are_as_each_alone() -> None:
    rows = deviations(FLAT, [OWL, {}, OWL], MIDDLES[[20, 20, 8]])
    curve = TERM.shift(("clicked",), OWL, MIDDLES)
    assert curve is not None
    np.testing.assert_allclose(0.8 * rows, [curve[0, 20], 0.0, curve[0, 8]], atol=1e-9)


@pytest.mark.parametrize("broken", [{"rhythm.curves": None}, {"rhythm.curves": np.zeros((2, 24))}])
def test_an_artifact_whose_rhythm_does_not_fit_is_refused(broken: dict[str, Any]) -> None:
    arrays, meta = TERM.save()
    arrays = {name: value for name, value in (arrays | broken).items() if value is not None}
    with pytest.raises(BadArtifact, match="rhythm"):
        RhythmTerm.load(arrays, meta)


def followers(make: Maker, n: int, scale: float, seed: int = 3) -> Examples:
    """Rows of early risers and owls whose clicks follow their own hours by ``scale``; tallies tell who is who."""
    rng = np.random.default_rng(seed)
    rows = make(n, seed, no_send=0.1)
    person = rng.integers(0, 150, n)
    peak = np.where(person % 2 == 0, 8, 20)
    effects = [{"rhythm": {"active": [[int(p) + 24 * int(d), 2.0] for d in rng.integers(0, 7, 3)]}} for p in peak]
    hour = (rows.local // HOUR) % 24
    own = scale * np.cos(2 * np.pi * (hour - peak) / 24)
    clicked = (rng.random(n) < 1 / (1 + np.exp(1.0 - own))).astype(float)
    outcome = {"clicked": np.where(rows.sent, clicked, np.nan)}
    return replace(rows, outcome=outcome, value={}, cluster=person.astype(np.int64), effects=effects)


@pytest.fixture(scope="module")
def model(make_examples: Maker) -> RewardModel:
    return RewardModel.load(train(followers(make_examples, 4000, 1.5), attributes=(), seed=0, network=False).blob)


def slots_at(*hours: int) -> ActionSpace:
    """One variant on one channel in the middle of these hours of Monday."""
    at = MONDAY + HOUR * np.array(hours, dtype=np.int64) + HOUR // 2
    return ActionSpace(("a",), ("email",), at, at, False)


def test_a_planted_rhythm_is_learned_and_moves_scores(model: RewardModel) -> None:
    assert model.rhythm is not None
    assert model.rhythm.scales["clicked"] > 0.4

    def best(hour: int) -> int:
        told = {"rhythm": {"active": [[hour, 2.0], [hour + 24, 2.0], [hour + 48, 2.0]]}}
        scores = model.score(model.embed([{}])[0], slots_at(8, 20), campaign(), told)
        return int(scores.outcome["clicked"].argmax())

    assert (best(8), best(20)) == (0, 1)


def test_the_likelihood_of_logged_rows_is_that_of_their_scores(model: RewardModel, make_examples: Maker) -> None:
    rows = followers(make_examples, 300, 1.5, seed=9)
    told = float(np.nanmean(log_likelihood(model, rows)["clicked"]))
    untold = float(np.nanmean(log_likelihood(model, replace(rows, effects=()))["clicked"]))
    assert told > untold + 0.01


def test_what_nothing_follows_is_left_out(make_examples: Maker) -> None:
    """Chance lets a scale in in about one of forty such worlds; this is one fixed world."""
    trained = train(followers(make_examples, 3000, 0.0), attributes=(), seed=0, network=False)
    assert RewardModel.load(trained.blob).rhythm is None
    assert trained.report["rhythm"] == {}


def test_without_tallies_nothing_changes(make_examples: Maker) -> None:
    rows = make_examples(800, 1)
    told = replace(rows, effects=[{} for _ in range(800)])
    assert train(rows, attributes=(), seed=0).blob == train(told, attributes=(), seed=0).blob


def test_a_refresh_keeps_the_rhythm(model: RewardModel, make_examples: Maker) -> None:
    blob = train(followers(make_examples, 4000, 1.5), attributes=(), seed=0, network=False).blob
    refreshed = RewardModel.load(refresh(blob, followers(make_examples, 1000, 1.5, seed=5)).blob)
    assert refreshed.rhythm is not None
    assert model.rhythm is not None
    assert refreshed.rhythm.scales == model.rhythm.scales
    np.testing.assert_array_equal(refreshed.rhythm.prior.curves, model.rhythm.prior.curves)


def test_effects_come_for_every_row_or_for_none(make_examples: Maker) -> None:
    rows = make_examples(5, 1)
    with pytest.raises(Invalid, match="has 2 rows"):
        replace(rows, effects=[{}, {}])
    assert replace(rows, effects=[{}, OWL, {}, {}, {}]).take(np.array([1])).effects == [OWL]
