"""Old rows fade before a change: exponentially in the mean, the same ones each time, in their campaign alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from optimizer.service.feedback import Logged
from optimizer.service.forgetting import HALF_LIFE_ROWS, remembered
from tests.service.conftest import START
from tests.service.test_stakes import row


def rows(count: int, campaign_id: str = "spring") -> list[Logged]:
    one = row(0.0)
    return [
        replace(
            one,
            decision=replace(
                one.decision,
                decision_id=f"dec_{campaign_id}_{i}",
                campaign_id=campaign_id,
                decided_at=START + timedelta(minutes=i),
            ),
        )
        for i in range(count)
    ]


def test_without_a_change_nothing_is_forgotten() -> None:
    made = rows(50)
    assert remembered(made, {}) == made
    assert remembered(made, {"other": START.timestamp()}) == made


def test_old_rows_fade_exponentially_and_new_ones_stay() -> None:
    made = rows(8000)
    change = (START + timedelta(minutes=7000)).timestamp()
    kept = remembered(made, {"spring": change})
    places = [int(r.decision.decision_id.rsplit("_", 1)[1]) for r in kept]
    assert places == sorted(places)
    assert places[-1000:] == list(range(7000, 8000))
    ages = [6999 - place for place in places[:-1000]]
    # Σ 2^(−k/250) = 361 over all ages, half of it in the first 250; sums of coins with standard deviations of 13 and 7.
    assert len(ages) == pytest.approx(HALF_LIFE_ROWS / 0.6931, abs=55)
    assert sum(age < 250 for age in ages) == pytest.approx(180, abs=30)


def test_the_same_rows_are_kept_each_time_and_campaigns_are_apart() -> None:
    both = sorted(rows(3000) + rows(3000, "autumn"), key=lambda r: r.decision.decided_at)
    change = (START + timedelta(minutes=3000)).timestamp()
    kept = remembered(both, {"spring": change})
    assert kept == remembered(both, {"spring": change})
    assert sum(r.decision.campaign_id == "autumn" for r in kept) == 3000
    assert sum(r.decision.campaign_id == "spring" for r in kept) < 500
