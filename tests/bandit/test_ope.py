"""Off-policy estimators against tables worked by hand, exact enumeration and properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.clusters import clusters, correlation, design_effect, mates
from optimizer.bandit.ope import (
    check_propensity,
    direct,
    doubly_robust,
    dr_terms,
    effective_sample_size,
    importance_weight,
    ips,
    paired_difference,
    snips,
    switch_dr,
)

REWARD = np.array([1.0, 0.0, 2.0, 1.0])
WEIGHT = np.array([2.0, 0.5, 0.0, 1.0])
CLUSTER = np.array([0, 0, 1, 2])
Q_LOGGED = np.array([0.5, 0.5, 1.0, 1.0])
Q_POLICY = np.array([0.6, 0.4, 0.8, 1.0])


class TestTablesByHand:
    def test_importance_weights_divide_target_by_propensity(self) -> None:
        assert importance_weight([0.5, 0.2, 0.0], [0.25, 0.4, 1.0]).tolist() == [2.0, 0.5, 0.0]

    def test_effective_sample_size(self) -> None:
        # (2 + .5 + 0 + 1)² / (4 + .25 + 0 + 1) = 12.25 / 5.25
        assert effective_sample_size(WEIGHT) == pytest.approx(12.25 / 5.25)

    def test_effective_sample_size_of_no_weight_is_zero(self) -> None:
        assert effective_sample_size(np.zeros(3)) == 0.0

    def test_ips(self) -> None:
        # w·r = 2, 0, 0, 1: mean .75; residuals 1.25, −.75, −.75, .25: squares sum to 2.75; SE² = 4/3 · 2.75 / 16
        found = ips(REWARD, WEIGHT)
        assert found.value == pytest.approx(0.75)
        assert found.standard_error == pytest.approx(math.sqrt(4 / 3 * 2.75 / 16))
        assert found.n == 4
        assert found.effective_sample_size == pytest.approx(7 / 3)
        assert found.high - found.value == pytest.approx(1.959964 * found.standard_error, rel=1e-6)

    def test_ips_by_recipient(self) -> None:
        # residuals by cluster: 1.25 − .75 = .5, −.75, .25: squares sum to .875; G = 3: SE² = 3/2 · .875 / 16
        assert ips(REWARD, WEIGHT, CLUSTER).standard_error == pytest.approx(math.sqrt(1.5 * 0.875 / 16))

    def test_snips(self) -> None:
        # Σw·r / Σw = 3 / 3.5 = 6/7; linearised rows w(r − 6/7)·4/3.5 = (2/7, −3/7, 0, 1/7)·8/7, squares: 14/49 · 64/49
        found = snips(REWARD, WEIGHT)
        assert found.value == pytest.approx(6 / 7)
        assert found.standard_error == pytest.approx(math.sqrt(4 / 3 * (14 * 64 / 49**2) / 16))

    def test_direct(self) -> None:
        assert direct(Q_POLICY).value == pytest.approx((0.6 + 0.4 + 0.8 + 1.0) / 4)

    def test_doubly_robust(self) -> None:
        # .6 + 2(1 − .5) = 1.6;  .4 + .5(0 − .5) = .15;  .8 + 0;  1 + 1(1 − 1) = 1
        assert dr_terms(REWARD, WEIGHT, Q_LOGGED, Q_POLICY) == pytest.approx([1.6, 0.15, 0.8, 1.0])
        assert doubly_robust(REWARD, WEIGHT, Q_LOGGED, Q_POLICY).value == pytest.approx(0.8875)

    def test_doubly_robust_allows_for_luck(self) -> None:
        # the heavy row happens to show nothing: φ = 0, 1, 0, 0
        reward, weight, none = np.array([0.0, 1.0, 1.0, 1.0]), np.array([3.0, 1.0, 0.0, 0.0]), np.zeros(4)
        found = doubly_robust(reward, weight, none, none)
        assert found.value == pytest.approx(0.25)
        # as logged, r, its variance is 3/16; (w − 1)·r as if they were independent: E (w − 1)² · E r² = 6/4 · 3/4
        assert found.standard_error == pytest.approx(math.sqrt((3 / 16 + 18 / 16) / 4))
        assert found.standard_error > ips(reward, weight).standard_error

    def test_switch_drops_the_weight_above_its_threshold(self) -> None:
        # row 0 (weight 2) falls back to its .6
        assert switch_dr(REWARD, WEIGHT, Q_LOGGED, Q_POLICY, 1.0).value == pytest.approx((0.6 + 0.15 + 0.8 + 1.0) / 4)

    def test_switch_reaches_from_direct_to_doubly_robust(self) -> None:
        assert switch_dr(REWARD, WEIGHT, Q_LOGGED, Q_POLICY, 0.0).value == pytest.approx(direct(Q_POLICY).value)
        whole = doubly_robust(REWARD, WEIGHT, Q_LOGGED, Q_POLICY)
        assert switch_dr(REWARD, WEIGHT, Q_LOGGED, Q_POLICY, math.inf) == whole

    def test_paired_difference(self) -> None:
        # b: weight 1, q_b = .5 .5 1 1: φ_b = 1, 0, 2, 1; a − b = .6, .15, −1.2, 0: mean −.1125
        # residuals .7125, .2625, −1.0875, .1125; by cluster .975, −1.0875, .1125
        found = paired_difference(REWARD, WEIGHT, np.ones(4), Q_LOGGED, Q_POLICY, [0.5, 0.5, 1.0, 1.0], CLUSTER)
        assert found.value == pytest.approx(-0.1125)
        error = math.sqrt(1.5 * (0.975**2 + 1.0875**2 + 0.1125**2)) / 4
        assert found.standard_error == pytest.approx(error)
        assert [found.low, found.high] == pytest.approx([-0.1125 - 1.959964 * error, -0.1125 + 1.959964 * error])

    def test_one_cluster_says_nothing(self) -> None:
        found = ips(REWARD, WEIGHT, np.zeros(4, dtype=np.int64))
        assert (found.standard_error, found.low, found.high) == (math.inf, -math.inf, math.inf)

    def test_cluster_labels_may_be_any_integers(self) -> None:
        hashed = np.array([-(2**62), -(2**62), 2**61, 7])
        assert ips(REWARD, WEIGHT, hashed) == ips(REWARD, WEIGHT, CLUSTER)

    def test_cluster_codes_with_gaps_don_t_count_as_clusters(self) -> None:
        assert ips(REWARD, WEIGHT, np.array([0, 0, 4, 7])) == ips(REWARD, WEIGHT, CLUSTER)


class TestRefusals:
    @pytest.mark.parametrize("bad", [0.0, -0.1, 1e-13, math.nan, 1.01, math.inf])
    def test_propensity_is_refused_with_row_and_value(self, bad: float) -> None:
        with pytest.raises(ValueError, match=r"propensity: row 2 is .*must lie in \[1e-12, 1\]") as caught:
            importance_weight([0.5, 0.5, 0.5], [0.5, 0.5, bad])
        assert repr(bad) in str(caught.value)

    def test_smallest_honest_propensities_pass(self) -> None:
        assert check_propensity([1e-12, 1.0]).tolist() == [1e-12, 1.0]

    def test_target_outside_unit_interval(self) -> None:
        with pytest.raises(ValueError, match=r"target: row 1 is 1\.5"):
            importance_weight([0.5, 1.5], [0.5, 0.5])

    def test_weight_below_zero(self) -> None:
        with pytest.raises(ValueError, match=r"weight: row 1 is -1.0, must be at least 0"):
            ips([1.0, 1.0], [1.0, -1.0])

    def test_reward_not_finite(self) -> None:
        with pytest.raises(ValueError, match="reward: row 0 is nan"):
            ips([math.nan, 1.0], [1.0, 1.0])

    def test_lengths_that_differ(self) -> None:
        with pytest.raises(ValueError, match=r"q_logged: shape \(3,\)"):
            dr_terms(REWARD, WEIGHT, [0.0] * 3, Q_POLICY)
        with pytest.raises(ValueError, match="cluster: shape"):
            ips(REWARD, WEIGHT, [1, 2])

    def test_clusters_of_floats(self) -> None:
        with pytest.raises(ValueError, match="cluster: dtype float64"):
            clusters(np.array([0.5, 1.0]), 2)

    def test_no_rows(self) -> None:
        with pytest.raises(ValueError, match="no rows"):
            ips([], [])

    def test_snips_without_any_weight(self) -> None:
        with pytest.raises(ValueError, match="weight: all rows are 0"):
            snips([1.0, 1.0], [0.0, 0.0])

    @pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
    def test_level_outside_unit_interval(self, level: float) -> None:
        with pytest.raises(ValueError, match="level"):
            ips(REWARD, WEIGHT, level=level)


class TestEnumeration:
    """Every draw of two rows from a world of 2 contexts x 3 actions x 2 rewards, weighted by its probability."""

    CONTEXT = (0.3, 0.7)
    LOGGING = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    TARGET = np.array([[0.0, 0.4, 0.6], [0.9, 0.1, 0.0]])
    OTHER = np.array([[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]])
    MEAN = np.array([[0.1, 0.5, 0.9], [0.2, 0.6, 0.4]])
    WRONG = np.array([[0.9, -1.0, 0.3], [2.0, 0.1, 0.7]])

    def expectation(self, kind: str) -> float:
        cells = list(itertools.product(range(2), range(3), (0.0, 1.0)))
        chance = {
            (x, a, r): self.CONTEXT[x] * self.LOGGING[x, a] * (self.MEAN[x, a] if r else 1 - self.MEAN[x, a])
            for x, a, r in cells
        }
        total = 0.0
        for rows in itertools.product(cells, repeat=2):
            x, a = np.array([c[0] for c in rows]), np.array([c[1] for c in rows])
            r = np.array([c[2] for c in rows])
            w = importance_weight(self.TARGET[x, a], self.LOGGING[x, a])
            q, v = self.WRONG[x, a], np.sum(self.TARGET * self.WRONG, axis=1)[x]
            if kind == "ips":
                value = ips(r, w).value
            elif kind == "dr":
                value = doubly_robust(r, w, q, v).value
            else:
                other = importance_weight(self.OTHER[x, a], self.LOGGING[x, a])
                v_other = np.sum(self.OTHER * self.WRONG, axis=1)[x]
                value = paired_difference(r, w, other, q, v, v_other).value
            total += chance[rows[0]] * chance[rows[1]] * value
        return total

    def value(self, policy: np.ndarray) -> float:
        return float(np.array(self.CONTEXT) @ np.sum(policy * self.MEAN, axis=1))

    def test_ips_is_unbiased(self) -> None:
        assert self.expectation("ips") == pytest.approx(self.value(self.TARGET), abs=1e-12)

    def test_doubly_robust_is_unbiased_with_a_wrong_model(self) -> None:
        assert self.expectation("dr") == pytest.approx(self.value(self.TARGET), abs=1e-12)

    def test_paired_difference_is_unbiased_with_a_wrong_model(self) -> None:
        difference = self.value(self.TARGET) - self.value(self.OTHER)
        assert self.expectation("paired") == pytest.approx(difference, abs=1e-12)


rows = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-10, 10), min_size=n, max_size=n), st.lists(st.floats(0.01, 20), min_size=n, max_size=n)
    )
)


class TestProperties:
    @given(rows)
    @settings(max_examples=50, deadline=None)
    def test_on_policy_everything_is_the_plain_mean(self, drawn: tuple[list[float], list[float]]) -> None:
        reward, one = drawn[0], np.ones(len(drawn[0]))
        mean, error = np.mean(reward), np.std(reward, ddof=1) / math.sqrt(len(reward))
        for found in (ips(reward, one), snips(reward, one), doubly_robust(reward, one, one * 3, one * 3)):
            assert found.value == pytest.approx(mean, abs=1e-9)
            assert found.standard_error == pytest.approx(error, abs=1e-9)
            assert found.effective_sample_size == pytest.approx(len(reward))

    @given(rows, st.floats(-100, 100))
    @settings(max_examples=50, deadline=None)
    def test_shifting_rewards_shifts_snips_by_the_same(
        self, drawn: tuple[list[float], list[float]], shift: float
    ) -> None:
        reward, weight = np.array(drawn[0]), np.array(drawn[1])
        before, after = snips(reward, weight), snips(reward + shift, weight)
        assert after.value == pytest.approx(before.value + shift, abs=1e-8)
        assert after.standard_error == pytest.approx(before.standard_error, abs=1e-8)

    def test_shifting_rewards_moves_ips_by_more_when_weights_don_t_average_to_one(self) -> None:
        assert ips(REWARD + 1.0, WEIGHT).value - ips(REWARD, WEIGHT).value == pytest.approx(3.5 / 4)

    @given(rows)
    @settings(max_examples=50, deadline=None)
    def test_a_perfect_model_leaves_nothing_to_the_weights(self, drawn: tuple[list[float], list[float]]) -> None:
        reward, weight = np.array(drawn[0]), np.array(drawn[1])
        policy = np.linspace(0.0, 1.0, reward.size)
        assert doubly_robust(reward, weight, reward, policy).value == pytest.approx(float(np.mean(policy)))

    @given(rows)
    @settings(max_examples=50, deadline=None)
    def test_a_policy_does_not_differ_from_itself(self, drawn: tuple[list[float], list[float]]) -> None:
        reward, weight = np.array(drawn[0]), np.array(drawn[1])
        found = paired_difference(reward, weight, weight, reward * 0.3, reward * 0.2, reward * 0.2)
        assert (found.value, found.standard_error) == (0.0, 0.0)

    @given(rows)
    @settings(max_examples=50, deadline=None)
    def test_effective_sample_size_lies_between_one_and_n(self, drawn: tuple[list[float], list[float]]) -> None:
        assert 1.0 - 1e-9 <= effective_sample_size(drawn[1]) <= len(drawn[1]) + 1e-9


class TestDesignEffect:
    def test_by_hand(self) -> None:
        residual = np.array([1.0, 1.0, -1.0, -1.0])
        assert design_effect(residual, clusters(None, 4)) == pytest.approx(4 / 3), "G / (G - 1) of few clusters"
        assert design_effect(residual, clusters([0, 0, 1, 1], 4)) == pytest.approx(2 * (4 + 4) / 4)
        assert design_effect(residual, clusters([0, 1, 0, 1], 4)) == 1.0, "never below"

    def test_where_rows_tell_nothing_a_cluster_counts_as_one(self) -> None:
        assert design_effect(np.zeros(6), clusters([0, 0, 0, 0, 1, 1], 6)) == pytest.approx((16 + 4) / 6)
        assert design_effect(np.zeros(6), clusters(None, 6)) == 1.0
        assert design_effect(np.array([1.0, -1.0]), clusters([3, 3], 2)) == 2.0, "one cluster is as one row"

    def test_how_alike_rows_of_a_cluster_are(self) -> None:
        groups = clusters(np.repeat(np.arange(200), 5), 1_000)
        rng = np.random.default_rng(1)
        assert mates(groups) == 5.0
        assert correlation(np.repeat(rng.normal(size=200), 5), groups) == pytest.approx(1.0, abs=0.01)
        assert correlation(rng.normal(size=1_000), groups) < 0.1
        assert correlation(3.0 + rng.normal(size=1_000), groups) < 0.1, "what is wrong of all is no likeness"
        half = np.repeat(rng.normal(size=200), 5) + rng.normal(size=1_000)
        assert correlation(half, groups) == pytest.approx(0.5, abs=0.15)
        assert correlation(rng.normal(size=9), clusters(None, 9)) == 0.0, "no two rows are of one cluster"
