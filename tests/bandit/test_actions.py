"""The action space: its order, its slots, its limits, and the exact times of the baseline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.actions import MAX_ACTIONS, ActionSpace, build_baseline_space, build_space
from optimizer.bandit.localtime import zone
from optimizer.errors import Invalid
from storage.records import Baseline

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
BERLIN = zone("Europe/Berlin")


def space(
    *,
    variants: int = 2,
    channels: int = 2,
    start: datetime = NOON,
    hours: float = 24,
    slot_minutes: int = 60,
    spread: bool = False,
    immediate: bool = False,
    no_send: bool = True,
    decision_id: str = "dec_1",
) -> ActionSpace:
    return build_space(
        variants=tuple(f"v{i}" for i in range(variants)),
        channels=tuple(f"c{i}" for i in range(channels)),
        window=(start, start + timedelta(hours=hours)),
        slot_minutes=slot_minutes,
        spread=spread,
        immediate=immediate,
        no_send=no_send,
        decision_id=decision_id,
        zone=BERLIN,
    )


def epoch(at: datetime) -> int:
    return int(at.timestamp())


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 4), st.booleans())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_numbers_and_factors_are_inverse_and_no_send_is_last(v: int, s: int, c: int, no_send: bool) -> None:
    actions = space(variants=v, channels=c, hours=s, no_send=no_send)
    assert actions.shape == (v, s, c)
    assert actions.messages == v * s * c
    assert actions.size == v * s * c + no_send
    numbers = [actions.index(i, j, k) for i in range(v) for j in range(s) for k in range(c)]
    assert numbers == list(range(actions.messages))
    assert all(actions.index(*f) == a for a in numbers if (f := actions.factors(a)) is not None)
    assert actions.no_send_index == (actions.messages if no_send else None)
    if no_send:
        assert actions.factors(actions.messages) is None


def test_an_action_outside_the_space_is_an_error() -> None:
    actions = space(hours=3)
    for a in (-1, actions.size):
        with pytest.raises(IndexError):
            actions.factors(a)
    for factors in ((2, 0, 0), (0, 3, 0), (0, 0, 2), (-1, 0, 0)):
        with pytest.raises(IndexError):
            actions.index(*factors)


def test_slots_start_at_the_window_and_the_last_may_be_shorter() -> None:
    actions = space(hours=2.5)
    assert (actions.send_at - epoch(NOON)).tolist() == [0, 3600, 7200]
    assert (actions.local - actions.send_at).tolist() == [3600] * 3
    assert actions.send_time(1) == NOON + timedelta(hours=1)
    assert actions.dayparts.tolist() == [2, 2, 2]


def test_local_time_follows_a_clock_change_inside_the_window() -> None:
    actions = space(start=datetime(2026, 3, 28, 23, tzinfo=UTC), hours=4)
    assert [t % 86_400 // 3600 for t in actions.local.tolist()] == [0, 1, 3, 4]
    assert actions.dayparts.tolist() == [0, 0, 0, 0]


@given(
    st.integers(0, 10_000_000),
    st.floats(0.01, 40),
    st.sampled_from([1, 7, 15, 60, 240]),
    st.text(max_size=12),
)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_spread_times_are_whole_seconds_inside_their_own_slot(us: int, hours: float, minutes: int, name: str) -> None:
    start = NOON + timedelta(microseconds=us)
    end = start + timedelta(hours=hours)
    plain = space(variants=1, channels=1, start=start, hours=hours, slot_minutes=minutes)
    times = space(
        variants=1, channels=1, start=start, hours=hours, slot_minutes=minutes, spread=True, decision_id=name
    ).send_at
    assert len(times) == len(plain.send_at)
    assert ((times - plain.send_at >= 0) & (times - plain.send_at < minutes * 60)).all()
    for t in times.tolist():
        assert start <= datetime.fromtimestamp(t, UTC) < end


def test_spread_hangs_on_decision_and_slot_only() -> None:
    first = space(spread=True, variants=1)
    assert (first.send_at == space(spread=True, variants=4, channels=1).send_at).all()
    assert (first.send_at != space(spread=True, decision_id="dec_2").send_at).any()
    longer = space(spread=True, hours=40)
    assert (longer.send_at[:24] == first.send_at).all()


def test_the_spread_never_changes() -> None:
    # Written down once: a decision is replayed with the send times it was tested at.
    seconds = (space(spread=True).send_at - space().send_at)[:10]
    assert seconds.tolist() == [338, 2369, 238, 97, 2760, 3295, 893, 3010, 1885, 1229]


def test_spread_fills_the_slot_evenly() -> None:
    """Chi-squared over 60 minutes of 4,000 x 24 times; at 115 the false alarm rate is below 2e-5 (59 degrees)."""
    minutes = np.concatenate([(space(spread=True, decision_id=f"dec_{i}").send_at % 3600) // 60 for i in range(4_000)])
    counts = np.bincount(minutes, minlength=60)
    expected = len(minutes) / 60
    assert ((counts - expected) ** 2 / expected).sum() < 115


def test_immediate_is_one_slot_now_and_not_spread() -> None:
    now = NOON + timedelta(microseconds=1)
    actions = space(start=now, immediate=True, spread=True, hours=0)
    assert actions.send_at.tolist() == [epoch(NOON) + 1]  # up to the next second: never before it was asked for


def test_an_empty_window_has_no_slot() -> None:
    actions = space(hours=0)
    assert (actions.slots, actions.size, actions.no_send_index) == (0, 1, 0)
    assert space(hours=0, no_send=False).size == 0


def test_up_to_the_limit_is_allowed_and_one_more_is_refused_with_both_numbers() -> None:
    hours = (MAX_ACTIONS - 1) / 60
    assert space(variants=1, channels=1, slot_minutes=1, hours=hours).size == MAX_ACTIONS
    with pytest.raises(Invalid) as caught:
        space(variants=1, channels=1, slot_minutes=1, hours=hours + 1 / 60)
    assert caught.value.code == "too_many_actions"
    assert "4097" in caught.value.detail
    assert "4096" in caught.value.detail
    with pytest.raises(Invalid, match="more than 4096"):
        space(slot_minutes=1, hours=24 * 365 * 1000)


def test_a_slot_of_no_length_is_refused() -> None:
    with pytest.raises(Invalid, match="slot_minutes"):
        space(slot_minutes=0)


def baseline(
    start: str, end: str, at: str = "09:00", name: str = "Europe/Berlin", immediate: bool = False, moves: bool = False
) -> list[str]:
    window = (datetime.fromisoformat(start + "Z"), datetime.fromisoformat(end + "Z"))
    actions = build_baseline_space(
        baseline=Baseline("v", "email", at),
        window=window,
        decision_id="d",
        zone=zone(name),
        immediate=immediate,
        moves=moves,
    )
    assert (actions.variants, actions.channels, actions.no_send) == (("v",), ("email",), False)
    return [actions.send_time(s).strftime("%dT%H:%M") for s in range(actions.slots)]


def test_the_baseline_is_sent_at_its_exact_local_time_on_each_day_of_the_window() -> None:
    assert baseline("2026-03-27T08:00", "2026-03-30T07:00") == ["27T08:00", "28T08:00", "29T07:00"]


def test_a_window_without_the_baselines_time_has_no_slot() -> None:
    assert baseline("2026-11-24T09:00", "2026-11-25T08:00") == []
    assert baseline("2026-11-24T09:00", "2026-11-25T08:01") == ["25T08:00"]


def test_a_baseline_time_that_the_clock_skips_or_repeats_comes_once() -> None:
    assert baseline("2026-03-28T22:00", "2026-03-29T22:00", "02:30") == ["29T01:30"]
    assert baseline("2026-10-24T22:00", "2026-10-25T22:00", "02:30") == ["25T00:30"]
    # Samoa had no 30 December 2011: that day's and the next day's 09:00 are one instant.
    assert baseline("2011-12-29T00:00", "2012-01-01T00:00", "09:00", "Pacific/Apia") == [
        "29T19:00",
        "30T19:00",
        "31T19:00",
    ]


def test_a_masked_baseline_moves_minute_by_minute_from_its_earliest_time_on() -> None:
    moved = baseline("2026-11-24T07:00", "2026-11-24T08:03", moves=True)
    assert moved == ["24T08:00", "24T08:01", "24T08:02"]
    day = baseline("2026-11-24T08:00", "2026-11-25T08:00", moves=True)
    assert (len(day), day[0], day[-1]) == (1440, "24T08:00", "25T07:59")
    assert baseline("2026-11-24T09:00", "2026-11-25T08:00", moves=True) == []


@pytest.mark.parametrize(("days", "minutes"), [(1, 1), (2, 2), (7, 10), (60, 60)])
def test_the_longer_the_window_the_longer_a_baselines_steps_and_no_day_is_left_out(days: int, minutes: int) -> None:
    start = datetime(2026, 10, 1, 7, tzinfo=UTC)  # Berlin changes its clock on the 25th
    first, beyond = (f"{at:%Y-%m-%dT%H:%M}" for at in (start, start + timedelta(days=days)))
    moved = baseline(first, beyond, moves=True)
    assert moved[1] == (start + timedelta(minutes=minutes)).strftime("%dT%H:%M")
    assert len(moved) <= 1440
    assert set(moved) >= set(baseline(first, beyond))


def test_in_windows_of_months_a_baseline_moves_from_day_to_day() -> None:
    first, beyond = "2026-01-01T00:00", "2026-04-01T00:00"
    assert baseline(first, beyond, moves=True) == baseline(first, beyond)


def test_an_immediate_baseline_goes_now() -> None:
    assert baseline("2026-11-24T11:11", "2026-11-24T11:12", immediate=True) == ["24T11:11"]


def test_a_baseline_window_of_thousands_of_days_is_refused() -> None:
    with pytest.raises(Invalid, match="more than 4096"):
        baseline("2026-01-01T00:00", "2046-01-01T00:00")
