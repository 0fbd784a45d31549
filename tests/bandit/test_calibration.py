"""Logistic recalibration: saturated tables by hand, honest errors, and samples that can't tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optimizer.bandit.calibration import calibration


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def expit(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


class TestByHand:
    def test_two_predictions_fix_slope_and_intercept(self) -> None:
        # .2 happens in 30 of 100, .8 in 60 of 100: the line through logit .3 and logit .6 over logit .2 and logit .8;
        # the mean logit is 0, so the intercept is Cox's own: the middle of the two
        outcome = np.repeat([1.0, 0.0, 1.0, 0.0], [30, 70, 60, 40])
        found = calibration(np.repeat([0.2, 0.8], 100), outcome)
        assert found.slope == pytest.approx((logit(0.6) - logit(0.3)) / (logit(0.8) - logit(0.2)))
        assert found.intercept == pytest.approx((logit(0.6) + logit(0.3)) / 2)
        assert found.mean_logit == pytest.approx(0.0, abs=1e-12)
        assert (found.n, found.events) == (200, 90)
        likelihood = 30 * math.log(0.2) + 70 * math.log(0.8) + 60 * math.log(0.8) + 40 * math.log(0.2)
        assert found.log_likelihood == pytest.approx(likelihood / 200)

    def test_errors_of_a_saturated_fit_are_those_of_two_proportions(self) -> None:
        # var logit(k/n) = 1/(n·p·q), here with n/(n − 1) of 200 clusters; the slope is their difference over 2·logit .8
        outcome = np.repeat([1.0, 0.0, 1.0, 0.0], [30, 70, 60, 40])
        found = calibration(np.repeat([0.2, 0.8], 100), outcome)
        spread = math.sqrt((1 / (100 * 0.3 * 0.7) + 1 / (100 * 0.6 * 0.4)) * 200 / 199)
        assert found.slope_se == pytest.approx(spread / (2 * logit(0.8)))
        assert found.intercept_se == pytest.approx(spread / 2)

    def test_a_repeated_recipient_counts_once(self) -> None:
        rng = np.random.default_rng(51)
        p = rng.uniform(0.1, 0.9, 300)
        y = (rng.random(300) < p).astype(float)
        once = calibration(p, y)
        twice = calibration(np.tile(p, 2), np.tile(y, 2), np.tile(np.arange(300), 2))
        assert (twice.slope, twice.slope_se) == pytest.approx((once.slope, once.slope_se))

    def test_constant_predictions_fix_the_intercept_only(self) -> None:
        found = calibration(np.full(100, 0.5), np.repeat([1.0, 0.0], [75, 25]))
        assert found.intercept == pytest.approx(math.log(3))
        assert math.isnan(found.slope)
        assert found.slope_se == math.inf

    def test_unknown_outcomes_are_left_out(self) -> None:
        p = np.array([0.2, 0.4, 0.6, 0.9, 0.3, 0.5])
        y = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
        assert calibration(np.append(p, 0.99), np.append(y, math.nan), np.arange(7)) == calibration(p, y)


class TestBehaviour:
    def test_overconfident_and_shifted_predictions(self) -> None:
        """n = 20,000; within four standard errors (one seed in ten thousand)."""
        rng = np.random.default_rng(52)
        truth = rng.normal(-1.0, 1.0, 20_000)
        outcome = (rng.random(20_000) < expit(truth)).astype(float)
        for told, slope in ((truth, 1.0), (2 * truth, 0.5), (truth + 0.4, 1.0)):
            found = calibration(expit(told), outcome)
            assert abs(found.slope - slope) < 4 * found.slope_se
            at_mean = float(np.mean(slope * told if slope < 1 else truth)) - float(np.mean(told))
            assert abs(found.intercept - at_mean) < 4 * found.intercept_se

    def test_errors_cover(self) -> None:
        """500 repetitions with recipients that agree with themselves; 95 % less 3.1 standard errors (1 in 1,000)."""
        rng = np.random.default_rng(53)
        recipient = np.repeat(np.arange(200), 3)
        hits = 0
        for _ in range(500):
            eta = np.repeat(rng.normal(0.0, 1.0, 200), 3)
            y = np.repeat(rng.random(200), 3) < expit(eta)  # the same answer three times
            found = calibration(expit(eta), y.astype(float), recipient)
            hits += abs(found.slope - 1.0) <= 1.96 * found.slope_se
        assert hits / 500 >= 0.945 - 3.1 * math.sqrt(0.0475 / 500)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_outcomes_of_one_kind_tell_nothing(self, value: float) -> None:
        found = calibration([0.1, 0.5, 0.9], np.full(3, value))
        assert math.isnan(found.slope)
        assert math.isnan(found.intercept)
        assert (found.slope_se, found.intercept_se) == (math.inf, math.inf)
        assert math.isfinite(found.log_likelihood)

    def test_separable_outcomes_have_no_slope(self) -> None:
        found = calibration([0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 1.0, 1.0])
        assert math.isnan(found.slope)
        assert found.intercept == pytest.approx(0.0, abs=1e-9)

    def test_a_certain_prediction_that_fails_has_a_finite_likelihood(self) -> None:
        found = calibration([0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 1.0, 0.0])
        assert math.isfinite(found.log_likelihood)
        assert found.log_likelihood < -5

    def test_one_recipient_has_no_errors(self) -> None:
        found = calibration([0.2, 0.4, 0.6, 0.7], [0.0, 1.0, 0.0, 1.0], np.zeros(4, dtype=np.int64))
        assert math.isfinite(found.slope)
        assert found.slope_se == math.inf


class TestRefusals:
    @pytest.mark.parametrize("bad", [1.2, -0.1, math.nan])
    def test_prob(self, bad: float) -> None:
        with pytest.raises(ValueError, match=r"prob: row 1 is .*must lie in \[0, 1\]"):
            calibration([0.5, bad], [0.0, 1.0])

    def test_outcome(self) -> None:
        with pytest.raises(ValueError, match=r"outcome: row 0 is 2\.0, must be 0, 1 or NaN"):
            calibration([0.5, 0.5], [2.0, 1.0])

    def test_lengths(self) -> None:
        with pytest.raises(ValueError, match=r"outcome: shape \(2,\)"):
            calibration([0.5], [0.0, 1.0])

    def test_nothing_known(self) -> None:
        with pytest.raises(ValueError, match="no row is known"):
            calibration([0.5], [math.nan])
