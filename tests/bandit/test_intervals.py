"""Intervals, rate bounds and confidence sequences: hand-computed ends, coverage with stated error rates, refusals."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from optimizer.bandit.intervals import (
    Difference,
    TooFewRows,
    bootstrap_interval,
    difference_bound,
    lower_bound,
    normal_interval,
    rate_upper,
    upper_bound,
)
from optimizer.bandit.likelihood import empirical_likelihood_interval
from optimizer.bandit.ope import doubly_robust, dr_terms, effective_sample_size, ips, snips
from optimizer.bandit.sequences import confidence_sequence, delayed_start_boundary, mixed_boundary


def binomial_floor(rate: float, n: int) -> float:
    """What a share of n trials with this rate falls below once in a thousand times."""
    return rate - 3.1 * math.sqrt(rate * (1 - rate) / n)


def logged(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Rewards, weights and the true value: four actions, logged .4 .3 .2 .1, judged .1 .2 .3 .4."""
    action = rng.choice(4, size=n, p=(0.4, 0.3, 0.2, 0.1))
    reward = (rng.random(n) < np.array((0.1, 0.2, 0.3, 0.4))[action]).astype(float)
    return reward, np.array((0.25, 2 / 3, 1.5, 4.0))[action], 0.01 + 0.04 + 0.09 + 0.16


class TestCoverage:
    """1,000 repetitions; a 95 % interval fails a test by bad luck once in a thousand seeds (one-sided)."""

    def test_normal_and_empirical_likelihood_intervals_cover(self) -> None:
        rng = np.random.default_rng(11)
        hits = dict.fromkeys(("ips", "snips", "dr", "likelihood"), 0)
        width = {"ips": 0.0, "likelihood": 0.0}
        for k in range(1000):
            reward, weight, truth = logged(rng, 400)
            q = np.where(weight > 1.0, 0.3, 0.15)
            found = {
                "ips": ips(reward, weight),
                "snips": snips(reward, weight),
                "dr": doubly_robust(reward, weight, q, np.full(400, 0.7 * 0.3 + 0.3 * 0.15)),
            }
            for name, estimate in found.items():
                hits[name] += estimate.low <= truth <= estimate.high
            if k < 300:  # the dear one
                low, high = empirical_likelihood_interval(reward, weight)
                hits["likelihood"] += low <= truth <= high
                width["ips"] += found["ips"].high - found["ips"].low
                width["likelihood"] += high - low
        for name, count in hits.items():
            repetitions = 300 if name == "likelihood" else 1000
            assert binomial_floor(0.95, repetitions) <= count / repetitions <= 0.98, name
        assert width["likelihood"] < width["ips"]  # knowing that weights average to 1 is worth something

    def test_clustered_intervals_cover_where_naive_ones_don_t(self) -> None:
        rng = np.random.default_rng(12)
        recipient = np.repeat(np.arange(60), 8)
        clustered = naive = booted = 0
        for k in range(1000):
            rows = rng.standard_normal(60)[recipient] + rng.standard_normal(480)
            found, plain = ips(rows, np.ones(480), recipient), ips(rows, np.ones(480))
            clustered += found.low <= 0.0 <= found.high
            naive += plain.low <= 0.0 <= plain.high
            if k < 200:
                low, high = bootstrap_interval(rows, cluster=recipient, rng=rng, repetitions=200)
                booted += low <= 0.0 <= high
        assert clustered / 1000 >= binomial_floor(0.945, 1000)  # 60 clusters under a normal quantile: .945
        assert booted / 200 >= binomial_floor(0.94, 200)
        assert naive / 1000 < 0.80

    def test_doubly_robust_intervals_cover_where_few_heavy_rows_carry_the_log(self) -> None:
        """Twelve of 600 rows with a weight of 20 and rewards in a tenth of all: what those twelve show is luck."""
        rng = np.random.default_rng(17)
        cautious = own = 0
        for _ in range(1000):
            heavy = rng.random(600) < 0.02
            reward, flat = (rng.random(600) < 0.1).astype(float), np.full(600, 0.1)
            weight = np.where(heavy, 20.0, 0.6 / 0.98)
            found = doubly_robust(reward, weight, flat, flat)
            plain = ips(dr_terms(reward, weight, flat, flat), np.ones(600))
            assert found.value == pytest.approx(plain.value)
            cautious += found.low <= 0.1 <= found.high
            own += plain.low <= 0.1 <= plain.high
        assert cautious / 1000 >= binomial_floor(0.95, 1000)
        assert own / 1000 < 0.8, "by the spread that the rows happen to show"

    def test_lower_bound_keeps_its_error_where_rows_lean_left_and_the_normal_one_does_not(self) -> None:
        rng = np.random.default_rng(13)
        z, nominal = 2.24, 0.01255
        corrected = normal = 0
        for _ in range(2000):
            rows = np.where(rng.random(2000) < 0.01, -0.99, 0.01)  # mean 0, ~20 rare costs
            corrected += lower_bound(rows, None, z) > 0.0
            normal += ips(rows, np.ones(2000)).value - z * float(np.std(rows, ddof=1)) / math.sqrt(2000) > 0.0
        assert corrected / 2000 <= nominal + 3.1 * math.sqrt(nominal / 2000)
        assert normal / 2000 > 2 * nominal


