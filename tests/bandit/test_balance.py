"""The balance test: hand-computed, quiet on honest logs, loud on a wrong redraw."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.balance import balance_test, holm


def drawn(rng: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    """One-hot (n, k) draws from rows of probabilities."""
    pick = (rng.random((len(chance), 1)) > np.cumsum(chance, axis=1)[:, :-1]).sum(axis=1)
    return np.asarray(np.eye(chance.shape[1], dtype=bool)[pick])


class TestByHand:
    def test_normal_statistic(self) -> None:
        # 400 coins of .5, 230 heads: (230 − 200)/√100 = 3, two-sided .0026998
        inside = np.arange(400)[:, None] < 230
        found = balance_test(inside, np.full((400, 1), 0.5), names=("email",))
        (subset,) = found.subsets
        assert (subset.name, subset.observed, subset.expected) == ("email", 230, 200.0)
        assert subset.z == pytest.approx(3.0)
        assert subset.p == pytest.approx(0.0026998, abs=1e-7)
        assert found.minimum_p == subset.p
        assert not found.passed

    def test_holm(self) -> None:
        # sorted .01 .02 .03 .9 → ·4 = .04, ·3 = .06, ·2 = .06 (never below the one before), .9
        assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
        assert holm([0.7, 0.9]) == [1.0, 1.0]
        assert holm([]) == []

    def test_one_rare_case_is_no_alarm(self) -> None:
        # one case where .02 is expected has z = 6.9 and yet a chance of 2 %: doubled Poisson tail 2(1 − e^−.02) = .0396
        inside = np.zeros((20, 1), dtype=bool)
        inside[3] = True
        (subset,) = balance_test(inside, np.full((20, 1), 0.001)).subsets
        assert subset.z > 6
        assert subset.p == pytest.approx(2 * (1 - math.exp(-0.02)))

    def test_rare_misses_are_judged_like_rare_hits(self) -> None:
        hit = np.zeros((20, 1), dtype=bool)
        hit[3] = True
        rare, common = balance_test(hit, np.full((20, 1), 0.01)), balance_test(~hit, np.full((20, 1), 0.99))
        assert common.minimum_p == pytest.approx(rare.minimum_p)

    def test_certain_rows_carry_no_information(self) -> None:
        found = balance_test([[True], [False]], [[1.0], [0.0]])
        assert found.subsets[0].p == 1.0
        assert found.passed

    def test_the_impossible_is_an_alarm(self) -> None:
        assert balance_test([[True], [False]], [[0.0], [0.5]]).minimum_p == 0.0
        assert balance_test([[False], [False]], [[1.0], [0.5]]).minimum_p == 0.0

    def test_no_subsets_pass(self) -> None:
        found = balance_test(np.zeros((5, 0), dtype=bool), np.zeros((5, 0)))
        assert (found.subsets, found.minimum_p, found.passed) == ((), 1.0, True)


class TestRefusals:
    def test_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"expected: shape \(3, 1\)"):
            balance_test(np.zeros((3, 2), dtype=bool), np.zeros((3, 1)))
        with pytest.raises(ValueError, match="names: 1 for 2 subsets"):
            balance_test(np.zeros((3, 2), dtype=bool), np.zeros((3, 2)), names=("one",))

    @pytest.mark.parametrize("bad", [1.5, -0.1, math.nan])
    def test_probability(self, bad: float) -> None:
        with pytest.raises(ValueError, match=r"expected: row 1, subset 'sms' is .*must lie in \[0, 1\]"):
            balance_test([[True], [True]], [[0.5], [bad]], names=("sms",))


class TestBehaviour:
    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=30, deadline=None)
    def test_a_subset_and_its_complement_are_equally_far_out(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        chance = rng.uniform(0.1, 0.9, (200, 1))
        inside = rng.random((200, 1)) < chance
        one, other = balance_test(inside, chance).subsets[0], balance_test(~inside, 1 - chance).subsets[0]
        assert one.z == pytest.approx(-other.z)
        assert one.p == pytest.approx(other.p)

    @pytest.mark.parametrize("n", [30, 2000])
    def test_false_alarms_stay_at_the_level(self, n: int) -> None:
        """1,000 honest logs with rare, common and middling actions; level .05 plus 3.1 standard errors (1 in 1,000)."""
        rng = np.random.default_rng(41)
        alarms = 0
        for _ in range(1000):
            chance = rng.dirichlet((0.1, 1.0, 3.0, 10.0), n)
            alarms += not balance_test(drawn(rng, chance), chance, level=0.05).passed
        assert alarms / 1000 <= 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / 1000)

    def test_redrawing_only_when_the_drawn_action_fell_out_is_found(self) -> None:
        """Between read and write the set changes; the draw must be thrown away whenever the *set* changed."""
        rng = np.random.default_rng(42)
        n = 5000
        before, after = rng.random((n, 4)) < 0.7, rng.random((n, 4)) < 0.7
        before[:, 0] = after[:, 0] = True
        first = drawn(rng, before / before.sum(axis=1, keepdims=True))
        claimed = after / after.sum(axis=1, keepdims=True)
        again = drawn(rng, claimed)
        set_changed = np.any(before != after, axis=1, keepdims=True)
        fell_out = ~np.any(first & after, axis=1, keepdims=True)
        assert balance_test(np.where(set_changed, again, first), claimed).passed
        assert balance_test(np.where(fell_out, again, first), claimed).minimum_p < 1e-6

    def test_swapped_propensities_are_found(self) -> None:
        rng = np.random.default_rng(43)
        chance = np.tile((0.6, 0.3, 0.1), (1000, 1))
        assert balance_test(drawn(rng, chance), chance[:, ::-1]).minimum_p < 1e-6
