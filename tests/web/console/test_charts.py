"""Charts: places that follow from the figures, scales that people can read, and little data that breaks nothing."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.web.console.charts import (
    HEIGHT,
    SERIES,
    Estimate,
    Scale,
    colours,
    curve,
    heat,
    intensity,
    nice_ticks,
    shares,
    stack,
    whiskers,
)

NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 6))


@given(NUMBERS, NUMBERS)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_ticks_are_round_even_and_cover_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-6 * (high - low)
    assert ticks[-1] >= high - 1e-6 * (high - low)
    assert len(ticks) <= 7
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in pairwise(ticks)}
    assert steps <= {1.0}


def test_values_beyond_a_scale_lie_at_its_ends() -> None:
    y = Scale(0.0, 10.0, 100.0, 0.0)
    assert [y(value) for value in (-5.0, 0.0, 2.5, 10.0, 99.0)] == [100.0, 100.0, 75.0, 0.0, 0.0]


def test_a_curve_is_drawn_through_its_estimates_within_its_band() -> None:
    points = [Estimate(1.0 + n, 0.5 + n, 1.5 + n) for n in range(6)]
    made = curve(points, range(6))
    assert made is not None
    assert [tick.value for tick in made.ticks] == [0.0, 2.0, 4.0, 6.0, 8.0]
    places = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", made.line)]
    assert places == [(20.0 * n, HEIGHT - (1.0 + n) * HEIGHT / 8) for n in range(6)]
    band = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", made.band)]
    assert band[:6] == [(20.0 * n, HEIGHT - (1.5 + n) * HEIGHT / 8) for n in range(6)]
    assert made.last == (100.0, HEIGHT - 6 * HEIGHT / 8)
    assert made.zero == HEIGHT


def test_a_curve_begins_where_enough_can_be_stated() -> None:
    early = [Estimate(n * 100.0) for n in range(4)]
    stated = [Estimate(1.0, 0.0, 2.0)] * 5
    made = curve([*early, *stated], range(9))
    assert made is not None
    assert len(made.places) == 5
    assert made.ticks[-1].value == 2.0
    few = curve([*early, *stated[:2]], range(6))
    assert few is not None
    assert len(few.places) == 6


def test_a_curve_lies_on_its_days() -> None:
    made = curve([Estimate(1.0)] * 4, [10, 11, 13, 20])
    assert made is not None
    assert made.places == (0.0, 10.0, 30.0, 100.0)


@pytest.mark.parametrize("points", [[], [Estimate(1.0)], [Estimate(None)] * 3])
def test_less_than_two_points_are_no_curve(points: list[Estimate]) -> None:
    assert curve(points, range(len(points))) is None


def test_a_flat_curve_at_zero_has_a_scale_all_the_same() -> None:
    made = curve([Estimate(0.0), Estimate(0.0)], [3, 9])
    assert made is not None
    assert len(made.ticks) == 2


def test_bars_lie_on_each_other_and_shares_add_up() -> None:
    made = stack([[2, 3], [0, 5], [0, 0]], (1, SERIES))
    assert made is not None
    assert [(p.series, p.height) for p in made.parts] == [(1, 66.67), (SERIES, 100.0), (SERIES, 166.67)]
    assert made.parts[1].y == pytest.approx(made.parts[0].y - 100.0, abs=0.02)
    whole = shares([[1, 3], [0, 0], [2, 0]], (1, 2))
    assert whole is not None
    assert [p.height for p in whole.parts] == [50.0, 150.0, 200.0]
    assert stack([], ()) is None
    assert stack([[0, 0]], (1, 2)) is None


def test_nothing_has_a_colour_of_its_own() -> None:
    assert colours(["a", "b", None]) == [1, 2, SERIES]
    assert colours([str(n) for n in range(12)])[-1] == SERIES - 1


def test_a_known_series_has_its_colour_whichever_others_are_shown() -> None:
    known = ["tips", "offer", "news"]
    assert colours(["offer", "tips", None], known) == [2, 1, SERIES]
    assert colours(["news", "gone", None], known) == [3, 4, SERIES]


def test_whiskers_share_a_scale_and_wide_ones_are_cut() -> None:
    made = whiskers([Estimate(1.0, 0.5, 1.5), Estimate(2.0, 1.5, 2.5), Estimate(1.0, -90.0, 90.0), Estimate(None)])
    assert made is not None
    one, two, wide, none = made.rows
    assert one.dot is not None
    assert two.dot is not None
    assert one.dot < two.dot
    assert [row.clipped for row in made.rows] == [False, False, True, False]
    assert (none.dot, none.low) == (None, None)
    assert (wide.low, wide.high) == (0.0, 100.0)
    assert whiskers([Estimate(None)]) is None
    with_zero = whiskers([Estimate(5.0, 4.0, 6.0)], zero=True)
    assert with_zero is not None
    assert with_zero.zero is not None


def test_a_lucky_message_is_no_hot_spot() -> None:
    counts, values = [0] * 168, [None] * 168
    told: list[float | None] = list(values)
    counts[10], told[10] = 1, 10.0
    counts[20], told[20] = 200, 2.0
    counts[30], told[30] = 200, 1.0
    cells = {(c.weekday, c.hour): c for c in heat(counts, told)}
    lucky, good, bad = cells[0, 10], cells[0, 20], cells[1, 6]
    assert (lucky.count, lucky.value) == (1, 10.0)
    assert good.depth is not None
    assert lucky.depth is not None
    assert bad.depth == 0.0
    assert good.depth > 0.2
    assert lucky.depth - good.depth < 0.9
    assert cells[3, 3].depth is None


def test_a_week_without_anything_is_empty() -> None:
    assert {c.depth for c in heat([0] * 168, [None] * 168)} == {None}
    assert {c.depth for c in intensity([0.0] * 168)} == {None}
    assert {c.depth for c in heat([1] * 168, [2.0] * 168)} == {0.5}
    assert max(c.depth or 0 for c in intensity([float(n) for n in range(168)])) == 1.0