class TestIntervals:
    def test_normal_interval(self) -> None:
        assert normal_interval(1.0, 0.5, 0.95) == pytest.approx((1 - 0.979982, 1 + 0.979982))

    def test_lower_bound_of_symmetric_rows_is_the_normal_one(self) -> None:
        # mean 0, s² = 4/3, SE = √(4/3)/2
        bound = lower_bound(np.array([-1.0, 1.0, -1.0, 1.0]), None, 2.0)
        assert bound == pytest.approx(-2 * math.sqrt(4 / 3) / 2)

    def test_lower_bound_is_never_above_the_normal_one(self) -> None:
        skewed = np.array([0.0] * 50 + [1.0])
        normal = float(np.mean(skewed)) - 2.0 * ips(skewed, np.ones(51)).standard_error
        assert lower_bound(skewed, None, 2.0) == pytest.approx(normal)
        assert lower_bound(-skewed, None, 2.0) < -float(np.mean(skewed)) - 2.0 * ips(skewed, np.ones(51)).standard_error

    def test_upper_bound_mirrors_the_lower_one(self) -> None:
        rows = np.array([1.0, 0.0, 2.0, 1.0])
        assert upper_bound(rows, None, 1.5) == -lower_bound(-rows, None, 1.5)

    def test_difference_bound_uses_the_spread_that_all_rows_show(self) -> None:
        # the heavy rows hold no cost: the sample Δw·e = 0, 0, 3, 3 has SE √.75 = .87. All rows: E Δw² = 19/4 and
        # E e² = 54/4 allow for √(19/4 · 54/4 / 4) = 4.0, and their third moments lean to the left
        difference = Difference(np.zeros(4), np.array([-1.0, 0.0, 3.0, 3.0]), np.array([0.0, -math.sqrt(52), 1.0, 1.0]))
        bound, error = difference_bound(difference, None, 2.0)
        second = (1 + 9 + 9) / 4 * (52 + 1 + 1) / 4
        skew = (-1 + 27 + 27) / 4 * (-(52**1.5) + 2) / 4 / second**1.5
        quantile = 2 * 3 / skew * (math.cbrt(1 + skew * (2 / 2 - skew / 24)) - 1)
        assert error == pytest.approx(math.sqrt(second / 4))
        assert quantile > 2.0
        assert bound == pytest.approx(1.5 - error * quantile)

    def test_difference_bound_of_a_policy_and_itself_is_zero(self) -> None:
        rows = np.array([1.0, 0.0, 2.0])
        assert difference_bound(Difference(np.zeros(3), np.zeros(3), rows), None, 2.0) == (0.0, 0.0)

    def test_difference_bound_grows_with_clusters_that_agree(self) -> None:
        rng = np.random.default_rng(9)
        change, residual = rng.standard_normal(300), rng.standard_normal(300)
        once = Difference(np.zeros(300), change, residual)
        twice = Difference(np.zeros(600), np.tile(change, 2), np.tile(residual, 2))
        _, single = difference_bound(once, None, 2.0)
        _, repeated = difference_bound(twice, np.tile(np.arange(300), 2), 2.0)
        assert repeated == pytest.approx(single)

    def test_a_ratio_of_too_few_rows_is_told_from_wrong_shapes(self) -> None:
        rng = np.random.default_rng(39)
        with pytest.raises(TooFewRows, match="sums to 0"):
            bootstrap_interval(np.array([1.0, 0.0]), np.array([1.0, 0.0]), rng=rng)
        with pytest.raises(ValueError, match="shape") as caught:
            bootstrap_interval(np.ones(2), np.ones(3), rng=rng)
        assert not isinstance(caught.value, TooFewRows)

    def test_bootstrap_is_reproducible_and_near_the_normal_interval(self) -> None:
        reward, weight, _ = logged(np.random.default_rng(3), 2000)
        first = bootstrap_interval(weight * reward, weight, rng=np.random.default_rng(5), repetitions=500)
        again = bootstrap_interval(weight * reward, weight, rng=np.random.default_rng(5), repetitions=500)
        found = snips(reward, weight)
        assert first == again
        assert first == pytest.approx((found.low, found.high), abs=found.standard_error / 3)

    @pytest.mark.parametrize(("cases", "n"), [(3, 20), (10, 20), (40, 1000)])
    def test_empirical_likelihood_of_coins_is_the_binomial_likelihood_ratio(self, cases: int, n: int) -> None:
        # on-policy coins: −2 log R(p) = 2[k log(k/np) + (n − k) log((n − k)/n(1 − p))], which is 3.8415 at both ends
        for end in empirical_likelihood_interval([1.0] * cases + [0.0] * (n - cases), np.ones(n)):
            ratio = cases * math.log(cases / (n * end)) + (n - cases) * math.log((n - cases) / (n * (1 - end)))
            assert 2 * ratio == pytest.approx(3.841459, abs=1e-4)

    def test_empirical_likelihood_knows_the_value_of_a_constant_reward(self) -> None:
        weight = np.array([0.2, 3.0, 0.5, 1.5, 0.1, 2.5])
        assert empirical_likelihood_interval(np.full(6, 0.7), weight) == pytest.approx((0.7, 0.7))

    def test_empirical_likelihood_without_mean_weight_one_in_the_hull_stays_within_the_rewards(self) -> None:
        low, high = empirical_likelihood_interval([0.0, 1.0, 0.0, 1.0], [0.2, 0.5, 0.4, 0.3])
        assert 0.0 <= low < snips([0.0, 1.0, 0.0, 1.0], [0.2, 0.5, 0.4, 0.3]).value < high <= 1.0

    def test_empirical_likelihood_counts_a_repeated_recipient_once(self) -> None:
        reward, weight, _ = logged(np.random.default_rng(8), 200)
        once = empirical_likelihood_interval(reward, weight)
        twice = empirical_likelihood_interval(np.tile(reward, 2), np.tile(weight, 2), np.tile(np.arange(200), 2))
        assert twice == pytest.approx(once)

    def test_rate_bound_without_a_case_is_z_squared_over_effective_rows(self) -> None:
        weight = np.array([1.0, 3.0] * 500)
        bound = rate_upper(np.zeros(1000), weight / 2.0, None, 2.0)
        assert bound == pytest.approx(4.0 / effective_sample_size(weight))

    def test_rate_bound_of_counts_is_the_poisson_score_bound(self) -> None:
        # 9 cases in 1,000 rows, z = 2: (9 + 2 + 2·√(9 + 1)) / 1000
        happened = np.array([1.0] * 9 + [0.0] * 991)
        assert rate_upper(happened, np.ones(1000), None, 2.0) == pytest.approx((11 + 2 * math.sqrt(10)) / 1000)

    def test_rate_bound_covers(self) -> None:
        """95 % one-sided, 1,000 repetitions, 12 cases expected; fails by bad luck once in a thousand seeds."""
        rng = np.random.default_rng(21)
        hits = 0
        for _ in range(1000):
            weight = np.where(rng.random(3000) < 0.8, 0.5, 3.0)  # mean 1
            hits += rate_upper((rng.random(3000) < 0.004).astype(float), weight, None, 1.645) >= 0.004
        assert hits / 1000 >= binomial_floor(0.95, 1000)


