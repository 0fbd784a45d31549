"""What a place under a recipient's cap is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from optimizer.bandit.places import Wishes, price_of_place
from storage.rules import Cap

DAY = 86_400
MONDAY = 20_003 * DAY  # 2024-10-07


def wishes(rows: Sequence[tuple[int, float, float]]) -> Wishes:
    """(recipient, day, gain)."""
    who, day, gain = (np.array(column) for column in zip(*rows, strict=True))
    at = MONDAY + (day * DAY).astype(np.int64)
    return Wishes(who.astype(np.int64), at, at, gain.astype(np.float64))


def test_small_gains_wait_where_a_large_one_would_find_the_place_taken() -> None:
    rows = [(person, day, 10.0 if day == 5 else 1.0) for person in range(20) for day in range(7)]
    price = price_of_place(Cap(2, rolling_hours=7 * 24.0), wishes(rows))
    assert 1.0 <= price < 10.0


def test_nobody_waits_where_there_are_places_enough() -> None:
    rows = [(person, day, 10.0 if day == 5 else 1.0) for person in range(20) for day in range(7)]
    assert price_of_place(Cap(7, rolling_hours=7 * 24.0), wishes(rows)) == 0.0


def test_people_who_gain_little_keep_their_own_places() -> None:
    # Each one's days are alike, so waiting gains nothing; a price that balances all would silence the second half.
    rows = [(person, day, 10.0 if person < 10 else 1.0) for person in range(20) for day in range(7)]
    assert price_of_place(Cap(2, rolling_hours=7 * 24.0), wishes(rows)) == 0.0


@pytest.mark.parametrize(("cap", "waits"), [(Cap(1, calendar="week"), False), (Cap(1, rolling_hours=168.0), True)])
def test_the_window_is_the_caps_own(cap: Cap, waits: bool) -> None:
    # Sunday's small wish and Monday's large one share a rolling week and no calendar week.
    rows = [(person, day, gain) for person in range(20) for day, gain in ((6.0, 1.0), (7.0, 10.0))]
    assert (price_of_place(cap, wishes(rows)) > 0.0) is waits


@pytest.mark.parametrize(
    ("cap", "days", "waits"),
    [
        (Cap(1, calendar="day"), (0.2, 0.8), True),
        (Cap(1, calendar="day"), (0.8, 1.2), False),
        (Cap(1, calendar="month"), (1.0, 20.0), True),
        (Cap(1, calendar="month"), (20.0, 26.0), False),
        (Cap(1, calendar="week", week_start="wed"), (0.0, 1.0), True),
        (Cap(1, calendar="week", week_start="wed"), (1.0, 2.0), False),
    ],
)
def test_calendar_windows_are_those_of_the_wall_clock(cap: Cap, days: tuple[float, float], waits: bool) -> None:
    rows = [(person, day, gain) for person in range(20) for day, gain in zip(days, (1.0, 10.0), strict=True)]
    assert (price_of_place(cap, wishes(rows)) > 0.0) is waits


def test_no_wish_no_price() -> None:
    assert price_of_place(Cap(1, rolling_hours=24.0), wishes([(1, 0.0, -1.0)])) == 0.0
