"""A person's own rhythm: its arithmetic against hand-made tables and numerical derivatives, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.model import rhythm
from optimizer.model.rhythm import (
    FEATURES,
    WIDTH,
    RhythmPrior,
    Tallies,
    activity,
    decay,
    fit_prior,
    posterior,
    tallies_of,
)
from optimizer.model.timefeatures import DAY, HOURS_OF_WEEK
from storage.rhythm import RHYTHM_KINDS

FLAT = RhythmPrior(np.zeros((2, HOURS_OF_WEEK)), 0.3 * np.eye(WIDTH))
NOTHING = np.zeros((1, HOURS_OF_WEEK))


def at_hours(*hours: int, count: float = 1.0) -> np.ndarray:
    """(1, 168) with ``count`` at these hours of every day."""
    out = np.zeros((7, 24))
    out[:, list(hours)] = count
    return out.reshape(1, -1)


def sampled(rng: np.random.Generator, peaks: np.ndarray, events: int) -> np.ndarray:
    """Counts of people whose events lie around their peak hour, (n, 168)."""
    out = np.zeros((len(peaks), HOURS_OF_WEEK))
    for row, peak in enumerate(peaks):
        hours = np.round(rng.normal(peak, 1.5, events)).astype(int) % 24
        np.add.at(out[row], rng.integers(0, 7, events) * 24 + hours, 1.0)
    return out


def test_features_average_to_nothing_over_the_week() -> None:
    assert FEATURES.shape == (HOURS_OF_WEEK, WIDTH)
    np.testing.assert_allclose(FEATURES.mean(axis=0), 0.0, atol=1e-12)


def test_hour_zero_is_monday_midnight() -> None:
    monday_noon = np.array([4 * DAY + 12 * 3600 + 1800])
    np.testing.assert_allclose(rhythm.rhythm_features(monday_noon)[0], FEATURES[12])
    assert FEATURES[12, 8] < 0 < FEATURES[5 * 24, 8], "the weekend begins on Saturday"


#: What decisions are told: counts to the third decimal, hours in any order.
HOURS = st.dictionaries(st.integers(0, HOURS_OF_WEEK - 1), st.integers(10, 2_000_000).map(lambda n: n / 1000))
TOLD = st.dictionaries(st.sampled_from(RHYTHM_KINDS), HOURS.map(lambda told: [[*pair] for pair in told.items()]))


@given(told=st.lists(TOLD, max_size=3))
def test_tallies_are_what_was_told(told: list[dict[str, list[list[float]]]]) -> None:
    found = tallies_of(told)
    for kind in RHYTHM_KINDS:
        expected = np.zeros((len(told), HOURS_OF_WEEK))
        for row, kinds in enumerate(told):
            for hour, count in kinds.get(kind, []):
                expected[row, int(hour)] = count
        np.testing.assert_array_equal(getattr(found, kind), expected)


def test_weights_halve_with_every_half_life() -> None:
    np.testing.assert_allclose(decay(np.array([0, 7 * DAY, 14 * DAY]), 7.0), [1.0, 0.5, 0.25])
    np.testing.assert_allclose(decay(np.array([10_000 * DAY]), np.inf), [1.0])


def test_without_evidence_the_prior_is_the_posterior() -> None:
    found = posterior(FLAT, Tallies(NOTHING, NOTHING, NOTHING))
    np.testing.assert_array_equal(found.mode, np.zeros((1, WIDTH)))
    np.testing.assert_allclose(found.covariance[0], FLAT.covariance)


def test_the_mode_is_where_the_log_posterior_is_flat() -> None:
    rng = np.random.default_rng(3)
    active = rng.poisson(0.3, (2, HOURS_OF_WEEK)).astype(float)
    sent = rng.poisson(0.5, (2, HOURS_OF_WEEK)).astype(float)
    people = Tallies(active, np.minimum(sent, rng.poisson(0.4, sent.shape)), sent)
    prior = RhythmPrior(rng.normal(0, 0.3, (2, HOURS_OF_WEEK)), FLAT.covariance)

    def log_posterior(theta: np.ndarray, row: int) -> float:
        total = -0.5 * theta @ np.linalg.inv(prior.covariance) @ theta
        for (counts, exposure), curve in zip(people.kinds(), prior.curves, strict=True):
            rates = exposure[row] + curve + FEATURES @ theta
            seen = counts[row] > 0
            log_shares = rates[seen] - np.log(np.exp(rates).sum())
            total += float(counts[row, seen] @ log_shares)
        return float(total)

    found = posterior(prior, people, steps=30)
    for row in range(2):
        for axis in np.eye(WIDTH):
            up = log_posterior(found.mode[row] + 1e-3 * axis, row)
            down = log_posterior(found.mode[row] - 1e-3 * axis, row)
            top = log_posterior(found.mode[row], row)
            assert abs(up - down) / 2e-3 < 1e-2
            assert (2 * top - up - down) / 1e-6 == pytest.approx(
                float(axis @ np.linalg.inv(found.covariance[row]) @ axis), rel=1e-2
            )


def test_people_are_fitted_alone_as_in_company() -> None:
    rng = np.random.default_rng(4)
    people = Tallies.of_activity(rng.poisson(0.2, (5, HOURS_OF_WEEK)).astype(float))
    together = posterior(FLAT, people, steps=30)
    for row in range(5):
        alone = posterior(FLAT, Tallies.of_activity(people.active[[row]]), steps=30)
        np.testing.assert_allclose(alone.mode[0], together.mode[row], atol=1e-5)


def test_sending_more_at_an_hour_does_not_make_it_look_better() -> None:
    """Answers in proportion to the sends say nothing about hours, however uneven the sends are."""
    sent = at_hours(9, count=30.0) + at_hours(20, count=2.0)
    even = posterior(FLAT, Tallies(NOTHING, 0.3 * sent, sent)).mode
    np.testing.assert_allclose(even, 0.0, atol=1e-6)
    better_at_night = Tallies(NOTHING, at_hours(9, count=3.0) + at_hours(20, count=2.0), sent)
    curve = (posterior(FLAT, better_at_night).mode @ FEATURES.T)[0]
    assert curve[20] > curve[9] + 0.5


def test_answers_to_messages_that_were_not_tallied_are_left_out() -> None:
    found = posterior(FLAT, Tallies(NOTHING, at_hours(9, count=5.0), NOTHING))
    np.testing.assert_array_equal(found.mode, np.zeros((1, WIDTH)))


def test_the_population_is_learned_and_a_person_departs_from_it_with_evidence() -> None:
    rng = np.random.default_rng(5)
    peaks = np.where(np.arange(200) % 2 == 0, 8.0, 20.0)
    prior = fit_prior(Tallies.of_activity(sampled(rng, peaks, 30)))
    stranger = activity(prior, posterior(prior, Tallies.of_activity(NOTHING)))[0, 2]
    assert stranger[8] == pytest.approx(stranger[20], rel=0.35)
    four_evenings = np.zeros((1, HOURS_OF_WEEK))
    four_evenings[0, [20, 44, 69, 92]] = 1.0
    owl = activity(prior, posterior(prior, Tallies.of_activity(four_evenings)))[0, 2]
    assert owl[20] > 4 * owl[8], "four events tell which of two kinds of people somebody is"


def test_chances_of_the_hours_of_a_day_sum_to_one() -> None:
    people = Tallies.of_activity(at_hours(7, 13, count=2.0))
    chances = activity(FLAT, posterior(FLAT, people))
    assert chances.shape == (1, 7, 24)
    np.testing.assert_allclose(chances.sum(axis=-1), 1.0)


def test_nobody_gives_a_flat_prior() -> None:
    none = np.zeros((0, HOURS_OF_WEEK))
    prior = fit_prior(Tallies(none, none, none))
    np.testing.assert_array_equal(prior.curves, np.zeros((2, HOURS_OF_WEEK)))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sent has shape \(1, 24\), must be \(1, 168\)"):
        Tallies(NOTHING, NOTHING, np.zeros((1, 24)))
    with pytest.raises(ValueError, match=r"covariance must be finite with shape \(13, 13\)"):
        RhythmPrior(np.zeros((2, HOURS_OF_WEEK)), np.eye(4))
