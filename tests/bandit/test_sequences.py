"""The wager: hand-computed capital, the same by parts and at once, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optimizer.bandit.sequences import Wager


class TestWager:
    def test_capital_is_the_product_of_the_bets(self) -> None:
        rows = [0.5, -1.0, 2.0, -0.25]
        wager = Wager(2.0).after(rows)
        for j, capital in enumerate(wager.capital):
            stake = 0.45 * 0.5**j
            assert capital == pytest.approx(sum(math.log(1 - stake * x) for x in rows))
        assert wager.rows == 4
        assert wager.total == pytest.approx(1.25)

    def test_evidence_is_the_largest_average_so_far(self) -> None:
        wager = Wager(1.0).after([-1.0, -1.0])
        best = np.mean([(1 + 0.9 * 0.5**j) ** 2 for j in range(8)])
        assert wager.evidence == pytest.approx(math.log(best))
        assert wager.p == pytest.approx(1 / best)
        assert wager.after([1.0] * 50).evidence == wager.evidence
        assert Wager(1.0).after([1.0]).evidence == 0.0

    def test_rows_may_come_in_parts(self) -> None:
        rows = np.random.default_rng(4).uniform(-1.0, 0.8, 300)
        parts = Wager(0.8)
        for part in np.array_split(rows, 7):
            parts = parts.after(part)
        whole = Wager(0.8).after(rows)
        assert parts.capital == pytest.approx(whole.capital)
        assert parts.evidence == pytest.approx(whole.evidence)
        assert parts.worse(0.05) == whole.worse(0.05) == (whole.p <= 0.05)

    def test_an_increment_above_the_bound_is_refused(self) -> None:
        with pytest.raises(ValueError, match="row 1"):
            Wager(1.0).after([0.5, 1.5])
        with pytest.raises(ValueError, match="row 0"):
            Wager(1.0).after([math.nan])
        with pytest.raises(ValueError, match="highest"):
            Wager(0.0).after([-1.0])
