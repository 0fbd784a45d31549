"""The transition tables against ``zoneinfo`` itself: random instants, and one second around every transition."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.bandit.localtime import DAY, FIRST, LAST, Zone, at_zone, known_zone, parse_clock, zone
from optimizer.errors import Invalid

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Santiago",
    "America/Sao_Paulo",
    "Asia/Gaza",
    "Antarctica/Troll",
)
Y1990 = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp())
Y2100 = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp())
# Hosts may have their own clock and old data under these names, which are no zones.
ALL_ZONES = sorted(available_timezones() - {"localtime", "posixrules"})


@cache
def info(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def offset_by_zoneinfo(name: str, epoch: int) -> int:
    offset = datetime.fromtimestamp(epoch, info(name)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


def transitions(where: Zone) -> list[int]:
    """Every instant of 1990–2100 at which the table changes, found from outside by halving."""
    grid = np.arange(Y1990, Y2100, DAY)
    offsets = where.offsets(grid)
    found = []
    for place in np.flatnonzero(np.diff(offsets)):
        low, high = int(grid[place]), int(grid[place + 1])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if where.offset(middle) == where.offset(low) else (low, middle)
        found.append(high)
    return found


@pytest.mark.parametrize("name", ZONES)
def test_offsets_equal_zoneinfo_at_random_instants(name: str) -> None:
    rng = np.random.default_rng(1)
    epochs = rng.integers(Y1990, Y2100, 2_000)
    assert zone(name).offsets(epochs).tolist() == [offset_by_zoneinfo(name, int(e)) for e in epochs]


@pytest.mark.parametrize("name", ZONES)
def test_offsets_equal_zoneinfo_one_second_around_every_transition(name: str) -> None:
    where = zone(name)
    instants = [t + d for t in transitions(where) for d in (-1, 0, 1)]
    if name not in ("UTC", "Asia/Kathmandu"):
        assert len(instants) > 30
    assert where.offsets(np.array(instants, np.int64)).tolist() == [offset_by_zoneinfo(name, e) for e in instants]
    assert [where.offset(e) for e in instants] == [offset_by_zoneinfo(name, e) for e in instants]


def test_every_zone_of_the_database_agrees_with_zoneinfo_through_the_years() -> None:
    # 61 hours: every hour of the day comes up. About 400 points of each of 600 zones, other points in each.
    rng = np.random.default_rng(2)
    for name in ALL_ZONES:
        grid = np.arange(Y1990 + int(rng.integers(0, 30 * DAY)), Y2100, 97 * DAY + 61 * 3600)
        expected = [offset_by_zoneinfo(name, e) for e in grid.tolist()]
        assert zone(name).offsets(grid).tolist() == expected, name


def test_no_zone_changes_its_offset_twice_within_the_step_of_the_scan() -> None:
    # The scan of the table can't see two changes inside one step; a daily look at some zones that move often can.
    for name in ("America/Noronha", "Asia/Gaza", "Africa/Casablanca", "America/Argentina/Tucuman"):
        grid = np.arange(Y1990, Y1990 + 20 * 365 * DAY, DAY)
        expected = [offset_by_zoneinfo(name, e) for e in grid.tolist()]
        assert zone(name).offsets(grid).tolist() == expected, name


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("epoch", [FIRST - 1, FIRST - 40 * 365 * DAY, LAST, LAST + 50 * 365 * DAY])
def test_instants_outside_the_table_are_exact_too(name: str, epoch: int) -> None:
    assert zone(name).offset(epoch) == offset_by_zoneinfo(name, epoch)
    both = zone(name).offsets(np.array([[epoch, Y1990]]))
    assert both.tolist() == [[offset_by_zoneinfo(name, epoch), offset_by_zoneinfo(name, Y1990)]]


def test_offsets_of_no_instants_are_no_offsets() -> None:
    assert zone("Europe/Berlin").offsets(np.array([], np.int64)).shape == (0,)


@given(st.sampled_from(ZONES), st.integers(Y1990, Y2100))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_wall_clock_and_instant_are_inverse_where_the_clock_is_not_moved(name: str, epoch: int) -> None:
    where = zone(name)
    local = epoch + where.offset(epoch)
    back = where.to_epoch(local)
    assert back + where.offset(back) == local
    assert back <= epoch  # of two times it is the first


@pytest.mark.parametrize("name", ZONES)
def test_wall_clock_to_instant_equals_fold_zero_around_every_transition(name: str) -> None:
    where = zone(name)
    for t in transitions(where):
        for minutes in (-1441, -61, -31, -1, 0, 1, 29, 30, 59, 60, 61, 1439, 1441):
            local = t + where.offset(t - 1) + 60 * minutes
            naive = datetime(1970, 1, 1) + timedelta(seconds=local)  # noqa: DTZ001 - a wall clock has no zone
            assert where.to_epoch(local) == int(naive.replace(tzinfo=info(name)).timestamp()), (name, naive)


def local(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text + "Z").timestamp())


def test_a_skipped_time_moves_forward_by_the_jump() -> None:
    assert zone("Europe/Berlin").to_epoch(local("2026-03-29T02:30")) == utc("2026-03-29T01:30")  # 03:30 local
    assert zone("Pacific/Apia").to_epoch(local("2011-12-30T09:00")) == utc("2011-12-30T19:00")  # 31st, 09:00 local


def test_a_repeated_time_is_the_first_one() -> None:
    assert zone("Europe/Berlin").to_epoch(local("2026-10-25T02:30")) == utc("2026-10-25T00:30")
    assert zone("Australia/Lord_Howe").to_epoch(local("2026-04-05T01:45")) == utc("2026-04-04T14:45")


def test_wall_clock_far_outside_the_table_is_answered_by_zoneinfo() -> None:
    assert zone("Europe/Berlin").to_epoch(local("2300-01-01T12:00")) == utc("2300-01-01T11:00")
    assert zone("Europe/Berlin").to_epoch(local("1975-06-01T12:00")) == utc("1975-06-01T11:00")


def test_boundaries_are_read_times_and_clock_changes() -> None:
    where = zone("America/St_Johns")  # 2010-11-07 00:01 was set back to 23:01 of the 6th
    found = where.boundaries(utc("2010-11-07T02:00"), utc("2010-11-08T03:30"), (0,))
    seen = [datetime.fromtimestamp(at, UTC).strftime("%d %H:%M") for at in found.tolist()]
    assert seen == ["07 02:00", "07 02:30", "07 02:31", "07 03:30", "08 03:30"]


def test_a_skipped_time_is_no_boundary_and_a_repeated_one_is_two() -> None:
    where, half_past_two = zone("Europe/Berlin"), (2 * 3600 + 1800,)
    spring = where.boundaries(utc("2026-03-28T12:00"), utc("2026-03-29T12:00"), half_past_two)
    assert spring.tolist() == [utc("2026-03-28T12:00"), utc("2026-03-29T01:00")]  # 02:00 became 03:00
    autumn = where.boundaries(utc("2026-10-24T12:00"), utc("2026-10-25T12:00"), half_past_two)
    expected = [utc("2026-10-24T12:00"), *(utc(f"2026-10-25T0{t}") for t in ("0:30", "1:00", "1:30"))]
    assert autumn.tolist() == expected


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("year", [1971, 1979, 2026, 2109, 2300])
def test_segments_hold_the_offset_of_every_hour_also_outside_the_table(name: str, year: int) -> None:
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    hours = np.arange(first, first + 500 * DAY, 3600)
    starts, offsets = zone(name).segments(first, first + 500 * DAY)
    found = offsets[starts.searchsorted(hours, side="right") - 1]
    assert found.tolist() == [offset_by_zoneinfo(name, e) for e in hours.tolist()]


@pytest.mark.parametrize(
    "name",
    ["", "Mars/Olympus", "Europe", "europe/berlin/x", "../etc/passwd", "localtime", "right/Europe/Berlin", "a\0b"],
)
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone") as caught:
        zone(name)
    assert repr(name) in str(caught.value)


def test_a_zone_is_built_once_and_survives_pickling() -> None:
    assert zone("Europe/Berlin") is zone("Europe/Berlin")
    assert pickle.loads(pickle.dumps(zone("Europe/Berlin"))) is zone("Europe/Berlin")  # noqa: S301 - our own bytes
    assert repr(zone("Europe/Berlin")) == "Zone('Europe/Berlin')"


@pytest.mark.parametrize(("text", "seconds"), [("00:00", 0), ("9:05", 32_700), ("23:59", 86_340), ("24:00", 86_400)])
def test_a_time_of_day_is_read(text: str, seconds: int) -> None:
    assert parse_clock(text, "start") == seconds


@pytest.mark.parametrize("text", ["", "24:01", "12", "12:60", "-1:00", "12:5", "25:00", "aa:bb", "12:00:00"])
def test_a_wrong_time_of_day_is_refused_by_field_and_value(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_clock(text, "quiet.start")
    assert list(caught.value.errors) == ["quiet.start"]
    assert repr(text) in caught.value.detail


def test_a_stored_zone_that_this_host_lacks_is_none_warned_of_once_and_shown_in_utc(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known_zone.cache_clear()
    assert known_zone("Europe/Berlin") is zone("Europe/Berlin")
    assert [known_zone("America/Nowhere") for _ in range(2)] == [None, None]
    (warned,) = caplog.messages
    assert "'America/Nowhere' is not a time zone" in warned
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert at_zone(noon, "America/Nowhere").isoformat() == "2026-03-02T12:00:00+00:00"
    assert at_zone(noon, "Asia/Tokyo").isoformat() == "2026-03-02T21:00:00+09:00"
