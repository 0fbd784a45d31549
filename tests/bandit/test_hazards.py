"""The share of happenings seen by an age: by hand, from truncated logs of a known law, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from optimizer.bandit.hazards import EDGES_HOURS, Curve, Delays, edges, fit_curve, fit_hazard

THREE = np.array([1.0, 10.0, 100.0])
EQUAL = np.array([1.0, 2.0, 3.0]) / 3.0


def test_a_hand_table() -> None:
    """Six events of which two are from young rows. Bin 3 (10, 100]: 1 of the 4 from rows 100 hours old; bin 2: 2 of the
    5 in bins 1 and 2 from rows 10 hours old. So G(10) = 3/4 and G(1) = 3/4 · 3/5."""
    hours = np.array([0.5, 0.7, 5.0, 20.0, 0.2, 6.0])
    age = np.array([100.0, 100.0, 100.0, 100.0, 10.0, 99.0])
    curve = fit_curve(hours, age, THREE, EQUAL, 0.0)
    np.testing.assert_allclose(curve.share, [0.45, 0.75, 1.0])
    assert curve.events == 6


def test_the_start_weighs_as_many_events_as_is_said() -> None:
    """The same with weight 2: q₃ = (1 + 2·⅓)/6, q₂ = (2 + 2·½)/7."""
    hours = np.array([0.5, 0.7, 5.0, 20.0, 0.2, 6.0])
    age = np.array([100.0, 100.0, 100.0, 100.0, 10.0, 99.0])
    curve = fit_curve(hours, age, THREE, EQUAL, 2.0)
    third, second = (1.0 + 2.0 / 3.0) / 6.0, 3.0 / 7.0
    np.testing.assert_allclose(curve.share, [(1 - second) * (1 - third), 1 - third, 1.0])


def test_an_event_that_its_row_could_not_have_shown_in_a_whole_bin_is_left_out() -> None:
    """Nine hours old means one hour old: the event at 5 hours would not be there had it come at 9.5."""
    curve = fit_curve(np.array([5.0]), np.array([9.0]), THREE, EQUAL, 1.0)
    np.testing.assert_allclose(curve.share, EQUAL)
    assert curve.events == 0


def test_between_edges_the_share_is_linear_in_log_time_and_in_time_before_the_first() -> None:
    curve = Curve(THREE, np.array([0.2, 0.6, 1.0]), 0)
    np.testing.assert_allclose(
        curve.at([-1.0, 0.0, 0.5, 1.0, np.sqrt(10.0), 10.0, 100.0, 1e6]), [0.0, 0.0, 0.1, 0.2, 0.4, 0.6, 1.0, 1.0]
    )


def test_without_events_every_bin_up_to_the_window_has_the_same_share() -> None:
    empty = np.zeros(0)
    hazard = fit_hazard(Delays(empty, empty, ()), 72.0)
    np.testing.assert_allclose(hazard.pooled.share, [*np.arange(1, 7) / 6.0, 1.0])
    assert hazard.channels == {}


def test_all_is_seen_from_the_window_on_and_no_earlier_when_events_come_in_late_batches() -> None:
    """400 events of old rows, all heard of four days after the send: on the third day next to nothing is known."""
    hazard = fit_hazard(Delays(np.full(400, 96.0), np.full(400, 900.0), ["email"] * 400), 72.0)
    assert float(hazard.seen(71.0, "email")) < 0.06
    assert hazard.seen([72.0, 90.0], "email").tolist() == [1.0, 1.0]


def test_edges_are_the_named_ones_below_the_window_the_window_and_its_double() -> None:
    assert edges(72.0).tolist() == [*EDGES_HOURS[:5], 72.0, 144.0]
    assert edges(720.0).tolist() == [*EDGES_HOURS, 720.0, 1440.0]
    assert edges(0.05).tolist() == [0.05, 0.1]


def _log(rng: np.random.Generator, n: int, median: float, oldest: float) -> tuple[NDArray[np.float64], ...]:
    """Log-normal delays of rows whose ages are spread evenly up to ``oldest`` hours; only what is known by now."""
    hours = median * np.exp(1.2 * rng.standard_normal(n))
    age = oldest * rng.random(n)
    known = hours <= np.minimum(age, 72.0)
    return hours[known], age[known]


def test_truncated_delays_give_back_their_law() -> None:
    """20,000 happenings of the last four days: the plain frequency of 24 hours is off by .07, the estimate by < .02.
    The largest standard error at an edge is .005, so the limit is 4 of them."""
    rng = np.random.default_rng(5)
    hours, age = _log(rng, 20_000, 12.0, 96.0)
    full = np.sort(12.0 * np.exp(1.2 * rng.standard_normal(400_000)))
    full = full[full <= 72.0]
    hazard = fit_hazard(Delays(hours, age, [""] * hours.size), 72.0)
    truth = np.searchsorted(full, hazard.pooled.hours, side="right") / full.size
    assert np.abs(hazard.pooled.share - truth).max() < 0.02
    assert float(np.mean(hours <= 24.0)) - truth[4] > 0.05


def test_a_channel_has_its_own_curve_once_it_has_events_and_the_pooled_one_before() -> None:
    rng = np.random.default_rng(6)
    quick, slow = _log(rng, 4_000, 0.5, 200.0), _log(rng, 4_000, 12.0, 200.0)
    rare = _log(rng, 3, 12.0, 200.0)
    names = ["push"] * quick[0].size + ["email"] * slow[0].size + ["sms"] * rare[0].size
    hours, age = (np.concatenate(part) for part in zip(quick, slow, rare, strict=True))
    hazard = fit_hazard(Delays(hours, age, names), 72.0)
    push, email, sms, none = (float(hazard.seen(2.0, name)) for name in ("push", "email", "sms", "letter"))
    assert push == pytest.approx(0.876, abs=0.03)
    assert email == pytest.approx(0.072, abs=0.03)
    assert sms == pytest.approx(none, abs=0.02)


@given(
    events=st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), max_size=30),
    age=st.floats(0.001, 300),
    window=st.sampled_from([0.05, 24.0, 72.0, 150.0]),
)
def test_shares_rise_from_above_nothing_to_one(events: list[tuple[float, float]], age: float, window: float) -> None:
    pairs = np.array(events, dtype=np.float64).reshape(-1, 2)
    hazard = fit_hazard(Delays(pairs[:, 0], pairs[:, 1], ["email"] * len(pairs)), window)
    for curve in (hazard.pooled, *hazard.channels.values()):
        assert (np.diff(curve.share) >= 0.0).all()
        assert curve.share[0] > 0.0
        assert curve.share[-1] == 1.0
    seen = float(hazard.seen(age, "email"))
    assert 0.0 < seen <= 1.0
    assert age < window or seen == 1.0