def _boundary(starts: float) -> float:
    return float(mixed_boundary(np.array([starts]), 0.05)[0])


class TestConfidenceSequence:
    def test_boundary_solves_its_equation(self) -> None:
        a, normal = delayed_start_boundary(0.05), NormalDist()
        assert 2 * (1 - normal.cdf(a) + a * normal.pdf(a)) == pytest.approx(0.05)
        assert a == pytest.approx(2.795, abs=1e-3)

    def test_by_hand_at_the_start(self) -> None:
        # −1, 1, −1, 1: mean 0, s² = 4/3, half-width b(1)·√(4/3)/√4 with start = 4; nothing is said before
        found = confidence_sequence([-1.0, 1.0, -1.0, 1.0], start=4)
        assert found.low[:3].tolist() == [-math.inf] * 3
        assert found.high[3] == pytest.approx(_boundary(1.0) * math.sqrt(4 / 3) / 2)
        assert found.mean.tolist() == pytest.approx([-1.0, 0.0, -1 / 3, 0.0])

    def test_width_after_the_start_is_the_boundarys(self) -> None:
        # −1, 1 repeated four times: s² = 8/7, half-width b(2)·√(8/7)/√8 with start = 4
        found = confidence_sequence([-1.0, 1.0] * 4, start=4)
        assert found.high[7] == pytest.approx(_boundary(2.0) * math.sqrt(8 / 7) / math.sqrt(8))

    def test_widths_of_the_boundary(self) -> None:
        """In fixed-time widths; the mixture is written out, and what it says at the boundary is the same everywhere."""
        times = np.array([1.0, 2.0, 5.0, 10.0, 20.0, 50.0])
        found = mixed_boundary(times, 0.05)
        assert (found / 1.959964).round(2).tolist() == [1.49, 1.48, 1.49, 1.57, 1.68, 1.81]
        drift, normal = delayed_start_boundary(0.05) / 2, NormalDist()
        at = np.linspace(-6.0, 6.0, 24_001)
        prior = np.exp(-3.0 * (at - drift) ** 2) + np.exp(-3.0 * (at + drift) ** 2)
        prior = 0.75 * prior / prior.sum()
        said = [
            float(np.sum(prior * np.exp(at * z * math.sqrt(t) - at**2 * t / 2)))
            + 0.25 * math.exp(z * z / 2) / math.sqrt(t)
            for z, t in zip(found, times, strict=True)
        ]
        assert said == pytest.approx([said[0]] * 6, rel=1e-6)
        z = np.linspace(-found[0], found[0], 20_001)
        below = np.trapezoid(
            [float(np.sum(prior * np.exp(at * s - at**2 / 2))) * normal.pdf(s) for s in z[::20]], z[::20]
        )
        below += 0.25 * 2 * found[0] / math.sqrt(2 * math.pi)
        assert 2 * normal.cdf(-float(found[0])) + below / said[0] == pytest.approx(0.05, abs=1e-5)

    @pytest.mark.parametrize("error", [0.01, 0.05, 0.2])
    def test_a_walk_crosses_the_boundary_no_more_often_than_stated(self, error: float) -> None:
        """4,000 walks over 40 starts in steps of a fiftieth; at most three standard errors above."""
        steps = np.random.default_rng(38).standard_normal((4_000, 2_000)) / math.sqrt(50)
        walk = np.cumsum(steps, axis=1)[:, 49:]
        time = np.arange(50, 2_001) / 50
        crossed = (np.abs(walk) >= mixed_boundary(time, error) * np.sqrt(time)).any(axis=1).mean()
        assert 0.5 * error <= crossed <= error + 3 * math.sqrt(error * (1 - error) / 4_000)

    def test_holds_at_all_times_together_where_a_fixed_interval_does_not(self) -> None:
        """600 heavy-tailed walks of 3,000 steps: error ≤ 5 % plus 3.1 standard errors (one seed in a thousand)."""
        rng = np.random.default_rng(31)
        time = np.arange(1, 3001)
        wrong = peeking = 0
        for _ in range(600):
            rows = rng.standard_t(5, 3000)
            found = confidence_sequence(rows, start=200)
            wrong += bool(np.any((found.low > 0.0) | (found.high < 0.0)))
            fixed = 1.96 * np.sqrt(np.cumsum(rows**2) / time**2)
            peeking += bool(np.any(np.abs(found.mean[200:]) > fixed[200:]))
        assert wrong / 600 <= 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / 600)
        assert peeking / 600 > 0.15

    def test_width_stays_below_one_and_a_half_fixed_intervals_up_to_five_starts(self) -> None:
        rows = np.random.default_rng(33).standard_normal(1000)
        found = confidence_sequence(rows, start=200)
        for t in (200, 300, 400, 600, 800, 1000):
            fixed = 1.959964 * float(np.std(rows[:t], ddof=1)) / math.sqrt(t)
            assert 1.4 < (found.high[t - 1] - found.mean[t - 1]) / fixed < 1.5

    def test_finds_a_clear_loss(self) -> None:
        rows = np.clip(np.random.default_rng(34).standard_normal(3000) - 0.5, -4, 4)
        found = confidence_sequence(rows, start=200)
        assert np.any(found.high < 0.0)
        assert not np.any(found.low > 0.0)
        assert found.low[-1] < -0.5 < found.high[-1]

    def test_a_large_offset_does_not_spoil_the_variance(self) -> None:
        rows = np.random.default_rng(35).standard_normal(500)
        near, far = (confidence_sequence(moved, start=200) for moved in (rows, rows + 1e6))
        assert far.high[-1] - 1e6 == pytest.approx(near.high[-1], abs=1e-6)

    def test_no_rows_say_nothing(self) -> None:
        assert confidence_sequence([], start=200).mean.size == 0

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="increments"):
            confidence_sequence([0.0, math.nan], start=200)
        with pytest.raises(ValueError, match="start: 1"):
            confidence_sequence([0.0], start=1)
        with pytest.raises(ValueError, match=r"level: 1\.5"):
            confidence_sequence([0.0], 1.5, start=200)
