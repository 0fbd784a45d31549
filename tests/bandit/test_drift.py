"""Has something changed: tails against known values, errors under the null, delays until a change is noticed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optimizer.bandit.clusters import Floats
from optimizer.bandit.drift import (
    CALIBRATION,
    TOLERANCE,
    Crossing,
    Detectors,
    area_under_curve,
    balance_ratios,
    binomial_tail,
    calibration_ratios,
    chi_square_quantile,
    chi_square_tail,
    compare,
)


class TestTails:
    @pytest.mark.parametrize(
        ("error", "degrees", "expected"),
        [(0.05, 1, 3.841459), (0.01, 2, 9.210340), (0.01, 9, 21.665994), (0.001, 20, 45.314747)],
    )
    def test_chi_square_quantiles_are_those_of_the_tables(self, error: float, degrees: int, expected: float) -> None:
        assert chi_square_quantile(error, degrees) == pytest.approx(expected, abs=1e-5)
        assert chi_square_tail(expected, degrees) == pytest.approx(error, rel=1e-5)

    def test_the_binomial_tail_is_the_sum_of_its_terms(self) -> None:
        terms = [math.comb(12, i) * 0.3**i * 0.7 ** (12 - i) for i in range(13)]
        for k in range(13):
            assert binomial_tail(k, 12, 0.3) == pytest.approx(sum(terms[k:]), rel=1e-12)
        assert binomial_tail(57, 57, 0.9) == pytest.approx(0.9**57)

    def test_bad_arguments_are_refused(self) -> None:
        with pytest.raises(ValueError, match="error"):
            chi_square_quantile(0.0, 3)
        with pytest.raises(ValueError, match="degrees"):
            chi_square_tail(1.0, 0)
        with pytest.raises(ValueError, match="binomial"):
            binomial_tail(1, 2, 1.0)


class TestAreaUnderCurve:
    def test_it_counts_pairs_and_halves_ties(self) -> None:
        # pairs (yes, no): 3>1, 3>2, 2>1, 2=2
        assert area_under_curve([3.0, 2.0, 1.0, 2.0], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)
        assert math.isnan(area_under_curve([1.0, 2.0], [1, 1]))


class TestCompare:
    def test_the_index_is_that_of_its_formula(self) -> None:
        found = compare([600, 400], [400, 600], 0.01)
        p, q = 600.5 / 1001, 400.5 / 1001
        assert found.stability == pytest.approx(2 * (p - q) * math.log(p / q))
        assert not found.shifted  # .16: certain, and small
        assert compare([600, 400], [300, 700], 0.01).shifted

    def test_samples_of_one_distribution_are_told_apart_at_the_stated_rate(self) -> None:
        """2,000 pairs of 300 rows in 10 bins at an error of .05, no floor: .05 within 4 standard errors, .03-.07.

        At an error of .01 with the floor of .2, no alarm but in 1 % (more than 40 of 2,000 has a chance below 1e-5).
        """
        rng = np.random.default_rng(5)
        pairs = rng.multinomial(300, np.linspace(1.0, 2.0, 10) / 15.0, (2000, 2))
        bare = np.mean([compare(one, other, 0.05, small=0.0).shifted for one, other in pairs])
        assert 0.03 <= bare <= 0.07
        assert sum(compare(one, other, 0.01).shifted for one, other in pairs) <= 40

    def test_an_empty_sample_shows_nothing(self) -> None:
        assert not compare([0, 0], [5, 5], 0.01).shifted
        assert not compare([7, 0], [7, 0], 0.01).shifted

    def test_bad_counts_are_refused(self) -> None:
        with pytest.raises(ValueError, match="shapes"):
            compare([1, 2], [1, 2, 3], 0.01)
        with pytest.raises(ValueError, match="negative"):
            compare([1, -2], [1, 2], 0.01)


def chance(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


class TestRatios:
    @pytest.mark.parametrize("predicted", [0.02, 0.3, 0.8])
    def test_no_bet_gains_while_a_head_is_off_by_the_tolerance_at_most(self, predicted: float) -> None:
        """By enumeration of both outcomes: e^ℓ has a mean of at most 1, and of 1 at the edge of the tolerance."""
        logit = math.log(predicted / (1 - predicted))
        yes, no = (
            np.exp(calibration_ratios(np.array([predicted]), np.array([y]), np.array([logit - 1.0])))[0]
            for y in (1.0, 0.0)
        )
        for off in np.linspace(-TOLERANCE, TOLERANCE, 9):
            true = float(chance(np.array(logit + off)))
            assert (true * yes + (1 - true) * no <= 1 + 1e-12).all()
        edge = float(chance(np.array(logit - TOLERANCE)))
        assert (edge * yes + (1 - edge) * no)[[0, 2]] == pytest.approx([1.0, 1.0])

    def test_flatter_bets_against_both_ends(self) -> None:
        p = np.array([0.8, 0.2])
        found = calibration_ratios(p, np.array([1.0, 1.0]), np.zeros(2))
        assert found[0, 2] == found[0, 0]  # much was predicted: bets on less
        assert found[1, 2] == found[1, 1]  # little was predicted: bets on more

    def test_an_unknown_outcome_moves_nothing(self) -> None:
        ratios = calibration_ratios(np.array([0.3]), np.array([math.nan]), np.zeros(1))
        start = Detectors.start(CALIBRATION, 100.0)
        assert start.after(ratios, np.zeros(1))[0].value == start.value

    def test_balance_is_a_fair_bet_on_the_logged_probabilities(self) -> None:
        p = np.array([[0.7]])
        inside, outside = (np.exp(balance_ratios(np.array([[hit]]), p))[0] for hit in (True, False))
        assert 0.7 * inside + 0.3 * outside == pytest.approx([1.0, 1.0])


class TestDetectors:
    def test_the_sum_starts_again_from_zero_and_tells_since_when_it_rose(self) -> None:
        start = Detectors(("a", "b"), (0.0, 0.0), (0.0, 0.0), 1.0)
        ratios = np.array([[-0.5, 0.4], [0.6, 0.4], [0.6, 0.4], [0.1, -9.0]])
        after, crossed = start.after(ratios, np.array([10.0, 20.0, 30.0, 40.0]))
        assert crossed == [Crossing("a", 2, 20.0), Crossing("b", 2, 10.0)]
        assert after.value == pytest.approx((0.1, 0.0))
        assert after.since[0] == 40.0

    def test_rows_may_come_in_parts(self) -> None:
        ratios = np.random.default_rng(3).normal(-0.05, 0.3, (400, 2))
        at = np.arange(400.0)
        whole, crossed = Detectors.start(("a", "b"), 5.0).after(ratios, at)
        parts, seen = Detectors.start(("a", "b"), 5.0), []
        for piece in np.array_split(np.arange(400), 7):
            parts, found = parts.after(ratios[piece], at[piece])
            seen += [(c.name, int(piece[c.row]), c.since) for c in found]
        assert parts.value == pytest.approx(whole.value)
        assert seen == [(c.name, c.row, c.since) for c in crossed]
        assert seen

    def test_false_alarms_are_as_rare_as_stated(self) -> None:
        """At a mean of 100 rows between false alarms, 20 logs of 5,000 rows at the edge of the tolerance.

        The bound allows for 1,000 alarms. It is far from tight, so four times the tolerance must exceed it.
        """
        rng = np.random.default_rng(6)
        alarms = {}
        for off in (TOLERANCE, 4 * TOLERANCE):
            alarms[off] = 0
            for _ in range(20):
                logit = 0.5 + 0.8 * rng.normal(size=5000)
                happened = (rng.random(5000) < chance(logit - off)).astype(float)
                ratios = calibration_ratios(chance(logit), happened, np.full(5000, 0.5))
                alarms[off] += len(Detectors.start(CALIBRATION, 100.0).after(ratios, np.zeros(5000))[1])
        assert 0 < alarms[TOLERANCE] <= 1000
        assert alarms[4 * TOLERANCE] > 1000

    @pytest.mark.parametrize(("base", "rows"), [(0.5, 400), (-1.4, 600)])
    def test_swapped_tastes_are_noticed(self, base: float, rows: int) -> None:
        """A head whose predictions turn round their mean, with a false alarm every million rows: in 18 of 20 logs."""
        rng = np.random.default_rng(7)
        noticed = 0
        for _ in range(20):
            logit = base + 0.8 * rng.normal(size=rows)
            happened = (rng.random(rows) < chance(2 * base - logit)).astype(float)
            ratios = calibration_ratios(chance(logit), happened, np.full(rows, base))
            noticed += bool(Detectors.start(CALIBRATION, 1e6).after(ratios, np.zeros(rows))[1])
        assert noticed >= 18

    def test_broken_draws_are_noticed(self) -> None:
        """An action is drawn at .5 where the log says .3: noticed within 1,500 rows; honest draws are not."""
        rng = np.random.default_rng(8)
        for true, expected in ((0.5, True), (0.3, False)):
            ratios = balance_ratios(rng.random((1500, 1)) < true, np.full((1500, 1), 0.3))
            crossed = Detectors.start(("more", "less"), 1e6).after(ratios, np.zeros(1500))[1]
            assert bool(crossed) is expected
